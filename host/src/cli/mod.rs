//! The command line. Each command is a file; what they print is for people, exit codes are for scripts.

#[macro_use]
mod text;

mod args;
mod ask;
mod audit;
mod check;
mod console;
mod delayed;
mod dev;
mod dlq;
#[cfg(test)]
mod documented;
mod editor;
mod health;
mod modules;
mod outbox;
mod pause;
mod pretty;
mod redrive;
mod reset;
mod retrying;
mod run;
mod schedule;
mod schema;
mod status;
mod stop;
mod table;
mod top;
mod trace;

use std::borrow::Cow;
use std::io::Write as _;
use std::process::ExitCode;

use args::Args;
use args::Command;

use crate::app;
use crate::broker;
use crate::config;
use crate::plan::{Handler, Plan};
use crate::process::limits;
use crate::text::display::shown;
use crate::text::secret;
use crate::wasm::compile::{self, Priority};

/// Everything went well.
const OK: u8 = 0;
/// Something failed at work.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; clap ends with this as well.
const USAGE: u8 = 2;
/// NATS could not be reached in time.
const UNREACHABLE: u8 = 3;
/// NATS, or what lies in it, cannot be used as it is; the message says what to change.
const REFUSED: u8 = 4;
/// A shutdown had to leave work unfinished; the server will deliver it again.
const UNFINISHED: u8 = 5;
/// No host answers, or a handler, ledger, relay or outbox does not serve.
const UNSERVED: u8 = 6;

/// Why a command ends with another code than 0.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    App(#[from] app::Error),
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Outbox(#[from] crate::outbox::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Unserved(String),
}

impl Error {
    fn code(&self) -> u8 {
        match self {
            Error::Config(_) | Error::Usage(_) | Error::App(app::Error::Modules(_)) => USAGE,
            Error::Broker(error) | Error::App(app::Error::Broker(error)) => code_of(error),
            Error::Outbox(crate::outbox::Error::Broker(error)) => code_of(error),
            Error::Outbox(crate::outbox::Error::Person(_)) => REFUSED,
            Error::Outbox(
                crate::outbox::Error::Busy | crate::outbox::Error::Database { .. } | crate::outbox::Error::Moved,
            ) => FAILED,
            Error::Unserved(_) => UNSERVED,
            Error::App(app::Error::Engine(_) | app::Error::Thread(_) | app::Error::Spans(_)) | Error::Failed(_) => {
                FAILED
            }
        }
    }
}

/// Of an error of NATS.
/// The handler of this name in the configuration.
fn handler_named<'a>(plan: &'a Plan, name: &str) -> Result<&'a Handler, Error> {
    plan.handlers
        .iter()
        .find(|handler| handler.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = plan.handlers.iter().map(|handler| handler.name.as_str()).collect();
            Error::Usage(format!(
                "there is no handler {name}: the configuration has {}",
                names.join(", ")
            ))
        })
}

fn code_of(error: &broker::Error) -> u8 {
    match error {
        broker::Error::Connect { .. } | broker::Error::Crowded { .. } => UNREACHABLE,
        broker::Error::Refused(_)
        | broker::Error::OldServer { .. }
        | broker::Error::NoJetStream
        | broker::Error::NoApi { .. }
        | broker::Error::Credentials { .. }
        | broker::Error::Unauthorized { .. }
        | broker::Error::Denied { .. }
        | broker::Error::Unreadable { .. } => REFUSED,
        broker::Error::Api { .. }
        | broker::Error::NoResponders { .. }
        | broker::Error::Undecided { .. }
        | broker::Error::Timeout { .. }
        | broker::Error::Gone { .. }
        | broker::Error::Missing { .. }
        | broker::Error::NotYet(_)
        | broker::Error::Answer { .. } => FAILED,
    }
}

/// What a shell makes of a program that SIGPIPE has ended.
const UNREAD: u8 = 141;

