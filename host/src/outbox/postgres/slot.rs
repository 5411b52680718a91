//! The replication slot of an outbox: how much of its log the database keeps for it, and when that is too much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};

use super::session::{Failed, Session, Sessions};
use crate::outbox::error::Error;
use crate::plan::{Outbox, Postgres, hex};

/// How long a slot above its limit may stay where it is.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Servers keep whole files of their log, of 16 MiB unless they were made otherwise. A slot of which less is not confirmed is not why
/// they keep more.
const SEGMENT: u64 = 16 << 20;
/// The longest name that PostgreSQL does not cut off.
const NAME_MAX: usize = 63;

/// How the slot of an outbox is called. The databases of a cluster share these names.
pub fn slot_name(outbox: &Outbox, address: &Postgres) -> String {
    let name = format!("jetmesh_{}_{}", plain(&address.name), plain(&outbox.name));
    match name.len() <= NAME_MAX {
        true => name,
        false => format!("jetmesh_{}", hex(&name, 16)),
    }
}

/// A name of letters, digits and underscores.
pub fn plain(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.chars().map(plain).collect()
}

/// What a person is told of an outbox that has no slot.
pub fn without_slot(sessions: &Sessions, why: &str) -> Error {
    let (told, made) = (sessions.told(), sessions.made_by_the_owner());
    Error::Person(format!(
        "database {told}: {why}: {made} makes it. What was committed before that and is not published cannot be read any more; \
         docs/outbox.md, \"A lost slot\", says how to find it"
    ))
}

/// How a slot stands. Places and lengths are bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLook {
    /// What the database keeps for it, and the place from which on.
    pub held: u64,
    pub from: u64,
    /// What is not confirmed.
    pub behind: u64,
    /// The place up to which all is confirmed.
    pub confirmed: u64,
    /// The database has removed a part of the log that it needs.
    pub lost: bool,
}

/// Looks at a slot. `None`: there is none.
pub async fn look_at(session: &Session, slot: &str) -> Result<Option<SlotLook>, Failed> {
    let sql = "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
                      coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint,
                      coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
                      coalesce(wal_status, '') = 'lost',
                      coalesce(pg_wal_lsn_diff(restart_lsn, '0/0'), 0)::bigint FROM pg_replication_slots WHERE slot_name = $1";
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&slot, Type::TEXT)];
    let found = session.query(sql, &values).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let bytes = |at| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(Some(SlotLook {
        held: bytes(0)?,
        behind: bytes(1)?,
        confirmed: bytes(2)?,
        lost: row.try_get(3)?,
        from: bytes(4)?,
    }))
}

/// The limit of a slot. It works also while the mesh cannot be reached and while another owner has the slot.
pub struct SlotLimit {
    slot: String,
    sessions: Sessions,
    opened: Mutex<Option<Session>>,
    rule: LimitRule,
}

impl SlotLimit {
    /// `most`: bytes that the database may keep.
    pub fn new(outbox: &Outbox, address: &Postgres, most: u64) -> Result<SlotLimit, Error> {
        Ok(SlotLimit {
            slot: slot_name(outbox, address),
            sessions: Sessions::new(outbox, address, None, Arc::default())?,
            opened: Mutex::new(None),
            rule: LimitRule { most, over: None },
        })
    }

    /// Drops the slot if the database keeps too much for it: its disk would fill. Returns what a person is told then.
    pub async fn enforce(&mut self) -> Result<Option<String>, Error> {
        let slot = &self.slot;
        let look = self
            .sessions
            .run(&self.opened, async |session| look_at(session, slot).await)
            .await?;
        let Some(why) = self.rule.exceeded(look, Instant::now()) else {
            return Ok(None);
        };
        // A slot that is in use cannot be dropped.
        let freed = format!(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
        );
        let dropped = format!("SELECT pg_drop_replication_slot('{slot}')");
        self.sessions
            .run(&self.opened, async |session| {
                session.script(&freed).await?;
                session.script(&dropped).await
            })
            .await?;
        self.rule.over = None;
        let why = format!("{why}, so the host has dropped slot {slot}");
        Ok(Some(without_slot(&self.sessions, &why).to_string()))
    }
}

/// When a slot is given up. A slot above its limit may catch up, as after hours without a host: it stays as long as it gets
/// forward and the database does not keep ever more.
struct LimitRule {
    most: u64,
    /// Since it is above the limit.
    over: Option<OverLimit>,
}

