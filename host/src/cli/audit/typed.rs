//! The command as a person has typed it, without what belongs to the person's connection: that can hold secrets.

use clap::CommandFactory as _;

use crate::cli::args::Args;
use crate::text::shell::quoted;

/// The command of this process.
pub fn command() -> String {
    let words = std::env::args_os().skip(1);
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    without_connection(&words)
}

/// The options of all commands are left out, each with its value.
fn without_connection(words: &[String]) -> String {
    let globals = Args::command();
    let globals: Vec<(Option<&str>, Option<char>)> = globals
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .map(|arg| (arg.get_long(), arg.get_short()))
        .collect();
    let mut kept = vec!["jetmesh".to_owned()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, has_value) = match word.strip_prefix("--") {
            Some(long) => {
                let (name, value) = long
                    .split_once('=')
                    .map_or((long, None), |(name, value)| (name, Some(value)));
                (globals.iter().any(|(own, _)| *own == Some(name)), value.is_some())
            }
            None => {
                let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
                let short = letters.next();
                let is_global = short.is_some() && globals.iter().any(|(_, own)| *own == short);
                (is_global, letters.next().is_some())
            }
        };
        match (name, has_value) {
            (true, true) => {}
            (true, false) => {
                words.next();
            }
            (false, _) => kept.push(quoted(word)),
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_writing_it_has_a_connection_recorded() {
        let told = |line: &[&str]| {
            let words: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
            without_connection(&words)
        };
        let plain = "jetmesh dlq discard inventory.k.1 --reason 'it is old' --yes";
        let words = ["dlq", "discard", "inventory.k.1", "--reason", "it is old", "--yes"];
        assert_eq!(told(&words), plain);
        for option in [
            &["--password", "hunter2"][..],
            &["--password=hunter2"],
            &["-s", "nats://anna:hunter2@a:4222"],
            &["-snats://anna:hunter2@a:4222"],
            &["-s=nats://anna:hunter2@a:4222"],
            &["--server", "nats://anna:hunter2@a:4222", "--user", "hunter2"],
            &[
                "--context",
                "x",
                "--creds",
                "hunter2",
                "--nkey=hunter2",
                "-c",
                "hunter2",
            ],
        ] {
            assert_eq!(told(&[option, &words].concat()), plain, "{option:?}");
            assert_eq!(told(&[&words, option].concat()), plain, "{option:?}");
        }
        assert_eq!(told(&["outbox", "skip", "shop", "-5"]), "jetmesh outbox skip shop -5");
    }
}
