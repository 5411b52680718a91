//! A real Prometheus reads a host, with the alert rules; and `promtool` takes what a host writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::mesh::Config;
use crate::metrics::{TRACE, plain, start, traced, value};
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{eventually, http, skipped, tool};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics of `docs/metrics.md`, which a unit test holds to the code: their labels, by name as queries have it.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let page = file("docs/metrics.md");
    let mut table = BTreeMap::new();
    for row in page
        .lines()
        .filter(|line| line.starts_with("| `jetmesh_") || line.starts_with("| `process_"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let mut labels: BTreeSet<String> = cells[3]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned())
            .collect();
        labels.remove("–");
        if cells[2] == "histogram" {
            for suffix in ["_bucket", "_sum", "_count"] {
                table.insert(format!("{name}{suffix}"), labels.clone());
            }
        } else {
            table.insert(name, labels);
        }
    }
    assert!(table.len() > 50, "{table:?}");
    table
}

/// The words of an expression that can be names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part(c)).filter(|word| !word.is_empty())
}

/// Holds every name and label of an expression to the table.
fn check(table: &BTreeMap<String, BTreeSet<String>>, expression: &str) {
    // Prometheus adds the first, and a histogram has the second.
    let everywhere = ["instance", "le"];
    let names: Vec<&str> = words(expression)
        .filter(|word| word.starts_with("jetmesh_") || word.starts_with("process_"))
        .collect();
    assert!(!names.is_empty(), "{expression}");
    let labels: Vec<&BTreeSet<String>> = names
        .iter()
        .map(|name| {
            table
                .get(*name)
                .unwrap_or_else(|| panic!("no host has {name}: {expression}"))
        })
        .collect();
    let known = |label: &str| everywhere.contains(&label) || labels.iter().any(|of| of.contains(label));
    let mut rest = expression;
    while let Some((_, after)) = rest.split_once(['{', '(']) {
        let opened = rest.as_bytes()[rest.len() - after.len() - 1];
        let before = rest[..rest.len() - after.len() - 1].trim_end();
        if opened == b'{' {
            let (inside, _) = after.split_once('}').expect("it is closed");
            for matcher in inside.split(',') {
                let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
                assert!(known(label), "no label {label}: {expression}");
            }
        } else if before.ends_with(" by") || before.ends_with(" on") {
            let (inside, _) = after.split_once(')').expect("it is closed");
            for label in inside.split(',').map(str::trim) {
                assert!(known(label), "no label {label}: {expression}");
            }
        }
        rest = after;
    }
}

/// The expressions of the alert rules, by the names of the alerts.
fn alerts() -> BTreeMap<String, String> {
    let text = file("config/alerts.yml");
    let mut alerts = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            alert.clone_into(&mut name);
        } else if let Some(expr) = line.strip_prefix("expr: ") {
            let expr: String = serde_json::from_str(expr).expect("a quoted text");
            alerts.insert(name.clone(), expr);
        }
    }
    assert!(alerts.len() > 15, "{alerts:?}");
    alerts
}

/// The expressions of the dashboard.
fn panels() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("config/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let exprs: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(exprs.len() > 20, "{exprs:?}");
    // As Grafana puts them in.
    let filled = |expr: &String| expr.replace("$__rate_interval", "5m").replace("$handler", ".*");
    exprs.iter().map(filled).collect()
}

/// The useful queries, and the triggers of KEDA: query, and place of a value.
fn of_the_page() -> (Vec<String>, String, String) {
    let page = file("docs/metrics.md");
    let (_, rest) = page.split_once("| question | query |").expect("the page has them");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut queries = Vec::new();
    for row in rows {
        queries.push(row.split('`').nth(1).expect("a query").to_owned());
    }
    let of = |key: &str| {
        let found = page.lines().find_map(|line| line.trim().strip_prefix(key));
        found.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
    };
    (queries, of("query:"), of("valueLocation:"))
}

#[test]
fn each_name_and_label_of_alerts_dashboard_and_documents_is_one_that_hosts_have() {
    let table = table();
    let (queries, keda, place) = of_the_page();
    let all = alerts()
        .into_values()
        .chain(panels())
        .chain(queries)
        .chain([keda, place]);
    all.for_each(|expression| check(&table, &expression));
}

#[test]
fn each_alert_has_a_paragraph_in_the_runbook_that_names_a_command() {
    let (rules, runbook) = (file("config/alerts.yml"), file("docs/runbook.md"));
    for alert in alerts().keys() {
        let link = format!("runbook: docs/runbook.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert}");
        let (_, paragraph) = runbook
            .split_once(&format!("\n## {alert}\n"))
            .unwrap_or_else(|| panic!("{alert}: no paragraph"));
        let paragraph = paragraph.split("\n## ").next().unwrap_or_default();
        assert!(
            paragraph.contains("`jetmesh ") || paragraph.contains("`journalctl "),
            "{alert}: no command"
        );
    }
    assert_eq!(runbook.matches("\n## ").count(), alerts().len());
}