/// A command that prints into a closed pipe, as `jetmesh dlq ls | head` does, ends without a message; into a full disk,
/// with the reason. Else both would panic.
fn end_when_nothing_can_be_printed() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        match text.strip_prefix(text::UNPRINTED) {
            None => usual(panic),
            Some(why) => std::process::exit(unprinted(why).into()),
        }
    }));
}

/// Why standard output took nothing: says it, and returns the exit code.
fn unprinted(why: &str) -> u8 {
    if why.starts_with("Broken pipe") {
        return UNREAD;
    }
    note!("error: cannot write to standard output: {why}");
    FAILED
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == compile::COMMAND) {
        // No command for people: it is in no help, and suggested for no other word.
        return compile_module(words.any(|word| word == "--aside"));
    }
    match Args::read() {
        Ok(args) => command(&args),
        Err(error) => ExitCode::from(not_run(&error)),
    }
}

/// Help that was asked for, or what is wrong with the command line. Returns the exit code.
fn not_run(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        return printed.map_or_else(|why| unprinted(&why.to_string()), |()| OK);
    }
    // It quotes what was typed: a secret may be in it.
    let text = error.render().to_string();
    if secret::is_in(&text) || matches!(shown(&text), Cow::Owned(_)) {
        note!("{}", secret::hide(text.trim_end()));
    } else {
        // On a terminal it has colours.
        let _ = error.print();
    }
    USAGE
}

fn command(args: &Args) -> ExitCode {
    end_when_nothing_can_be_printed();
    limits::raise_open_files();
    // Those of the runtime: its worker, and what blocks.
    if let Err(why) = limits::enough(2) {
        note!("error: {why}");
        return ExitCode::from(FAILED);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            note!("error: no runtime: {}", limits::told(&error));
            return ExitCode::from(FAILED);
        }
    };
    let done = runtime.block_on(async {
        limits::outlive_file_size();
        match &args.command {
            Command::Run(_) => return run::run(args).await,
            Command::Dev(dev) => return dev::run(args, dev).await,
            _ => {}
        }
        let stop = stop::Stop::listen()?;
        match &args.command {
            Command::Run(_) | Command::Dev(_) => unreachable!("a host has its own"),
            Command::Check(check) => check::run(args, check).await,
            Command::Config => check::print_config(args),
            Command::Console(console) => console::run(args, console).await,
            Command::Health(asked) => health::run(args, asked).await,
            Command::Status(status) => status::run(args, status).await,
            Command::Top(_) => top::run(args, &stop).await,
            Command::Dlq(dlq) => dlq::run(args, dlq, &stop).await,
            Command::Retrying(retrying) => retrying::run(args, retrying).await,
            Command::Delayed(delayed) => delayed::run(args, delayed).await,
            Command::Trace(trace) => trace::run(args, trace, &stop).await,
            Command::Audit(asked) => audit::run(args, asked).await,
            Command::Outbox(command) => outbox::run(args, command).await,
            Command::Redrive(command) => redrive::run(args, command).await,
            Command::Modules(command) => modules::run(args, command).await,
            Command::Pause(asked) => pause::pause(args, asked).await,
            Command::Resume(asked) => pause::resume(args, asked).await,
            Command::Schema(schema) => schema::run(schema),
            Command::Reset(reset) => reset::run(args, reset).await,
            Command::Schedule(schedule) => schedule::run(args, schedule, &stop).await,
        }
    });
    text::flush();
    // Threads that a shutdown left behind must not hold the process.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = secret::hide(&error.to_string());
            note!("{}{text}", if text.starts_with("error") { "" } else { "error: " });
            ExitCode::from(error.code())
        }
    }
}

/// The whole of a child that compiles. It reports what is wrong with the module to the host, which prints it in its own words.
fn compile_module(aside: bool) -> ExitCode {
    end_when_nothing_can_be_printed();
    let priority = if aside { Priority::Lowest } else { Priority::Usual };
    let (code, why) = match compile::child(priority) {
        Ok(()) => return ExitCode::from(OK),
        Err(compile::Child::Module(why)) => (compile::INVALID, why),
        Err(compile::Child::Host(why)) => (compile::UNABLE, why),
    };
    note!("{why}");
    ExitCode::from(code)
}
