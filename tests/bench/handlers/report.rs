//! The table of a run, in Markdown.

use std::time::Duration;

use crate::measure::Row;
use crate::shared::machine;
use crate::site::{SERVICES, STREAMS};

const MIB: f64 = 1024.0 * 1024.0;

pub fn table(rows: &[Row], idle: Duration, server_version: &str) -> String {
    let mut text = format!(
        "## Handlers\n\n{}. nats-server {server_version}, file storage. {SERVICES} modules, {STREAMS} source streams; half of \
         the handlers write to a bucket, a quarter emit, a quarter do neither. Idle processor time of one core, over \
         {} s.\n\n\
         | handlers | a bucket for each | ledgers | first start s | start s | of that, preparing | one event each s | status s | host MiB | \
         KiB a handler | descriptors | connections | host idle | server MiB | server idle |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        machine(),
        idle.as_secs()
    );
    for row in rows {
        text += &format!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {} | {} | {:.1} % | {:.0} | {:.1} % |\n",
            row.handlers,
            row.buckets.name(),
            row.ledgers,
            row.first.as_secs_f64(),
            row.again.as_secs_f64(),
            row.prepared.as_secs_f64(),
            row.decided.as_secs_f64(),
            row.status.as_secs_f64(),
            row.host_bytes as f64 / MIB,
            row.host_bytes as f64 / 1024.0 / row.handlers as f64,
            row.descriptors,
            row.connections,
            row.host_idle * 100.0,
            row.server_bytes as f64 / MIB,
            row.server_idle * 100.0,
        );
    }
    text
}
