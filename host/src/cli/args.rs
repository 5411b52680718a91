//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::audit::AuditCommand;
use super::console::ConsoleCommand;
use super::delayed::DelayedCommand;
use super::dlq::Dlq;
use super::health::HealthCommand;
use super::modules::ModulesCommand;
use super::outbox::OutboxCommand;
use super::pause::{PauseHandlers, ResumeHandlers};
use super::redrive::RedriveCommand;
use super::retrying::Retrying;
use super::schedule::ScheduleCommand;
use super::schema::Schema;
use super::table;
use super::text;
use super::top::Top;
use super::trace::Trace;
use crate::config::{Loaded, Overrides, load};

const EXIT_CODES: &str = "Exit codes:
    0  done
    1  failed
    2  wrong usage, configuration or module
    3  NATS not reached in time
    4  NATS cannot be used as it is
    5  a shutdown left work unfinished; the server delivers it again
    6  what was asked about does not serve (`status`, `health`, `dlq replay`)
  130  ended by Ctrl-C (SIGINT); a host only by a second signal
  141  the reader of its output closed the pipe
  143  ended by SIGTERM; a host shuts down instead";

/// The width of help that goes to no terminal, or to a wider one.
const HELP_COLUMNS: usize = 80;
const HELP_COLUMNS_MAX: usize = 110;

/// An event mesh on NATS JetStream: sandboxed WebAssembly handlers, effects exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "jetmesh",
    version,
    next_help_heading = "Options of all commands",
    after_help = EXIT_CODES
)]
pub struct Args {
    /// The configuration file [default: ./jetmesh.toml, else ./config/default.toml] [env: JETMESH_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// URL of the NATS server; replaces `nats.url` of the configuration [env: NATS_URL]
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// A context of the `nats` CLI to connect with
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// User name, or a token if there is no password [env: NATS_USER]
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Password [env: NATS_PASSWORD]
    #[arg(long, global = true, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Credentials file [env: NATS_CREDS]
    #[arg(long, global = true, value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// File with an nkey seed [env: NATS_NKEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub nkey: Option<PathBuf>,
    /// How long to wait for NATS at start: a duration such as 30s, 0 to fail at once, or `forever`
    #[arg(long, global = true, value_name = "DURATION")]
    pub wait: Option<String>,
    /// Log level, or a filter such as jetmesh=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log format: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a host in production
    Run(AdminArgs),
    /// Run a host for development, with a nats-server of its own
    Dev(Dev),
    /// Validate the configuration and the modules; with --connect, also what is in NATS
    Check(Check),
    /// Print the effective configuration; secrets are hidden
    Config,
    /// Show whether each handler, ledger, relay and outbox serves, and how many events wait
    Status(Status),
    Health(HealthCommand),
    // Its help is with its arguments; so is that of others below.
    Top(Top),
    Console(ConsoleCommand),
    /// Find, inspect, correct, replay and discard dead letters
    #[command(subcommand)]
    Dlq(Box<Dlq>),
    /// Make, show, pause and resume outboxes, which carry rows of a database into NATS
    #[command(subcommand)]
    Outbox(OutboxCommand),
    #[command(subcommand)]
    Modules(Box<ModulesCommand>),
    Pause(PauseHandlers),
    Resume(ResumeHandlers),
    Retrying(Retrying),
    Delayed(DelayedCommand),
    Trace(Box<Trace>),
    Audit(AuditCommand),
    /// Show, pause and resume the replays of dead letters that the mesh makes by itself
    #[command(subcommand)]
    Redrive(RedriveCommand),
    /// List, pause, resume and run the schedules of the mesh
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Print the JSON schema of the output of a command with --json
    Schema(Schema),
    /// Let a handler process its events again from its start; asks before it deletes anything
    Reset(Reset),
}

