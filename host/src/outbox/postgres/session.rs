//! A connection to a PostgreSQL, and what its errors mean to a person.

use std::error;
use std::future::poll_fn;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row, Socket};

use super::tls::{Encryption, encryption};
use crate::outbox::error::Error;
use crate::plan::{Outbox, OutboxSource, Postgres};

/// How long a statement may take; it waits half of it for a row that a service has locked.
const STATEMENT: Duration = Duration::from_secs(10);
/// How long to wait for a server that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);

/// Connections of one outbox.
pub struct Sessions {
    outbox: String,
    table: String,
    /// Whether its rows are read from the log.
    log: bool,
    /// The name of the database.
    database: String,
    /// The address for people.
    told: String,
    config: Config,
    encryption: Option<Encryption>,
    /// On which rows are told of.
    channel: Option<String>,
    changed: Arc<Notify>,
}

pub struct Session {
    client: Client,
}

/// Why a step is not done.
pub enum Failed {
    Database(tokio_postgres::Error),
    Unanswered,
    NoPosition,
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Failed {
        Failed::Database(error)
    }
}

/// A step, if it does not take too long.
async fn in_time<T>(step: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    timeout(PATIENCE, step).await.unwrap_or(Err(Failed::Unanswered))
}

impl Session {
    fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    pub async fn query(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Failed> {
        Ok(self.client.query_typed(sql, values).await?)
    }

    /// Several statements, in one transaction.
    pub async fn script(&self, sql: &str) -> Result<(), Failed> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

impl Sessions {
    pub fn new(
        outbox: &Outbox,
        address: &Postgres,
        channel: Option<String>,
        changed: Arc<Notify>,
    ) -> Result<Sessions, Error> {
        let told = address.told.clone();
        let unusable = |why: String| Error::Person(format!("database {told}: {why}"));
        let mut config = Config::from_str(&address.url).map_err(|error| unusable(error.to_string()))?;
        if let Some(password) = &address.password {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        let encryption = encryption(address).map_err(|error| unusable(format!("sslrootcert: {error}")))?;
        config
            .application_name(format!("jetmesh outbox {}", outbox.name))
            .tcp_user_timeout(PATIENCE)
            .ssl_mode(match encryption {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        Ok(Sessions {
            outbox: outbox.name.clone(),
            table: outbox.table.clone(),
            log: matches!(outbox.source, OutboxSource::Log { .. }),
            database: address.name.clone(),
            told: address.told.clone(),
            config,
            encryption,
            channel,
            changed,
        })
    }

    pub fn told(&self) -> &str {
        &self.told
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// A step on an open connection. It is a statement, so it is done or not.
    pub async fn run<T>(
        &self,
        opened: &Mutex<Option<Session>>,
        step: impl AsyncFnOnce(&Session) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let mut opened = opened.lock().await;
        let session = match opened.take().filter(Session::is_open) {
            Some(session) => session,
            None => self.open().await?,
        };
        match in_time(step(&session)).await {
            Ok(done) => {
                *opened = Some(session);
                Ok(done)
            }
            // It is opened again: what is wrong may be this connection.
            Err(failed) => Err(self.error(&failed)),
        }
    }

    /// An error that passes.
    pub fn passing(&self, why: String) -> Error {
        Error::Database {
            database: self.told.clone(),
            why,
        }
    }

    /// Connects, and hears from then on when rows are written.
    async fn open(&self) -> Result<Session, Error> {
        let opened = in_time(async {
            let client = match &self.encryption {
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    self.carry(connection);
                    client
                }
                Some(encryption) => {
                    let (client, connection) = self.config.connect(encryption.clone()).await?;
                    self.carry(connection);
                    client
                }
            };
            let (most, wait) = (STATEMENT.as_millis(), STATEMENT.as_millis() / 2);
            // A position that a crash sets back would be taken for that of an older copy.
            let mut set =
                format!("SET statement_timeout = {most}; SET lock_timeout = {wait}; SET synchronous_commit = on;");
            if let Some(channel) = &self.channel {
                set += &format!("LISTEN \"{channel}\"");
            }
            client.batch_execute(&set).await?;
            Ok(Session { client })
        });
        opened.await.map_err(|failed| self.error(&failed))
    }

    /// Carries the bytes of a connection until it or its client ends.
    #[expect(
        clippy::disallowed_methods,
        reason = "like the client's own tasks, it ends with its connection"
    )]
    fn carry<T>(&self, mut connection: Connection<Socket, T>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let changed = Arc::clone(&self.changed);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    changed.notify_one();
                }
            }
            // What is written meanwhile is found by a look.
            changed.notify_one();
        });
    }

    /// What a person is told.
    fn error(&self, failed: &Failed) -> Error {
        let (told, name, table) = (&self.told, &self.outbox, &self.table);
        let error = match failed {
            Failed::Unanswered => return self.passing(format!("no answer in {} s", PATIENCE.as_secs())),
            Failed::NoPosition => return self.unmade("the table of the position is empty"),
            Failed::Database(error) => error,
        };
        let why = chain(error);
        let person = |fix: &str| Error::Person(format!("database {told}: {why}: {fix}"));
        match error.code() {
            Some(&SqlState::UNDEFINED_COLUMN) if !self.log => person(&format!(
                "add the column with `ALTER TABLE {table} ADD COLUMN …`, as `jetmesh outbox init {name}` prints it; the command does not \
                 change a table that is there"
            )),
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN) => self.unmade(&why),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => self.without_right(&why),
            Some(&SqlState::CANNOT_COERCE) => person("make the columns as `jetmesh outbox init` prints them"),
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => person(&format!(
                "correct the user in outbox.{name}.url, and the password in {} or outbox.{name}.password_file",
                variable(name)
            )),
            Some(&SqlState::INVALID_CATALOG_NAME) => person(&format!("correct outbox.{name}.url")),
            _ if why.contains("error deserializing column") => {
                person("make the columns as `jetmesh outbox init` prints them")
            }
            _ if why.contains("password missing") => {
                person(&format!("set {}, or outbox.{name}.password_file", variable(name)))
            }
            _ if why.contains("server does not support TLS") => person(&format!(
                "add `?sslmode=disable` to outbox.{name}.url if the network is trusted"
            )),
            _ if why.contains("invalid peer certificate") => person(&format!(
                "name the certificate that has signed the server's with `&sslrootcert=FILE` in outbox.{name}.url"
            )),
            _ => self.passing(why),
        }
    }

    fn unmade(&self, why: &str) -> Error {
        let (told, name, made) = (&self.told, &self.outbox, self.made_by_the_owner());
        Error::Person(format!(
            "database {told} lacks what outbox {name} needs ({why}): {made} makes it. If it is there in another schema, outbox.{name}.url \
             needs `options=-csearch_path%3DSCHEMA`, and the role of the host `GRANT USAGE ON SCHEMA SCHEMA TO …`"
        ))
    }

    /// What a role may not do that the host must do.
    pub fn without_right(&self, why: &str) -> Error {
        let (told, table) = (&self.told, &self.table);
        let rows = if self.log {
            String::new()
        } else {
            format!("GRANT SELECT, DELETE ON {table} TO …; ")
        };
        let grants = match why.contains("schema") {
            true => "GRANT USAGE ON SCHEMA … TO …".to_owned(),
            false => format!("{rows}GRANT SELECT, UPDATE ON {table}_position TO …"),
        };
        Error::Person(format!(
            "database {told}: {why}: the owner of the database runs `{grants}` for the role of the host; the owner also makes the tables, \
             with `jetmesh outbox init {} | psql {}`",
            self.outbox, self.database
        ))
    }

    /// The command that makes what an outbox needs, as the role of a host may not.
    pub fn made_by_the_owner(&self) -> String {
        let (name, database) = (&self.outbox, &self.database);
        format!("`jetmesh outbox init {name} | psql {database}`, run by the owner of the database,")
    }
}

/// The variable that holds the password of an outbox.
fn variable(outbox: &str) -> String {
    format!(
        "JETMESH_OUTBOX__{}__PASSWORD",
        outbox.to_ascii_uppercase().replace('-', "_")
    )
}

/// An error with its reasons.
fn chain(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    let mut text = error.to_string();
    let mut source = error::Error::source(error);
    while let Some(reason) = source {
        let reason_text = reason.to_string();
        if !text.contains(&reason_text) {
            text = format!("{text}: {reason_text}");
        }
        source = reason.source();
    }
    text
}
