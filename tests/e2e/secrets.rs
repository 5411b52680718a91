//! Key material stays where it is: nothing that jetmesh prints has any, wherever it was put by mistake.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::cli::{NOBODY, run};
use crate::mesh::Config;
use crate::support::cli::jetmesh_with;

const PASSWORD: &str = "hunter2hunter2";
/// The body of a private key that was made for this test.
const KEY: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v1f9ZbFVPzfHVg0q5fTqWxu7mRuhKtHnTjyqE";
const JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJBQkNERUYifQ.c2lnbmF0dXJlLW9mLWEtdGVzdA";

#[tokio::test]
async fn key_material_is_printed_nowhere_wherever_it_was_put_by_mistake() {
    let dir = TempDir::new().expect("a temporary folder");
    let seed = nkeys::KeyPair::new_user().seed().expect("it has one");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a writable folder");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n");
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    for (name, text) in [
        ("host.nk", seed.as_str()),
        ("key.pem", &pem),
        ("host.creds", &creds),
        ("jwt.txt", JWT),
    ] {
        write(name, text);
    }
    let files = ["host.nk", "key.pem", "host.creds", "jwt.txt"];
    let secrets = [PASSWORD, KEY, JWT, &seed];
    let hold = |what: &str, said: &str| {
        for secret in secrets {
            assert!(!said.contains(secret), "{what} prints {secret}:\n{said}");
        }
    };
    // There is no module: a command that needs one reports this at once. The command that connects in the end is `status`.
    write("m.wasm", "no module");
    let config = Config::new().handler("h", Path::new("m.wasm"), "");
    let commands = [&["config"][..], &["check"], &["status"], &["run", "--wait", "0s"]];

    // In the configuration: in addresses, in place of a path or a name, and files of another kind.
    let mut lines: Vec<(String, String)> = vec![
        (format!("nats://u:{PASSWORD}@127.0.0.1:1"), String::new()),
        (
            format!("nats://{PASSWORD}@127.0.0.1:1,u:{PASSWORD}@127.0.0.1:1"),
            String::new(),
        ),
        (format!("u:{PASSWORD}/x@127.0.0.1:1"), String::new()),
        (seed.clone(), String::new()),
        (NOBODY.to_owned(), format!("user = \"u\"\npassword = \"{PASSWORD}\"")),
        (NOBODY.to_owned(), format!("token = \"{PASSWORD}\"")),
        (NOBODY.to_owned(), format!("password = \"{PASSWORD}\"")),
        (
            NOBODY.to_owned(),
            format!("passwort = \"{PASSWORD}\"\ntoken = {PASSWORD}"),
        ),
    ];
    for key in [
        "user",
        "creds",
        "nkey",
        "tls_ca",
        "tls_cert",
        "tls_key",
        "context",
        "inbox_prefix",
        "js_domain",
        "wait",
    ] {
        for secret in [&seed, JWT] {
            lines.push((NOBODY.to_owned(), format!("{key} = \"{secret}\"")));
        }
        lines.push((NOBODY.to_owned(), format!("{key} = '''{pem}'''")));
        lines.extend(files.map(|file| (NOBODY.to_owned(), format!("{key} = \"{file}\""))));
    }
    for (url, lines) in &lines {
        let text = lines
            .lines()
            .fold(config.clone(), |config, line| config.nats(line))
            .text(url);
        write("jetmesh.toml", &text);
        // A wrong value of a key ends all of them in the same way.
        for args in &commands[if url == NOBODY { 1..3 } else { 0..4 }] {
            let (_, stdout, stderr) = jetmesh_with(dir.path(), args, &[]).await;
            hold(&format!("{args:?} with {url} {lines}"), &(stdout + &stderr));
        }
    }

    // On the command line and in variables.
    write("jetmesh.toml", &config.text(NOBODY));
    for file in files {
        for args in [
            &["check", "--config", file][..],
            &["check", "--nkey", file],
            &["check", "--creds", file],
            &["dlq", "import", file],
        ] {
            let (_, stdout, stderr) = jetmesh_with(dir.path(), args, &[]).await;
            hold(&format!("{args:?}"), &(stdout + &stderr));
        }
    }
    for secret in [&seed, JWT, &format!("nats://u:{PASSWORD}@127.0.0.1:1")] {
        for flag in [
            "--config",
            "--server",
            "--nkey",
            "--creds",
            "--context",
            "--user",
            "--wait",
            "--log",
            "--sever",
        ] {
            let (_, stdout, stderr) = jetmesh_with(dir.path(), &["status", "--wait", "0s", flag, secret], &[]).await;
            hold(flag, &(stdout + &stderr));
        }
        for variable in [
            "JETMESH_CONFIG",
            "NATS_URL",
            "NATS_USER",
            "NATS_NKEY",
            "NATS_CREDS",
            "JETMESH_NATS__NKEY",
            "JETMESH_NATS_CREDS",
            "JETMESH_LOG__FILTER",
        ] {
            for args in [&["--help"][..], &["status"]] {
                let (_, stdout, stderr) = jetmesh_with(dir.path(), args, &[(variable, secret)]).await;
                hold(&format!("{args:?} with {variable}"), &(stdout + &stderr));
            }
        }
    }
}

#[tokio::test]
async fn a_secret_is_shown_by_no_command() {
    let dir = TempDir::new().expect("a temporary folder");
    let config = Config::probe().nats("user = \"mesh\"").nats("password = \"hunter2\"");
    for url in [NOBODY, "nats://mesh:hunter2@127.0.0.1:1"] {
        for args in [
            &["config"][..],
            &["check"],
            &["check", "--connect"],
            &["status"],
            &["run", "--wait", "0s"],
        ] {
            let (_, stdout, stderr) = run(dir.path(), &config.text(url), args).await;
            assert!(
                !format!("{stdout}{stderr}").contains("hunter2"),
                "{args:?}\n{stdout}{stderr}"
            );
        }
    }
}
