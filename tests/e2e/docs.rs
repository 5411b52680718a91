//! The documents are right: links lead somewhere, configurations are valid, and examples work as they are shown.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use crate::mesh::{Config, Mesh, says};
use crate::support::wait::SOON;
use crate::support::{Host, cli, eventually, modules};

const README: &str = "README.md";
const HANDLERS: &str = "docs/write-a-handler.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A document in Markdown.
struct Page {
    /// From the root of the repository.
    path: String,
    /// Its lines outside of blocks of code.
    prose: Vec<String>,
    blocks: Vec<Block>,
}

struct Block {
    language: String,
    text: String,
}

impl Page {
    fn read(path: &str) -> Page {
        let mut page = Page {
            path: path.to_owned(),
            prose: Vec::new(),
            blocks: Vec::new(),
        };
        let mut open = false;
        for line in file(path).lines() {
            match (line.strip_prefix("```"), open) {
                (Some(language), false) => page.blocks.push(Block {
                    language: language.to_owned(),
                    text: String::new(),
                }),
                (None, true) => {
                    let block = page.blocks.last_mut().expect("one is open");
                    block.text += line;
                    block.text.push('\n');
                }
                (None, false) => page.prose.push(line.to_owned()),
                (Some(_), true) => {}
            }
            open ^= line.starts_with("```");
        }
        page
    }

    /// Its blocks of a language.
    fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        let of_language = move |block: &&Block| block.language == language;
        self.blocks.iter().filter(of_language).map(|block| block.text.as_str())
    }

    /// The block that begins with this line, without it.
    fn file(&self, first: &str) -> &str {
        let mut texts = self.blocks.iter().map(|block| block.text.as_str());
        let found = texts.find_map(|text| text.strip_prefix(first)?.strip_prefix('\n'));
        found.unwrap_or_else(|| panic!("{} has no block that begins with {first}", self.path))
    }

    /// The targets of its links, without those to other sites.
    fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in &self.prose {
            let mut rest = line.as_str();
            while let Some((_, after)) = rest.split_once("](") {
                let (target, after) = after.split_once(')').expect("a link ends in its line");
                rest = after;
                if !target.contains("://") {
                    links.push(target.to_owned());
                }
            }
        }
        links
    }

    /// What a link to one of its headings ends in.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.iter().filter_map(|line| line.split_once("# "));
        let headings = headings.filter(|(before, _)| before.chars().all(|c| c == '#'));
        let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        let anchor = |text: &str| {
            text.to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        };
        headings.map(|(_, text)| anchor(text)).collect()
    }

    /// Its words, without code.
    fn words(&self) -> impl Iterator<Item = String> {
        let text = self.prose.join("\n");
        let prose: String = text.split('`').step_by(2).collect();
        let words = prose.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
        words.collect::<Vec<_>>().into_iter()
    }
}

/// The Markdown files of a folder.
fn folder(path: &str) -> Vec<String> {
    let files = fs::read_dir(root().join(path)).expect("the folder is there");
    let names = files.map(|file| file.expect("it is readable").file_name().to_string_lossy().into_owned());
    let pages = names.filter(|name| name.ends_with(".md"));
    pages.map(|name| format!("{path}/{name}")).collect()
}

/// The pages for users.
fn pages() -> Vec<Page> {
    let mut paths = vec![README.to_owned(), "handlers/README.md".to_owned()];
    paths.extend(folder("docs"));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// The file that a link of a page leads to, from the root of the repository.
fn followed(page: &Page, target: &str) -> String {
    let mut path = Path::new(&page.path)
        .parent()
        .expect("a page is in a folder")
        .to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {target} leads out of the repository", page.path),
            part => path.push(part),
        }
    }
    path.display().to_string()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut pages = pages();
    let others = folder("host/decisions")
        .into_iter()
        .chain(["host/ARCHITECTURE.md".to_owned()]);
    pages.extend(others.map(|path| Page::read(&path)));
    let mut linked = BTreeSet::new();
    for page in &pages {
        for link in page.links() {
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = if target.is_empty() {
                page.path.clone()
            } else {
                followed(page, target)
            };
            assert!(root().join(&path).exists(), "{}: there is no {link}", page.path);
            let there = anchor.is_empty() || Page::read(&path).anchors().contains(anchor);
            assert!(there, "{}: {path} has no heading for {link}", page.path);
            linked.insert(path);
        }
    }
    let unlinked: Vec<String> = folder("docs")
        .into_iter()
        .filter(|path| !linked.contains(path))
        .collect();
    assert!(unlinked.is_empty(), "no page links to {unlinked:?}");
    assert!(linked.len() > 10, "{linked:?}");
}

