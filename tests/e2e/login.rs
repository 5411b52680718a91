//! How a host logs in: users in addresses, tokens and nkeys, and its messages when the server refuses them.

use std::fs;

use tempfile::TempDir;

use crate::mesh::Config;
use crate::support::NatsServer;
use crate::support::cli::jetmesh_with;
use crate::support::server::Options;

async fn server(authorization: &str) -> NatsServer {
    let config = format!("authorization {{ {authorization} }}");
    NatsServer::start_with(&Options {
        config,
        ..Options::default()
    })
    .await
}

/// Runs a command on the probe's configuration with these lines of its table `nats`.
async fn command(dir: &TempDir, url: &str, lines: &[&str], args: &[&str]) -> (Option<i32>, String) {
    let config = lines.iter().fold(Config::probe(), |config, line| config.nats(line));
    fs::write(dir.path().join("jetmesh.toml"), config.text(url)).expect("a writable folder");
    let (status, stdout, stderr) = jetmesh_with(dir.path(), args, &[]).await;
    (status.code(), stdout + &stderr)
}

const CHECK: [&str; 2] = ["check", "--connect"];

#[tokio::test]
async fn a_user_or_a_token_in_an_address_is_used_for_that_address() {
    let dir = TempDir::new().expect("a temporary folder");
    let by_user = server("users: [{ user: host, password: \"p@ss/w,x\" }]").await;
    let by_token = server("token: \"t0k:en\"").await;
    let (user, token) = (by_user.addr(), by_token.addr());
    for url in [
        format!("nats://host:p%40ss%2Fw%2Cx@{user}"),
        // Port 1 has no listener.
        format!("nats://x:y@127.0.0.1:1,nats://host:p%40ss%2Fw%2Cx@{user}"),
        format!("nats://t0k%3Aen@{token}"),
    ] {
        let (code, said) = command(&dir, &url, &[], &CHECK).await;
        assert_eq!(code, Some(0), "{url}: {said}");
    }
    // A user alone is a token, as for the `nats` CLI; and the address goes before the rest.
    let (code, said) = command(&dir, &by_token.url(), &[], &["check", "--connect", "--user", "t0k:en"]).await;
    assert_eq!(code, Some(0), "{said}");
    let lines = ["user = \"other\"", "password = \"other\""];
    let url = format!("nats://host:p%40ss%2Fw%2Cx@{user}");
    let (code, said) = command(&dir, &url, &lines, &CHECK).await;
    assert_eq!(code, Some(0), "{said}");
    // But not before what is said over the file.
    let args = ["check", "--connect", "--user", "other", "--password", "other"];
    let (code, said) = command(&dir, &url, &[], &args).await;
    assert_eq!(code, Some(4), "{said}");
}

#[tokio::test]
async fn refused_credentials_end_every_command_at_once_with_their_own_code() {
    let dir = TempDir::new().expect("a temporary folder");
    let server = server("users: [{ user: host, password: right }]").await;
    let wrong = format!("nats://host:hunter2@{}", server.addr());
    // The host would wait for ever for a server that is not there.
    for args in [&["run"][..], &CHECK, &["status"], &["dlq", "ls"]] {
        let (code, said) = command(&dir, &wrong, &[], args).await;
        assert_eq!(code, Some(4), "{args:?}: {said}");
        let told = format!(
            "error: NATS at nats://{} refuses the credentials (user host of the address)",
            server.addr()
        );
        assert!(said.contains(&told) && !said.contains("hunter2"), "{args:?}: {said}");
    }
    let (code, said) = command(&dir, &server.url(), &[], &CHECK).await;
    assert!(code == Some(4) && said.contains("(none are given)"), "{said}");
    // Another server that is down does not make it a matter of waiting.
    let (code, said) = command(&dir, &format!("nats://127.0.0.1:1,{wrong}"), &[], &["run"]).await;
    assert_eq!(code, Some(4), "{said}");
}

#[tokio::test]
async fn an_nkey_is_found_in_its_file_and_a_file_of_another_kind_is_named_at_start() {
    let dir = TempDir::new().expect("a temporary folder");
    let pair = nkeys::KeyPair::new_user();
    let (seed, public) = (pair.seed().expect("it has one"), pair.public_key());
    let server = server(&format!("users: [{{ nkey: {public} }}]")).await;
    let file = dir.path().join("host.nk");
    let line = [format!("nkey = {file:?}")];
    let nkey = async |text: &str| {
        fs::write(&file, text).expect("a writable folder");
        command(&dir, &server.url(), &[&line[0]], &CHECK).await
    };
    for text in [
        format!("{public}\n{seed}\n"),
        format!("\u{feff}{seed}"),
        format!("-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"),
    ] {
        let (code, said) = nkey(&text).await;
        assert_eq!(code, Some(0), "{text}: {said}");
    }
    for text in ["", &public] {
        let (code, said) = nkey(text).await;
        assert!(
            code == Some(2) && said.contains("nats.nkey") && said.contains("it holds no seed"),
            "{said}"
        );
    }
    // One character is missing.
    let (code, said) = nkey(&format!("{}\n", &seed[..57])).await;
    let why = "it holds a seed of a user that is not valid: it has 57 characters, and a seed has 58";
    assert!(
        code == Some(2) && said.contains("nats.nkey") && said.contains(why),
        "{said}"
    );
    assert!(!said.contains(&seed[..20]), "{said}");
    fs::write(&file, &seed).expect("a writable folder");
    for (key, wanted) in [("tls_ca", "no certificate"), ("creds", "no user JWT")] {
        let line = format!("{key} = {file:?}");
        let (code, said) = command(&dir, &server.url(), &[&line], &CHECK).await;
        assert!(
            code == Some(2) && said.contains(&format!("nats.{key}")) && said.contains(wanted),
            "{said}"
        );
    }
}
