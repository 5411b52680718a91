//! The table of a run, in Markdown.

use crate::measure::{Measured, ORDER_BYTES, PACE_PER_SECOND};
use crate::shared::machine;
use crate::{Taker, Turn};

/// Medians over the rounds, and the ratio to `native` within each round.
pub fn table(turns: &[Turn], events: usize, rounds: usize, server_version: String) -> String {
    let mut text = format!(
        "## Dispatch\n\n{}. nats-server {server_version}, file storage. {events} orders of {ORDER_BYTES} bytes, median of \
         {rounds} rounds, the ratio taken within a round. Times from publish to ack are at {PACE_PER_SECOND} orders a \
         second.\n\n\
         | concurrency | taker | orders/s | of native | p50 ms | p99 ms | host µs CPU | server µs CPU |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|\n",
        machine()
    );
    let mut concurrencies: Vec<usize> = turns.iter().map(|turn| turn.concurrency).collect();
    concurrencies.dedup();
    for concurrency in concurrencies {
        for taker in Taker::ALL {
            let of = |taker: Taker| {
                let turns = turns
                    .iter()
                    .filter(move |t| (t.concurrency, t.taker) == (concurrency, taker));
                turns.map(|t| (t.round, t.measured))
            };
            let median_of = |value: fn(&Measured) -> f64| median(of(taker).map(|(_, m)| value(&m)).collect());
            let ratios = of(taker).filter_map(|(round, m)| {
                let native = of(Taker::Native).find(|native| native.0 == round)?.1;
                Some(m.per_second / native.per_second)
            });
            text += &format!(
                "| {concurrency} | {} | {:.0} | {:.0} % | {:.2} | {:.2} | {:.1} | {:.1} |\n",
                taker.name(),
                median_of(|m| m.per_second),
                median(ratios.collect()) * 100.0,
                median_of(|m| m.p50_ms),
                median_of(|m| m.p99_ms),
                median_of(|m| m.host_us),
                median_of(|m| m.server_us),
            );
        }
    }
    text
}

/// The one in the middle; of an even number, the mean of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (values[last / 2] + values[last.div_ceil(2)]) / 2.0
}