#[test]
fn the_readme_is_short() {
    let lines = file(README).lines().count();
    assert!(lines <= 150, "{lines} lines");
}

/// Words that hide who does what: see the glossary for the usual ones.
const AVOIDED: [&str; 4] = ["whoever", "nobody", "somebody", "anew"];

#[test]
fn the_pages_use_plain_words() {
    for page in pages() {
        let mut words = page.words();
        if let Some(word) = words.find(|word| AVOIDED.contains(&word.as_str())) {
            panic!("{}: `{word}`: name who does it, or what is meant", page.path);
        }
    }
}

#[test]
fn the_file_that_the_guarantees_name_commits_the_batch() {
    let page = file("docs/guarantees.md");
    let (_, section) = page
        .split_once("## What makes a write atomic")
        .expect("the page has the section");
    let sender = section
        .split('`')
        .find(|code| code.ends_with(".rs"))
        .expect("it names a file");
    assert!(file(sender).contains("Nats-Batch-Commit"), "{sender} commits no batch");
}

#[test]
fn every_make_target_that_the_pages_name_is_there() {
    let makefile = file("Makefile");
    let mut named = 0;
    for page in pages() {
        let spans = page.prose.iter().flat_map(|line| line.split('`').skip(1).step_by(2));
        let blocks = page.blocks.iter().flat_map(|block| block.text.lines());
        for command in spans.chain(blocks).map(|line| line.trim_start_matches("$ ")) {
            let Some(target) = command.strip_prefix("make ").and_then(|rest| rest.split(' ').next()) else {
                continue;
            };
            named += 1;
            assert!(makefile.contains(&format!("\n{target}:")), "{}: {command}", page.path);
        }
    }
    assert!(named > 3, "{named}");
}

#[tokio::test]
async fn every_configuration_that_the_pages_show_is_valid() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("jetmesh.toml");
    // The files that the pages name.
    let pem = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
    let files = [
        ("tls.crt", pem("CERTIFICATE")),
        ("tls.key", pem("PRIVATE KEY")),
        ("metrics-token", "0123456789abcdef".repeat(4)),
    ];
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("the folder is writable");
    }
    let mut valid = 0;
    for page in pages() {
        for block in page.blocks("toml") {
            let other = |name: &str| block.starts_with(&format!("# {name}\n"));
            if other("Cargo.toml") || other(".cargo/config.toml") {
                continue;
            }
            let handler = match block.contains("[handlers.") {
                true => "",
                false => "[handlers.any]\nmodule = \"any.wasm\"\nstream = \"ANY\"\n",
            };
            let block = block.replace("/etc/jetmesh/", "");
            fs::write(&path, format!("{block}\n{handler}")).expect("the folder is writable");
            let (status, _, stderr) = cli::jetmesh_in(dir.path(), &["config"]).await;
            assert!(status.success(), "{}: {stderr}\n{block}", page.path);
            valid += 1;
        }
    }
    assert!(valid >= 2, "{valid}");
}

