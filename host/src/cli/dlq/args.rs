//! What can be said of dead letters on the command line.

use super::ls::Ls;
use clap::Subcommand;

use super::discard::Discard;
use super::export::{Export, Import};
use super::rehearse::Rehearse;
use super::replay::Replay;
use super::show::Show;

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List dead letters, oldest first, or the groups that they fall into
    Ls(Ls),
    /// Everything that is known of one dead letter
    Show(Show),
    // Its help is with its arguments.
    Rehearse(Box<Rehearse>),
    /// Give dead letters back to the handlers that failed on them, and to no others, and wait for what becomes of them
    #[command(
        after_help = "Exit codes: 0 none of them is a dead letter any more; 1 some are, or it was not wanted; 6 no host \
                      serves a handler, so that nothing of it is decided; 130 ended by Ctrl-C, 143 by SIGTERM. What is sent \
                      goes on without this, and the same command again takes up what is not settled."
    )]
    Replay(Replay),
    /// Settle dead letters that nobody wants any more; their events stay dead, but for those whose replay is running
    Discard(Discard),
    /// Write dead letters as lines of JSON, from which `import` puts them back
    Export(Export),
    /// Put exported dead letters back, where there are none now: those that were lost with their stream. One that was
    /// replayed or discarded is left so for three days
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
            Dlq::Show(_) | Dlq::Import(_) => return None,
        };
        conditions.handler.as_deref()
    }
}
