//! `jetmesh dlq export` and `import`: dead letters as lines of JSON, and back.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Serialize;

use crate::broker::{self, Connection};
use crate::cli::audit::{actor, intent};
use crate::cli::dlq::selection::Selection;
use crate::cli::stop::Stop;
use crate::cli::text::{json_line, letters};
use crate::cli::{Error, FAILED, OK, UNREAD};
use crate::control::audit::ended;
use crate::dlq::archive::{self, Lacking};
use crate::dlq::export::{ExportedLine, LetterExport};
use crate::dlq::meant::Selected;
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::mesh_streams::dead_letter;
use crate::plan::Plan;

/// How many letters are on their way at a time.
const AT_ONCE: usize = 64;

#[derive(Debug, clap::Args)]
pub struct Export {
    /// Write to this file, which must not exist yet [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub selection: Selection,
}

#[derive(Debug, clap::Args)]
pub struct Import {
    /// File that `dlq export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Writes letters as lines. The account goes to standard error: standard output may be the export.
pub async fn export(connection: &Connection, export: &Export, stop: &Stop) -> Result<u8, Error> {
    let selected = export.selection.selected()?;
    let (mut out, to): (Box<dyn Write>, String) = match &export.output {
        None => (Box::new(io::stdout().lock()), String::new()),
        Some(path) => {
            let file = File::create_new(path).map_err(|error| not_made(path, &error))?;
            (
                Box::new(Synced(BufWriter::new(file))),
                format!(" to {}", path.display()),
            )
        }
    };
    stop.heed();
    let mut count = 0u64;
    let mut failed = None;
    let ended = tokio::select! {
        ended = write_all(connection, &selected, (&mut *out, &mut count, &mut failed)) => Some(ended),
        () = stop.asked() => None,
    };
    let failed = failed.or(out.flush().err());
    if failed
        .as_ref()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    {
        return Ok(UNREAD);
    }
    let whole = failed.is_none() && matches!(ended, Some(Ok(_)));
    let removed = match &export.output {
        Some(path) if !whole && fs::remove_file(path).is_ok() => format!("; {} is deleted", path.display()),
        Some(_) | None => String::new(),
    };
    if let Some(error) = failed {
        return Err(Error::Failed(format!("the export is incomplete: {error}{removed}")));
    }
    let lacks = match ended {
        Some(Ok(lacks)) => lacks,
        Some(Err(error)) => {
            note!("the export is incomplete{removed}");
            return Err(error.into());
        }
        None => {
            note!(
                "interrupted after {}: the export is incomplete{removed}",
                letters(count)
            );
            return Ok(stop.code().unwrap_or(FAILED));
        }
    };
    note!("exported {}{to}", letters(count));
    lacks.told().iter().for_each(|told| note!("warning: {told}"));
    Ok(if lacks.missing.is_empty() { OK } else { FAILED })
}

/// Writes every letter that is meant, until one cannot be written; returns what the export lacks.
async fn write_all(
    connection: &Connection,
    selected: &Selected,
    (out, count, failed): (&mut dyn Write, &mut u64, &mut Option<io::Error>),
) -> Result<Lacking, broker::Error> {
    let mut letters = LetterExport::start(connection, selected).await?;
    while let Some(line) = letters.next().await? {
        let written = match &line {
            ExportedLine::Letter(line) | ExportedLine::Lacks(line) => writeln!(out, "{line}"),
        };
        if let Err(error) = written {
            *failed = Some(error);
            break;
        }
        *count += u64::from(matches!(line, ExportedLine::Letter(_)));
    }
    Ok(letters.lacks)
}

fn not_made(path: &Path, error: &io::Error) -> Error {
    Error::Failed(match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "{} already exists, and an export overwrites nothing: name another file",
            path.display()
        ),
        _ => format!("{} cannot be created: {error}", path.display()),
    })
}

/// An export is taken before something dangerous: when it says that it is there, it is on the disk.
struct Synced(BufWriter<File>);

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}

/// What has become of the lines.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "What `jetmesh dlq import --json` has done", description = "")]
pub struct Imported {
    /// How many were restored.
    put_back: u64,
    /// How many were there, and left as they are.
    there_already: u64,
    /// How many are resolved, and were not restored.
    settled: u64,
    /// Lines that are no letters.
    malformed: Vec<MalformedLine>,
    /// What the file says that it does not have.
    lacks: Vec<String>,
}