#[test]
fn the_handler_of_the_pages_is_the_one_that_is_built_and_tested() {
    let source = file("handlers/refunds/src/lib.rs");
    let readme = Page::read(README);
    let handler = readme.file("// src/lib.rs");
    assert!(
        source.contains(handler),
        "README.md shows another handler than handlers/refunds"
    );
    let page = Page::read(HANDLERS);
    let test = page
        .blocks("rust")
        .find(|block| block.contains("#[test]"))
        .expect("the page shows a test");
    assert!(
        source.contains(test),
        "{HANDLERS} shows another test than handlers/refunds"
    );
}

/// A host with this configuration and the handler that the pages show, and the event that the README publishes.
async fn refund(mesh: &Mesh, config: &str) {
    let readme = Page::read(README);
    let session = readme
        .blocks("console")
        .find(|block| block.contains("nats pub"))
        .expect("the README publishes");
    let command = session
        .lines()
        .find(|line| line.contains("nats pub orders.refunded"))
        .expect("a refund");
    let payload = command.split('\'').nth(1).expect("its payload is in quotes");
    let host = Host::start(config, mesh.dir.path(), &[]);
    host.wait_for_line(says(&["serving", "handler=refunds "]), SOON).await;
    mesh.publish("orders.refunded", payload.to_owned()).await;
    let (_, value) = session.split_once("--raw\n").expect("the README reads the value");
    mesh.wait_value("refunds", "refunded.u-7", value.trim()).await;
    let booked = eventually("the event", SOON, async || {
        mesh.messages("REFUNDS", "refunds.booked").await.into_iter().next()
    })
    .await;
    assert_eq!(booked.json(), json!({ "order_id": "o-1", "total": 250 }));
    assert!(mesh.letters().await.is_empty());
}

#[tokio::test]
async fn the_first_handler_of_the_readme_serves_as_it_is_shown() {
    let readme = Page::read(README);
    let mesh = Mesh::new(Config::new()).await;
    let url = format!("nats.url = {:?}\n", mesh.server.url());
    let built = "\"target/wasm32-wasip2/release/refunds.wasm\"";
    let shown = readme.file("# jetmesh.toml");
    assert!(shown.contains(built));
    let module = format!("{:?}", modules::handler("refunds"));
    refund(&mesh, &format!("{url}{}", shown.replace(built, &module))).await;
}

#[tokio::test]
async fn the_lines_that_add_a_handler_to_the_sample_make_one_that_serves_and_emits() {
    let page = Page::read(HANDLERS);
    let lines = page.blocks("toml").find(|block| block.contains("[handlers.refunds]"));
    let lines = lines.expect("the page shows them");
    let mesh = Mesh::new(Config::new()).await;
    let module = |text: String, name: &str| {
        let shown = format!("\"../handlers/target/wasm32-unknown-unknown/release/{name}.wasm\"");
        text.replace(&shown, &format!("{:?}", modules::handler(name)))
    };
    let sample = file("config/default.toml").replace("nats://127.0.0.1:4222", &mesh.server.url());
    let sample = ["inventory", "points", "notify"].into_iter().fold(sample, module);
    let refunds = lines.replace("\"refunds.wasm\"", &format!("{:?}", modules::handler("refunds")));
    // The handler is added to a mesh that has run.
    let before = Host::start(&sample, mesh.dir.path(), &[]);
    before.wait_for_line(says(&["serving", "handler=points "]), SOON).await;
    mesh.publish("orders.shipped", "{}").await;
    drop(before);
    refund(&mesh, &format!("{sample}\n{refunds}\n")).await;
}

#[test]
fn the_readme_the_installer_and_the_host_name_the_same_versions() {
    let installer = file("tools/install.sh");
    let value = |name: &str| {
        let line = installer
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("the installer has no {name}")).to_owned()
    };
    let (major, minor, patch) = jetmesh::tested::SERVER_MIN;
    assert_eq!(value("SERVER_OLDEST"), format!("{major}.{minor}.{patch}"));
    let said = format!(
        "It needs nats-server {} or newer (the tests run {})",
        value("SERVER_OLDEST"),
        value("SERVER_VERSION")
    );
    assert!(file(README).contains(&said), "the README does not say: {said}");
}
