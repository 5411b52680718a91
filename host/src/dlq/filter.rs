//! Which dead letters are meant.

use super::group;
use crate::event::outcome::Cause;
use crate::event::rfc3339;
use crate::event::subject::subject_matches;
use crate::mesh_streams::dead_letter::{self, Letter};

/// What a dead letter must be; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub handler: Option<String>,
    pub cause: Option<Cause>,
    pub code: Option<String>,
    /// How the module's digest begins, without `sha256:`.
    pub digest: Option<String>,
    /// When it died, in milliseconds since the Unix epoch: from here on, and before.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
    /// A pattern for the event's subject, `*` and `>` as in NATS.
    pub subject: Option<String>,
    /// What its error, an original header or its payload holds; case does not matter.
    pub text: Option<String>,
    /// The id of a group.
    pub group: Option<String>,
}

impl Filter {
    /// Whether anything is said.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// In a few words.
    pub fn told(&self) -> String {
        let time = |ms: Option<u64>| ms.map(rfc3339);
        let all = [
            ("handler", self.handler.clone()),
            ("cause", self.cause.map(|cause| cause.name().to_owned())),
            ("code", self.code.clone()),
            ("module", self.digest.clone()),
            ("since", time(self.since_ms)),
            ("until", time(self.until_ms)),
            ("subject", self.subject.clone()),
            ("text", self.text.clone()),
            ("group", self.group.clone()),
        ];
        let given = all
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        match given.collect::<Vec<_>>().join(", ") {
            all if all.is_empty() => "all dead letters".to_owned(),
            some => some,
        }
    }

    /// Whether payloads must be read to tell.
    pub fn needs_payload(&self) -> bool {
        self.text.is_some()
    }

    pub fn matches(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, name| wanted.as_deref().is_none_or(|wanted| letter.header(name) == wanted);
        is(&self.handler, dead_letter::HANDLER)
            && is(&self.code, dead_letter::CODE)
            && self.cause.is_none_or(|c| letter.header(dead_letter::CAUSE) == c.name())
            && self
                .digest
                .as_deref()
                .is_none_or(|d| digest_begins(letter.header(dead_letter::MODULE), d))
            && self.since_ms.is_none_or(|since| letter.dead_since_ms() >= since)
            && self.until_ms.is_none_or(|until| letter.dead_since_ms() < until)
            && self
                .subject
                .as_deref()
                .is_none_or(|pattern| subject_matches(pattern, letter.header(dead_letter::SUBJECT)))
            && self.text.as_deref().is_none_or(|text| holds(letter, text))
            && self
                .group
                .as_deref()
                .is_none_or(|group| group::FaultKey::of(letter).id() == group)
    }
}

fn digest_begins(digest: &str, wanted: &str) -> bool {
    digest.strip_prefix("sha256:").unwrap_or(digest).starts_with(wanted)
}

fn holds(letter: &Letter, text: &str) -> bool {
    let text = text.to_lowercase();
    let has = |within: &str| within.to_lowercase().contains(&text);
    has(letter.header(dead_letter::ERROR))
        || dead_letter::originals(&letter.headers)
            .iter()
            .any(|(_, value)| has(value))
        || has(&String::from_utf8_lossy(&letter.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let headers = [
            (dead_letter::HANDLER, "inventory"),
            (dead_letter::CAUSE, "max-deliver"),
            (dead_letter::CODE, "out-of-stock"),
            (dead_letter::ERROR, "sku sku-1: 5 wanted, 4 left"),
            (dead_letter::MODULE, "0123abcd"),
            (dead_letter::SUBJECT, "orders.created"),
            ("Tenant", "Acme"),
        ];
        Letter {
            subject: "$MESH.dead.ORDERS.inventory.k.7".into(),
            sequence: 1,
            time_ms: 1000,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            payload: r#"{"order_id":"o-9"}"#.into(),
        }
    }

    // Long: one row for each condition.
    #[test]
    fn each_condition_takes_what_it_means_and_nothing_else() {
        let text = |text: &str| Some(text.to_owned());
        let group = group::FaultKey::of(&letter()).id();
        let all = Filter::default();
        let yes = [
            Filter {
                handler: text("inventory"),
                ..all.clone()
            },
            Filter {
                cause: Some(Cause::MaxDeliver),
                ..all.clone()
            },
            Filter {
                code: text("out-of-stock"),
                ..all.clone()
            },
            Filter {
                digest: text("0123"),
                ..all.clone()
            },
            Filter {
                since_ms: Some(1000),
                until_ms: Some(1001),
                ..all.clone()
            },
            Filter {
                subject: text("orders.*"),
                ..all.clone()
            },
            Filter {
                text: text("WANTED"),
                ..all.clone()
            },
            Filter {
                text: text("acme"),
                ..all.clone()
            },
            Filter {
                text: text("o-9"),
                ..all.clone()
            },
            Filter {
                group: Some(group),
                ..all.clone()
            },
            all.clone(),
        ];
        for filter in yes {
            assert!(filter.matches(&letter()), "{filter:?}");
        }
        let no = [
            Filter {
                handler: text("points"),
                ..all.clone()
            },
            Filter {
                cause: Some(Cause::Rejected),
                ..all.clone()
            },
            Filter {
                code: text("out"),
                ..all.clone()
            },
            Filter {
                digest: text("123"),
                ..all.clone()
            },
            Filter {
                since_ms: Some(1001),
                ..all.clone()
            },
            Filter {
                until_ms: Some(1000),
                ..all.clone()
            },
            Filter {
                subject: text("orders"),
                ..all.clone()
            },
            Filter {
                text: text("o-8"),
                ..all.clone()
            },
            // Our own headers are not the event's text.
            Filter {
                text: text("max-deliver"),
                ..all.clone()
            },
            Filter {
                group: text("00000000"),
                ..all.clone()
            },
        ];
        for filter in no {
            assert!(!filter.matches(&letter()), "{filter:?}");
        }
    }
}
