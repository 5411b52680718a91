//! What the server does not allow this connection's user. It says so beside the answers, which never come: so what it has
//! said is kept by subject, and a request that waits for such an answer ends at once, with the reason.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::text::normalise::normalise;

/// Subjects that are remembered, the latest. A user who lacks more than these lacks them one after the other.
const SUBJECTS_MAX: usize = 64;

/// The server's latest words on what is not allowed, by subject.
#[derive(Default)]
pub struct Denials {
    latest: Mutex<VecDeque<Denial>>,
    heard: Notify,
}

struct Denial {
    at: Instant,
    /// To publish there; else to subscribe.
    publish: bool,
    subject: String,
}

impl Denials {
    /// Takes in what the server reports; returns the subject, but for names and numbers. `None`: it is not about a permission.
    pub fn hear(&self, report: &str) -> Option<String> {
        let (publish, subject) = parse(report)?;
        let mut latest = self.latest.lock();
        latest.retain(|d| d.publish != publish || d.subject != subject);
        latest.push_back(Denial {
            at: Instant::now(),
            publish,
            subject: subject.to_owned(),
        });
        if latest.len() > SUBJECTS_MAX {
            latest.pop_front();
        }
        drop(latest);
        self.heard.notify_waiters();
        Some(normalise(subject))
    }

    /// Whether the server has refused a publish to this subject since then.
    pub fn publish_since(&self, subject: &str, since: Instant) -> bool {
        let latest = self.latest.lock();
        latest
            .iter()
            .any(|d| d.publish && d.at >= since && d.subject == subject)
    }

    /// Completes when the server refuses a publish to this subject, or has since then.
    pub async fn publish_refused(&self, subject: &str, since: Instant) {
        self.until(|| self.publish_since(subject, since).then_some(())).await;
    }

    /// Completes when what the server has said shows something.
    pub async fn until<T>(&self, shown: impl Fn() -> Option<T>) -> T {
        loop {
            let heard = self.heard.notified();
            if let Some(shown) = shown() {
                return shown;
            }
            heard.await;
        }
    }

    /// The latest subject that it may not subscribe to: an answer that comes there is not heard.
    pub fn unheard(&self) -> Option<String> {
        let latest = self.latest.lock();
        let last = latest.iter().rev().find(|d| !d.publish);
        last.map(|d| d.subject.clone())
    }
}

/// `Permissions Violation for Publish to "orders.created"`, and its relatives
/// (<https://github.com/nats-io/nats-server/blob/main/server/client.go>).
fn parse(report: &str) -> Option<(bool, &str)> {
    let (_, rest) = report.split_once("Permissions Violation for ")?;
    let subject = rest.split('"').nth(1)?;
    Some((!rest.starts_with("Subscription"), subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_on_a_permission_is_read() {
        let rows = [
            (
                "nats: Permissions Violation for Publish to \"$KV.a.b\"",
                Some((true, "$KV.a.b")),
            ),
            (
                "Permissions Violation for Publish with Reply of \"x.Y\"",
                Some((true, "x.Y")),
            ),
            (
                "Permissions Violation for Subscription to \"_INBOX.>\" using queue \"q\"",
                Some((false, "_INBOX.>")),
            ),
            ("nats: Stale Connection", None),
        ];
        for (report, meant) in rows {
            assert_eq!(parse(report), meant, "{report}");
        }
    }

    #[test]
    fn a_denial_is_remembered_by_its_subject_from_when_it_was_heard() {
        let denials = Denials::default();
        let before = Instant::now();
        let of = |subject: &str| format!("Permissions Violation for Publish to \"{subject}\"");
        assert_eq!(denials.hear(&of("a")).as_deref(), Some("a"));
        assert_eq!(denials.hear(&of("$JS.ACK.o-1.17")).as_deref(), Some("$JS.ACK.#.#"));
        assert_eq!(denials.hear("Stale Connection"), None);
        assert!(denials.publish_since("a", before) && !denials.publish_since("b", before));
        assert!(!denials.publish_since("a", Instant::now() + std::time::Duration::from_secs(1)));
        for n in 0..SUBJECTS_MAX {
            denials.hear(&of(&n.to_string()));
        }
        assert!(!denials.publish_since("a", before), "the oldest is forgotten");
        assert_eq!(denials.unheard(), None);
        denials.hear("Permissions Violation for Subscription to \"_INBOX.>\"");
        assert_eq!(denials.unheard().as_deref(), Some("_INBOX.>"));
    }
}
