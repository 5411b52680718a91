//! Each row of `docs/failure-modes.md` has a test.

use std::path::Path;

const TABLES: &str = include_str!("../../docs/failure-modes.md");

#[test]
fn each_row_of_the_failure_modes_names_a_test_that_is_there() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e")];
    let mut sources = String::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder of the tests") {
            let path = file.expect("a file").path();
            match path.is_dir() {
                true => folders.push(path),
                false => sources += &std::fs::read_to_string(&path).expect("a test is text"),
            }
        }
    }
    let rows: Vec<&str> = TABLES
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| what fails"))
        .collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let name = row.trim_end_matches(" |").rsplit("| ").next().expect("a last column");
        let name = name.trim_matches('`');
        assert!(sources.contains(&format!("fn {name}(")), "no test of this row: {row}");
    }
}
