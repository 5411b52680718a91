//! Documents, help and messages are right: every command that the documents show is one that the command line takes, and the
//! words are plain.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, Parser as _};
use serde_json::Value;

use super::args::Args;
use super::schema::{Published, SCHEMAS};
use crate::dlq::select::is_id;
use crate::trace::find::Named;
use crate::trace::message_id::is_message_id;

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::fs::read_dir(root.join("docs")).expect("the folder of the documents");
    let pages = folder.map(|file| file.expect("it is readable").path());
    pages
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain([root.join("README.md"), root.join("handlers/README.md")])
        .collect()
}

/// The lines of shell sessions, and the pieces of code in the text.
fn commands(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut prose) = (Vec::new(), String::new());
    let mut language = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(name), None) => language = Some(name),
            (Some(_), Some(_)) => language = None,
            (None, Some("sh")) => lines.push(line.to_owned()),
            (None, Some("console")) => lines.extend(line.strip_prefix("$ ").map(str::to_owned)),
            (None, Some(_)) => {}
            (None, None) => {
                prose += line.trim();
                prose.push(' ');
            }
        }
    }
    let pieces = prose.split('`').skip(1).step_by(2).map(str::to_owned);
    (lines, pieces.collect())
}

/// The words of a command as a shell takes them, up to what is not an argument. `None`: it is of another program.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = command.trim_start();
    while let Some(first) = rest.chars().next() {
        if ['#', '|', '&', '>', ';'].contains(&first) {
            break;
        }
        let quote = Some(first).filter(|first| ['\'', '"'].contains(first));
        let from = quote.map_or(rest, |_| &rest[1..]);
        let end = from
            .find(|c: char| quote.map_or(c == ' ', |quote| c == quote))
            .unwrap_or(from.len());
        words.push(from[..end].to_owned());
        rest = from[end..].trim_start_matches(['\'', '"']).trim_start();
    }
    words
        .first()
        .is_some_and(|program| program == "jetmesh")
        .then_some(words)
}

#[test]
fn every_command_that_the_documents_show_is_taken() {
    let mut taken = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).expect("a document is text");
        let (lines, pieces) = commands(&text);
        let whole = lines.iter().map(|command| (command, true));
        // A piece in the text may name a command without what it needs.
        let parts = pieces.iter().map(|command| (command, false));
        for (command, whole) in whole.chain(parts) {
            let Some(words) = words(command) else { continue };
            taken += 1;
            let Err(error) = Args::try_parse_from(words) else {
                continue;
            };
            let lacks = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::MissingSubcommand,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ];
            let good = error.kind() == ErrorKind::DisplayHelp || (!whole && lacks.contains(&error.kind()));
            assert!(good, "{}: {command}\n{error}", path.display());
        }
    }
    assert!(taken > 50, "{taken}");
}

#[test]
fn the_table_of_ids_says_which_ids_each_command_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/trace.md")).expect("the page is text");
    let (_, rows) = text
        .split_once("|---|---|---|---|---|\n")
        .expect("the page has the table");
    let rows: Vec<&str> = rows.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 6, "{rows:#?}");
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let example = cells[2].trim_matches('`');
        assert!(Named::parse(example).is_some() || is_message_id(example), "{row}");
        assert_eq!(is_id(example), cells[5] == "takes it", "{row}");
    }
}

/// Words that hide who does what. The pages avoid them as well.
const AVOIDED: [&str; 6] = ["whoever", "whomever", "nobody", "somebody", "anybody", "anew"];

fn avoided(text: &str) -> Option<&str> {
    let mut words = text.split(|c: char| !c.is_alphabetic());
    words.find(|word| AVOIDED.contains(&word.to_lowercase().as_str()))
}

