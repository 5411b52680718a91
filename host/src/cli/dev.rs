//! `jetmesh dev`: a whole mesh on this machine, with a nats-server of its own, to try things out.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;

use super::args::Dev;
use super::{Args, Error, OK, UNFINISHED, run::on_signal, run::start_log};
use crate::app;
use crate::broker::consumer::{ConsumerInfo, META_HANDLER};
use crate::broker::provision::{kv_stream, provision};
use crate::broker::{self, By, Connection};
use crate::drain::Drain;
use crate::ledger::entry::key_subject;
use crate::plan::{Handler, Plan};

/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Orders that show what happens: two that succeed, one that cannot be done.
const SAMPLES: [&str; 3] = [
    r#"{"order_id":"o-1","user_id":"u-7","locale":"en","lines":[{"sku":"sku-1","qty":2,"price_cents":1250}],"total_cents":2500}"#,
    r#"{"order_id":"o-2","user_id":"u-8","locale":"zh","lines":[{"sku":"sku-2","qty":1,"price_cents":900}],"total_cents":900}"#,
    r#"{"order_id":"o-3","user_id":"u-7","locale":"en","lines":[{"sku":"sku-3","qty":99}]}"#,
];
const STOCK: [(&str, &str); 3] = [("stock.sku-1", "100"), ("stock.sku-2", "50"), ("stock.sku-3", "5")];

pub async fn run(args: &Args, dev: &Dev) -> Result<u8, Error> {
    let mut plan = args.load()?.plan;
    if args.log.is_none() {
        "info,jetmesh=debug,guest=debug".clone_into(&mut plan.log.filter);
    }
    start_log(&plan)?;
    let drain = Drain::default();
    on_signal(&drain)?;
    let server = Server::start(dev)?;
    plan.nats.url = format!("nats://127.0.0.1:{}", server.port);
    plan.nats.wait = Some(START_LIMIT);
    println!(
        "nats-server at {} (data in {}, kept between starts)",
        plan.nats.url,
        server.dir.display()
    );
    server.listens(&drain).await?;
    let Some(connection) = app::reach(&plan, &drain).await.map_err(|e| server.explain(&e))? else {
        return Ok(OK);
    };
    if !dev.no_samples {
        provision(&connection, &plan).await?;
        seed(&connection).await?;
        drain.spawn_until(samples(connection.clone(), plan.handlers.clone(), drain.clone()));
    }
    print_next(&plan);
    let clean = app::run(plan, drain).await?;
    drop(server);
    Ok(if clean { OK } else { UNFINISHED })
}

/// Stock for the sample orders, where there is none yet.
async fn seed(connection: &Connection) -> Result<(), Error> {
    if connection.stream(&kv_stream("inventory")).await?.is_none() {
        return Ok(());
    }
    for (key, value) in STOCK {
        let subject = key_subject("inventory", key);
        if connection
            .stored(&kv_stream("inventory"), By::Last(&subject))
            .await?
            .is_none()
        {
            connection.publish(&subject, HeaderMap::new(), value.into()).await?;
        }
    }
    Ok(())
}

