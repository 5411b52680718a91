//! jetmesh without a compiler: what `make dist` lets through, and the containers of `config/container`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::mesh::says;
use crate::support::wait::SOON;
use crate::support::{Host, cli, eventually, http, modules, root, skipped, tool};

const COMPOSE: &str = include_str!("../../config/container/compose.yaml");
const CONTAINERFILE: &str = include_str!("../../config/container/Containerfile");

/// `tools/dist.sh --check`, which each archive passes.
fn checked(program: &Path) -> (bool, String) {
    let mut check = Command::new(root().join("tools/dist.sh"));
    let out = check.arg("--check").arg(program).output().expect("it starts");
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn no_archive_has_a_program_that_wants_a_newer_machine() {
    if tool("readelf", "READELF").is_none() {
        return skipped("there is no readelf, so no program is checked");
    }
    // This test's own program is linked against the glibc of this machine.
    let glibc = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let glibc = glibc.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let minor = glibc
        .ok()
        .and_then(|text| text.trim().strip_prefix("glibc 2.")?.parse().ok());
    if minor.is_some_and(|minor: u32| minor >= 34) {
        let (taken, told) = checked(Path::new(env!("CARGO_BIN_EXE_jetmesh")));
        assert!(
            !taken && told.contains("and may want 2.28 at most: build it with 'make dist'"),
            "{told}"
        );
    } else {
        skipped("this machine's glibc is old, so its programs fit older machines");
    }
    let (taken, told) = checked(&root().join("README.md"));
    assert!(!taken && told.contains("is not a program"), "{told}");
    // A program of Go needs nothing of the machine.
    if let Some(server) = tool("nats-server", "NATS_SERVER") {
        let (taken, told) = checked(&server);
        assert!(taken && told.contains("wants no other library"), "{told}");
    }
}

#[test]
fn containers_have_no_rights_and_the_version_of_this_program() {
    let compose: Value = serde_saphyr::from_str(COMPOSE).expect("YAML");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(compose["services"]["jetmesh"]["image"], format!("jetmesh:{version}"));
    for (name, service) in compose["services"].as_object().expect("services") {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(
            service["security_opt"],
            serde_json::json!(["no-new-privileges:true"]),
            "{name}"
        );
        // What others reach is only on this machine.
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().expect("text").starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
    assert!(CONTAINERFILE.contains("\nUSER 65532:65532\n"));
    assert!(CONTAINERFILE.contains(&format!("-t jetmesh:{version} .")));
    // Where there is no shell, every command is a list.
    let commands = CONTAINERFILE.lines().filter(|line| {
        let begins = ["ENTRYPOINT ", "CMD ", "HEALTHCHECK ", "RUN "];
        begins.iter().any(|begin| line.starts_with(begin))
    });
    for command in commands {
        assert!(command.ends_with(']') && !command.starts_with("RUN"), "{command}");
    }
    let grace = compose["services"]["jetmesh"]["stop_grace_period"]
        .as_str()
        .expect("set");
    let grace: u32 = grace.trim_end_matches('s').parse().expect("seconds");
    assert!(grace > 30, "a drain takes up to 30 s");
}

/// What a service of the file is given, with a password for each that it asks for.
fn environment(service: &Value) -> Vec<(&str, &str)> {
    let of = service["environment"].as_object().expect("an environment").iter();
    of.map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
        .map(|(name, value)| (name, if value.starts_with("${") { "pw" } else { value }))
        .collect()
}

#[tokio::test]
async fn the_commands_of_the_containers_make_a_mesh() {
    let Some(server) = tool("nats-server", "NATS_SERVER") else {
        return skipped("there is no nats-server");
    };
    let compose: Value = serde_saphyr::from_str(COMPOSE).expect("YAML");
    let nats = &compose["services"]["nats"];
    let dir = tempfile::tempdir().expect("a temporary folder");
    let users = root().join("config/nats/jetmesh.conf");
    let mut command = Command::new(server);
    command.envs(environment(nats)).current_dir(&dir);
    for word in nats["command"].as_array().expect("a list") {
        match word.as_str().expect("text") {
            "/etc/nats/jetmesh.conf" => command.arg(&users),
            // Another address than that of the file, and of this machine only.
            "0.0.0.0" => command.arg("127.0.0.2"),
            word => command.arg(word),
        };
    }
    command.args(["-p", "-1"]);
    let server = Host::start_program(command);
    let line = server
        .wait_for_line(says(&["Listening for client connections on"]), SOON)
        .await;
    let address: SocketAddr = line
        .rsplit(' ')
        .next()
        .and_then(|end| end.parse().ok())
        .expect("an address");
    assert_eq!(address.ip().to_string(), "127.0.0.2");
    let url = format!("nats://{address}");
    // The folder that the volume is mounted at.
    assert_eq!(nats["volumes"][1], "nats-data:/nats-data");
    eventually("the data", SOON, async || {
        dir.path().join("nats-data/jetstream").is_dir().then_some(())
    })
    .await;
    let jetmesh = &compose["services"]["jetmesh"];
    let config = root().join("config/container/jetmesh.toml");
    let config = config.to_str().expect("UTF-8");
    let mut env = environment(jetmesh);
    env.retain(|(name, _)| *name != "JETMESH_NATS__URL");
    env.push(("JETMESH_NATS__URL", &url));
    env.push(("JETMESH_ADMIN__LISTEN", "127.0.0.1:0"));
    let host = Host::start_command(&["run", "--config", config, "--log-format", "text"], dir.path(), &env);
    let admin = http::address(&host.wait_for_line(says(&["the admin address answers"]), SOON).await).to_string();
    let operator = [
        "--config",
        config,
        "--server",
        &url,
        "--user",
        "operator",
        "--password",
        "pw",
    ];
    for name in ["inventory", "points", "notify"] {
        let module = modules::handler(name);
        let module = module.to_str().expect("UTF-8");
        let push: [&[&str]; 2] = [
            &["modules", "push", module, "--as", name, "--version", "1.0.0"],
            &["modules", "promote", name, "1.0.0"],
        ];
        for command in push {
            let (status, text, error) = cli::jetmesh(&[command, &operator].concat()).await;
            assert!(status.success(), "{command:?}: {text}{error}");
        }
    }
    eventually("the health that the container is asked for", SOON, async || {
        let args = ["health", "ready", "--config", config, "--admin", &admin];
        cli::jetmesh_with(dir.path(), &args, &env[..0])
            .await
            .0
            .success()
            .then_some(())
    })
    .await;
    host.stop().await;
}
