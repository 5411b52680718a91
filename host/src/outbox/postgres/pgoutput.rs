//! What PostgreSQL's `pgoutput` says of its log, version 1 of its protocol
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>). A transaction is sent when it is committed, as a
//! whole, in the order of commits.

use bytes::{Buf as _, Bytes};

#[derive(Debug, PartialEq, Eq)]
pub enum LogChange {
    Begin {
        /// Where its commit begins in the log.
        commit: u64,
        /// When, in microseconds since the year 2000.
        time: i64,
    },
    Commit {
        /// Where its commit ends in the log.
        end: u64,
    },
    /// `pg_logical_emit_message`.
    Message {
        transactional: bool,
        at: u64,
        prefix: String,
        content: Bytes,
    },
    Relation(Relation),
    Insert {
        relation: u32,
        values: Vec<Option<Bytes>>,
    },
    /// What is of no use here, such as the names of types.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: u32,
    /// With its schema.
    pub table: String,
    /// The names of its columns, and the numbers of their types.
    pub columns: Vec<(String, u32)>,
}

impl LogChange {
    pub fn parse(mut bytes: Bytes) -> Result<LogChange, String> {
        Ok(match byte(&mut bytes)? {
            b'B' => LogChange::Begin {
                commit: long(&mut bytes)?,
                time: long(&mut bytes)?.cast_signed(),
            },
            b'C' => {
                // Flags, and where the commit begins.
                take(&mut bytes, 9)?;
                LogChange::Commit { end: long(&mut bytes)? }
            }
            b'M' => {
                let transactional = byte(&mut bytes)? & 1 == 1;
                let at = long(&mut bytes)?;
                let prefix = text(&mut bytes)?;
                let length = int(&mut bytes)?;
                LogChange::Message {
                    transactional,
                    at,
                    prefix,
                    content: take(&mut bytes, length as usize)?,
                }
            }
            b'R' => LogChange::Relation(relation(&mut bytes)?),
            b'I' => {
                let relation = int(&mut bytes)?;
                // `N`: a new row follows.
                take(&mut bytes, 1)?;
                LogChange::Insert {
                    relation,
                    values: row(&mut bytes)?,
                }
            }
            _ => LogChange::Other,
        })
    }
}

fn relation(bytes: &mut Bytes) -> Result<Relation, String> {
    let id = int(bytes)?;
    let (schema, name) = (text(bytes)?, text(bytes)?);
    // What identifies its rows.
    take(bytes, 1)?;
    let count = short(bytes)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        take(bytes, 1)?;
        let name = text(bytes)?;
        let kind = int(bytes)?;
        take(bytes, 4)?;
        columns.push((name, kind));
    }
    Ok(Relation {
        id,
        table: format!("{schema}.{name}"),
        columns,
    })
}

fn row(bytes: &mut Bytes) -> Result<Vec<Option<Bytes>>, String> {
    let count = short(bytes)?;
    let mut values = Vec::with_capacity(count.into());
    for _ in 0..count {
        values.push(match byte(bytes)? {
            b't' | b'b' => {
                let length = int(bytes)?;
                Some(take(bytes, length as usize)?)
            }
            _ => None,
        });
    }
    Ok(values)
}

fn take(bytes: &mut Bytes, count: usize) -> Result<Bytes, String> {
    match bytes.len() >= count {
        true => Ok(bytes.split_to(count)),
        false => Err("a message of the log ends too early".to_owned()),
    }
}

fn byte(bytes: &mut Bytes) -> Result<u8, String> {
    Ok(take(bytes, 1)?.get_u8())
}

fn short(bytes: &mut Bytes) -> Result<u16, String> {
    Ok(take(bytes, 2)?.get_u16())
}

fn int(bytes: &mut Bytes) -> Result<u32, String> {
    Ok(take(bytes, 4)?.get_u32())
}

fn long(bytes: &mut Bytes) -> Result<u64, String> {
    Ok(take(bytes, 8)?.get_u64())
}

/// A text that ends with a zero.
fn text(bytes: &mut Bytes) -> Result<String, String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.ok_or("a text of the log has no end")?;
    let text = String::from_utf8_lossy(&take(bytes, end)?).into_owned();
    take(bytes, 1)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_at_any_byte_is_an_error_or_less_and_no_panic() {
        let mut whole = b"R\0\0\0\x07public\0outbox\0d\0\x01\x01id\0\0\0\0\x14\xff\xff\xff\xff".to_vec();
        let read = LogChange::parse(Bytes::from(whole.clone())).unwrap();
        let columns = vec![("id".to_owned(), 20)];
        let table = "public.outbox".to_owned();
        assert_eq!(read, LogChange::Relation(Relation { id: 7, table, columns }));
        while whole.pop().is_some() {
            assert!(LogChange::parse(Bytes::from(whole.clone())).is_err());
        }
        let insert = b"I\0\0\0\x07N\0\x02t\0\0\0\x0242n".to_vec();
        let values = vec![Some(Bytes::from_static(b"42")), None];
        assert_eq!(
            LogChange::parse(insert.into()).unwrap(),
            LogChange::Insert { relation: 7, values }
        );
        let long = LogChange::parse(Bytes::from_static(b"M\x01\0\0\0\0\0\0\0\x05p\0\xff\xff\xff\xff."));
        assert!(long.is_err());
    }
}