/// A Prometheus that scrapes a host every second.
struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// `None`: this machine has none.
    fn start(dir: &Path, host: SocketAddr) -> Option<Prometheus> {
        let binary = found("prometheus")?;
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/alerts.yml");
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "jetmesh", "static_configs": [{ "targets": [host.to_string()] }] }],
        });
        let path = dir.join("prometheus.yml");
        // JSON is YAML.
        fs::write(&path, config.to_string()).expect("the test's folder is writable");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port");
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Prometheus {
            address,
            _process: Process::spawn("prometheus", command),
        })
    }

    /// `None`: it does not answer yet.
    async fn ask(&self, path: &str, query: &str) -> Option<Value> {
        let _ = tokio::net::TcpStream::connect(self.address).await.ok()?;
        let escape = |b: u8| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        };
        let query: String = query.bytes().map(escape).collect();
        let request = format!("GET /api/v1/{path}{query} HTTP/1.0\r\nHost: test\r\n\r\n");
        let answer = http::ask(self.address, &request).await;
        (answer.status == 200).then(|| answer.json())
    }

    async fn result(&self, query: &str) -> Vec<Value> {
        let answer = self.ask("query?query=", query).await;
        let answer = answer.unwrap_or_else(|| panic!("it refuses {query}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let binary = tool(program, &program.to_uppercase());
    if binary.is_none() {
        skipped(&format!("there is no {program}: `tools/install.sh prometheus` gets it"));
    }
    binary
}

#[tokio::test]
async fn a_real_prometheus_takes_metrics_exemplars_rules_and_every_query() {
    let schedule = "[schedules.tick]\nsubject = \"events.tick\"\nevery = \"1s\"";
    let (mesh, _host, address) = start(Config::probe_with("max_attempts = 1").table(schedule)).await;
    traced(&mesh).await;
    mesh.order(json!({ "op": "reject", "code": "c", "message": "m" })).await;
    mesh.wait_letters(1).await;
    // The place of KEDA's value, for this handler.
    let (queries, keda, place) = of_the_page();
    let place = place.replace("\"points\"", "\"probe\"");
    let text = eventually("what waits", SOON, async || {
        let text = plain(address).await;
        let fired = value(&text, "jetmesh_schedule_lag_seconds_count").is_some();
        value(&text, &place).filter(|_| fired).map(|_| text)
    })
    .await;
    assert_eq!(value(&text, &place), Some(0.0));
    let Some(prometheus) = Prometheus::start(mesh.dir.path(), address) else {
        return;
    };
    let dead = "jetmesh_dead_total{handler=\"probe\",cause=\"rejected\"} == 1";
    eventually("a scrape", SOON, async || {
        prometheus.ask("query?query=", dead).await?["data"]["result"]
            .get(0)
            .map(drop)
    })
    .await;
    let up = prometheus.result("up").await;
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    // Of what is always there, it has every metric; and it takes every query.
    for name in table().keys().filter(|name| {
        !["outbox", "duplicates", "rollout"]
            .iter()
            .any(|seldom| name.contains(seldom))
    }) {
        assert!(!prometheus.result(name).await.is_empty(), "it has no {name}");
    }
    for query in panels().into_iter().chain(queries).chain([keda]) {
        prometheus.result(&query).await;
    }
    let exemplars = prometheus
        .ask(
            "query_exemplars?query=jetmesh_run_seconds_bucket&start=0&end=",
            "9999999999",
        )
        .await;
    let exemplars = exemplars.expect("it answers").to_string();
    assert!(
        exemplars.contains(TRACE) && exemplars.contains("event_id"),
        "{exemplars}"
    );
    // No alert fires for a host that works, but those of the one dead letter.
    let of_letters = |rule: &Value| {
        rule["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("JetmeshDeadLetters"))
    };
    let calls = |rule: &Value| rule["state"] != "inactive" && !of_letters(rule);
    let rules = eventually("the rules to be evaluated upon a scrape", SOON, async || {
        let rules = prometheus.ask("rules", "").await?;
        let all = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        let evaluated = all.iter().all(|rule| rule["health"] != "unknown");
        (evaluated && !all.iter().any(calls)).then_some(all)
    })
    .await;
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let Some(promtool) = found("promtool") else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/alerts.yml");
    let checked = Command::new(&promtool)
        .args(["check", "rules"])
        .arg(rules)
        .output()
        .expect("it runs");
    assert!(checked.status.success(), "{checked:?}");
    let text_file = mesh.dir.path().join("metrics");
    fs::write(&text_file, plain(address).await).expect("the test's folder is writable");
    let input = fs::File::open(&text_file).expect("it is there");
    let checked = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(input)
        .output()
        .expect("it runs");
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
}