/// Publishes the sample orders once every handler has its consumer: a handler that says nothing of its start refuses a
/// stream that holds messages before.
async fn samples(connection: Connection, handlers: Vec<Handler>, drain: Drain) {
    for handler in &handlers {
        while !matches!(connection.consumer(&handler.stream, &handler.consumer).await, Ok(Some(c)) if is_of(&c, handler))
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    for order in SAMPLES {
        if drain.has_begun() {
            return;
        }
        if let Err(error) = connection
            .publish("orders.created", HeaderMap::new(), order.into())
            .await
        {
            return tracing::warn!(%error, "a sample order could not be published");
        }
    }
}

fn is_of(consumer: &ConsumerInfo, handler: &Handler) -> bool {
    consumer.metadata(META_HANDLER) == Some(&handler.name)
}

fn print_next(plan: &Plan) {
    let url = &plan.nats.url;
    let program = std::env::args().next().unwrap_or_else(|| "jetmesh".to_owned());
    println!(
        "\ntry next, in another terminal (the nats CLI is in .tools/bin after `make run`):\n\
         \x20 nats -s {url} pub orders.created '{}'\n\
         \x20 nats -s {url} pub orders.created 'not an order'\n\
         \x20 nats -s {url} kv get inventory stock.sku-1\n\
         \x20 nats -s {url} kv put inventory stock.sku-9 10\n\
         \x20 nats -s {url} stream view EVENTS\n\
         \x20 nats -s {url} stream view MESH_DEAD\n\
         \x20 nats -s {url} micro stats jetmesh\n\
         \x20 {program} -s {url} status\n\
         \x20 {program} -s {url} dlq ls\n\
         \x20 {program} -s {url} trace --key order_id=o-3\n\
         Ctrl-C ends both.\n",
        SAMPLES[0].replace("o-1", "o-{{Count}}")
    );
    // The lines above go to standard output, the log to standard error: keep them in order.
    let _ = std::io::stdout().flush();
}

/// The nats-server that this process owns.
struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Server {
    fn start(dev: &Dev) -> Result<Server, Error> {
        let program = find()?;
        let port = free_port(dev.port)?;
        let dir = std::path::absolute(&dev.dir).unwrap_or_else(|_| dev.dir.clone());
        let failed = |what: &str, e: std::io::Error| Error::Failed(format!("{what}: {e}"));
        std::fs::create_dir_all(&dir).map_err(|e| failed(&dir.display().to_string(), e))?;
        let log = std::fs::File::create(dir.join("nats-server.log"))
            .map_err(|e| failed("the server's log cannot be written", e))?;
        let mut command = Command::new(&program);
        command
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--jetstream",
                "--store_dir",
            ])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| failed("the server's log", e))?)
            .stderr(log);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|e| failed(&program.display().to_string(), e))?;
        Ok(Server { child, port, dir })
    }

    /// Waits until the server takes connections.
    async fn listens(&self, drain: &Drain) -> Result<(), Error> {
        let limit = Instant::now() + START_LIMIT;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .is_err()
        {
            if drain.has_begun() || Instant::now() > limit {
                let log = self.dir.join("nats-server.log");
                return Err(Error::Failed(format!(
                    "the nats-server did not start; see {}",
                    log.display()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn explain(&self, error: &broker::Error) -> Error {
        Error::Failed(format!(
            "the nats-server did not start ({error}); see {}",
            self.dir.join("nats-server.log").display()
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap_or(0)) {
            // It may have ended by itself: then there is nobody to tell.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let limit = Instant::now() + Duration::from_secs(5);
        while Instant::now() < limit {
            match self.child.try_wait() {
                Ok(None) => pause(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "at the very end, when nothing else runs")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The kernel ends the server when this process ends, however it ends.
fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // The server leaves Ctrl-C to this process, which drains first.
    command.process_group(0);
    let set =
        || rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into);
    // SAFETY: between fork and exec only this one system call is made, which is async-signal-safe and allocates nothing.
    #[expect(
        unsafe_code,
        reason = "the only way to say something in a child before it becomes another program"
    )]
    unsafe {
        command.pre_exec(set);
    }
}

/// `nats-server` beside the project, or on the PATH.
fn find() -> Result<PathBuf, Error> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(PathBuf::from(".tools/bin")).chain(std::env::split_paths(&paths));
    places
        .map(|place| place.join("nats-server"))
        .find(|file| Path::new(file).is_file())
        .ok_or_else(|| {
            Error::Failed("there is no nats-server on the PATH: `tools/install.sh server` brings one".to_owned())
        })
}

fn free_port(wanted: u16) -> Result<u16, Error> {
    (wanted..wanted.saturating_add(100))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::Failed(format!("no free port from {wanted} on")))
}
