//! A server, or an account, that takes no further connection is named as the cause, with the setting and the figure.

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::support::server::Options;
use crate::support::wait::SOON;
use crate::support::{Host, NatsServer, eventually};

const ACCOUNT: &str = "no_auth_user: a\naccounts { A { jetstream: enabled, users: [{ user: a, password: a }], ";

fn options(config: &str) -> Options {
    Options {
        config: config.to_owned(),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_server_or_account_without_room_for_a_connection_is_named_with_the_setting_and_the_figure() {
    let account = |limits: &str| format!("{ACCOUNT} {limits} }} }}");
    for (limited, lifted, word) in [
        (
            "max_connections: 3".to_owned(),
            "max_connections: 64".to_owned(),
            "maximum connections exceeded",
        ),
        (
            account("limits: { max_connections: 3 }"),
            account(""),
            "maximum account active connections exceeded",
        ),
    ] {
        let server = NatsServer::start_with(&options(&limited)).await;
        // One connection is this test's own; a host that is content with two would prove nothing.
        let mut mesh = Mesh::over(server, Config::probe().top("threads = 1")).await;
        let host = Host::start(&mesh.config.text(&mesh.server.url()), mesh.dir.path(), &[]);
        let told = [
            " WARN ",
            "takes no further connection",
            word,
            "raise `max_connections`",
            "has 7 connections, and up to 15 at times",
        ];
        host.wait_for_line(says(&told), SOON).await;
        let said = |line: &String| says(&[" WARN ", "takes no further connection"])(line);
        assert_eq!(
            host.lines().iter().filter(|line| said(line)).count(),
            1,
            "it is said once"
        );
        let lost = host.lines().into_iter().find(|line| line.contains("connection lost"));
        assert_eq!(lost, None, "what never was is not lost");
        // A command is told the same.
        eventually("a command that is told the same", SOON, async || {
            let (status, _, stderr) = mesh.jetmesh(&["status"]).await;
            assert_eq!(status.code(), Some(3), "{stderr}");
            // The server closes at once: its reason may be lost with what was on its way to it.
            stderr.contains(word).then_some(())
        })
        .await;

        let mark = host.lines().len();
        mesh.server.restart_with(&options(&lifted)).await;
        host.wait_for_line_after(mark, says(&["serving", "handler=probe "]), PATIENT)
            .await;
    }
}
