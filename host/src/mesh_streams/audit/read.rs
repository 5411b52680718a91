//! Reading what people have changed: the newest records that conditions mean.

use std::collections::VecDeque;

use super::{AUDIT, AuditRecord, FORMAT, StoredBegin, StoredEnd};
use crate::broker::scan::{CLOCKS_MS, From, Scan, Scanned, first_since};
use crate::broker::{Connection, Error};
use crate::event::parse_rfc3339;

/// What a record must be; what is not said does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// When it began, in milliseconds since the Unix epoch: from here on.
    pub since_ms: Option<u64>,
    /// A part of who it was; case does not matter.
    pub by: Option<String>,
    pub action: Option<String>,
    /// One of what it was done to, such as a handler.
    pub on: Option<String>,
}

impl AuditFilter {
    fn takes(&self, record: &AuditRecord) -> bool {
        let by = |part: &String| {
            let mut names = [Some(&record.by), record.user.as_ref()].into_iter().flatten();
            names.any(|name| name.to_lowercase().contains(&part.to_lowercase()))
        };
        let at = parse_rfc3339(&record.at);
        self.since_ms.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.by.as_ref().is_none_or(by)
            && self.action.as_ref().is_none_or(|action| *action == record.action)
            && self.on.as_ref().is_none_or(|on| record.on.contains(on))
    }
}

/// Records, and how far they were looked for.
#[derive(Debug, Default)]
pub struct AuditLooked {
    /// The newest that the conditions mean, oldest first.
    pub records: VecDeque<AuditRecord>,
    /// Records that were looked at, whatever the conditions say of them.
    pub looked_at: u64,
    /// How many of them the conditions mean.
    pub meant: u64,
    /// When the oldest of them began; `None`: there was none.
    pub back_to: Option<String>,
    /// There are older ones, which the conditions may mean and which were not looked at.
    pub more: bool,
    /// Messages that are no records that this version can read.
    pub unreadable: u64,
}

/// The newest records that a filter means, at most `most`, among the last `messages_max` messages; an action has two of them.
/// `None`: there is no stream. `connection`: a guarded one.
pub async fn newest(
    connection: &Connection,
    filter: &AuditFilter,
    most: usize,
    messages_max: u64,
) -> Result<Option<AuditLooked>, Error> {
    let Some(info) = connection.stream(AUDIT).await? else {
        return Ok(None);
    };
    let mut looked = AuditLooked::default();
    let (first, last) = (info.state.first_seq.max(1), info.state.last_seq);
    let begin = match filter.since_ms {
        Some(since) => first_since(connection, AUDIT, From::Time(since.saturating_sub(CLOCKS_MS))).await?,
        None => first,
    };
    let from = begin.max((last + 1).saturating_sub(messages_max));
    looked.more = from > begin;
    if from > last {
        return Ok(Some(looked));
    }
    let mut scan = Scan::start(connection, AUDIT, &[], From::Sequence(from), last, false).await?;
    while let Some(scanned) = scan.next().await? {
        looked.see(&scanned, filter, most);
    }
    scan.end().await?;
    Ok(Some(looked))
}

impl AuditLooked {
    fn see(&mut self, scanned: &Scanned, filter: &AuditFilter, most: usize) {
        let subject = scanned.message.subject.as_str();
        let read = scanned.malformed.is_none() && self.take(subject, &scanned.message.payload, filter, most);
        if !read {
            self.unreadable += 1;
        }
    }