#[test]
fn the_help_of_every_command_uses_plain_words_and_begins_with_what_the_command_does() {
    fn each(command: &mut Command, see: &mut impl FnMut(&str, &Command, &str)) {
        let help = command.render_long_help().to_string();
        see(command.get_name(), command, &help);
        command.get_subcommands_mut().for_each(|command| each(command, see));
    }
    let mut seen = 0;
    each(&mut Args::command(), &mut |name, command, help| {
        seen += 1;
        assert_eq!(avoided(help), None, "{name}: {help}");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(
            about.starts_with(char::is_uppercase) && !about.ends_with('.') || name == "jetmesh",
            "{name}: {about}"
        );
        for argument in command.get_arguments() {
            let said = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(said.starts_with(char::is_uppercase), "{name}: {argument}: {said}");
        }
    });
    assert!(seen > 15, "{seen}");
}

/// Everything that a schema says in words.
fn descriptions(schema: &Value) -> Vec<&str> {
    match schema {
        Value::Object(object) => {
            let own = object.get("description").and_then(Value::as_str);
            let below = object.values().flat_map(descriptions);
            own.into_iter().chain(below).collect()
        }
        Value::Array(list) => list.iter().flat_map(descriptions).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_schemas_use_plain_words_on_one_line_and_know_no_widths_of_integers() {
    for Published { name, make, .. } in &SCHEMAS {
        let text = make();
        let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
        let descriptions = descriptions(&schema);
        assert!(descriptions.len() >= 3, "{name}: {descriptions:?}");
        for said in descriptions {
            assert!(avoided(said).is_none() && !said.contains(['\n', '[']), "{name}: {said}");
        }
        assert!(!text.contains("int64") && !text.contains("int32"), "{name}");
    }
}

/// The literals of a source with their lines, up to its tests and without comments.
fn literals(source: &str) -> Vec<(usize, String)> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
    let (mut literals, mut open, mut line) = (Vec::new(), None::<(usize, String)>, 1);
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        line += usize::from(c == '\n');
        let skipped = match (&mut open, c) {
            (None, '/') if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            (None, '\'') if rest.starts_with("'\"'") => 3,
            (None, '"') => {
                open = Some((line, String::new()));
                1
            }
            (Some(_), '"') => {
                literals.extend(open.take());
                1
            }
            // An escape, or the end of a line that goes on.
            (Some((_, text)), '\\') => {
                text.push(' ');
                line += usize::from(rest[1..].starts_with('\n'));
                2
            }
            (Some((_, text)), c) => {
                text.push(c);
                c.len_utf8()
            }
            (None, c) => c.len_utf8(),
        };
        rest = &rest[skipped.min(rest.len())..];
    }
    literals
}

/// Every source below a folder of the repository, with its path.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder of the sources") {
            let path = file.expect("it is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source is text");
                sources.push((path, source));
            }
        }
    }
    sources
}

#[test]
fn errors_and_log_lines_use_plain_words() {
    let (mut read, mut found) = (0, Vec::new());
    for (path, source) in sources("host/src") {
        if path.ends_with("documented.rs") || path.ends_with("tests.rs") {
            continue;
        }
        // One word is a name.
        for (line, text) in literals(&source).into_iter().filter(|(_, text)| text.contains(' ')) {
            read += 1;
            found.extend(avoided(&text).map(|word| format!("{}:{line}: `{word}` in {text}", path.display())));
        }
    }
    assert!(read > 1000, "{read}");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn comments_use_plain_words() {
    let (mut read, mut found) = (0, Vec::new());
    for (path, source) in ["host/src", "tests", "handlers/sdk/src"].into_iter().flat_map(sources) {
        for (line, text) in source.lines().enumerate() {
            let Some(comment) = text.trim_start().strip_prefix("//") else {
                continue;
            };
            read += 1;
            // What is quoted is a name in the code.
            let words: String = comment.split('`').step_by(2).collect();
            found.extend(avoided(&words).map(|word| format!("{}:{}: `{word}`", path.display(), line + 1)));
        }
    }
    assert!(read > 5000, "{read}");
    assert!(found.is_empty(), "{found:#?}");
}
