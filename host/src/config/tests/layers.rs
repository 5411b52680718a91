use std::path::Path;
use std::time::Duration;

use super::{DEFAULT, SMALL};
use crate::config::{Overrides, load};
use crate::plan::Plan;

/// What a file and the environment give together.
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
pub fn with_environment(file: &str, variables: &[(&str, &str)]) -> Result<Plan, String> {
    let mut result = None;
    figment::Jail::expect_with(|jail| {
        jail.create_file("m.toml", file)?;
        for (name, value) in variables {
            jail.set_env(name, value);
        }
        result = Some(load(Some(Path::new("m.toml")), &Overrides::default()));
        Ok(())
    });
    result
        .unwrap()
        .map(|loaded| loaded.plan)
        .map_err(|error| error.to_string())
}

#[test]
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn environment_and_flags_stand_over_the_file() {
    figment::Jail::expect_with(|jail| {
        jail.create_file(
            "m.toml",
            &format!("[nats]\nurl = \"nats://file\"\ntimeout = \"1s\"\n{SMALL}"),
        )?;
        jail.set_env("JETMESH_NATS__URL", "nats://env");
        jail.set_env("JETMESH_NATS__TIMEOUT", "2s");
        jail.set_env("JETMESH_HANDLERS__H__CONCURRENCY", "3");
        let flags = Overrides {
            nats_url: Some("nats://flag".into()),
            ..Overrides::default()
        };
        let plan = load(Some(Path::new("m.toml")), &flags).map_err(|e| e.to_string())?.plan;
        assert_eq!(
            (plan.nats.url.as_str(), plan.nats.timeout),
            ("nats://flag", Duration::from_secs(2))
        );
        assert_eq!(plan.handlers[0].concurrency, 3);
        Ok(())
    });
}

#[test]
#[expect(clippy::result_large_err, reason = "figment's jail wants figment's errors")]
fn a_context_of_the_cli_lies_under_the_file() {
    figment::Jail::expect_with(|jail| {
        jail.create_dir("nats/context")?;
        let file = "nats/context/prod.json";
        jail.create_file(
            file,
            r#"{"url":"nats://prod","user":"u","password":"p","token":"","jetstream_event_prefix":"EV"}"#,
        )?;
        jail.create_file("nats/context/nsc.json", r#"{"nsc":"nsc://a/b/c"}"#)?;
        let folder = jail.directory().display().to_string();
        jail.set_env("XDG_CONFIG_HOME", folder);
        jail.create_file("m.toml", &format!("[nats]\ncontext = \"prod\"\nuser = \"me\"\n{SMALL}"))?;
        let nats = load(Some(Path::new("m.toml")), &Overrides::default())
            .map_err(|e| e.to_string())?
            .plan
            .nats;
        assert_eq!(
            (nats.url.as_str(), nats.user.as_deref(), nats.token),
            ("nats://prod", Some("me"), None)
        );
        assert_eq!(nats.js_event_prefix, "EV");
        let refused = |name: &str| {
            let flags = Overrides {
                context: Some(name.into()),
                ..Overrides::default()
            };
            load(Some(Path::new("m.toml")), &flags)
                .expect_err("refused")
                .to_string()
        };
        assert!(refused("nsc").contains("nsc generate creds"), "{}", refused("nsc"));
        assert!(
            refused("none").contains("there is no context \"none\""),
            "{}",
            refused("none")
        );
        assert!(
            refused("../x").contains("is not a context's name"),
            "{}",
            refused("../x")
        );
        Ok(())
    });
}

#[test]
fn a_secret_in_the_environment_is_taken_letter_by_letter() {
    for secret in ["0123", "1e5", "true", "[a,b]", "{a=1}", " x\"y", "'q'"] {
        let plan = with_environment(SMALL, &[("JETMESH_NATS__TOKEN", secret)]).unwrap();
        assert_eq!(plan.nats.token.as_deref(), Some(secret));
    }
    assert_eq!(
        with_environment(SMALL, &[("JETMESH_NATS__TOKEN", "")])
            .unwrap()
            .nats
            .token,
        None
    );
}

#[test]
fn the_environment_reaches_names_however_they_are_written() {
    let variables = [
        ("JETMESH_THREADS", " 2 "),
        ("JETMESH_RELAY", "false"),
        ("JETMESH_STREAMS__ORDERS__REPLICAS", "3"),
        ("JETMESH_HANDLERS__MY_HANDLER__SUBJECTS", "orders.a, orders.b"),
        ("JETMESH_HANDLERS__MY_HANDLER__PUBLISH", "[\"a.>\", \"b\"]"),
        ("JETMESH_HANDLERS__MY_HANDLER__SETTINGS__PER_ORDER", "010"),
    ];
    let file = SMALL.replace("[handlers.h]", "[handlers.My-Handler]");
    let file = format!("[streams.ORDERS]\nsubjects = [\"orders.>\"]\n{file}");
    let plan = with_environment(&file, &variables).unwrap();
    let handler = &plan.handlers[0];
    assert_eq!((plan.threads, plan.relay, plan.streams[0].replicas), (2, false, 3));
    assert_eq!(
        (&handler.subjects[..], &handler.publish[..]),
        (
            &["orders.a", "orders.b"].map(String::from)[..],
            &["a.>", "b"].map(String::from)[..]
        )
    );
    assert_eq!(handler.settings["per_order"], "010");
}

#[test]
fn a_problem_names_the_variable_or_flag_that_caused_it() {
    let variables = [
        ("JETMESH_NATS", "x"),
        ("JETMESH_NATS__TIMOUT", "3s"),
        ("JETMESH_LOG__FORMAT", "xml"),
    ];
    let text = with_environment(DEFAULT, &variables[1..]).unwrap_err();
    insta::assert_snapshot!(text, @r#"
    error: m.toml has 5 problems
      log.format: "xml" is not one of "text", "json" (from JETMESH_LOG__FORMAT)
      nats.timout: unknown key (from JETMESH_NATS__TIMOUT)
        hint: did you mean `timeout`?
      handlers.inventory.module: there is no file ../handlers/target/wasm32-unknown-unknown/release/inventory.wasm
      handlers.notify.module: there is no file ../handlers/target/wasm32-unknown-unknown/release/notify.wasm
      handlers.points.module: there is no file ../handlers/target/wasm32-unknown-unknown/release/points.wasm
    "#);
    let text = with_environment(SMALL, &variables[..1]).unwrap_err();
    insta::assert_snapshot!(text, @r#"
    error: m.toml has 2 problems
      nats: "x" is not a table (from JETMESH_NATS)
        hint: write [nats]
      handlers.h.module: there is no file h.wasm
    "#);
}