    /// `false`: it cannot be read.
    fn take(&mut self, subject: &str, payload: &[u8], filter: &AuditFilter, most: usize) -> bool {
        if subject.ends_with(".end") {
            let ended = serde_json::from_slice::<StoredEnd>(payload).ok();
            let Some(ended) = ended.filter(|ended| ended.format == FORMAT) else {
                return false;
            };
            // The end of one that was looked at, and is not meant, or of one that was not looked at, is of no use. What comes after
            // the first end is not of the program that has acted.
            let begun = self.records.iter_mut().rev().find(|record| record.id == ended.id);
            if let Some(begun) = begun.filter(|begun| begun.end.is_none()) {
                begun.end = Some(ended.end);
            }
            return true;
        }
        let begun = serde_json::from_slice::<StoredBegin>(payload).ok();
        let Some(record) = begun.filter(|begun| begun.format == FORMAT).map(|begun| begun.record) else {
            return false;
        };
        self.looked_at += 1;
        self.back_to.get_or_insert_with(|| record.at.clone());
        if filter.takes(&record) {
            self.meant += 1;
            self.records.push_back(record);
            if self.records.len() > most {
                self.records.pop_front();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AuditAction, AuditActor, AuditEnd, AuditFrom, AuditIntent};
    use super::*;

    fn begin(by: &str, action: AuditAction, on: &str) -> AuditRecord {
        let intent = AuditIntent {
            action,
            on: vec![on.to_owned()],
            what: "all".to_owned(),
            reason: None,
            command: None,
        };
        intent.record(AuditActor {
            by,
            user: Some("UABC".to_owned()),
            from: AuditFrom::Console,
        })
    }

    fn see(looked: &mut AuditLooked, filter: &AuditFilter, record: &AuditRecord, end: Option<AuditEnd>) {
        let subject = super::super::subject(record);
        let record = record.clone();
        let id = record.id.clone();
        let begun = serde_json::to_vec(&StoredBegin { format: FORMAT, record }).unwrap();
        assert!(looked.take(&format!("{subject}.begin"), &begun, filter, 2));
        if let Some(end) = end {
            let ended = serde_json::to_vec(&StoredEnd {
                format: FORMAT,
                id,
                end,
            })
            .unwrap();
            assert!(looked.take(&format!("{subject}.end"), &ended, filter, 2));
        }
    }

    #[test]
    fn the_newest_that_are_meant_are_kept_with_their_first_ends() {
        let (mut looked, all) = (AuditLooked::default(), AuditFilter::default());
        let records = ["anna", "bo", "cy"].map(|by| begin(by, AuditAction::Pause, "inventory"));
        see(&mut looked, &all, &records[0], None);
        see(&mut looked, &all, &records[1], Some(AuditEnd::done(&[("paused", 1)])));
        see(&mut looked, &all, &records[2], None);
        let late = StoredEnd {
            format: FORMAT,
            id: records[1].id.clone(),
            end: AuditEnd::failed("forged"),
        };
        assert!(looked.take("x.end", &serde_json::to_vec(&late).unwrap(), &all, 2));
        let told: Vec<(&str, Option<bool>)> = looked
            .records
            .iter()
            .map(|one| (one.by.as_str(), one.end.as_ref().map(|end| end.ok)))
            .collect();
        assert_eq!(told, [("bo", Some(true)), ("cy", None)]);
        assert_eq!((looked.looked_at, looked.meant), (3, 3));
        assert!(!looked.take("x.begin", b"{}", &all, 2) && !looked.take("x.end", b"no", &all, 2));
    }

    #[test]
    fn each_condition_takes_what_it_means() {
        let record = begin("Anna (ops@laptop)", AuditAction::DlqEdit, "inventory");
        let took = |filter: AuditFilter| filter.takes(&record);
        let text = |text: &str| Some(text.to_owned());
        let none = AuditFilter::default;
        assert!(
            took(none())
                && took(AuditFilter {
                    by: text("anna"),
                    ..none()
                })
        );
        assert!(!took(AuditFilter {
            by: text("bo"),
            ..none()
        }));
        assert!(took(AuditFilter {
            action: text("dlq-edit"),
            ..none()
        }));
        assert!(!took(AuditFilter {
            action: text("dlq"),
            ..none()
        }));
        assert!(took(AuditFilter {
            on: text("inventory"),
            ..none()
        }));
        assert!(!took(AuditFilter {
            on: text("points"),
            ..none()
        }));
        let at = parse_rfc3339(&record.at).unwrap();
        assert!(took(AuditFilter {
            since_ms: Some(at),
            ..none()
        }));
        assert!(!took(AuditFilter {
            since_ms: Some(at + 1),
            ..none()
        }));
    }
}
