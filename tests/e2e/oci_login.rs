//! Logins of OCI registries: where they are found, where they go, and that nothing prints them.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::mesh::{Config, Mesh};
use crate::oci::{jetmesh, pushed_without_nats, refused};
use crate::support::oci::{OciRegistry, digest};
use crate::support::{modules, skipped};

const USER: &str = "anna";
const PASSWORD: &str = "correct-horse";
/// The same with bcrypt, as `htpasswd -B` writes it.
const HTPASSWD: &str = "anna:$2y$05$abcdefghijklmnopqrstuuZ0Fx87Pb/Aqb0E90lfvCwzXnaFKUHpS\n";

/// A registry that wants the name and the password.
async fn guarded() -> Option<OciRegistry> {
    let auth = |dir: &Path| {
        fs::write(dir.join("htpasswd"), HTPASSWD).expect("the folder is ours");
        format!(
            "auth: {{ htpasswd: {{ realm: test, path: {:?} }} }}",
            dir.join("htpasswd")
        )
    };
    OciRegistry::with(auth).await
}

/// A file of logins with this password; returns its path.
fn logins(dir: &Path, file: &str, host: &str, password: &str) -> String {
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let path = dir.join(file);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder is ours");
    fs::write(&path, json!({ "auths": { host: { "auth": auth } } }).to_string()).expect("the folder is ours");
    path.to_str().expect("UTF-8").to_owned()
}

/// A mesh that has the probe as version 1.0.0, and the arguments that name it.
async fn with_probe() -> (Mesh, String) {
    // No handler: a machine that only builds modules has none.
    let mesh = Mesh::new(Config::new()).await;
    let config = mesh.write_config().to_str().expect("UTF-8").to_owned();
    let probe = modules::handler("probe");
    let probe = probe.to_str().expect("UTF-8");
    mesh.jetmesh_ok(&["modules", "push", probe, "--as", "probe", "--version", "1.0.0"])
        .await;
    (mesh, config)
}

/// Writes the probe to a registry and reads it back, with these variables. Neither says the password.
async fn there_and_back(mesh: &Mesh, config: &str, reference: &str, env: &[(&str, &str)]) {
    let dir = mesh.dir.path();
    let pull = ["modules", "pull", "probe", "1.0.0", "-o", reference, "--config", config];
    let push = [
        "modules", "push", reference, "--as", "again", "--config", config, "--json",
    ];
    for args in [&pull[..], &push[..]] {
        let (status, stdout, stderr) = jetmesh(dir, args, env).await;
        assert!(status.success(), "{args:?} {env:?}: {stdout}{stderr}");
        assert!(!format!("{stdout}{stderr}").contains(PASSWORD));
        if args == push {
            let pushed: Value = serde_json::from_str(&stdout).expect("JSON");
            let probe = fs::read(modules::handler("probe")).expect("the probe is readable");
            assert_eq!(
                format!("sha256:{}", pushed["digest"].as_str().expect("a digest")),
                digest(&probe)
            );
        }
    }
}