struct OverLimit {
    /// What was kept when that was seen first.
    held: u64,
    confirmed: u64,
    /// When it got forward last.
    moved: Instant,
}

impl LimitRule {
    fn exceeded(&mut self, look: Option<SlotLook>, now: Instant) -> Option<String> {
        let most = self.most;
        let Some(look) = look.filter(|look| look.held > most && !look.lost) else {
            self.over = None;
            return None;
        };
        let over = self.over.get_or_insert(OverLimit {
            held: look.held,
            confirmed: look.confirmed,
            moved: now,
        });
        if look.confirmed > over.confirmed || look.behind < SEGMENT {
            (over.confirmed, over.moved) = (look.confirmed, now);
        }
        let held = look.held;
        if held > over.held.saturating_add(most) {
            return Some(format!(
                "it keeps {held} bytes of its log for the outbox, {} more than when that was first seen to be more than wal_max ({most})",
                held - over.held
            ));
        }
        (now.duration_since(over.moved) >= STANDSTILL).then(|| {
            format!(
                "it keeps {held} bytes of its log for the outbox, more than wal_max ({most}), and nothing was published for {} s",
                STANDSTILL.as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Plays looks at a slot with a limit of 10 MiB, each `(seconds, MiB kept, MiB confirmed)`; returns when it is given up.
    fn given_up(looks: &[(u64, u64, u64)]) -> Option<u64> {
        given_up_behind(SEGMENT, looks)
    }

    /// The same with so many bytes that are not confirmed.
    fn given_up_behind(behind: u64, looks: &[(u64, u64, u64)]) -> Option<u64> {
        let mut rule = LimitRule {
            most: 10 * MIB,
            over: None,
        };
        let began = Instant::now();
        let given_up = |(at, held, confirmed): &(u64, u64, u64)| {
            let look = SlotLook {
                held: held * MIB,
                from: 0,
                behind,
                confirmed: confirmed * MIB,
                lost: false,
            };
            rule.exceeded(Some(look), began + Duration::from_secs(*at)).map(|_| *at)
        };
        looks.iter().find_map(given_up)
    }

    #[test]
    fn a_slot_below_its_limit_stays() {
        assert_eq!(given_up(&[(0, 10, 1), (1_000, 10, 1)]), None);
    }

    #[test]
    fn a_slot_above_its_limit_that_stands_still_for_a_minute_is_given_up() {
        assert_eq!(given_up(&[(0, 11, 1), (59, 11, 1), (60, 11, 1)]), Some(60));
    }

    #[test]
    fn a_slot_above_its_limit_that_gets_forward_stays() {
        assert_eq!(given_up(&[(0, 50, 1), (59, 50, 2), (118, 50, 3), (177, 45, 3)]), None);
        assert_eq!(given_up(&[(0, 50, 1), (59, 50, 2), (119, 50, 2)]), Some(119));
    }

    #[test]
    fn a_slot_that_gets_forward_but_for_which_ever_more_is_kept_is_given_up() {
        assert_eq!(given_up(&[(0, 50, 1), (10, 60, 2), (20, 61, 3)]), Some(20));
    }

    #[test]
    fn a_slot_whose_log_is_settled_stays_also_if_the_database_keeps_whole_files_of_it() {
        assert_eq!(given_up_behind(SEGMENT - 1, &[(0, 48, 1), (100, 48, 1)]), None);
        assert_eq!(given_up_behind(0, &[(0, 48, 1), (100, 59, 1)]), Some(100), "ever more");
    }

    #[test]
    fn a_slot_that_was_below_its_limit_in_between_has_a_minute_again() {
        assert_eq!(given_up(&[(0, 11, 1), (50, 9, 1), (100, 11, 1), (150, 11, 1)]), None);
    }

    #[test]
    fn a_slot_that_is_lost_or_gone_is_not_dropped() {
        let mut rule = LimitRule { most: 1, over: None };
        let lost = SlotLook {
            held: 100,
            from: 0,
            behind: 0,
            confirmed: 0,
            lost: true,
        };
        let began = Instant::now();
        for look in [Some(lost), None] {
            assert_eq!(rule.exceeded(look, began), None);
            assert_eq!(rule.exceeded(look, began + STANDSTILL * 2), None);
        }
    }
}
