//! A connection to a PostgreSQL for its log, which the client library does not make: login, a command, and then bytes both ways.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::tls::Encryption;

const CONNECT: Duration = Duration::from_secs(5);
/// The answer to the command that begins to send the log: both sides send from then on.
const COPY_BOTH: u8 = b'W';
/// The longest message: a row or message of the log is at most 1 GB.
const MESSAGE_MAX: usize = 1 << 30;

trait LogStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> LogStream for S {}

/// What a server says against something.
#[derive(Debug, Clone)]
pub struct WireRefusal {
    /// A code of PostgreSQL; empty: the server was not reached, or the connection is lost.
    pub code: String,
    pub text: String,
}

impl WireRefusal {
    pub fn unanswered() -> WireRefusal {
        io::Error::from(io::ErrorKind::TimedOut).into()
    }
}

impl From<io::Error> for WireRefusal {
    fn from(error: io::Error) -> WireRefusal {
        WireRefusal {
            code: String::new(),
            text: error.to_string(),
        }
    }
}

fn unexpected(what: &str) -> WireRefusal {
    io::Error::other(format!("the server answers {what} out of turn")).into()
}

pub struct Wire {
    stream: Box<dyn LogStream>,
    read: BytesMut,
}

impl Wire {
    /// Connects to one of the hosts, and logs in for replication.
    pub async fn open(config: &Config, encryption: Option<&Encryption>) -> Result<Wire, WireRefusal> {
        let ports = config.get_ports();
        let mut last = unexpected("nothing");
        for (at, host) in config.get_hosts().iter().enumerate() {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            let opened = timeout(CONNECT, async {
                let mut wire = Wire {
                    stream: dial(host, port, encryption).await?,
                    read: BytesMut::new(),
                };
                wire.log_in(config).await?;
                Ok::<_, WireRefusal>(wire)
            });
            match opened.await {
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(refused)) => last = refused,
                Err(_) => last = io::Error::from(io::ErrorKind::TimedOut).into(),
            }
        }
        Err(last)
    }

    async fn log_in(&mut self, config: &Config) -> Result<(), WireRefusal> {
        let os_user = || std::env::var("USER").unwrap_or_default();
        let user = config.get_user().map_or_else(os_user, str::to_owned);
        let options = format!(
            "{} -c bytea_output=hex -c wal_sender_timeout=10s",
            config.get_options().unwrap_or_default()
        );
        let mut parameters = vec![
            ("user", user.as_str()),
            ("database", config.get_dbname().unwrap_or_default()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("options", options.trim()),
        ];
        parameters.extend(config.get_application_name().map(|name| ("application_name", name)));
        self.write(|out| frontend::startup_message(parameters, out)).await?;
        let no_password = || WireRefusal {
            code: String::new(),
            text: "password missing".to_owned(),
        };
        let password = config.get_password().ok_or_else(no_password);
        loop {
            match self.message().await? {
                Message::AuthenticationOk => {}
                Message::AuthenticationCleartextPassword => {
                    let password = password.clone()?;
                    self.write(|out| frontend::password_message(password, out)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password.clone()?, body.salt());
                    self.write(|out| frontend::password_message(hash.as_bytes(), out))
                        .await?;
                }
                Message::AuthenticationSasl(_) => self.scram(password.clone()?).await?,
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(_) | Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
                _ => return Err(unexpected("to the login")),
            }
        }
    }

    async fn scram(&mut self, password: &[u8]) -> Result<(), WireRefusal> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        self.write(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out))
            .await?;
        let Message::AuthenticationSaslContinue(body) = self.message().await? else {
            return Err(unexpected("to the login"));
        };
        scram.update(body.data())?;
        let second = scram.message().to_vec();
        self.write(|out| frontend::sasl_response(&second, out)).await?;
        let Message::AuthenticationSaslFinal(body) = self.message().await? else {
            return Err(unexpected("to the login"));
        };
        // The server proves that it knows the password.
        Ok(scram.finish(body.data())?)
    }

    /// Asks for one row of texts.
    pub async fn ask(&mut self, command: &str) -> Result<Vec<Option<String>>, WireRefusal> {
        self.write(|out| frontend::query(command, out)).await?;
        let mut row = Vec::new();
        loop {
            match self.message().await? {
                Message::DataRow(body) => {
                    let buffer = body.buffer_bytes().clone();
                    let text = |range: Option<std::ops::Range<usize>>| {
                        Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned()))
                    };
                    row = body.ranges().map(text).collect()?;
                }
                Message::ReadyForQuery(_) => return Ok(row),
                Message::RowDescription(_) | Message::CommandComplete(_) | Message::NoticeResponse(_) => {}
                _ => return Err(unexpected("to a command")),
            }
        }
    }

    /// Begins to receive what a command sends.
    pub async fn begin(&mut self, command: &str) -> Result<(), WireRefusal> {
        self.write(|out| frontend::query(command, out)).await?;
        loop {
            self.fill_message().await?;
            if self.read[0] == COPY_BOTH {
                let length = self.read[1..5].try_into().map_or(0, u32::from_be_bytes) as usize;
                self.read.advance(length + 1);
                return Ok(());
            }
            match self.message().await? {
                Message::NoticeResponse(_) => {}
                _ => return Err(unexpected("to the command")),
            }
        }
    }

    /// The next piece of what is received.
    ///
    /// # Cancel safety
    /// Dropped half-way, nothing is lost.
    pub async fn received(&mut self) -> Result<Bytes, WireRefusal> {
        loop {
            match self.message().await? {
                Message::CopyData(body) => return Ok(body.into_bytes()),
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected("the end of the log")),
            }
        }
    }

    pub async fn send(&mut self, piece: &[u8]) -> Result<(), WireRefusal> {
        self.write(|out| {
            frontend::CopyData::new(piece)?.write(out);
            Ok(())
        })
        .await
    }

    async fn write(&mut self, message: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), WireRefusal> {
        let mut out = BytesMut::new();
        message(&mut out)?;
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn message(&mut self) -> Result<Message, WireRefusal> {
        self.fill_message().await?;
        match Message::parse(&mut self.read)? {
            Some(Message::ErrorResponse(body)) => Err(refused(&body)?),
            Some(message) => Ok(message),
            None => Err(unexpected("half a message")),
        }
    }

    /// Reads until a whole message is there.
    async fn fill_message(&mut self) -> io::Result<()> {
        loop {
            if self.read.len() >= 5 {
                let length = self.read[1..5].try_into().map_or(0, u32::from_be_bytes) as usize;
                if !(4..=MESSAGE_MAX).contains(&length) {
                    return Err(io::Error::other("the server does not speak as PostgreSQL does"));
                }
                if self.read.len() > length {
                    return Ok(());
                }
                self.read.reserve(length + 1 - self.read.len());
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn refused(body: &ErrorResponseBody) -> Result<WireRefusal, WireRefusal> {
    let mut refused = WireRefusal {
        code: String::new(),
        text: String::new(),
    };
    let mut fields = body.fields();
    while let Some(field) = fields.next()? {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => refused.code = text,
            b'M' => refused.text = text,
            _ => {}
        }
    }
    Ok(refused)
}

async fn dial(host: &Host, port: u16, encryption: Option<&Encryption>) -> Result<Box<dyn LogStream>, WireRefusal> {
    let mut stream: Box<dyn LogStream> = match host {
        Host::Unix(folder) => {
            return Ok(Box::new(
                UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?,
            ));
        }
        Host::Tcp(name) => {
            let stream = TcpStream::connect((name.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    let (Some(encryption), Host::Tcp(name)) = (encryption, host) else {
        return Ok(stream);
    };
    let mut ask = BytesMut::new();
    frontend::ssl_request(&mut ask);
    stream.write_all(&ask).await?;
    if stream.read_u8().await? != b'S' {
        return Err(io::Error::other("server does not support TLS").into());
    }
    Ok(Box::new(encryption.connect(name, stream).await?))
}