#[tokio::test]
async fn a_registry_is_logged_in_to_as_docker_and_podman_have_kept_it() {
    let Some(registry) = guarded().await else {
        return;
    };
    let (mesh, config) = with_probe().await;
    let (dir, host) = (mesh.dir.path().to_owned(), registry.addr.to_string());
    let reference = |n: u32| registry.reference(&format!("acme/probe:{n}"));
    let why = refused(&dir, &reference(0), &[], &[]).await;
    assert!(
        why.contains(&format!("registry {host}: it wants a login")) && why.contains(&format!("docker login {host}")),
        "{why}"
    );
    let named = logins(&dir, "logins.json", &host, PASSWORD);
    there_and_back(&mesh, &config, &reference(1), &[("REGISTRY_AUTH_FILE", &named)]).await;
    let folder = logins(&dir, "docker/config.json", &host, PASSWORD);
    let folder = Path::new(&folder).parent().expect("a folder").to_str().expect("UTF-8");
    there_and_back(&mesh, &config, &reference(2), &[("DOCKER_CONFIG", folder)]).await;
    logins(&dir, ".docker/config.json", &host, PASSWORD);
    there_and_back(&mesh, &config, &reference(3), &[]).await;
    // A file that is named counts alone, and one with a wrong password is named.
    let wrong = logins(&dir, "wrong.json", &host, "wrong-donkey");
    let why = refused(&dir, &reference(1), &[], &[("REGISTRY_AUTH_FILE", &wrong)]).await;
    assert!(
        why.contains(&format!("does not take the login of {wrong}")) && !why.contains("wrong-donkey"),
        "{why}"
    );
    let why = refused(&dir, &reference(1), &[], &[("REGISTRY_AUTH_FILE", "/none/logins.json")]).await;
    assert!(why.contains("/none/logins.json: No such file"), "{why}");
    let other = logins(&dir, "other.json", "ghcr.io", PASSWORD);
    let why = refused(&dir, &reference(1), &[], &[("REGISTRY_AUTH_FILE", &other)]).await;
    assert!(why.contains("it wants a login, and there is none"), "{why}");
    let with_login = format!("oci://anna:{PASSWORD}@{host}/a:1");
    let (status, _, why) = pushed_without_nats(&dir, &with_login, &[], &[]).await;
    assert_eq!(status.code(), Some(2));
    assert!(
        why.contains("a login does not belong here") && !why.contains(PASSWORD),
        "{why}"
    );
}

#[tokio::test]
async fn a_credential_helper_is_asked_and_one_that_fails_is_named() {
    let Some(registry) = guarded().await else {
        return;
    };
    let (mesh, config) = with_probe().await;
    let dir = mesh.dir.path();
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("the folder is ours");
    let helper = |name: &str, script: &str| {
        let path = bin.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    };
    let host = registry.addr;
    helper(
        "good",
        &format!(r#"read host; [ "$host" = {host} ] && echo '{{"Username":"{USER}","Secret":"{PASSWORD}"}}'"#),
    );
    helper(
        "bad",
        &format!("cat >/dev/null; echo {PASSWORD}; echo {PASSWORD} >&2; exit 1"),
    );
    helper(
        "none",
        "cat >/dev/null; echo credentials not found in native keychain; exit 1",
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("there is one"));
    let file = dir.join("helped.json");
    let env = [
        ("REGISTRY_AUTH_FILE", file.to_str().expect("UTF-8")),
        ("PATH", path.as_str()),
    ];
    let names = |store: Value| fs::write(&file, store.to_string()).expect("the folder is ours");
    let reference = registry.reference("probe:1");
    names(json!({ "credsStore": "good" }));
    there_and_back(&mesh, &config, &reference, &env).await;
    names(json!({ "credsStore": "bad", "credHelpers": { host.to_string(): "good" } }));
    there_and_back(&mesh, &config, &reference, &env).await;
    for (helper, wanted) in [
        ("bad", "docker-credential-bad get"),
        ("missing", "on the PATH"),
        ("none", "it wants a login, and there is none"),
    ] {
        names(json!({ "credsStore": helper }));
        let why = refused(dir, &reference, &[], &env).await;
        assert!(why.contains(wanted) && !why.contains(PASSWORD), "{helper}: {why}");
    }
}

/// A certificate for this machine and its key, in two files; `false`, with a line that says so, if there is no openssl.
fn certificate(dir: &Path) -> bool {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output();
    let made = made.is_ok_and(|made| made.status.success());
    if !made {
        skipped("there is no openssl to make a certificate");
    }
    made
}

#[tokio::test]
async fn a_registry_with_tls_is_trusted_by_its_certificate() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    if !certificate(dir.path()) {
        return;
    }
    let cert = dir.path().join("cert.pem");
    let http = |_: &Path| {
        let key = dir.path().join("key.pem");
        format!("http: {{ addr: '127.0.0.1:0', tls: {{ certificate: {cert:?}, key: {key:?} }} }}")
    };
    let Some(registry) = OciRegistry::with(http).await else {
        return;
    };
    let (mesh, config) = with_probe().await;
    let trusted = [("SSL_CERT_FILE", cert.to_str().expect("UTF-8"))];
    there_and_back(&mesh, &config, &registry.reference("probe:1"), &trusted).await;
    let by_name = format!("oci://localhost:{}/probe:1", registry.addr.port());
    there_and_back(&mesh, &config, &by_name, &trusted).await;
    let why = refused(mesh.dir.path(), &registry.reference("probe:1"), &[], &[]).await;
    assert!(
        why.contains("cannot be reached") && why.contains("invalid peer certificate"),
        "{why}"
    );
}

