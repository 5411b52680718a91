//! The session of the README about a dead letter, command by command.

use serde_json::json;

use crate::mesh::{Config, Mesh};
use crate::rehearse::hidden;
use crate::support::modules;

/// The commands of a session in a shell, each with what it prints.
fn session() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("it is text");
    let mut blocks = readme
        .split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let block = blocks
        .find(|block| block.contains("dlq rehearse"))
        .expect("the README rehearses");
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => *printed += &format!("{line}\n"),
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    commands
}

/// Without what is different each time.
fn same(text: &str, id: &str) -> String {
    let text = hidden(&text.replace(id, "[id]"));
    match text.split_once(" decided 1 in ") {
        Some((before, after)) => {
            let after = after.split_once('\n').map_or("", |(_, after)| after);
            format!("{before} decided 1 in [time]\n{after}")
        }
        None => text,
    }
}

#[tokio::test]
async fn the_session_of_the_readme_prints_what_the_readme_shows() {
    let lines = "subjects = [\"orders.created\"]\nbucket = \"inventory\"\npublish = [\"inventory.*\"]";
    let config = Config::new().handler("inventory", &modules::handler("inventory"), lines);
    let (mesh, _host) = Mesh::start(config).await;
    mesh.put("inventory", "stock.sku-3", "5").await;
    let order =
        json!({ "order_id": "o-3", "user_id": "u-7", "locale": "en", "lines": [{ "sku": "sku-3", "qty": 99 }] });
    mesh.publish("orders.created", order.to_string()).await;
    let letter = mesh.wait_letters(1).await.remove(0);
    let mut rehearsed = false;
    let session = session();
    let shown = session
        .iter()
        .find_map(|(command, _)| command.strip_prefix("jetmesh dlq rehearse "));
    let shown = shown.expect("the README rehearses").to_owned();
    for (command, printed) in session {
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["export", ..] => {}
            ["nats", "kv", "put", bucket, key, value] => mesh.put(bucket, key, value).await,
            ["nats", "kv", "get", bucket, key, "--raw"] => {
                assert_eq!(
                    mesh.value(bucket, key).await.as_deref(),
                    Some(printed.trim_end()),
                    "{command}"
                );
            }
            ["jetmesh", ref args @ ..] => {
                let with_id = |arg: &&str| {
                    if *arg == shown {
                        letter.letter_id().to_owned()
                    } else {
                        (*arg).to_owned()
                    }
                };
                let args: Vec<String> = args.iter().map(with_id).collect();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let stdout = mesh.jetmesh_ok(&args).await;
                assert_eq!(same(&stdout, letter.letter_id()), same(&printed, &shown), "{command}");
                rehearsed |= args.contains(&"rehearse");
            }
            _ => panic!("nothing runs this: {command}"),
        }
    }
    assert!(rehearsed);
}
