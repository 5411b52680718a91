//! Whether a PostgreSQL has what an outbox needs beyond what a look shows: `check` asks.

use tokio_postgres::types::{ToSql, Type};

use super::session::{Failed, Session, Sessions};
use crate::outbox::error::Error;

/// Rights of the host's role that are not there, as the server would say it.
pub async fn lacking(session: &Session, rights: &[(String, &str)]) -> Result<Vec<String>, Failed> {
    let mut lacking = Vec::new();
    for (table, right) in rights {
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(table, Type::TEXT), (right, Type::TEXT)];
        let found = session.query("SELECT has_table_privilege($1, $2)", &values).await?;
        if let Some(row) = found.first()
            && !row.try_get::<_, bool>(0)?
        {
            lacking.push(format!("permission denied: no {right} on table {table}"));
        }
    }
    Ok(lacking)
}

/// Columns of a table whose values no event can have.
pub async fn odd_columns(session: &Session, table: &str) -> Result<Vec<String>, Failed> {
    let sql = "SELECT attname::text, typname::text FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
               WHERE attrelid = to_regclass($1) AND attname IN ('headers', 'payload') AND NOT attisdropped
                 AND typtype = 'b' AND typname NOT IN ('bytea', 'text', 'varchar', 'json', 'jsonb')";
    let found = session.query(sql, &[(&table, Type::TEXT)]).await?;
    let said = |(name, kind): (String, String)| {
        format!(
            "column {name} is of type {kind}, so each row would become a dead letter: it must be bytea, text, json or jsonb"
        )
    };
    let columns = found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    columns.map(|column| column.map(said)).collect()
}

/// Whether a publication is there.
pub async fn has_publication(session: &Session, name: &str) -> Result<bool, Failed> {
    let sql = "SELECT FROM pg_publication WHERE pubname = $1";
    Ok(!session.query(sql, &[(&name, Type::TEXT)]).await?.is_empty())
}

/// What a person is told of rights that are not there.
pub fn without_rights(sessions: &Sessions, lacking: &[String]) -> Result<(), Error> {
    match lacking {
        [] => Ok(()),
        lacking => Err(sessions.without_right(&lacking.join(", "))),
    }
}
