//! What `ARCHITECTURE.md` says of who may name what, held by reading the source. A list here is exact: whoever adds a
//! file to it, or takes one off, says why in the architecture.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The longest that a file may be: beyond it, it holds two concepts.
const LINES_MAX: usize = 400;

/// Files whose code names the NATS client.
const NATS: [&str; 27] = [
    "advisory/route.rs",
    "attempts.rs",
    "broker/connection.rs",
    "broker/error.rs",
    "broker/guard.rs",
    "broker/login.rs",
    "broker/pull.rs",
    "broker/scan.rs",
    "broker/stored.rs",
    "cli/dev.rs",
    "dead_letter.rs",
    "delayed.rs",
    "dispatch.rs",
    "due.rs",
    "lane.rs",
    "ledger/incarnation.rs",
    "ledger/read.rs",
    "ledger/relay/carry.rs",
    "ledger/relay/flight.rs",
    "ledger/relay/mod.rs",
    "ledger/send.rs",
    "message.rs",
    "poison.rs",
    "replay.rs",
    "replay/ask.rs",
    "replay/inlet.rs",
    "settle.rs",
];

/// Files whose code names the WebAssembly engine.
const WASM: [&str; 6] = [
    "engine.rs",
    "guest.rs",
    "guest/random.rs",
    "handler.rs",
    "library.rs",
    "sandbox.rs",
];

/// The ledger's step functions: what decides whether effects happen once runs without a server.
const LEDGER_STEPS: [&str; 18] = [
    "ledger/append.rs",
    "ledger/book.rs",
    "ledger/cache.rs",
    "ledger/consequence.rs",
    "ledger/entry.rs",
    "ledger/fate.rs",
    "ledger/group.rs",
    "ledger/id.rs",
    "ledger/ids.rs",
    "ledger/index.rs",
    "ledger/join.rs",
    "ledger/memory.rs",
    "ledger/mistake.rs",
    "ledger/opening.rs",
    "ledger/outs.rs",
    "ledger/replayed.rs",
    "ledger/standing.rs",
    "ledger/view.rs",
];

/// Verdicts and effects are data.
const DATA: [&str; 3] = ["effects.rs", "identity.rs", "outcome.rs"];

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
fn the_step_functions_of_the_ledger_are_pure() {
    assert_eq!(found(&LEDGER_STEPS, &IMPURE), Vec::<String>::new());
}

#[test]
fn verdicts_and_effects_are_pure() {
    assert_eq!(found(&DATA, &IMPURE), Vec::<String>::new());
}

#[test]
fn every_task_is_the_drains_but_what_listens_for_signals_and_what_lives_as_long_as_its_connection() {
    assert_eq!(
        naming("tokio::spawn"),
        set(&["broker/guard.rs", "cli/run.rs", "drain.rs"])
    );
}

#[test]
fn threads_are_started_only_for_lanes_for_the_tick_and_for_what_blocks() {
    assert_eq!(naming("thread::Builder"), set(&["app.rs", "engine.rs", "limits.rs"]));
    assert_eq!(naming("spawn_blocking"), set(&["app.rs", "source.rs"]));
    assert_eq!(naming("thread::spawn"), set(&[]));
}

#[test]
fn no_ack_is_confirmed_by_the_clients_own_means() {
    assert_eq!(naming("double_ack"), set(&[]));
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
