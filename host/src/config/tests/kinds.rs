//! Values that are wrong in a way of their own, and what is said of each.

use std::path::Path;

use super::layers::with_environment;
use super::{SMALL, base};
use crate::config::{Error, Overrides, decoded, load, parse};
use crate::plan::AdminPlan;

fn problems(text: &str) -> String {
    parse(text, base()).expect_err("it is refused").to_string()
}

#[test]
fn variables_of_kubernetes_services_are_not_taken_for_configuration() {
    let variables = [
        ("JETMESH_SERVICE_HOST", "10.0.0.7"),
        ("JETMESH_SERVICE_PORT", "7422"),
        ("JETMESH_SERVICE_PORT_HTTP", "7422"),
        ("JETMESH_PORT", "tcp://10.0.0.7:7422"),
        ("JETMESH_PORT_7422_TCP", "tcp://10.0.0.7:7422"),
        ("JETMESH_PORT_7422_TCP_PROTO", "tcp"),
        ("JETMESH_PORT_7422_TCP_PORT", "7422"),
        ("JETMESH_PORT_7422_TCP_ADDR", "10.0.0.7"),
        // Of a service jetmesh-metrics.
        ("JETMESH_METRICS_SERVICE_HOST", "10.0.0.8"),
        ("JETMESH_METRICS_PORT", "udp://10.0.0.8:53"),
        ("JETMESH_METRICS_PORT_53_UDP_ADDR", "10.0.0.8"),
        ("JETMESH_MESH", "m"),
    ];
    assert_eq!(with_environment(SMALL, &variables).expect("they are ignored").mesh, "m");
    // What a person may have meant is still told.
    for (name, value) in [("JETMESH_PORT", "4222"), ("JETMESH_SERVICE", "x")] {
        let refused = with_environment(SMALL, &[(name, value)]).expect_err("it is unknown");
        assert!(refused.contains("unknown key") && refused.contains(name), "{refused}");
    }
    let setting = [("JETMESH_HANDLERS__H__SETTINGS__DB_SERVICE_HOST", "db")];
    let plan = with_environment(SMALL, &setting).expect("it is a setting");
    assert_eq!(plan.handlers[0].settings["db_service_host"], "db");
}

#[test]
fn a_variable_with_one_underscore_is_told_which_one_was_meant() {
    for (said, meant) in [
        ("JETMESH_NATS_URL", "JETMESH_NATS__URL"),
        ("JETMESH_NATS__TLS__CA", "JETMESH_NATS__TLS_CA"),
        ("JETMESH_HANDLERS_H_MAX_ATTEMPTS", "JETMESH_HANDLERS__H__MAX_ATTEMPTS"),
        ("JETMESH_DRAIN__TIMEOUT", "JETMESH_DRAIN_TIMEOUT"),
    ] {
        let refused = with_environment(SMALL, &[(said, "1")]).expect_err("it is unknown");
        assert!(refused.contains(&format!("did you mean {meant}?")), "{refused}");
    }
}

#[test]
fn months_and_years_are_no_durations_and_a_unit_of_another_kind_is_named() {
    for duration in ["1M", "1 month", "2y", "1d 1M"] {
        let refused = problems(&format!("{SMALL}ack_wait = \"{duration}\"\n"));
        assert!(
            refused.contains("is not a duration") && refused.contains("\"1m\" is a minute"),
            "{refused}"
        );
    }
    let wait = problems(&format!("[nats]\nwait = \"1M\"\n{SMALL}"));
    assert!(wait.contains("nats.wait"), "{wait}");
    for (said, meant) in [("64MB", "64MiB"), ("2 gb", "2GiB"), ("512k", "512KiB")] {
        let refused = problems(&format!("{SMALL}memory_max = \"{said}\"\n"));
        assert!(refused.contains(&format!("write \"{meant}\"")), "{refused}");
    }
}

/// What is valid and may surprise.
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn warnings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    figment::Jail::expect_with(|jail| {
        jail.create_file("m.toml", text)?;
        found = load(Some(Path::new("m.toml")), &Overrides::default())
            .map_err(|e| e.to_string())?
            .warnings;
        Ok(())
    });
    found
}

#[test]
fn what_may_surprise_is_warned_of() {
    assert_eq!(warnings(SMALL), Vec::<String>::new());
    let long = warnings(&format!("{SMALL}ack_wait = \"2h\"\n"));
    assert!(
        long.len() == 1 && long[0].starts_with("handlers.h.ack_wait: 2h: "),
        "{long:?}"
    );
    // Of its stream, and by its own subjects.
    let stream = "[streams.ORDERS]\nsubjects = [\"orders.>\"]\n";
    let circle = warnings(&format!("{stream}{SMALL}publish = [\"orders.done\", \"other\"]\n"));
    assert!(
        circle.len() == 1 && circle[0].starts_with("handlers.h.publish: `orders.done` meets `orders.>`"),
        "{circle:?}"
    );
    let apart = format!("{stream}{SMALL}subjects = [\"orders.new\"]\npublish = [\"orders.done\"]\n");
    assert_eq!(warnings(&apart), Vec::<String>::new());
}