#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// Address of this machine for the console, metrics and health, such as 127.0.0.1:9464; replaces `admin.listen` of the
    /// configuration
    #[arg(long = "admin", value_name = "ADDR")]
    pub listen: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Dev {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Port of the nats-server; if it is taken, the next free one is used
    #[arg(long, default_value_t = 4222)]
    pub port: u16,
    /// Folder for the data of the nats-server; it is kept between starts
    #[arg(long, default_value = ".jetmesh", value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Reset this handler before it starts, as `jetmesh reset` does
    #[arg(long, value_name = "HANDLER")]
    pub reset: Vec<String>,
    /// Put no stock for sample orders into the bucket `inventory`
    #[arg(long)]
    pub no_samples: bool,
    /// Program to run beside the host, such as a service that uses the mesh; it is given NATS_URL, and ends with the host
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Also check what is in NATS; this changes nothing
    #[arg(long)]
    pub connect: bool,
    /// Events per second, for the estimate of what it costs to remember message ids
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every two seconds, or after this time, until Ctrl-C; with --json, each time on one line
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = text::pause)]
    pub watch: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub struct Reset {
    /// Name of the handler in the configuration; no host may serve it
    pub handler: String,
    /// Also delete every key of its bucket; no other handler may use the bucket
    #[arg(long)]
    pub state: bool,
    /// Delete nothing: the handler has another bucket now, and the events that it decided stay decided
    #[arg(long, conflicts_with = "state")]
    pub keep_decided: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// At the end of a command's help, in place of a page of options that are the same everywhere.
const ELSEWHERE: &str = "Options of all commands, such as --config and --server: jetmesh --help";

impl Args {
    /// Reads the command line. `Err`: help that was asked for, or what is wrong.
    pub fn read() -> Result<Args, clap::Error> {
        let columns = table::terminal_columns().map_or(HELP_COLUMNS, |columns| columns.min(HELP_COLUMNS_MAX));
        let mut command = Args::command().term_width(columns);
        // Now each command has the global options as its own.
        command.build();
        let command = command.mut_subcommands(without_globals);
        Args::from_arg_matches(&command.try_get_matches()?)
    }

    /// The configuration with everything that the command line says over it.
    pub fn load(&self) -> Result<Loaded, crate::config::Error> {
        load(self.config_file().as_deref(), &self.overrides())
    }

    /// The configuration that is named, if one is.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.config
            .clone()
            .or_else(|| variable("JETMESH_CONFIG").map(PathBuf::from))
    }

    /// The same for a command that only looks at a mesh: it says that something is wrong, and goes on.
    pub fn look(&self) -> Result<Loaded, crate::config::Error> {
        let loaded = crate::config::look(self.config_file().as_deref(), &self.overrides())?;
        if !loaded.problems.is_empty() {
            note!(
                "warning: {} has {} problem(s), with which no host starts: `jetmesh check` names them",
                loaded.path.display(),
                loaded.problems.len()
            );
        }
        Ok(loaded)
    }

    fn overrides(&self) -> Overrides {
        let text = |flag: &Option<String>, name: &str| {
            let of_variable = || variable(name).map(|value| value.to_string_lossy().into_owned());
            flag.clone().or_else(of_variable)
        };
        let file = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        Overrides {
            nats_url: text(&self.server, "NATS_URL"),
            context: self.context.clone(),
            creds: file(&self.creds, "NATS_CREDS"),
            nkey: file(&self.nkey, "NATS_NKEY"),
            user: text(&self.user, "NATS_USER"),
            password: text(&self.password, "NATS_PASSWORD"),
            wait: self.wait.clone(),
            log_filter: self.log.clone(),
            log_format: self.log_format.clone(),
            admin: match &self.command {
                Command::Run(admin) | Command::Dev(Dev { admin, .. }) => admin.listen.clone(),
                Command::Health(health) => health.listen.clone(),
                _ => None,
            },
        }
    }
}

/// A command whose help leaves out the options of all commands.
fn without_globals(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let hidden = arg.is_hide_set() || arg.is_global_set();
        arg.hide(hidden)
    });
    let command = match command.get_after_help() {
        None => command.after_help(ELSEWHERE),
        Some(_) => command,
    };
    command.mut_subcommands(without_globals)
}

/// A variable of the environment. An empty one counts as not set; clap would take it, and print its value in `--help`.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
