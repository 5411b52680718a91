//! Whether what handlers and schedules may publish goes anywhere, and is taken there.

use std::collections::BTreeSet;

use super::Fit;
use crate::broker::{self, Connection, StreamInfo};
use crate::event::subject::overlap;
use crate::plan::Plan;

/// From this share of a limit on, a person is warned: in percent.
const NEAR: u64 = 80;
/// From this share on, little or nothing is taken.
const FULL: u64 = 99;

/// Whether what one publishes goes anywhere. `who`: a handler or a schedule, with its name; `subjects`: those that it may publish.
pub async fn look(
    connection: &Connection,
    plan: &Plan,
    (who, subjects): (&str, &[String]),
    fit: &mut Fit,
) -> Result<(), broker::Error> {
    for subject in subjects {
        let made = || {
            plan.streams
                .iter()
                .flat_map(|s| &s.subjects)
                .any(|s| overlap(s, subject))
        };
        let mut streams = connection.streams_of(subject).await?;
        if streams.is_empty() {
            // The account may map the subject.
            streams.extend(
                connection
                    .captured(&some_of(subject))
                    .await?
                    .map(|target| target.stream),
            );
        }
        for stream in &streams {
            if let Some(info) = connection.stream(stream).await? {
                takes(who, subject, stream, &info, fit);
            }
        }
        if !made() && streams.is_empty() {
            fit.problems.push(format!(
                "{who}: no stream captures `{subject}`, which it may publish: such an event would become a dead \
                 letter, cause undeliverable; describe a stream for it under [streams.NAME], or create one with \
                 `nats stream add NAME --subjects '{subject}' --defaults`"
            ));
        }
    }
    Ok(())
}

/// How the streams stand that handlers publish into: `problems` names those that take nothing, `warnings` those that are nearly full. A stream
/// that is not there is none of them.
pub async fn room(connection: &Connection, plan: &Plan) -> Result<Fit, broker::Error> {
    let mut fit = Fit::default();
    let mut looked = BTreeSet::new();
    for handler in &plan.handlers {
        let who = format!("handler {}", handler.name);
        for subject in handler.publish.iter().filter(|subject| looked.insert(subject.as_str())) {
            for stream in connection.streams_of(subject).await? {
                if let Some(info) = connection.stream(&stream).await? {
                    takes(&who, subject, &stream, &info, &mut fit);
                }
            }
        }
    }
    Ok(fit)
}

/// Some subject of a pattern.
fn some_of(pattern: &str) -> String {
    let token = |part| if matches!(part, "*" | ">") { "any" } else { part };
    pattern.split('.').map(token).collect::<Vec<_>>().join(".")
}

/// Whether a target takes what is published.
fn takes(who: &str, subject: &str, stream: &str, info: &StreamInfo, fit: &mut Fit) {
    let dead = "such an event becomes a dead letter, cause undeliverable";
    if info.config["sealed"] == true {
        fit.problems.push(format!(
            "{who}: stream {stream}, which captures `{subject}`, is sealed and takes nothing: {dead}; create the stream again"
        ));
    }
    // Another one removes its oldest messages instead.
    if info.config["discard"] != "new" {
        return;
    }
    let limits = [
        ("max_bytes", "bytes", info.state.bytes, "max-bytes"),
        ("max_msgs", "messages", info.state.messages, "max-msgs"),
    ];
    for (limit, unit, used, flag) in limits {
        let Some(most) = info.config[limit].as_u64().filter(|most| *most > 0) else {
            continue;
        };
        let percent = used.saturating_mul(100) / most;
        let told = format!(
            "{who}: stream {stream}, which captures `{subject}`, may hold {most} {unit} and holds {used}: full, it \
             refuses what is published, and {dead}; raise it with `nats stream edit {stream} --{flag}=...`"
        );
        match percent {
            FULL.. => fit.problems.push(told),
            NEAR.. => fit.warnings.push(told),
            _ => {}
        }
    }
}