/// A server that answers each request as it is told to, and what it was asked. It speaks no TLS.
#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it listens");
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let is_whole = |bytes: &[u8]| bytes.windows(4).any(|at| at == b"\r\n\r\n");
                // A client that begins with TLS has a record first.
                while !is_whole(&bytes) && bytes.first() != Some(&0x16) {
                    if stream.read_buf(&mut bytes).await.is_ok_and(|read| read == 0) {
                        return;
                    }
                }
                let request = String::from_utf8_lossy(&bytes).into_owned();
                let answer = match bytes.first() {
                    Some(0x16) => "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
                    _ => answer(&request),
                };
                if bytes.first() != Some(&0x16) {
                    seen.lock().expect("a list").push(request);
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (addr, asked)
}

fn told(status: &str, header: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Who gives tokens for a registry: signs what is asked for, for the one who has the password.
async fn token_server(dir: &Path) -> SocketAddr {
    let pem = fs::read_to_string(dir.join("cert.pem")).expect("it was made");
    let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = dir.join("key.pem");
    let login = format!("basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let answer = move |request: &str| {
        let of_refresh = request.starts_with("POST /token ");
        let scope = request
            .split("scope=")
            .nth(1)
            .and_then(|rest| rest.split(['&', ' ']).next());
        let scope = scope
            .unwrap_or_default()
            .replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%2F", "/");
        let parts: Vec<&str> = scope.split(':').collect();
        let [_, repository, actions] = parts[..] else {
            return told("400 Bad Request", "", "no scope");
        };
        let lower = request.to_lowercase();
        if !of_refresh && !lower.contains(&format!("authorization: {}", login.to_lowercase())) {
            return told("401 Unauthorized", "", "{}");
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
        let claims = json!({
            "iss": "issuer", "sub": USER, "aud": "registry", "iat": now - 10, "nbf": now - 10, "exp": now + 60, "jti": "1",
            "access": [{ "type": "repository", "name": repository, "actions": actions.split(',').collect::<Vec<_>>() }],
        });
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed(&key, &text)));
        told("200 OK", "", &json!({ "token": token }).to_string())
    };
    answering(answer).await.0
}

fn signed(key: &Path, text: &str) -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut openssl = openssl.spawn().expect("it has made the certificate");
    openssl
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("it reads");
    openssl.wait_with_output().expect("it ends").stdout
}

