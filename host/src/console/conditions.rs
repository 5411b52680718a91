//! Which dead letters a viewer means: with the conditions of the commands, and the words that mean the same there.

use serde::Deserialize;

use super::query::Query;
use super::trouble::ConsoleError;
use crate::dlq::Filter;
use crate::dlq::condition::{digest, handler, pattern, time};
use crate::dlq::meant::Selected;
use crate::dlq::select::is_id;
use crate::event::outcome::Cause;
use crate::text::shell::quoted;

/// Ids in one order.
const IDS_MAX: usize = 2_000;

/// LetterConditions, as they were written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterConditions {
    handler: Option<String>,
    cause: Option<String>,
    code: Option<String>,
    digest: Option<String>,
    since: Option<String>,
    until: Option<String>,
    subject: Option<String>,
    text: Option<String>,
    group: Option<String>,
}

impl LetterConditions {
    pub fn of(query: &Query) -> Result<LetterConditions, ConsoleError> {
        let of = |name: &str| query.get(name).map(str::to_owned);
        Ok(LetterConditions {
            handler: of("handler"),
            cause: of("cause"),
            code: of("code"),
            digest: of("digest"),
            since: of("since"),
            until: of("until"),
            subject: of("subject"),
            text: of("text"),
            group: of("group"),
        })
    }

    pub fn filter(&self) -> Result<Filter, ConsoleError> {
        let cause = |text: &str| Cause::parse(text).ok_or_else(|| "not a cause of a dead letter".to_owned());
        let moment = |text: &str| time(text).map(crate::event::clock::Moment::ms);
        Ok(Filter {
            handler: read("handler", &self.handler, handler)?,
            cause: read("cause", &self.cause, cause)?,
            code: self.code.clone(),
            digest: read("digest", &self.digest, digest)?,
            since_ms: read("since", &self.since, moment)?,
            until_ms: read("until", &self.until, moment)?,
            subject: read("subject", &self.subject, pattern)?,
            text: self.text.clone(),
            group: self.group.clone(),
        })
    }

    /// The flags of a command that mean the same.
    fn flags(&self) -> Vec<String> {
        let all = [
            ("--handler", &self.handler),
            ("--cause", &self.cause),
            ("--code", &self.code),
            ("--digest", &self.digest),
            ("--since", &self.since),
            ("--until", &self.until),
            ("--subject", &self.subject),
            ("--text", &self.text),
            ("--group", &self.group),
        ];
        let given = all
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
        given
            .flat_map(|(flag, value)| [flag.to_owned(), quoted(value)])
            .collect()
    }
}

fn read<T>(
    name: &str,
    text: &Option<String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConsoleError> {
    let parsed = text.as_deref().map(parse).transpose();
    parsed.map_err(|why| ConsoleError::wrong(format!("{name}: {why}")))
}

/// What an order is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterSelection {
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    conditions: LetterConditions,
    /// All letters.
    #[serde(default)]
    all: bool,
}

impl LetterSelection {
    /// Ids, conditions or all: never everything by mistake.
    pub fn selected(&self) -> Result<Selected, ConsoleError> {
        let filter = self.conditions.filter()?;
        match (self.ids.is_empty(), filter.is_empty()) {
            (true, true) if self.all => Ok(Selected::Filter(filter)),
            _ if self.all => Err(ConsoleError::wrong("all cannot be combined with ids or conditions")),
            (true, true) => Err(ConsoleError::wrong("select dead letters, or name a condition")),
            (true, false) => Ok(Selected::Filter(filter)),
            (false, false) => Err(ConsoleError::wrong("ids and conditions cannot be combined")),
            (false, true) if self.ids.len() > IDS_MAX => Err(ConsoleError::wrong(format!(
                "at most {IDS_MAX} ids at once: use conditions"
            ))),
            (false, true) => match self.ids.iter().find(|id| !is_id(id)) {
                Some(wrong) => Err(ConsoleError::wrong(format!(
                    "`{wrong}` is not HANDLER.INCARNATION.SEQUENCE"
                ))),
                None => Ok(Selected::Ids(self.ids.clone())),
            },
        }
    }

    pub fn has_ids(&self) -> bool {
        !self.ids.is_empty()
    }

    /// The command that means the same letters.
    pub fn command(&self, verb: &str, more: &[String]) -> String {
        let mut words = vec!["jetmesh".to_owned(), "dlq".to_owned(), verb.to_owned()];
        words.extend(self.ids.iter().map(|id| quoted(id)));
        words.extend(self.conditions.flags());
        words.extend(self.all.then(|| "--all".to_owned()));
        words.extend(more.iter().cloned());
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_means_what_was_selected_and_a_shell_obeys_nothing_in_it() {
        let selection: LetterSelection = serde_json::from_value(serde_json::json!({
            "conditions": { "handler": "inventory", "text": "it's $(reboot); `x`" },
        }))
        .unwrap();
        assert_eq!(
            selection.command("replay", &["--yes".to_owned()]),
            r"jetmesh dlq replay --handler inventory --text 'it'\''s $(reboot); `x`' --yes"
        );
        let all: LetterSelection = serde_json::from_value(serde_json::json!({})).unwrap();
        assert!(all.selected().is_err(), "nothing was selected");
        let all: LetterSelection = serde_json::from_value(serde_json::json!({ "all": true })).unwrap();
        assert!(all.selected().is_ok());
        assert_eq!(all.command("export", &[]), "jetmesh dlq export --all");
        let both: LetterSelection =
            serde_json::from_value(serde_json::json!({ "all": true, "ids": ["a.b.1"] })).unwrap();
        assert!(both.selected().is_err());
        let wrong: LetterSelection = serde_json::from_value(serde_json::json!({ "ids": ["a.*.b"] })).unwrap();
        assert!(wrong.selected().is_err());
    }
}
