//! A real OCI registry of a test's own, and what a test puts into it and asks it without jetmesh.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::Process;
use super::wait::SOON;
use super::{eventually, skipped, tool};

/// A registry on this machine, with a store of its own.
pub struct OciRegistry {
    pub dir: TempDir,
    pub addr: SocketAddr,
    _process: Process,
}

/// An answer of a registry.
pub struct RegistryAnswer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

/// As a registry names content.
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

impl OciRegistry {
    /// Starts one; `None`, with a line that says so, when this machine has none.
    pub async fn start() -> Option<OciRegistry> {
        OciRegistry::with(|_| String::new()).await
    }

    /// The same with more lines of its configuration, made in its folder.
    pub async fn with(more: impl FnOnce(&Path) -> String) -> Option<OciRegistry> {
        let Some(binary) = tool("docker-registry", "DOCKER_REGISTRY") else {
            skipped("there is no docker-registry: tools/install.sh registry");
            return None;
        };
        let dir = TempDir::with_prefix("jetmesh-oci-").expect("a temporary folder");
        let more = more(dir.path());
        // What is in `more` may be about HTTP as well.
        let http = if more.contains("http: {") {
            ""
        } else {
            "http: { addr: '127.0.0.1:0' }"
        };
        let store = dir.path().join("store");
        let config =
            format!("version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {store:?} }} }}\n{http}\n{more}\n");
        let file = dir.path().join("registry.yml");
        fs::write(&file, config).expect("the folder is ours");
        let log = fs::File::create(dir.path().join("log")).expect("the folder is ours");
        // Requests on the one, everything else on the other.
        let requests = log.try_clone().expect("there are files enough");
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(requests)
            .stderr(log);
        // Those of the developer would change its configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
        let process = Process::spawn("docker-registry", command);
        let addr = eventually("the registry to listen", SOON, async || {
            let log = fs::read_to_string(dir.path().join("log")).expect("its log is readable");
            if let Some(status) = process.ended() {
                panic!("the registry ended while starting, {status}:\n{log}");
            }
            let (_, rest) = log.split_once("listening on ")?;
            rest.split(['"', ',']).next()?.parse().ok()
        })
        .await;
        Some(OciRegistry {
            dir,
            addr,
            _process: process,
        })
    }

    /// A reference to a repository in it.
    pub fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.addr)
    }

    /// What it has logged, with a line for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("its log is readable")
    }

    /// The file in which it keeps a content.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let folder = self.dir.path().join("store/docker/registry/v2/blobs/sha256");
        folder.join(&hex[..2]).join(hex).join("data")
    }

    /// Stores content in a repository; returns its digest.
    pub async fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let begun = ask(self.addr, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").await;
        let place = begun.headers.lines().find_map(|line| line.strip_prefix("Location: "));
        let place = place.unwrap_or_else(|| panic!("no place for an upload: {}", begun.headers));
        let (_, path) = place.trim().split_once("/v2/").expect("it is one of the registry");
        let digest = digest(bytes);
        let stored = ask(self.addr, "PUT", &format!("/v2/{path}&digest={digest}"), &[], bytes).await;
        assert_eq!(stored.status, 201, "{}", stored.headers);
        digest
    }

    /// Stores a manifest under a tag; returns its digest.
    pub async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        let body = manifest.to_string();
        let kind = manifest["mediaType"].as_str().expect("it has a type");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let stored = ask(self.addr, "PUT", &path, &[("Content-Type", kind)], body.as_bytes()).await;
        assert_eq!(stored.status, 201, "{}", String::from_utf8_lossy(&stored.body));
        digest(body.as_bytes())
    }

    /// Stores an artifact with these layers, each with its type and its title; returns its manifest's digest.
    pub async fn put_artifact(&self, repository: &str, config: &str, layers: &[(&str, &str, &[u8])]) -> String {
        let config = json!({ "mediaType": config, "digest": self.put_blob(repository, b"{}").await, "size": 2 });
        let mut described = Vec::new();
        for (kind, title, bytes) in layers {
            let digest = self.put_blob(repository, bytes).await;
            described.push(json!({
                "mediaType": kind, "digest": digest, "size": bytes.len(),
                "annotations": { "org.opencontainers.image.title": title },
            }));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": described,
        });
        self.put_manifest(repository, "1", &manifest).await
    }

    /// The manifest at a tag, and its digest.
    pub async fn manifest(&self, repository: &str, tag: &str) -> (Value, String) {
        let accept = [("Accept", "application/vnd.oci.image.manifest.v1+json")];
        let found = ask(
            self.addr,
            "GET",
            &format!("/v2/{repository}/manifests/{tag}"),
            &accept,
            b"",
        )
        .await;
        assert_eq!(found.status, 200, "{}", found.headers);
        (serde_json::from_slice(&found.body).expect("JSON"), digest(&found.body))
    }

    pub async fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        let found = ask(self.addr, "GET", &format!("/v2/{repository}/blobs/{digest}"), &[], b"").await;
        assert_eq!(found.status, 200, "{}", found.headers);
        found.body
    }
}

/// Sends one request and reads the answer to its end.
pub async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> RegistryAnswer {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(body).await.expect("it reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it answers");
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an answer has headers");
    let headers = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
    RegistryAnswer {
        status: status.expect("an answer has a status"),
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}
