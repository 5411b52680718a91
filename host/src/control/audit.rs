//! Acting with a record of it: who, from where, what, why, and how it ended.

use std::fmt::Display;

use crate::broker::user::authenticated;
use crate::broker::{self, Connection};
use crate::mesh_streams::audit::{self, AuditActor, AuditEnd, AuditFrom, AuditIntent, OpenAudit};
use crate::plan::Plan;

/// A person who acts.
pub struct Actor<'a> {
    pub connection: &'a Connection,
    pub plan: &'a Plan,
    pub by: String,
    pub from: AuditFrom,
    /// Is told what could not be recorded any more.
    pub warn: fn(&str),
}

impl Actor<'_> {
    /// Acts, with a record of it. `told`: how what was done is recorded.
    ///
    /// # Errors
    /// Those of `act`. If it cannot be recorded, nothing is done.
    pub async fn acts<T, E>(
        &self,
        intent: AuditIntent,
        act: impl Future<Output = Result<T, E>>,
        told: impl FnOnce(&T) -> AuditEnd,
    ) -> Result<T, E>
    where
        E: Display + From<broker::Error>,
    {
        let open = self.begins(intent).await?;
        let done = act.await;
        let end = match &done {
            Ok(done) => told(done),
            Err(error) => AuditEnd::failed(&error.to_string()),
        };
        ended(open, end, self.warn).await;
        done
    }

    /// Begins what ends elsewhere.
    ///
    /// # Errors
    /// It cannot be recorded: then it must not begin.
    pub async fn begins(&self, intent: AuditIntent) -> Result<OpenAudit, broker::Error> {
        let user = authenticated(self.connection, &self.plan.nats).await;
        let actor = AuditActor {
            by: &self.by,
            user,
            from: self.from,
        };
        audit::begin(self.connection, self.plan, actor, intent).await
    }
}

/// Records how something has ended; if it cannot, `warn` is told.
pub async fn ended(open: OpenAudit, end: AuditEnd, warn: fn(&str)) {
    if let Err(error) = open.end(end).await {
        warn(&format!("this was done, and how it ended is not recorded: {error}"));
    }
}
