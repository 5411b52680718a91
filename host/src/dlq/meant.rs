//! Dead letters that a person means, for what is done with them.

use std::collections::BTreeSet;

use super::course::Course;
use super::{Filter, select};
use crate::broker::{Connection, Error};
use crate::mesh_streams::dead_letter::{self, Letter};

/// Which dead letters are meant.
#[derive(Debug, Clone)]
pub enum Selected {
    /// HANDLER.INCARNATION.SEQUENCE each.
    Ids(Vec<String>),
    Filter(Filter),
}

impl Selected {
    /// In a few words, for those who look on.
    pub fn told(&self) -> String {
        match self {
            Selected::Ids(ids) => match ids.as_slice() {
                [one] => one.clone(),
                ids => format!("{} dead letters", ids.len()),
            },
            Selected::Filter(filter) => filter.told(),
        }
    }
}

/// What was found of them.
#[derive(Debug, Default)]
pub struct FoundLetters<T> {
    pub letters: T,
    /// Ids of letters that are resolved, each with the reason.
    pub resolved: Vec<(String, String)>,
    /// Ids that name no dead letter.
    pub unknown: Vec<String>,
    /// What is among the letters and cannot be read.
    pub unread: Option<String>,
}

/// Those that are to be replayed.
pub async fn course(connection: &Connection, selected: &Selected) -> Result<FoundLetters<Course>, Error> {
    let mut course = Course::default();
    let found = each(connection, selected, |letter| course.add(&letter)).await?;
    Ok(found.with(course))
}

/// Those that are to be resolved, without what takes memory and is not needed for that.
pub async fn bare(connection: &Connection, selected: &Selected) -> Result<FoundLetters<Vec<Letter>>, Error> {
    let mut letters = Vec::new();
    let keep = |mut letter: Letter| {
        letter.payload = bytes::Bytes::new();
        let needed = [dead_letter::HANDLER, dead_letter::PARTS];
        letter.headers.retain(|(name, _)| needed.contains(&name.as_str()));
        letters.push(letter);
    };
    let found = each(connection, selected, keep).await?;
    Ok(found.with(letters))
}

/// The handlers whose letters these are.
pub fn handlers(letters: &[Letter]) -> Vec<&str> {
    let handlers = letters.iter().map(|letter| letter.header(dead_letter::HANDLER));
    handlers.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn each(
    connection: &Connection,
    selected: &Selected,
    seen: impl FnMut(Letter),
) -> Result<FoundLetters<()>, Error> {
    newest(connection, selected, 0, seen).await
}

/// Calls `seen` for each letter that is meant. `most`: only the newest of those that a filter means; 0: all.
pub(super) async fn newest(
    connection: &Connection,
    selected: &Selected,
    most: usize,
    mut seen: impl FnMut(Letter),
) -> Result<FoundLetters<()>, Error> {
    let mut found = FoundLetters::default();
    match selected {
        Selected::Filter(filter) if most == 0 => {
            found.unread = select::each(connection, filter, false, seen).await?.told();
        }
        Selected::Filter(filter) => {
            let newest = select::newest(connection, filter, most, (None, None)).await?;
            found.unread = newest.looked.unread.told();
            newest.letters.into_iter().for_each(seen);
        }
        Selected::Ids(ids) => {
            for id in ids {
                if let Some(letter) = select::find(connection, id).await? {
                    seen(letter);
                } else if let Some(reason) = select::settled(connection, id).await? {
                    found.resolved.push((id.clone(), reason));
                } else {
                    found.unknown.push(id.clone());
                }
            }
        }
    }
    Ok(found)
}

impl FoundLetters<()> {
    pub(super) fn with<T>(self, letters: T) -> FoundLetters<T> {
        FoundLetters {
            letters,
            resolved: self.resolved,
            unknown: self.unknown,
            unread: self.unread,
        }
    }
}
