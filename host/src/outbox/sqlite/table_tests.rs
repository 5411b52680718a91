//! The table of an outbox in a file, also if a service has made or changed it.

use super::*;
use crate::plan::{OutboxDatabase, OutboxSource};

/// An outbox whose table was changed after it was made.
fn changed(folder: &Path, sql: &str) -> Table {
    let file = folder.join("orders.db");
    let outbox = Outbox {
        name: "orders".to_owned(),
        database: OutboxDatabase::Sqlite(file.clone()),
        source: OutboxSource::Table,
        table: "outbox".to_owned(),
        stream: "ORDERS".to_owned(),
    };
    let mut table = Table::new(&outbox, &file);
    table.init().unwrap();
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    table
}

#[test]
fn rows_are_deleted_with_the_position_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "INSERT INTO outbox (id, uid, subject) VALUES (1, 7, 'a'), (2, 8, 'b')";
    let mut table = changed(folder.path(), sql);
    let rows = [RowRef(1, 7), RowRef(3, 9)];
    assert_eq!(table.missing(&rows).unwrap(), [RowRef(3, 9)]);
    let from = table.look(0, 0).unwrap().position;
    let next = |batch, sequence| TablePosition {
        batch,
        sequence,
        ..from.clone()
    };
    // Another relay has moved it, in a batch or by a marker alone.
    for other in [next(5, 0), next(0, 5)] {
        assert!(!table.confirm(&other, &next(6, 6), &rows).unwrap());
        assert_eq!(table.look(9, 99).unwrap().rows.len(), 2);
    }
    assert!(table.confirm(&from, &next(1, 1), &rows).unwrap());
    assert_eq!(table.look(9, 99).unwrap().rows.len(), 1);
}

#[test]
fn a_row_that_nothing_tells_apart_stops_the_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "DROP TABLE outbox; CREATE TABLE outbox (id INTEGER PRIMARY KEY, subject, headers, payload, uid, time_ms); \
               INSERT INTO outbox (subject) VALUES ('orders.created')";
    let mut table = changed(folder.path(), sql);
    let why = table.look(9, 99).unwrap_err();
    assert!(
        !why.passes() && why.to_string().contains("make the columns as"),
        "{why}"
    );
}

#[test]
fn a_column_that_is_missing_is_to_be_added_by_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = changed(folder.path(), "ALTER TABLE outbox RENAME COLUMN payload TO body");
    let why = table.look(9, 99).unwrap_err().to_string();
    assert!(why.contains("add the column with `ALTER TABLE`"), "{why}");
}
