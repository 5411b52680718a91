//! What `ARCHITECTURE.md` defines about who may name what, held by reading the source. The lists here are exact: a change that adds a
//! file to one, or removes one, gives its reason in the architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The longest that a file may be: beyond it, it holds two concepts.
const LINES_MAX: usize = 400;

/// The longest that a function may be: beyond it, it does two things.
const FN_LINES_MAX: usize = 70;

/// Functions that are longer. Each says why above, in a line that begins with `Long:`.
const LONG: [&str; 4] = [
    "config/tests.rs: all_problems_are_said_at_once_with_their_fix",
    "dlq/filter.rs: each_condition_takes_what_it_means_and_nothing_else",
    "ledger/model/large.rs: large_bounds_hold",
    "ledger/model/steps.rs: step",
];

/// The names of types that several modules have, always written with their module's: `broker::Error`.
const OF_THEIR_MODULE: [&str; 1] = ["Error"];

/// Files whose code names the NATS client.
const NATS: [&str; 30] = [
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
    "ledger/relay/hearing.rs",
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

struct SourceFile {
    /// Relative to `src`.
    name: String,
    text: String,
}

impl SourceFile {
    /// The lines without comments, each with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    fn names(&self, word: &str) -> bool {
        self.code().any(|(_, line)| line.contains(word))
    }
}

/// A function of a source file.
struct Function<'a> {
    name: &'a str,
    lines: usize,
    /// The comment above it says why it is long.
    says_why: bool,
}

impl SourceFile {
    /// The functions with a body. They are laid out by `rustfmt`: a body ends with the first brace as far in as its function.
    fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        let lines: Vec<&str> = self.text.lines().collect();
        let function = move |start: usize| {
            let name = function_name(lines[start])?;
            let indent = &lines[start][..lines[start].len() - lines[start].trim_start().len()];
            let ends = |line: &&str| line.ends_with(['{', ';', '}']);
            if !lines[start..].iter().find(|line| ends(line))?.ends_with('{') {
                return None;
            }
            let end = |line: &&str| line.strip_prefix(indent) == Some("}");
            let length = lines[start..].iter().position(end)? + 1;
            let above = lines[..start].iter().rev();
            let mut above = above.take_while(|line| line.trim_start().starts_with(['/', '#']));
            Some(Function {
                name,
                lines: length,
                says_why: above.any(|line| line.trim_start_matches(['/', ' ']).starts_with("Long: ")),
            })
        };
        (0..self.text.lines().count()).filter_map(function)
    }

    /// The types that it defines; those inside others are left out.
    fn types(&self) -> impl Iterator<Item = &str> {
        self.code().filter_map(|(_, line)| {
            let (kind, name) = after_visibility(line).split_once(' ')?;
            let inside = line.starts_with(' ') && kind == "type";
            let is_type = ["struct", "enum", "trait", "type"].contains(&kind) && !inside;
            is_type.then(|| name.split(|c: char| !c.is_alphanumeric()).next())?
        })
    }
}

/// What stands in a line behind `pub` or `pub(…)`.
fn after_visibility(line: &str) -> &str {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    let inner = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
    inner.map_or(rest, |(_, rest)| rest).trim_start()
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = after_visibility(line).split_once("fn ")?;
    let modifier = |word: &str| ["const", "async", "unsafe"].contains(&word);
    let is_one = before.split_whitespace().all(modifier);
    is_one.then(|| after.split(['(', '<']).next())?
}

/// Every source file but this one, which names everything.
fn sources() -> Vec<SourceFile> {
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
    let source = |path: PathBuf| SourceFile {
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

#[test]
fn no_function_is_longer_than_70_lines_without_a_reason_above_it() {
    let sources = sources();
    let long = sources.iter().flat_map(|source| {
        let functions = source.functions().filter(|function| function.lines > FN_LINES_MAX);
        functions.map(|function| (format!("{}: {}", source.name, function.name), function.says_why))
    });
    let long: Vec<(String, bool)> = long.collect();
    let names: BTreeSet<String> = long.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, set(&LONG));
    let silent: Vec<&String> = long.iter().filter(|(_, why)| !why).map(|(name, _)| name).collect();
    assert_eq!(silent, Vec::<&String>::new(), "they do not say why");
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let sources = sources();
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in &sources {
        for name in source.types().filter(|name| !OF_THEIR_MODULE.contains(name)) {
            homes.entry(name).or_default().push(&source.name);
        }
    }
    assert!(homes.len() > 300, "{}", homes.len());
    homes.retain(|_, files| files.len() > 1);
    assert_eq!(homes, BTreeMap::new());
}

#[test]
fn the_rules_find_functions_and_types() {
    let text = "\
/// Long: it has a reason.
pub async fn one(
    x: u8,
) -> u8
where
    u8: Copy,
{
    let fnord = 1;
}

impl A {
    fn two(self) {
    }
    type Item = u8;
    fn none(self);
    pub(in crate::a) const fn three() {}
}
pub(super) enum B<T> {
struct C;
";
    let source = SourceFile {
        name: String::new(),
        text: text.to_owned(),
    };
    let functions = source.functions().map(|f| (f.name, f.lines, f.says_why));
    assert_eq!(functions.collect::<Vec<_>>(), [("one", 8, true), ("two", 2, false)]);
    assert_eq!(source.types().collect::<Vec<_>>(), ["B", "C"]);
}
