//! The records of deaths: one for each dead event, until a replay's `done` overwrites it. They are read from the leader.

use futures_util::{StreamExt, TryStreamExt};

use super::bucket::Bucket;
use super::keys::AT_ONCE;
use super::read;
use crate::broker::{By, Connection, Error};
use crate::ledger::core::book::Following;
use crate::ledger::core::entry::{Death, Verdict};
use crate::ledger::core::group::TxId;
use crate::message::EventId;

impl Bucket {
    /// The death record of an event, if it is dead: the entry that decided it and the record's sequence.
    pub async fn death(&self, handler: &str, event: &EventId) -> Result<Option<(u64, u64)>, Error> {
        let connection = self.connection().await?;
        let subject = self.subjects.death(handler, &event.to_string());
        let Some(stored) = connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(None);
        };
        let death: Death = read::parse(&subject, &stored.payload)?;
        Ok((death.verdict == Verdict::Dead).then_some((death.n, stored.sequence)))
    }

    /// Which of the replays in the batch on its way follow a death whose record is not where they say.
    pub(super) async fn astray(&self, connection: &Connection) -> Result<Vec<TxId>, Error> {
        let following = self.book().deaths_on_their_way();
        let one = |Following { id, subject, sequence }| async move {
            let stored = connection.stored(&self.stream, By::Last(&subject)).await?;
            Ok((stored.map_or(0, |stored| stored.sequence) != sequence).then_some(id))
        };
        futures_util::stream::iter(following)
            .map(one)
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|astray| std::future::ready(Ok(astray)))
            .try_collect()
            .await
    }
}
