//! An export: every dead letter that is meant, whole, as lines of JSON.

use super::archive;
use super::meant::Selected;
use super::select::{self, LetterScan};
use crate::broker::{Connection, Error};
use crate::mesh_streams::dead_letter::{self, Letter};
use crate::text::display::shown;

/// The letters of an export, one after the other.
pub struct LetterExport<'a> {
    connection: &'a Connection,
    from: ExportSource<'a>,
    /// Subjects of letters in parts: they are read after the others.
    in_parts: Vec<String>,
    /// Ids of which there is no letter.
    pub missing: Vec<String>,
    /// What is among the letters and cannot be read.
    pub unread: Option<String>,
}

enum ExportSource<'a> {
    Ids(std::slice::Iter<'a, String>),
    Letters(Box<LetterScan<'a>>),
    Parts,
}

impl<'a> LetterExport<'a> {
    pub async fn start(connection: &'a Connection, selected: &'a Selected) -> Result<LetterExport<'a>, Error> {
        let from = match selected {
            Selected::Ids(ids) => ExportSource::Ids(ids.iter()),
            Selected::Filter(filter) => {
                ExportSource::Letters(Box::new(LetterScan::start(connection, filter, true).await?))
            }
        };
        Ok(LetterExport {
            connection,
            from,
            in_parts: Vec::new(),
            missing: Vec::new(),
            unread: None,
        })
    }

    /// The next line. `None`: those were all.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        Ok(self.letter().await?.map(|letter| line(&letter)))
    }

    async fn letter(&mut self) -> Result<Option<Letter>, Error> {
        loop {
            match &mut self.from {
                ExportSource::Ids(ids) => {
                    let Some(id) = ids.next() else { return Ok(None) };
                    match select::find(self.connection, id).await? {
                        Some(letter) => return Ok(Some(letter)),
                        None => self.missing.push(id.clone()),
                    }
                }
                ExportSource::Letters(letters) => match letters.next().await? {
                    Some(letter) if letter.is_in_parts() => self.in_parts.push(letter.subject),
                    Some(letter) => return Ok(Some(letter)),
                    None => {
                        if let ExportSource::Letters(letters) = std::mem::replace(&mut self.from, ExportSource::Parts) {
                            self.unread = letters.end().await?.told();
                        }
                        self.in_parts.reverse();
                    }
                },
                ExportSource::Parts => {
                    let Some(subject) = self.in_parts.pop() else {
                        return Ok(None);
                    };
                    if let Some(letter) = dead_letter::read(self.connection, &subject).await? {
                        return Ok(Some(letter));
                    }
                }
            }
        }
    }
}

fn line(letter: &Letter) -> String {
    shown(&archive::line(letter)).to_string()
}
