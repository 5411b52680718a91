//! `jetmesh top`, on a real terminal.

use crate::mesh::{Config, Mesh};
use crate::support::cli;

#[tokio::test]
async fn top_shows_the_handlers_on_a_terminal_and_gives_it_back_and_says_what_else_there_is_where_there_is_none() {
    let (mesh, _host) = Mesh::start(Config::probe()).await;
    let (code, stdout, stderr) = mesh.jetmesh(&["top"]).await;
    assert_eq!((code.code(), stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.contains("top needs a terminal") && stderr.contains("`jetmesh status --watch`"),
        "{stderr}"
    );
    let config = mesh.write_config();
    let config = config.to_str().expect("UTF-8");
    let Some((code, shown)) = cli::on_terminal(mesh.dir.path(), 80, &["top", "--config", config], "q").await else {
        return;
    };
    assert_eq!(code.code(), Some(0), "{shown}");
    let row = |line: &str| line.contains("probe") && line.contains("serving");
    assert!(shown.contains("HANDLER") && shown.lines().any(row), "{shown:?}");
    assert!(
        shown.trim_end().ends_with("\u{1b}[?25h\u{1b}[?1049l"),
        "the screen that was there before is back: {shown:?}"
    );
}
