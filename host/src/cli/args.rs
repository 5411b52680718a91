//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::dlq::Dlq;
use super::retrying::Retrying;
use super::schema::Schema;
use super::trace::Trace;
use crate::compile;
use crate::config::{Loaded, Overrides, load};

/// An event mesh on NATS JetStream: sandboxed WebAssembly handlers, effects exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "jetmesh",
    version,
    max_term_width = 110,
    next_help_heading = "Options of all commands",
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage, configuration or module; 3 NATS not reached in time; \
                  4 NATS cannot be used as it is; 5 a shutdown left work unfinished, which will be delivered again; \
                  130 ended at once by a second signal; 141 nobody read what it printed."
)]
pub struct Args {
    /// The configuration file [default: ./jetmesh.toml, else ./config/default.toml]
    #[arg(short, long, global = true, value_name = "FILE", env = "JETMESH_CONFIG")]
    pub config: Option<PathBuf>,
    /// NATS server, over `nats.url` of the configuration
    #[arg(short, long, global = true, value_name = "URL", env = "NATS_URL")]
    pub server: Option<String>,
    /// A context of the `nats` CLI to connect with
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// User name
    #[arg(long, global = true, value_name = "NAME", env = "NATS_USER")]
    pub user: Option<String>,
    /// Password
    #[arg(
        long,
        global = true,
        value_name = "PASSWORD",
        env = "NATS_PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<String>,
    /// Credentials file
    #[arg(long, global = true, value_name = "FILE", env = "NATS_CREDS")]
    pub creds: Option<PathBuf>,
    /// File with an nkey seed
    #[arg(long, global = true, value_name = "FILE", env = "NATS_NKEY")]
    pub nkey: Option<PathBuf>,
    /// How long to wait for NATS at start: a duration such as 30s, 0 to fail at once, or `forever`
    #[arg(long, global = true, value_name = "DURATION")]
    pub wait: Option<String>,
    /// What is logged: a level or a filter such as jetmesh=debug
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
    /// Run a host: the production start
    Run,
    /// Try everything on this machine: starts its own nats-server, seeds stock, publishes sample orders
    Dev(Dev),
    /// Validate configuration and modules, without touching NATS
    Check(Check),
    /// Print the effective configuration, secrets hidden
    Config,
    /// How each handler stands
    Status(Status),
    /// Dead letters: find, understand, replay
    #[command(subcommand)]
    Dlq(Box<Dlq>),
    // Its help is with its arguments.
    Retrying(Retrying),
    // So is this one's.
    Trace(Box<Trace>),
    /// Print the JSON schema of what a command prints with --json
    Schema(Schema),
    /// Let a handler begin anew, at its start; says first what would go
    Reset(Reset),
    /// What a host starts for each module: a component on standard input, compiled to standard output
    #[command(name = compile::COMMAND, hide = true)]
    CompileModule {
        /// With the lowest priority
        #[arg(long)]
        aside: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct Dev {
    /// Port of the nats-server; if it is taken, the next free one
    #[arg(long, default_value_t = 4222)]
    pub port: u16,
    /// Where the server keeps its data between starts
    #[arg(long, default_value = ".jetmesh", value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Neither seed stock nor publish sample orders
    #[arg(long)]
    pub no_samples: bool,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Also check what only the server knows; changes nothing there
    #[arg(long)]
    pub connect: bool,
    /// Events a second, to say what it costs to know message ids again
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Reset {
    /// As the configuration names it; no host may serve it meanwhile
    pub handler: String,
    /// Also remove every key of its bucket, which must be its alone
    #[arg(long)]
    pub state: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

impl Args {
    /// The configuration with everything that the command line says over it.
    pub fn load(&self) -> Result<Loaded, crate::config::Error> {
        load(self.config.as_deref(), &self.overrides())
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            nats_url: self.server.clone(),
            context: self.context.clone(),
            creds: self.creds.clone(),
            nkey: self.nkey.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            wait: self.wait.clone(),
            log_filter: self.log.clone(),
            log_format: self.log_format.clone(),
        }
    }
}
