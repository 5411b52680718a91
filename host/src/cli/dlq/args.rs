//! What can be said of dead letters on the command line.

use super::ls::Ls;
use clap::Subcommand;

use super::discard::Discard;
use super::edit::EditCommand;
use super::export::{Export, Import};
use super::note::NoteCommand;
use super::rehearse::Rehearse;
use super::replay::ReplayCommand;
use super::show::Show;

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List dead letters in the order in which they were stored; with --group, list groups of dead letters with the same fault
    Ls(Ls),
    /// Show everything that is known about one dead letter
    Show(Show),
    // Its help is with its arguments.
    Rehearse(Box<Rehearse>),
    /// Give dead letters back to the handlers that failed on them, and wait for the results
    #[command(
        after_help = "Exit codes: 0 if none of the events is a dead letter any more; 6 if no host serves a handler; 130 \
                      after Ctrl-C; 143 after SIGTERM; 1 otherwise. Replays that were sent continue after the command has \
                      ended. The same command again continues with the dead letters that are left."
    )]
    Replay(ReplayCommand),
    // Its help is with its arguments.
    Edit(EditCommand),
    /// Resolve dead letters without running their events, which stay dead. This does not stop a running replay
    Discard(Discard),
    // The same.
    Note(NoteCommand),
    /// Write dead letters as lines of JSON, which `import` can restore
    Export(Export),
    /// Restore exported dead letters that are missing. One that was replayed or discarded in the last three days is not
    /// restored
    Import(Import),
}

impl Dlq {
    /// The handler that a condition names.
    pub fn handler(&self) -> Option<&str> {
        let conditions = match self {
            Dlq::Ls(ls) => &ls.conditions,
            Dlq::Rehearse(rehearse) => &rehearse.selection.conditions,
            Dlq::Replay(replay) => &replay.selection.conditions,
            Dlq::Discard(discard) => &discard.selection.conditions,
            Dlq::Export(export) => &export.selection.conditions,
            Dlq::Show(_) | Dlq::Edit(_) | Dlq::Note(_) | Dlq::Import(_) => return None,
        };
        conditions.handler.as_deref()
    }
}
