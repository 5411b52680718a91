//! An export: every dead letter that is meant, whole, as lines of JSON.

use super::archive::{self, Lacking};
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
    /// What it does not have so far.
    pub lacks: Lacking,
    ended: bool,
}

/// A line of an export.
pub enum ExportedLine {
    Letter(String),
    /// What the export lacks: the last line, if it lacks something.
    Lacks(String),
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
            lacks: Lacking::default(),
            ended: false,
        })
    }

    /// The next line. `None`: those were all.
    pub async fn next(&mut self) -> Result<Option<ExportedLine>, Error> {
        if self.ended {
            return Ok(None);
        }
        if let Some(letter) = self.letter().await? {
            return Ok(Some(ExportedLine::Letter(shown(&archive::line(&letter)).to_string())));
        }
        self.ended = true;
        let lacks = (!self.lacks.is_nothing()).then(|| shown(&self.lacks.line()).to_string());
        Ok(lacks.map(ExportedLine::Lacks))
    }

    async fn letter(&mut self) -> Result<Option<Letter>, Error> {
        loop {
            match &mut self.from {
                ExportSource::Ids(ids) => {
                    let Some(id) = ids.next() else { return Ok(None) };
                    match select::find(self.connection, id).await? {
                        Some(letter) => return Ok(Some(letter)),
                        None => self.lacks.missing.push(id.clone()),
                    }
                }
                ExportSource::Letters(letters) => match letters.next().await? {
                    Some(letter) if letter.is_in_parts() => self.in_parts.push(letter.subject),
                    Some(letter) => return Ok(Some(letter)),
                    None => {
                        if let ExportSource::Letters(letters) = std::mem::replace(&mut self.from, ExportSource::Parts) {
                            self.lacks.unread = letters.end().await?.told();
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
