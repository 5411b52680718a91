//! Which dead letters a command is about.

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};

use crate::cli::Error;
use crate::dlq::Filter;
pub use crate::dlq::condition::{digest, handler, pattern, time};
use crate::dlq::meant::Selected;
use crate::dlq::select::is_id;
use crate::event::clock::Moment;
use crate::event::outcome::Cause;

/// Conditions on a dead letter; one that is not given does not matter.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which dead letters")]
pub struct Conditions {
    /// Only dead letters of this handler
    #[arg(long, value_name = "NAME", value_parser = handler)]
    pub handler: Option<String>,
    /// Only dead letters with this cause
    #[arg(long, value_name = "CAUSE", value_parser = PossibleValuesParser::new(Cause::ALL.map(Cause::name)))]
    pub cause: Option<String>,
    /// Only dead letters whose last failure has this code
    #[arg(long, value_name = "CODE", value_parser = NonEmptyStringValueParser::new())]
    pub code: Option<String>,
    /// Only dead letters that failed on this module; the beginning of its digest is enough
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub digest: Option<String>,
    /// Only dead letters since this time: RFC 3339, or a duration before now, such as 90m or 2days
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Moment>,
    /// Only dead letters before this time, in the same form
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Moment>,
    /// Only dead letters whose event has a subject that matches this pattern; `*` and `>` as in NATS
    #[arg(long, value_name = "SUBJECT", value_parser = pattern)]
    pub subject: Option<String>,
    /// Only dead letters with this text in the error, in a header of the event or in its payload; case does not matter
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub text: Option<String>,
}

impl Conditions {
    pub fn filter(&self, group: Option<&str>) -> Filter {
        Filter {
            handler: self.handler.clone(),
            cause: self.cause.as_deref().and_then(Cause::parse),
            code: self.code.clone(),
            digest: self.digest.clone(),
            since_ms: self.since.map(Moment::ms),
            until_ms: self.until.map(Moment::ms),
            subject: self.subject.clone(),
            text: self.text.clone(),
            group: group.map(str::to_owned),
        }
    }
}

/// Which dead letters a command is about.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// IDs that `dlq ls` prints: HANDLER.INCARNATION.SEQUENCE
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub conditions: Conditions,
    /// Only dead letters of this group; `dlq ls --group` prints its ID
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// All dead letters
    #[arg(long)]
    pub all: bool,
}

impl Selection {
    pub(in crate::cli) fn selected(&self) -> Result<Selected, Error> {
        let filter = self.conditions.filter(self.group.as_deref());
        let usage = |text: &str| Err(Error::Usage(text.to_owned()));
        match (self.ids.is_empty(), filter.is_empty(), self.all) {
            (true, true, false) => usage(
                "select dead letters: with an ID, --group, a condition such as --handler, \
                                          or --all",
            ),
            (false, true, false) => {
                self.ids.iter().try_for_each(|id| check_id(id))?;
                let mut ids = self.ids.clone();
                ids.sort();
                ids.dedup();
                Ok(Selected::Ids(ids))
            }
            (false, _, _) => usage("IDs cannot be combined with conditions: leave the conditions out"),
            (true, false, true) => usage("--all cannot be combined with conditions: leave the conditions out"),
            (true, _, _) => Ok(Selected::Filter(filter)),
        }
    }
}

pub fn check_id(id: &str) -> Result<(), Error> {
    if is_id(id) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "`{id}` is not HANDLER.INCARNATION.SEQUENCE, as `jetmesh dlq ls` prints it"
    )))
}
