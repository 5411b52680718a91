//! `jetmesh audit`: what people have changed in the mesh, and why. And how the other commands record what they do.

mod typed;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};

use super::dlq::time;
use super::table::{self, Narrow};
use super::text::json_line;
use super::{Args, Error, OK};
use crate::broker::provision::AUDIT;
use crate::broker::{self, Connection};
use crate::control::audit::Actor;
use crate::control::person;
use crate::event::clock::Moment;
use crate::mesh_streams::audit::{self, AuditAction, AuditFilter, AuditFrom, AuditIntent, AuditLooked, AuditRecord};
use crate::plan::Plan;
use crate::text::display::clean;

/// All that the stream holds.
const MESSAGES_MAX: u64 = u64::MAX;
/// How many records a table shows if nothing is said.
const TABLE_LIMIT: usize = 50;

/// Show what people have changed in the mesh, with commands or in the console: who, what, when, why, and how it ended
///
/// Records are kept for a year, and at most 100,000 messages, of which an action has two. A name is "as claimed" unless
/// the server has authenticated the user that acted. Who may publish to `$MESH.audit.>` can write what is not so, but cannot change or
/// remove a record.
#[derive(Debug, clap::Args)]
pub struct AuditCommand {
    /// Only actions since this time: RFC 3339, or a duration before now, such as 90m or 2days
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Moment>,
    /// Only actions of people whose name contains this; case does not matter
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    by: Option<String>,
    /// Only this action
    #[arg(long, value_name = "ACTION", value_parser = PossibleValuesParser::new(AuditAction::NAMES))]
    action: Option<String>,
    /// Only actions on the handler, outbox, schedule or group of dead letters of this name
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    on: Option<String>,
    /// Show only the NUMBER newest; 0: all [default: 50, with --json all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, asked: &AuditCommand) -> Result<u8, Error> {
    let plan = args.look()?.plan;
    let connection = broker::open_guarded(&plan.nats, "jetmesh audit").await?;
    let filter = AuditFilter {
        since_ms: asked.since.map(Moment::ms),
        by: asked.by.clone(),
        action: asked.action.clone(),
        on: asked.on.clone(),
    };
    let limit = asked.limit.unwrap_or(if asked.json { 0 } else { TABLE_LIMIT });
    let most = if limit == 0 { usize::MAX } else { limit };
    let Some(looked) = audit::newest(&connection, &filter, most, MESSAGES_MAX).await? else {
        return Err(Error::Failed(format!(
            "there is no stream {AUDIT}: no host of this version has run here, and no person has changed anything with it"
        )));
    };
    if looked.unreadable > 0 {
        note!(
            "warning: {} message(s) of stream {AUDIT} are no records that this jetmesh reads",
            looked.unreadable
        );
    }
    match asked.json {
        true => looked.records.iter().for_each(|one| println!("{}", json_line(one))),
        false => print(&looked),
    }
    Ok(OK)
}

fn print(looked: &AuditLooked) {
    if looked.records.is_empty() {
        println!("no such actions; {}", far(looked));
        return;
    }
    let rows: Vec<Vec<String>> = looked.records.iter().map(row).collect();
    let header = ["AT", "BY", "FROM", "ACTION", "WHAT", "ENDED", "REASON", "COMMAND"];
    let narrow = Narrow {
        leave_out: &[2, 6],
        cut: &[1, 4, 5, 6],
    };
    table::print_narrow(&header, &rows, &narrow);
    let shown = looked.records.len() as u64;
    match shown < looked.meant {
        true => println!(
            "\nthe newest {shown} of {}, all of them with --limit 0; {}",
            looked.meant,
            far(looked)
        ),
        false => println!("\n{}", far(looked)),
    }
}

/// How far it was looked.
fn far(looked: &AuditLooked) -> String {
    match &looked.back_to {
        Some(back_to) => format!("looked at {} record(s), back to {back_to}", looked.looked_at),
        None => "there is no record".to_owned(),
    }
}

fn row(record: &AuditRecord) -> Vec<String> {
    let from = match record.from {
        AuditFrom::Cli => "cli",
        AuditFrom::Console => "console",
    };
    vec![
        record.at.clone(),
        clean(&record.who()),
        from.to_owned(),
        record.action.clone(),
        clean(&record.what),
        clean(&record.ended()),
        clean(record.reason.as_deref().unwrap_or_default()),
        clean(record.command.as_deref().unwrap_or_default()),
    ]
}

/// The person at this command.
pub fn actor<'a>(connection: &'a Connection, plan: &'a Plan) -> Actor<'a> {
    Actor {
        connection,
        plan,
        by: person::name(&plan.nats),
        from: AuditFrom::Cli,
        warn: |text| note!("warning: {text}"),
    }
}

/// What this command is about to do.
pub fn intent(action: AuditAction, on: &[&str], what: impl Into<String>, reason: Option<&str>) -> AuditIntent {
    AuditIntent {
        action,
        on: on.iter().map(|&name| name.to_owned()).collect(),
        what: what.into(),
        reason: reason.map(str::to_owned),
        command: Some(typed::command()),
    }
}
