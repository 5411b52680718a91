//! The table of a run, in Markdown.

use crate::audit::Judged;
use crate::case::Case;
use crate::order::BYTES;
use crate::phases::Run;
use crate::shared::machine;

/// A case and what came of it.
pub struct Row<'a> {
    pub case: &'a Case,
    pub run: Run,
    pub judged: Judged,
}

pub fn heading(seconds: u64, server_version: &str) -> String {
    format!(
        "## Transactions\n\n{}. nats-server {server_version}, file storage, default sync interval, on the same \
         machine. The shipped handlers, a fresh instance for each event, default configuration and logging, the relay \
         in the host; orders of {BYTES} bytes. A transaction is one order decided by one handler: *inventory* lowers one of \
         10,000 keys and emits one event.\n\n\
         Speeds and processor times are taken over {seconds} s in which a backlog of orders lies in the stream from \
         the start; *topped up* are orders that had to be published meanwhile, because it was not enough. *Behind* are \
         events that were decided and not emitted at the end of that time, and in brackets messages that the relay's \
         consumer had not acked. *Per append* and *most* are decisions of an append; *conflicts* are runs whose reads \
         had changed, *refused* are appends that met another's.\n\n\
         Times are from an order's time in its stream to that of the event emitted for it, both the server's: at a \
         pace, and of single orders on an otherwise idle machine. Every order of every row was looked at afterwards: \
         decided once, one event emitted, all keys right.\n\n\
         | case | decided/s | slowest sixth | emitted/s | behind | host µs CPU | server µs CPU | per append | most \
         | conflicts | refused | topped up | pace/s | p50 ms | p99 ms | alone p50 ms | alone p99 ms | orders |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        machine()
    )
}

impl Row<'_> {
    pub fn text(&self) -> String {
        let Row { case, run, judged } = self;
        let steady = &run.steady;
        let seconds = (steady.window.end - steady.window.start) as f64 / 1e9;
        let decided = judged.decided as f64;
        let slowest = judged.parts.iter().min().map_or(0.0, |count| *count as f64);
        let cells = [
            case.name.to_owned(),
            format!("{:.0}", decided / seconds),
            format!("{:.0}", slowest / seconds * judged.parts.len() as f64),
            format!("{:.0}", judged.emitted as f64 / seconds),
            format!("{} ({})", judged.behind, steady.relays_left.all()),
            format!("{:.1}", steady.hosts.as_secs_f64() * 1e6 / decided),
            format!("{:.1}", steady.servers.as_secs_f64() * 1e6 / decided),
            format!("{:.1}", decided / judged.entries as f64),
            judged.group_max.to_string(),
            steady.said.conflicts.to_string(),
            steady.said.refused.to_string(),
            steady.published.to_string(),
            run.pace.to_string(),
            format!("{:.1}", judged.paced.p50),
            format!("{:.1}", judged.paced.p99),
            format!("{:.1}", judged.lone.p50),
            format!("{:.1}", judged.lone.p99),
            judged.orders.to_string(),
        ];
        format!("| {} |", cells.join(" | "))
    }
}
