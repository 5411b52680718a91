//! `jetmesh outbox`: the tables of outboxes, and what a person does with them.

use clap::Subcommand;

use super::audit::{actor, intent};
use super::status::outbox::print;
use super::text::json_line;
use super::{Args, Error, OK, UNSERVED, ask};
use crate::broker::{self, Connection};
use crate::mesh_streams::audit::{AuditAction, AuditEnd};
use crate::micro;
use crate::outbox::{self, Skipped};
use crate::plan::{Outbox, OutboxSource, Plan};
use crate::report::outbox::stand;

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// Print the SQL that makes the tables of an outbox; with --yes, run it
    Init(Init),
    /// Show how each outbox stands, and how many rows wait
    Status(OutboxStatusArgs),
    /// Publish nothing more of an outbox, on any host, until it is resumed
    Pause(PauseArgs),
    /// Publish again what a paused outbox holds
    Resume(Resume),
    /// Make a row a dead letter, so that the rows behind it continue
    Skip(Skip),
}

#[derive(Debug, clap::Args)]
pub struct Init {
    /// Name of the outbox in the configuration
    pub name: String,
    /// Run the SQL, and make a file of SQLite if it is not there
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, clap::Args)]
pub struct OutboxStatusArgs {
    /// Name of the outbox; without a name, all
    pub name: Option<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Name of the outbox in the configuration
    pub name: String,
    /// Why, for people who look at the status
    #[arg(long, value_name = "TEXT", default_value = "by a person")]
    pub reason: String,
}

#[derive(Debug, clap::Args)]
pub struct Resume {
    /// Name of the outbox in the configuration
    pub name: String,
    /// The database is another one than before, and takes its place
    #[arg(long)]
    pub new_database: bool,
}