impl Imported {
    fn recorded(&self, failed: Option<&Error>) -> AuditEnd {
        let counts = [
            ("restored", self.put_back),
            ("already there", self.there_already),
            ("resolved", self.settled),
            ("malformed", self.malformed.len() as u64),
        ];
        AuditEnd::done(&counts).but(failed.map(ToString::to_string).as_deref())
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct MalformedLine {
    #[schemars(range(min = 1))]
    line: usize,
    reason: String,
}

/// What has become of a line.
enum LineFate {
    PutBack,
    There,
    Settled,
    Malformed(String),
    Lacks(Lacking),
}

/// Puts letters back whose subjects are free.
pub async fn import(connection: &Connection, plan: &Plan, import: &Import, stop: &Stop) -> Result<u8, Error> {
    let unreadable = |error: io::Error| Error::Failed(format!("{} cannot be read: {error}", import.file.display()));
    let reader: Box<dyn BufRead> = if import.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(&import.file).map_err(unreadable)?))
    };
    let blank = |line: &io::Result<Vec<u8>>| line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty());
    let lines = reader.split(b'\n').enumerate().filter(|(_, line)| !blank(line));
    let actor = actor(connection, plan);
    let what = import.file.display().to_string();
    let open = actor.begins(intent(AuditAction::DlqImport, &[], what, None)).await?;
    stop.heed();
    let mut fates = stream::iter(lines)
        .take_until(stop.asked())
        .map(|(at, line)| async move {
            let fate = match line {
                Ok(line) => put_back(connection, &line).await.map_err(Error::from),
                Err(error) => Err(unreadable(error)),
            };
            (at + 1, fate)
        })
        .buffered(AT_ONCE);
    let mut done = Imported::default();
    let mut failed = None;
    while let Some((line, fate)) = fates.next().await {
        match fate {
            Ok(LineFate::PutBack) => done.put_back += 1,
            Ok(LineFate::There) => done.there_already += 1,
            Ok(LineFate::Settled) => done.settled += 1,
            Ok(LineFate::Malformed(reason)) => done.malformed.push(MalformedLine { line, reason }),
            Ok(LineFate::Lacks(lacking)) => done.lacks.extend(lacking.told()),
            Err(error) => {
                // The lines behind it would fail as well; a second import goes on where this one stopped.
                failed = Some(error);
                break;
            }
        }
    }
    ended(open, done.recorded(failed.as_ref()), actor.warn).await;
    if import.json {
        println!("{}", json_line(&done));
    } else {
        println!(
            "{} restored, {} already there, {} resolved and not restored, {} malformed",
            done.put_back,
            done.there_already,
            done.settled,
            done.malformed.len()
        );
        let malformed = done.malformed.iter();
        malformed.for_each(|MalformedLine { line, reason }| note!("line {line}: {reason}"));
        let lacks = done.lacks.iter();
        lacks.for_each(|told| note!("warning: the file is an export that lacks something: {told}"));
    }
    if let Some(code) = stop.code() {
        note!("interrupted: the same command again restores the rest");
        return Ok(code);
    }
    match failed {
        Some(error) => Err(error),
        None if done.malformed.is_empty() => Ok(OK),
        None => Ok(FAILED),
    }
}

async fn put_back(connection: &Connection, line: &[u8]) -> Result<LineFate, broker::Error> {
    if let Some(lacking) = std::str::from_utf8(line).ok().and_then(Lacking::parse) {
        return Ok(LineFate::Lacks(lacking));
    }
    let parsed = std::str::from_utf8(line)
        .map_err(|_| "it is not UTF-8".to_owned())
        .and_then(archive::parse);
    let letter = match parsed {
        Ok(letter) => letter,
        Err(why) => return Ok(LineFate::Malformed(why)),
    };
    // Before the letter itself its parts would be stored, beside another letter's.
    if let Some(there) = dead_letter::stored(connection, &letter.subject).await? {
        return Ok(if there.is_settled() {
            LineFate::Settled
        } else {
            LineFate::There
        });
    }
    let stored = dead_letter::store(connection, &letter.subject, &letter.headers, letter.payload).await?;
    Ok(if stored { LineFate::PutBack } else { LineFate::There })
}
