//! The one way in which a delivery is answered. An [`Acker`] is consumed once; dropped, it answers nothing and the server
//! delivers again after its ack wait.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;

use crate::broker::consumer::nak;
use crate::broker::{Connection, Error};
use crate::event::EventId;
use crate::failpoint;
use crate::handler_task::links::{Link, Links};

mod answers;
pub mod delays;

pub use answers::Answers;

/// What the server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Ack,
    /// Never again, and why: the reason shows in the server's advisory.
    Term(String),
    /// Once more, not before this.
    Nak(Duration),
    /// Not begun: it is to be redelivered at once, to any host.
    HandBack,
}

/// The right to answer one delivery.
#[derive(Debug)]
pub struct Acker {
    pub(crate) reply: Subject,
    /// The link that it came over: an answer to another incarnation of the stream would settle another event.
    pub(crate) link: Arc<Link>,
    /// It came with others in one message, whose answer is made of all of theirs.
    one_of: Option<(EventId, Arc<Answers>)>,
}

/// Begins the reason of a termination by the mesh itself.
pub const OWN_TERM: &str = "jetmesh: ";

impl Acker {
    pub fn of(reply: Subject, link: &Arc<Link>) -> Acker {
        Acker {
            reply,
            link: Arc::clone(link),
            one_of: None,
        }
    }

    /// The right to answer one of the events that this message names.
    pub fn one_of(&self, event: &EventId, answers: &Arc<Answers>) -> Acker {
        Acker {
            reply: self.reply.clone(),
            link: Arc::clone(&self.link),
            one_of: Some((event.clone(), Arc::clone(answers))),
        }
    }

    /// Sends the answer, without waiting: a lost one costs a redelivery.
    pub async fn settle(self, links: &Links, settlement: &Settlement) {
        if let Some((event, answers)) = &self.one_of {
            return answers.tell(event, settlement);
        }
        let Some(link) = self.link(links).await else {
            tracing::debug!(
                handler = links.handler(),
                "an answer is thrown away: its connection is gone"
            );
            return;
        };
        failpoint::point("before-ack");
        // This fails only when the connection is closed; then the server redelivers.
        let _ = link.connection.client.publish(self.reply, payload(settlement)).await;
        failpoint::point_after("ack-sent", link.connection.client.flush()).await;
    }

    /// Sends an ack and waits until the server has taken it. It is a request, because the client's own confirmed ack also takes
    /// "no responders" for a confirmation.
    pub async fn confirm(self, links: &Links) -> Result<(), Error> {
        let link = self.link(links).await.ok_or(Error::Gone {
            what: "an ack".to_owned(),
        })?;
        link.connection
            .request(&self.reply, None, "+ACK".into())
            .await
            .map(|_| ())
    }

    /// The current link, or the next one, if it leads to the same incarnation of the same stream.
    async fn link(&self, links: &Links) -> Option<Arc<Link>> {
        let now = links.next().await?;
        let same = Arc::ptr_eq(&now, &self.link) || now.incarnation == self.link.incarnation;
        (same && !now.connection.is_closed()).then_some(now)
    }
}

fn payload(settlement: &Settlement) -> Bytes {
    match settlement {
        Settlement::Ack => Bytes::from_static(b"+ACK"),
        Settlement::Term(reason) => format!("+TERM {reason}").into(),
        Settlement::Nak(delay) => nak(*delay).into(),
        Settlement::HandBack => Bytes::from_static(b"-NAK"),
    }
}

/// Acks a delivery that is not at hand, by the reply subject that it would have: the server looks only at the stream
/// sequence.
pub async fn ack_by_sequence(
    connection: &Connection,
    stream: &str,
    consumer: &str,
    sequence: u64,
) -> Result<(), Error> {
    let reply = format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{sequence}.0.0");
    connection.request(&reply, None, "+ACK".into()).await.map(|_| ())
}
