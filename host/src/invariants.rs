//! What `ARCHITECTURE.md` says of who may name what, held by reading the source. A list here is exact: whoever adds a
//! file to it, or takes one off, says why in the architecture.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The longest that a file may be: beyond it, it holds two concepts.
const LINES_MAX: usize = 400;

/// Files whose code names the NATS client.
const NATS: [&str; 29] = [
    "attempts/mod.rs",
    "broker/connection.rs",
    "broker/dial.rs",
    "broker/error.rs",
    "broker/guard.rs",
    "broker/login.rs",
    "broker/pull.rs",
    "broker/scan.rs",
    "broker/stored.rs",
    "cli/dev.rs",
    "dead_letter/mod.rs",
    "delayed.rs",
    "handler_task/advisory/message.rs",
    "handler_task/advisory/route.rs",
    "handler_task/dispatch.rs",
    "handler_task/in_flight.rs",
    "handler_task/malformed.rs",
    "handler_task/replay/inlet.rs",
    "handler_task/replay/mod.rs",
    "handler_task/settle/mod.rs",
    "ledger/relay/carry.rs",
    "ledger/relay/due.rs",
    "ledger/relay/flight.rs",
    "ledger/relay/mod.rs",
    "ledger/store/incarnation.rs",
    "ledger/store/read.rs",
    "ledger/store/send.rs",
    "message/mod.rs",
    "replay_queue.rs",
];

/// Files whose code names the WebAssembly engine.
const WASM: [&str; 6] = [
    "wasm/engine.rs",
    "wasm/guest/mod.rs",
    "wasm/guest/random.rs",
    "wasm/library.rs",
    "wasm/module.rs",
    "wasm/sandbox.rs",
];

/// What decides whether effects happen once runs without a server: everything in this folder.
const LEDGER_CORE: &str = "ledger/core/";

/// Verdicts and effects are data.
const DATA: [&str; 8] = [
    "effects.rs",
    "failpoint/mistake.rs",
    "handler_task/advisory/judge.rs",
    "handler_task/attempt/next.rs",
    "handler_task/sweep/decide.rs",
    "identity.rs",
    "message/subject.rs",
    "outcome.rs",
];

/// What a pure file has none of: waiting, a clock, chance, files, sockets, processes, threads.
const IMPURE: [&str; 12] = [
    "async ",
    ".await",
    "tokio",
    "async_nats",
    "Instant",
    "SystemTime",
    "rand::",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
];

/// The rooms, from the top down: a folder, or a file beside them. What is in one imports only from those below it.
const ROOMS: [&str; 26] = [
    "cli",
    "app",
    "dlq",
    "micro",
    "fit",
    "trace",
    "handler_task",
    "identity",
    "payload",
    "ledger",
    "delayed",
    "replay_queue",
    "dead_letter",
    "attempts",
    "wasm",
    "process",
    "config",
    "broker",
    "effects",
    "trouble",
    "outcome",
    "message",
    "text",
    "failpoint",
    "random",
    "plan",
];

struct Source {
    /// Relative to `src`.
    name: String,
    text: String,
}

impl Source {
    /// The lines without comments, each with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    fn names(&self, word: &str) -> bool {
        self.code().any(|(_, line)| line.contains(word))
    }
}

/// Every source file but this one, which names everything.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.expect("a source folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let source = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).expect("a source file can be read"),
        name: path.strip_prefix(&root).expect("it lies in src").display().to_string(),
    };
    let own = Path::new(file!()).file_name().expect("a file has a name");
    files
        .into_iter()
        .filter(|path| path.file_name() != Some(own))
        .map(source)
        .collect()
}

fn naming(word: &str) -> BTreeSet<String> {
    sources()
        .into_iter()
        .filter(|source| source.names(word))
        .map(|source| source.name)
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Every place where one of the files has one of the words.
fn found(files: &[&str], words: &[&str]) -> Vec<String> {
    let sources = sources();
    let mut found = Vec::new();
    for file in files {
        let source = sources
            .iter()
            .find(|s| s.name == *file)
            .unwrap_or_else(|| panic!("there is no {file}"));
        for (number, line) in source.code() {
            found.extend(
                words
                    .iter()
                    .filter(|w| line.contains(*w))
                    .map(|w| format!("{file}:{number}: {w}")),
            );
        }
    }
    found
}

#[test]
fn only_these_files_name_the_nats_client() {
    assert_eq!(naming("async_nats::"), set(&NATS));
}

#[test]
fn only_these_files_name_the_wasm_engine() {
    assert_eq!(naming("wasmtime"), set(&WASM));
}

#[test]
fn no_file_names_both_the_nats_client_and_the_wasm_engine() {
    assert!(NATS.iter().all(|file| !WASM.contains(file)));
}

#[test]
fn the_core_of_the_ledger_is_pure() {
    let sources = sources();
    let core = sources.iter().map(|source| source.name.as_str());
    let core: Vec<&str> = core.filter(|name| name.starts_with(LEDGER_CORE)).collect();
    assert!(core.len() > 10, "{core:?}");
    assert_eq!(found(&core, &IMPURE), Vec::<String>::new());
}

#[test]
fn verdicts_and_effects_are_pure() {
    assert_eq!(found(&DATA, &IMPURE), Vec::<String>::new());
}

#[test]
fn every_task_is_the_drains_but_what_listens_for_signals_and_what_lives_as_long_as_its_connection() {
    assert_eq!(
        naming("tokio::spawn"),
        set(&["broker/guard.rs", "cli/run.rs", "process/drain.rs"])
    );
}

#[test]
fn threads_are_started_only_for_lanes_for_the_tick_and_for_what_blocks() {
    assert_eq!(
        naming("thread::Builder"),
        set(&["app.rs", "process/limits.rs", "wasm/engine.rs"])
    );
    assert_eq!(naming("spawn_blocking"), set(&["app.rs", "wasm/source.rs"]));
    assert_eq!(naming("thread::spawn"), set(&[]));
}

#[test]
fn no_ack_is_confirmed_by_the_clients_own_means() {
    assert_eq!(naming("double_ack"), set(&[]));
}

#[test]
fn a_room_imports_only_from_rooms_below_it() {
    let height = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.name.split(['/', '.']).next().unwrap_or_default();
        if matches!(room, "lib" | "main") {
            continue;
        }
        let own = height(room).unwrap_or_else(|| panic!("{} is in no room", source.name));
        // The tests at a file's end may take more.
        let code = source.code().take_while(|(_, line)| !line.starts_with("mod tests"));
        for (number, line) in code {
            for path in line.split("crate::").skip(1) {
                let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let other = name.and_then(height);
                if other.is_some_and(|other| other < own) {
                    wrong.push(format!("{}:{number}: {}", source.name, line.trim()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.name))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, name)| format!("{name}: {lines}"))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}