#[tokio::test]
async fn a_registry_that_wants_a_token_is_given_one_for_the_login() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    if !certificate(dir.path()) {
        return;
    }
    let tokens = token_server(dir.path()).await;
    let auth = |_: &Path| {
        let bundle = dir.path().join("cert.pem");
        format!(
            "auth: {{ token: {{ realm: 'http://{tokens}/token', service: registry, issuer: issuer, rootcertbundle: {bundle:?} }} }}"
        )
    };
    let Some(registry) = OciRegistry::with(auth).await else {
        return;
    };
    let (mesh, config) = with_probe().await;
    let host = registry.addr.to_string();
    let good = logins(dir.path(), "good.json", &host, PASSWORD);
    there_and_back(
        &mesh,
        &config,
        &registry.reference("acme/probe:1"),
        &[("REGISTRY_AUTH_FILE", &good)],
    )
    .await;
    let wrong = logins(dir.path(), "wrong.json", &host, "wrong-donkey");
    let why = refused(
        mesh.dir.path(),
        &registry.reference("acme/probe:1"),
        &[],
        &[("REGISTRY_AUTH_FILE", &wrong)],
    )
    .await;
    assert!(
        why.contains(&format!("does not take the login of {wrong}")) && !why.contains("wrong-donkey"),
        "{why}"
    );
    let why = refused(mesh.dir.path(), &registry.reference("acme/probe:1"), &[], &[]).await;
    assert!(why.contains("it wants a login, and there is none"), "{why}");
    // A token of an earlier login instead of a password, as some registries give it.
    let refresh = dir.path().join("refresh.json");
    let entry = json!({ "auths": { host: { "auth": STANDARD.encode("0:"), "identitytoken": "earlier" } } });
    fs::write(&refresh, entry.to_string()).expect("the folder is ours");
    let env = [("REGISTRY_AUTH_FILE", refresh.to_str().expect("UTF-8"))];
    there_and_back(&mesh, &config, &registry.reference("acme/probe:2"), &env).await;
}

#[tokio::test]
async fn a_login_goes_to_the_registry_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let probe = fs::read(modules::handler("probe")).expect("the probe is readable");
    let layer = json!({ "mediaType": "application/wasm", "digest": digest(&probe), "size": probe.len() });
    let manifest = json!({ "schemaVersion": 2, "config": layer, "layers": [layer] }).to_string();
    let (elsewhere, seen) = answering(|_| told("404 Not Found", "", "")).await;
    let basic = "WWW-Authenticate: Basic realm=\"test\"\r\n";
    let sending = move |to: String| {
        let manifest = manifest.clone();
        move |request: &str| match request {
            _ if !request.to_lowercase().contains("authorization: basic ") => told("401 Unauthorized", basic, ""),
            _ if request.contains("/manifests/") => told("200 OK", "", &manifest),
            _ => told("307 Temporary Redirect", &format!("Location: {to}\r\n"), ""),
        }
    };
    let asked = async |registry: SocketAddr| {
        let file = logins(dir.path(), "logins.json", &registry.to_string(), PASSWORD);
        refused(
            dir.path(),
            &format!("oci://{registry}/probe:1"),
            &[],
            &[("REGISTRY_AUTH_FILE", &file)],
        )
        .await
    };
    // It may keep its content elsewhere. There nothing is known of the login.
    let (registry, _) = answering(sending(format!("http://{elsewhere}/blob?signature=abc"))).await;
    let why = asked(registry).await;
    assert!(why.contains("has answered 404") && !why.contains("signature"), "{why}");
    let requests = seen.lock().expect("a list").clone();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(
        requests[0].starts_with("GET /blob?") && !requests[0].to_lowercase().contains("authorization"),
        "{requests:?}"
    );
    // Not without encryption, unless it is this machine.
    let port = elsewhere.port();
    let (registry, _) = answering(sending(format!("http://0.0.0.0:{port}/blob"))).await;
    let why = asked(registry).await;
    assert!(why.contains("an address that is not encrypted"), "{why}");
    let bearer = format!("WWW-Authenticate: Bearer realm=\"http://0.0.0.0:{port}/token\",service=\"s\"\r\n");
    let (registry, _) = answering(move |_| told("401 Unauthorized", &bearer, "")).await;
    let why = asked(registry).await;
    assert!(why.contains("a place for logins that is no https address"), "{why}");
    assert_eq!(seen.lock().expect("a list").len(), 1, "nothing was sent there");
}
