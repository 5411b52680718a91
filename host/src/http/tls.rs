//! TLS for a server of HTTP. The certificate is read again when its files change: who renews it restarts nothing.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::server::TlsStream;

use crate::broker::tls::certificates;
use crate::plan::TlsFiles;
use crate::trouble::{self, Weight};

/// How often it is looked whether the files have changed, at most: when a client connects.
const LOOK_EVERY: Duration = Duration::from_secs(5);

const UNREAD: &str = "a certificate that has changed cannot be used, and the one before stays";

/// By which a server of HTTP is known.
pub struct TlsIdentity {
    files: TlsFiles,
    state: Mutex<TlsState>,
}

struct TlsState {
    config: Arc<ServerConfig>,
    /// The server's own certificate.
    own: CertificateDer<'static>,
    /// How the files were when they were read.
    read: [FileStamp; 2],
    looked: Instant,
}

/// A file is another one, or has another content, when this changes. Kubernetes exchanges a symbolic link.
type FileStamp = Option<(u64, i64, i64, u64)>;

impl TlsIdentity {
    /// # Errors
    /// The files cannot be used; the text names one.
    pub fn read(files: &TlsFiles) -> Result<TlsIdentity, String> {
        Ok(TlsIdentity {
            state: Mutex::new(load(files)?),
            files: files.clone(),
        })
    }

    /// The handshake with a client.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.current();
        TlsAcceptor::from(config).accept(stream).await
    }

    fn current(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            if stamps(&self.files) != state.read {
                match load(&self.files) {
                    Ok(loaded) => {
                        *state = loaded;
                        trouble::over(UNREAD, "");
                        tracing::info!(file = %self.files.cert.display(), "the certificate of the admin address is another one now");
                    }
                    // The other file may be written in a moment.
                    Err(why) => {
                        trouble!(
                            Weight::Aside,
                            "",
                            why,
                            { why },
                            "a certificate that has changed cannot be used, and the one before stays"
                        );
                    }
                }
            }
        }
        Arc::clone(&state.config)
    }

    /// Whether the certificate is for this name, or this address.
    pub fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else {
            return false;
        };
        let own = self.state.lock().own.clone();
        ParsedCertificate::try_from(&own).is_ok_and(|own| verify_server_name(&own, &name).is_ok())
    }
}

fn load(files: &TlsFiles) -> Result<TlsState, String> {
    // Before they are read: what is written meanwhile is read again.
    let read = stamps(files);
    let told = |file: &Path, why: String| format!("{}: {why}", file.display());
    let chain = certificates(&files.cert).map_err(|error| told(&files.cert, error.to_string()))?;
    let own = chain.first().cloned();
    let own = own.ok_or_else(|| told(&files.cert, "it holds no certificate in PEM".to_owned()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| told(&files.key, error.to_string()))?;
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|error| told(&files.key, format!("it is not the key of the certificate: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsState {
        config: Arc::new(config),
        own,
        read,
        looked: Instant::now(),
    })
}

fn stamps(files: &TlsFiles) -> [FileStamp; 2] {
    [&files.cert, &files.key].map(|file| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    })
}