#[derive(Debug, clap::Args)]
pub struct Skip {
    /// Name of the outbox in the configuration
    pub name: String,
    /// The row's id; in a log its place, such as 0/16B3748
    #[arg(allow_hyphen_values = true)]
    pub id: String,
    /// Why, for the dead letter
    #[arg(long, value_name = "TEXT", default_value = "skipped by a person")]
    pub reason: String,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// How markers name who has written them.
const PERSON: &str = "jetmesh outbox";

pub async fn run(args: &Args, command: &OutboxCommand) -> Result<u8, Error> {
    match command {
        OutboxCommand::Status(status) => return show(args, status).await,
        OutboxCommand::Init(init) => return make(args, init).await,
        OutboxCommand::Pause(_) | OutboxCommand::Resume(_) | OutboxCommand::Skip(_) => {}
    }
    let loaded = args.load()?;
    let plan = &loaded.plan;
    match command {
        OutboxCommand::Init(_) | OutboxCommand::Status(_) => Ok(OK),
        OutboxCommand::Pause(pause) => {
            let outbox = named(plan, &pause.name)?;
            let connection = connect(plan).await?;
            let intent = intent(
                AuditAction::OutboxPause,
                &[&pause.name],
                &pause.name,
                Some(&pause.reason),
            );
            let act = outbox::pause(&connection, outbox, PERSON, &pause.reason);
            let told = |paused: &bool| changed("paused", *paused);
            match actor(&connection, plan).acts(intent, act, told).await? {
                true => println!("outbox {} is paused: its rows wait in the table", outbox.name),
                false => println!("outbox {} is paused already", outbox.name),
            }
            Ok(OK)
        }
        OutboxCommand::Resume(resume) => {
            let outbox = named(plan, &resume.name)?;
            let connection = connect(plan).await?;
            let intent = intent(AuditAction::OutboxResume, &[&resume.name], &resume.name, None);
            let act = outbox::resume(&connection, outbox, PERSON, resume.new_database);
            let told = |resumed: &bool| changed("resumed", *resumed);
            match actor(&connection, plan).acts(intent, act, told).await? {
                true => println!(
                    "outbox {} is no longer paused: a host that relays it publishes within about three seconds",
                    outbox.name
                ),
                false => println!("outbox {} is not paused", outbox.name),
            }
            Ok(OK)
        }
        OutboxCommand::Skip(one) => skip(plan, one).await,
    }
}

async fn skip(plan: &Plan, skip: &Skip) -> Result<u8, Error> {
    let outbox = named(plan, &skip.name)?;
    let id = outbox
        .row_id(&skip.id)
        .map_err(|wanted| Error::Usage(format!("\"{}\" is not {wanted}", skip.id.escape_debug())))?;
    let row = outbox.row_name(id);
    if !skip.yes {
        let question = format!("Make row {row} of outbox {} a dead letter?", outbox.name);
        ask::confirmed(&question, "nothing is changed")?;
    }
    let connection = connect(plan).await?;
    let what = (PERSON, id, skip.reason.as_str());
    let intent = intent(
        AuditAction::OutboxSkip,
        &[&skip.name],
        format!("row {row}"),
        Some(&skip.reason),
    );
    let act = outbox::skip(&connection, plan, outbox, what);
    match actor(&connection, plan).acts(intent, act, Skipped::recorded).await? {
        Skipped::Dead => {
            println!("row {row} is a dead letter: `jetmesh dlq ls --handler {}`", outbox.name);
            Ok(OK)
        }
        Skipped::Noted => {
            println!("row {row} becomes a dead letter when a host reads it");
            Ok(OK)
        }
        Skipped::Gone => Err(Error::Failed(format!(
            "table {} has no row {row}: it is published, or was never there",
            outbox.table
        ))),
    }
}

fn changed(what: &str, changed: bool) -> AuditEnd {
    AuditEnd::done(&[(what, u64::from(changed)), ("unchanged", u64::from(!changed))])
}

async fn connect(plan: &Plan) -> Result<Connection, Error> {
    Ok(broker::open_guarded(&plan.nats, "jetmesh outbox").await?)
}

fn named<'a>(plan: &'a Plan, name: &str) -> Result<&'a Outbox, Error> {
    plan.outboxes.iter().find(|outbox| outbox.name == name).ok_or_else(|| {
        let names: Vec<&str> = plan.outboxes.iter().map(|outbox| outbox.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => "the configuration has no [outbox.NAME]".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Error::Usage(format!("there is no outbox {name}; {known}"))
    })
}

async fn make(args: &Args, init: &Init) -> Result<u8, Error> {
    let loaded = args.load()?;
    let outbox = named(&loaded.plan, &init.name)?;
    if !init.yes {
        print!("{}", outbox::sql(outbox));
        return Ok(OK);
    }
    outbox::init(outbox).await?;
    let made = match outbox.source {
        OutboxSource::Table => format!("table {}", outbox.table),
        OutboxSource::Log { .. } => format!("table {}_position, the publication and the slot", outbox.table),
    };
    println!("{}: {made}: there", outbox.database.told());
    Ok(OK)
}

async fn show(args: &Args, status: &OutboxStatusArgs) -> Result<u8, Error> {
    let loaded = args.look()?;
    let plan = &loaded.plan;
    let outboxes: Vec<&Outbox> = match &status.name {
        Some(name) => vec![named(plan, name)?],
        None => plan.outboxes.iter().collect(),
    };
    let connection = connect(plan).await?;
    let hosts = micro::hosts(&connection, &plan.mesh).await;
    if let Err(error) = &hosts {
        note!("warning: which hosts there are is not known: {error}");
    }
    let mut all = Vec::new();
    for outbox in outboxes {
        all.push(stand(&connection, outbox, hosts.as_deref().ok()).await);
    }
    match status.json {
        true => all.iter().for_each(|one| println!("{}", json_line(one))),
        false => print(&all),
    }
    Ok(if all.iter().all(|one| one.serves()) {
        OK
    } else {
        UNSERVED
    })
}
