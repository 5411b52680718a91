//! The records of deaths: one for each dead event, until a replay's `done` overwrites it. They are read from the leader.

use futures_util::{StreamExt, TryStreamExt};

use super::bucket::Bucket;
use super::keys::AT_ONCE;
use super::read;
use crate::broker::{By, Connection, Error};
use crate::event::EventId;
use crate::ledger::core::book::Following;
use crate::ledger::core::entry::{Death, DecisionKind};
use crate::ledger::core::group::TxId;
use crate::mesh_streams::dead_letter::DeathRef;

impl Bucket {
    /// The death of an event, if it is dead.
    pub async fn death(&self, handler: &str, event: &EventId) -> Result<Option<DeathRef>, Error> {
        let connection = self.connection().await?;
        let subject = self.subjects.death(handler, &event.to_string());
        let Some(stored) = connection.stored(&self.stream, By::Last(&subject)).await? else {
            return Ok(None);
        };
        let death: Death = read::parse(&subject, &stored.payload)?;
        let (entry, record) = (death.n, stored.sequence);
        Ok((death.verdict == DecisionKind::Dead).then_some(DeathRef { entry, record }))
    }

    /// Which of the replays in the batch on its way follow a death whose record is not where they say.
    pub(super) async fn stale_replays(&self, connection: &Connection) -> Result<Vec<TxId>, Error> {
        let following = self.book().deaths_on_their_way();
        let one = |Following { id, subject, sequence }| async move {
            let stored = connection.stored(&self.stream, By::Last(&subject)).await?;
            Ok((stored.map_or(0, |stored| stored.sequence) != sequence).then_some(id))
        };
        futures_util::stream::iter(following)
            .map(one)
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|stale| std::future::ready(Ok(stale)))
            .try_collect()
            .await
    }
}
