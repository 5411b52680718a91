//! The table of metrics keeps Prometheus' conventions, its text reads as the formats want it, and `docs/metrics.md` is made of it.

use std::collections::BTreeSet;

use super::backlog::MeshBacklog;
use super::exposition::{Samples, TextFormat, text, text_of};
use super::families::{FAMILIES, Family, FamilyKind, Scrape};
use super::proc::ProcessFigures;
use crate::histogram::{Exemplar, Histogram};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

#[test]
fn names_keep_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    for family in &FAMILIES {
        let name = family.name;
        assert!(names.insert(family.full_name()), "{name}: twice");
        assert!(name.starts_with("jetmesh_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name}");
        for unit in ["seconds", "bytes"] {
            assert_eq!(
                name.ends_with(unit),
                family.unit == Some(unit),
                "{name}: a unit is its last word"
            );
        }
        assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{name}");
        let reserved = ["le", "job", "instance"];
        assert!(family.labels.iter().all(|label| !reserved.contains(label)), "{name}");
    }
}

fn some(_: &Scrape<'_>, out: &mut Samples<'_>) {
    let times = Histogram::times();
    let exemplar = |value| Exemplar {
        event: "k.7".to_owned(),
        trace: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
        value,
        at_ms: 1_700_000_000_123,
    };
    times.count_of(15_000, 0, || exemplar(15_000));
    times.count(90_000_000_000);
    out.histogram(&["a \"b\"\\\n"], times.now(), 1e9);
}

fn counted(_: &Scrape<'_>, out: &mut Samples<'_>) {
    out.add(&["a"], 3);
    out.add(&["b"], 0);
}

fn without_host(backlog: &MeshBacklog, process: ProcessFigures) -> Scrape<'_> {
    Scrape {
        host: None,
        backlog,
        process,
        now_ms: 0,
    }
}

fn of(family: &'static Family, format: TextFormat) -> String {
    let backlog = MeshBacklog::default();
    let scrape = without_host(&backlog, ProcessFigures::default());
    text_of(std::iter::once(family), format, &scrape)
}

#[test]
fn a_histogram_reads_as_openmetrics_with_exemplars_and_as_prometheus_without() {
    static TIMES: Family = Family {
        name: "x_seconds",
        kind: FamilyKind::Histogram,
        unit: Some("seconds"),
        labels: &["l"],
        help: "Help.",
        samples: some,
    };
    let open = of(&TIMES, TextFormat::OpenMetrics);
    let lines: Vec<&str> = open.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "# TYPE x_seconds histogram",
            "# UNIT x_seconds seconds",
            "# HELP x_seconds Help.",
            r#"x_seconds_bucket{l="a \"b\"\\\n",le="0.00001"} 0"#,
            r#"x_seconds_bucket{l="a \"b\"\\\n",le="0.00002"} 1 # {event_id="k.7",trace_id="0af7651916cd43dd8448eb211c80319c"} 0.000015 1700000000.123"#,
        ]
    );
    assert_eq!(
        lines[lines.len() - 5..],
        [
            r#"x_seconds_bucket{l="a \"b\"\\\n",le="60.0"} 1"#,
            r#"x_seconds_bucket{l="a \"b\"\\\n",le="+Inf"} 2"#,
            r#"x_seconds_sum{l="a \"b\"\\\n"} 90.000015"#,
            r#"x_seconds_count{l="a \"b\"\\\n"} 2"#,
            "# EOF",
        ]
    );
    let plain = of(&TIMES, TextFormat::Prometheus);
    assert!(
        !plain.contains(" # {") && !plain.contains("EOF") && !plain.contains("UNIT"),
        "{plain}"
    );
}

#[test]
fn a_counter_has_its_suffix_where_each_format_wants_it() {
    static COUNTS: Family = Family {
        name: "x",
        kind: FamilyKind::Counter,
        unit: None,
        labels: &["l"],
        help: "Help.",
        samples: counted,
    };
    let samples = "x_total{l=\"a\"} 3\nx_total{l=\"b\"} 0\n";
    assert_eq!(
        of(&COUNTS, TextFormat::OpenMetrics),
        format!("# TYPE x counter\n# HELP x Help.\n{samples}# EOF\n")
    );
    assert_eq!(
        of(&COUNTS, TextFormat::Prometheus),
        format!("# TYPE x_total counter\n# HELP x_total Help.\n{samples}")
    );
}

#[test]
fn a_host_that_starts_has_figures_of_its_process() {
    let backlog = MeshBacklog::default();
    let scrape = without_host(&backlog, ProcessFigures::read());
    let text = text(TextFormat::Prometheus, &scrape);
    for name in [
        "jetmesh_build_info{version=",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
    assert!(!text.contains("jetmesh_handler"), "{text}");
}

#[test]
fn the_page_of_metrics_is_the_reference_of_the_code() {
    let page = std::fs::read_to_string(PAGE).expect("the page is there");
    let (before, rest) = page.split_once("<!-- metrics -->\n").expect("it has the mark");
    let old: usize = rest
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'))
        .map(str::len)
        .sum();
    let mut rows = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in &FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        rows += &format!(
            "| `{}` | {} | {} | {} |\n",
            family.full_name(),
            family.kind.word(),
            if labels.is_empty() {
                "–".to_owned()
            } else {
                labels.join(", ")
            },
            family.help
        );
    }
    let made = format!("{before}<!-- metrics -->\n{rows}{}", &rest[old..]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &made).expect("the page can be written");
    } else {
        assert!(
            made == page,
            "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test -p jetmesh --lib reference"
        );
    }
}
