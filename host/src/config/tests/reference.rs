//! `config/default.toml` names every key with its default, and the tables of `docs/configuration.md` are made from it and
//! from what the code takes.

use std::collections::BTreeMap;

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

/// Keys whose values in the sample are not defaults.
const OF_THE_SAMPLE: [&str; 14] = [
    "module", "stream", "subjects", "start", "bucket", "publish", "consumer", "settings", "cron", "zone", "subject",
    "payload", "url", "rate",
];

/// The sample with the table that it has as a comment, because redrive is off by default.
fn whole() -> String {
    let (before, rest) = DEFAULT.split_once("# [redrive]\n").expect("the sample has it");
    let (keys, after) = rest.split_once("\n\n").expect("another table follows");
    let mut text = format!("{before}[redrive]\n");
    for line in keys.lines() {
        let said = line.trim_start_matches("# ");
        let is_key = said.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        text += &format!("{}\n", if is_key { said } else { line });
    }
    text + "\n" + after
}

/// A key as the sample has it.
struct SampleKey {
    /// With names of streams, handlers and settings as `*`.
    name: String,
    /// `None`: the sample has it as a comment.
    value: Option<String>,
    /// The comment above it.
    meaning: String,
}

impl SampleKey {
    /// The table that it is in, and its own name.
    fn split(&self) -> (&str, &str) {
        self.name.rsplit_once('.').unwrap_or(("", &self.name))
    }

    fn default(&self) -> Option<&str> {
        let (table, key) = self.split();
        let sample = (table.contains('*') || table == "redrive") && OF_THE_SAMPLE.contains(&key);
        self.value.as_deref().filter(|_| !sample)
    }
}

/// The keys of the sample, in its order; each once.
fn keys() -> Vec<SampleKey> {
    let mut found: Vec<SampleKey> = Vec::new();
    let (mut table, mut comment) = (String::new(), Vec::new());
    for line in whole().lines() {
        let said = line.trim_start_matches("# ");
        let is_key =
            |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let key = match (line.strip_prefix('['), said.split_once(" = ")) {
            (Some(_), _) => {
                let mut parts: Vec<&str> = line.trim_matches(['[', ']']).split('.').collect();
                let named = ["streams", "handlers", "schedules", "outbox"].contains(&parts[0]);
                if let (true, Some(name)) = (named, parts.get_mut(1)) {
                    *name = "*";
                }
                table = parts.join(".");
                Some((table.clone(), None))
            }
            (None, Some((key, value))) if is_key(key) => {
                let free = table.ends_with("settings") || table.ends_with("headers");
                let key = if free { "*" } else { key };
                let name = [table.as_str(), key].join(".").trim_start_matches('.').to_owned();
                Some((name, (said == line).then(|| value.to_owned())))
            }
            _ => None,
        };
        match key {
            Some((name, value)) => {
                let meaning = std::mem::take(&mut comment).join(" ");
                if !found.iter().any(|key| key.name == name) {
                    found.push(SampleKey { name, value, meaning });
                }
            }
            None if line.starts_with("# ") => comment.push(said.to_owned()),
            None => comment.clear(),
        }
    }
    found
}

/// What the code takes, by key.
fn known() -> BTreeMap<String, String> {
    let figment = Figment::from(Toml::string(&whole()));
    let mut reader = Reader::default();
    plan(figment.extract().unwrap(), base(), &mut reader);
    assert_eq!(reader.problems, []);
    reader.known
}

#[test]
fn the_sample_says_every_key_that_the_code_knows_and_what_it_means() {
    let keys = keys();
    // A handler's limits are documented once, under [defaults], and its redrive under [redrive].
    let documented = |name: &str| {
        let names = [
            name.to_owned(),
            name.replace("handlers.*.", "defaults."),
            name.replace("handlers.*.redrive.", "redrive."),
        ];
        keys.iter()
            .any(|key| names.contains(&key.name) && (!key.meaning.is_empty() || key.name.ends_with(".*")))
    };
    let known = known();
    let missing: Vec<&String> = known
        .iter()
        .filter(|(name, takes)| *takes != "table" && !documented(name))
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "config/default.toml does not explain {missing:?}");
    let unknown: Vec<&String> = keys
        .iter()
        .map(|key| &key.name)
        .filter(|name| !known.contains_key(*name))
        .collect();
    assert!(
        unknown.iter().all(|name| name.ends_with(".*")),
        "the code does not know {unknown:?}"
    );
}

#[test]
fn what_the_sample_says_as_defaults_are_the_defaults() {
    let mut stripped = String::new();
    let (mut keep, mut settings) = (false, false);
    for line in DEFAULT.lines() {
        if line.starts_with('[') {
            keep = ["[streams", "[handlers", "[schedules", "[outbox"]
                .iter()
                .any(|table| line.starts_with(table));
            settings = line.ends_with("settings]") || line.ends_with("headers]");
        }
        let key = line.split(" = ").next().unwrap_or_default();
        let is_key = line.contains(" = ") && !line.starts_with('#');
        let is_default = !settings && (key == "consumer" || !OF_THE_SAMPLE.contains(&key));
        if keep && !(is_key && is_default) {
            stripped.push_str(line);
            stripped.push('\n');
        }
    }
    assert_eq!(parse(&stripped, base()).unwrap(), parse(DEFAULT, base()).unwrap());
}

/// The table of one section of the configuration.
fn table(section: &str, known: &BTreeMap<String, String>) -> String {
    let mut text = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys() {
        let (table, name) = key.split();
        let takes = known.get(&key.name).map_or("table", String::as_str);
        if table == section && takes != "table" && name != "*" {
            let default = key.default().map_or("–".to_owned(), |value| format!("`{value}`"));
            text += &format!("| `{name}` | {takes} | {default} | {} |\n", key.meaning);
        }
    }
    text
}

#[test]
fn the_tables_of_the_reference_are_those_of_the_code() {
    let page = std::fs::read_to_string(PAGE).expect("the page is there");
    let known = known();
    let mut made = String::new();
    let mut sections = Vec::new();
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("<!-- keys of ") {
        let (section, after) = after.split_once(" -->\n").expect("the mark ends");
        let rows = after.split_inclusive('\n').take_while(|line| line.starts_with('|'));
        let old: usize = rows.map(str::len).sum();
        made += &format!(
            "{before}<!-- keys of {section} -->\n{}",
            table(section.trim_matches('-'), &known)
        );
        sections.push(section);
        rest = &after[old..];
    }
    made += rest;
    assert_eq!(
        sections,
        [
            "-",
            "log",
            "admin",
            "modules",
            "spans",
            "nats",
            "streams.*",
            "handlers.*",
            "outbox.*",
            "defaults",
            "redrive",
            "schedules.*"
        ]
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &made).expect("the page can be written");
    } else {
        let hint = "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p jetmesh --lib reference";
        assert!(made == page, "{hint}");
    }
}
