//! What `ARCHITECTURE.md` defines about who may name what, held by reading the source. The lists here are exact: a change that adds a
//! file to one, or removes one, gives its reason in the architecture.

use std::collections::{BTreeMap, BTreeSet};

use self::source::sources;

mod source;

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
const NATS: [&str; 34] = [
    "mesh_streams/attempts/mod.rs",
    "broker/batch.rs",
    "broker/connection.rs",
    "broker/dial.rs",
    "broker/error.rs",
    "broker/guard.rs",
    "broker/login.rs",
    "broker/mapped.rs",
    "broker/objects.rs",
    "broker/pull.rs",
    "broker/scan.rs",
    "broker/stored.rs",
    "cli/dev.rs",
    "mesh_streams/dead_letter/mod.rs",
    "mesh_streams/delayed.rs",
    "mesh_streams/pauses.rs",
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
    "event/mod.rs",
    "mesh_streams/replay_queue.rs",
];

/// Files whose code names the WebAssembly engine.
const WASM: [&str; 8] = [
    "wasm/cache.rs",
    "wasm/ended.rs",
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
const DATA: [&str; 26] = [
    "calendar/cron.rs",
    "calendar/local.rs",
    "calendar/mod.rs",
    "event/effects.rs",
    "event/timer.rs",
    "failpoint/mistake.rs",
    "handler_task/advisory/judge.rs",
    "handler_task/attempt/next.rs",
    "handler_task/circuit/state.rs",
    "handler_task/sweep/decide.rs",
    "ledger/identity.rs",
    "redrive/rule.rs",
    "spans/context.rs",
    "spans/otlp/encode.rs",
    "spans/sample.rs",
    "spans/span.rs",
    "schedule/state.rs",
    "schedule/transaction.rs",
    "event/subject.rs",
    "event/outcome.rs",
    "outbox/group.rs",
    "outbox/marker.rs",
    "outbox/postgres/log_buffer.rs",
    "outbox/postgres/log_row.rs",
    "outbox/postgres/pgoutput.rs",
    "outbox/row.rs",
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
const ROOMS: [&str; 31] = [
    "cli",
    "app",
    "admin",
    "console",
    "report",
    "control",
    "redrive",
    "dlq",
    "micro",
    "fit",
    "trace",
    "handler_task",
    "schedule",
    "ledger",
    "outbox",
    "mesh_streams",
    "oci",
    "wasm",
    "http",
    "process",
    "config",
    "spans",
    "broker",
    "event",
    "trouble",
    "calendar",
    "text",
    "failpoint",
    "histogram",
    "random",
    "plan",
];

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
fn only_these_files_name_the_library_of_a_database() {
    assert_eq!(naming("rusqlite"), set(&["outbox/sqlite/mod.rs"]));
    let postgres = ["fit", "log", "mod", "session", "slot", "tls", "value", "wire"]
        .map(|file| format!("outbox/postgres/{file}.rs"));
    let postgres: BTreeSet<String> = postgres.into_iter().chain(["config/postgres.rs".to_owned()]).collect();
    assert_eq!(naming("tokio_postgres"), postgres);
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
        set(&[
            "broker/guard.rs",
            "cli/run.rs",
            "outbox/postgres/replication.rs",
            "outbox/postgres/session.rs",
            "process/drain.rs"
        ])
    );
}

#[test]
fn threads_are_started_only_for_lanes_for_the_tick_and_for_what_blocks() {
    assert_eq!(
        naming("thread::Builder"),
        set(&[
            "app/threads.rs",
            "outbox/sqlite/thread.rs",
            "process/limits.rs",
            "wasm/engine.rs"
        ])
    );
    assert_eq!(
        naming("spawn_blocking"),
        set(&["app.rs", "oci/credentials.rs", "wasm/cache.rs", "wasm/source.rs"])
    );
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

/// By what text of others could become part of the page, or run. The rest is done by what the browser is told (`console/site`).
const UNSAFE_IN_A_PAGE: [&str; 12] = [
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "createContextualFragment",
    "document.write",
    "DOMParser",
    "srcdoc",
    "eval(",
    "new Function",
    "setAttribute(\"style\"",
    "javascript:",
    "https://",
];

#[test]
fn the_page_of_the_console_takes_text_as_text_and_loads_nothing_from_elsewhere() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/web");
    let served = std::fs::read_to_string(folder.join("../assets.rs")).expect("it is a source file");
    let files = std::fs::read_dir(&folder).expect("the folder of the page");
    let (mut found, mut count) = (Vec::new(), 0);
    for file in files {
        let path = file.expect("it is readable").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("it is text");
        count += 1;
        let mut unsafe_words: Vec<&str> = UNSAFE_IN_A_PAGE
            .into_iter()
            .filter(|word| text.contains(word))
            .collect();
        // Handlers and styles in the text of a page would not be obeyed.
        if name.ends_with(".html") {
            let inline = [" onclick=", " onload=", " style=", "<style", "<script>"];
            unsafe_words.extend(inline.into_iter().filter(|word| text.contains(word)));
        }
        if !served.contains(&format!("\"{name}\"")) {
            unsafe_words.push("is not served");
        }
        if text.lines().count() > LINES_MAX {
            unsafe_words.push("is longer than 400 lines");
        }
        found.extend(unsafe_words.into_iter().map(|word| format!("{name}: {word}")));
    }
    assert!(count > 10, "{count}");
    assert_eq!(found, Vec::<String>::new());
}