#[test]
fn another_encoding_is_named_with_the_line() {
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain("a = 1".bytes().flat_map(|b| [b, 0]))
        .collect();
    let said = decoded(utf16).expect_err("it is refused");
    assert!(said.contains("UTF-16"), "{said}");
    let said = decoded(b"a = 1\n# caf\xe9\n".to_vec()).expect_err("it is refused");
    assert!(
        said.starts_with("line 2 ") && said.contains("0xe9") && said.contains("Latin-1"),
        "{said}"
    );
    assert_eq!(decoded("é".into()).as_deref(), Ok("é"));
}

#[test]
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn a_missing_module_is_among_all_that_is_wrong() {
    figment::Jail::expect_with(|jail| {
        jail.create_file("m.toml", &format!("relais = true\n{SMALL}"))?;
        let refused = load(Some(Path::new("m.toml")), &Overrides::default());
        let Err(Error::Problems { problems, .. }) = refused else {
            panic!("{refused:?}")
        };
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["relais", "handlers.h.module"]);
        Ok(())
    });
}

#[test]
fn the_admin_address_is_encrypted_where_other_machines_can_reach_it() {
    let read = |listen: &str| parse(&format!("[admin]\nlisten = {listen:?}\n{SMALL}"), base());
    for (listen, address) in [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("localhost:0", "127.0.0.1:0"),
        ("[::1]:80", "[::1]:80"),
        ("127.8.8.8:1", "127.8.8.8:1"),
    ] {
        assert_eq!(read(listen).unwrap().admin.listen, Some(address.parse().unwrap()));
    }
    assert_eq!(parse(SMALL, base()).unwrap().admin, AdminPlan::default());
    for (listen, why) in [
        ("9464", "no IP address with a port"),
        ("127.0.0.1", "no IP address with a port"),
        ("localhost:x", "no IP address with a port"),
        ("example.org:9464", "no IP address with a port"),
        ("0.0.0.0:9464", "other machines can reach 0.0.0.0:9464"),
        ("[::]:9464", "other machines can reach [::]:9464"),
        (
            "10.0.0.7:9464",
            "set admin.tls_cert and admin.tls_key; or use \"127.0.0.1:9464\", and forward the port",
        ),
    ] {
        let problems = read(listen).unwrap_err().to_string();
        assert!(
            problems.contains("admin.listen: ") && problems.contains(why),
            "{problems}"
        );
    }
}

#[test]
fn an_address_that_others_reach_needs_a_certificate_with_its_key_and_a_token_for_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let cert = file("cert.pem", "-----BEGIN CERTIFICATE-----\n");
    let key = file("key.pem", "-----BEGIN PRIVATE KEY-----\n");
    let token = file("token", "0123456789abcdef\n");
    let read = |lines: &str| parse(&format!("[admin]\nlisten = \"0.0.0.0:9464\"\n{lines}\n{SMALL}"), base());
    let (cert, key) = (format!("tls_cert = {cert:?}\n"), format!("tls_key = {key:?}\n"));
    let metrics = format!("metrics_token_file = {token:?}\n");
    let whole = read(&format!("{cert}{key}{metrics}names = [\"mesh.example.com\"]")).unwrap();
    assert!(whole.admin.listen.is_some() && whole.admin.tls.is_some() && whole.admin.metrics_token.is_some());
    let short = format!("metrics_token_file = {:?}\n", file("short", "0123"));
    let two = format!("metrics_token_file = {:?}\n", file("two", "0123456789 abcdef"));
    for (lines, told) in [
        (metrics.clone(), "admin.listen: other machines can reach"),
        (format!("{cert}{metrics}"), "admin.tls_key: admin.tls_cert needs it"),
        (format!("{key}{metrics}"), "admin.tls_cert: admin.tls_key needs it"),
        (
            format!("{cert}{key}"),
            "admin.metrics_token_file: other machines can reach",
        ),
        (format!("{cert}{key}{short}"), "16 are the least"),
        (format!("{cert}{key}{two}"), "without spaces"),
        (
            format!("{cert}{key}metrics_token_file = \"absent\""),
            "there is no file absent",
        ),
        (
            format!("tls_cert = {token:?}\n{key}{metrics}"),
            "it holds no certificate in PEM",
        ),
        (
            format!("{cert}{key}{metrics}names = [\"a:1\"]"),
            "is no name of a machine",
        ),
    ] {
        let problems = read(&lines).unwrap_err().to_string();
        assert!(problems.contains(told), "{lines}: {problems}");
        assert!(!problems.contains("0123456789"), "{problems}");
    }
}
