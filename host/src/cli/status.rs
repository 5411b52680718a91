//! `jetmesh status`: asks NATS, and the hosts that run, how each handler stands.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::args::Status;
use super::{Args, Error, OK, table};
use crate::broker::consumer::{META_HANDLER, META_MESH};
use crate::broker::provision::{DEAD, kv_stream};
use crate::broker::{self, By, Connection};
use crate::delayed;
use crate::dlq::retention;
use crate::dlq::{Filter, select};
use crate::ledger::entry::{Head, Subjects};
use crate::micro;
use crate::plan::{Handler, Plan};

/// How long to wait for a further host to answer.
const HOSTS_WAIT: Duration = Duration::from_millis(300);

pub async fn run(args: &Args, status: &Status) -> Result<u8, Error> {
    let loaded = args.load()?;
    let plan = &loaded.plan;
    let connection = broker::open(&plan.nats, "jetmesh status").await?;
    let hosts = hosts(&connection, &plan.mesh).await;
    let mut handlers = Vec::new();
    for handler in &plan.handlers {
        handlers.push(stand(&connection, handler, &hosts).await?);
    }
    let orphans = orphans(&connection, plan).await?;
    let delayed = delayed::waiting(&connection).await?;
    let dead = connection.stream(DEAD).await?;
    let warnings = dead.as_ref().map(retention::warnings).unwrap_or_default();
    if status.json {
        let hosts: Vec<&Value> = hosts.iter().collect();
        let (waiting, due) = delayed;
        let body = json!({
            "mesh": plan.mesh,
            "handlers": handlers,
            "delayed": { "waiting": waiting, "due": due },
            "orphans": orphans,
            "hosts": hosts,
            "warnings": warnings,
        });
        println!("{}", serde_json::to_string_pretty(&body).expect("it serialises"));
        return Ok(OK);
    }
    print(plan, &hosts, &handlers, &orphans);
    warnings.iter().for_each(|warning| println!("warning: {warning}"));
    match delayed {
        (0, 0) => {}
        (waiting, 0) => println!("delayed events: {waiting} wait for their time"),
        (waiting, due) => {
            println!("delayed events: {waiting} wait for their time, {due} are due and not published yet")
        }
    }
    Ok(OK)
}

fn print(plan: &Plan, hosts: &[Value], handlers: &[Value], orphans: &[Value]) {
    let names: Vec<&str> = hosts.iter().filter_map(|h| h["id"].as_str()).collect();
    match names.as_slice() {
        [] => println!("mesh {}: no host answers", plan.mesh),
        names => println!("mesh {}: {} host(s) {}", plan.mesh, names.len(), names.join(", ")),
    }
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = [
        "handler",
        "consumer",
        "module",
        "pending",
        "in_flight",
        "redelivered",
        "decided",
        "dead",
    ];
    let rows: Vec<Vec<String>> = handlers
        .iter()
        .map(|h| columns.iter().map(|column| text(&h[*column])).collect())
        .collect();
    let header: Vec<String> = columns.iter().map(|c| c.to_uppercase().replace('_', " ")).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table::print(&header, &rows);
    for handler in handlers {
        if let Some(note) = handler["note"].as_str() {
            println!("{}: {note}", text(&handler["handler"]));
        }
    }
    for orphan in orphans {
        let (stream, consumer) = (text(&orphan["stream"]), text(&orphan["consumer"]));
        println!(
            "orphan: consumer {consumer} on stream {stream} belongs to handler {}, which is not in the configuration; \
             remove it with `nats consumer rm {stream} {consumer}`",
            text(&orphan["handler"])
        );
    }
}

/// What every running host says of itself.
pub(super) async fn hosts(connection: &Connection, mesh: &str) -> Vec<Value> {
    let inbox = connection.client.new_inbox();
    let Ok(mut answers) = connection.client.subscribe(inbox.clone()).await else {
        return Vec::new();
    };
    let subject = format!("$SRV.STATS.{}", micro::service(mesh));
    if connection
        .client
        .publish_with_reply(subject, inbox, "".into())
        .await
        .is_err()
    {
        return Vec::new();
    }
    let mut hosts = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(HOSTS_WAIT, answers.next()).await {
        if answer.status.is_some() {
            break;
        }
        hosts.extend(serde_json::from_slice::<Value>(&answer.payload).ok());
    }
    hosts
}

async fn stand(connection: &Connection, handler: &Handler, hosts: &[Value]) -> Result<Value, broker::Error> {
    let mut modules: Vec<&str> = hosts
        .iter()
        .flat_map(|h| h["endpoints"].as_array().into_iter().flatten())
        .filter(|e| e["name"] == json!(handler.name))
        .filter_map(|e| e["data"]["module"].as_str())
        .collect();
    modules.sort_unstable();
    modules.dedup();
    let mut body = json!({
        "handler": handler.name,
        "stream": handler.stream,
        "consumer": handler.consumer,
        "module": if modules.is_empty() { Value::Null } else { json!(modules.join(",")) },
    });
    let Some(info) = connection.consumer(&handler.stream, &handler.consumer).await? else {
        body["note"] = json!("its consumer is not there; a running host makes it");
        return Ok(body);
    };
    body["pending"] = json!(info.num_pending);
    body["in_flight"] = json!(info.num_ack_pending);
    body["redelivered"] = json!(info.num_redelivered);
    if info.paused {
        body["note"] = json!("its consumer is paused: resume it with `nats consumer resume`");
    }
    if let Some(ledger) = &handler.ledger {
        let subject = Subjects::new(ledger).head();
        let stored = connection.stored(&kv_stream(ledger), By::Last(&subject)).await?;
        let head: Head = stored
            .and_then(|s| serde_json::from_slice(&s.payload).ok())
            .unwrap_or_default();
        let floor = head.floors.get(&handler.name).cloned().unwrap_or_default();
        body["decided"] = json!(floor.done + floor.dead);
    }
    body["dead"] = json!(letters(connection, handler).await?);
    Ok(body)
}

/// How many dead letters of a handler wait for a person.
async fn letters(connection: &Connection, handler: &Handler) -> Result<u64, broker::Error> {
    if connection.stream(DEAD).await?.is_none() {
        return Ok(0);
    }
    let own = Filter {
        handler: Some(handler.name.clone()),
        ..Filter::default()
    };
    let mut count = 0;
    select::each(connection, &own, false, |_| count += 1).await?;
    Ok(count)
}

/// Consumers of this mesh whose handler is not in the configuration.
async fn orphans(connection: &Connection, plan: &Plan) -> Result<Vec<Value>, broker::Error> {
    let mut streams: Vec<&str> = plan.handlers.iter().map(|h| h.stream.as_str()).collect();
    streams.extend(plan.streams.iter().map(|s| s.name.as_str()));
    streams.sort_unstable();
    streams.dedup();
    let mut found = Vec::new();
    for stream in streams {
        if connection.stream(stream).await?.is_none() {
            continue;
        }
        let list: Value = connection.api(&format!("CONSUMER.LIST.{stream}"), &json!({})).await?;
        for consumer in list["consumers"].as_array().into_iter().flatten() {
            let metadata = &consumer["config"]["metadata"];
            let (Some(mesh), Some(handler)) = (metadata[META_MESH].as_str(), metadata[META_HANDLER].as_str()) else {
                continue;
            };
            let known = plan
                .handlers
                .iter()
                .any(|h| h.name == handler && json!(h.consumer) == consumer["name"]);
            if mesh == plan.mesh && !known {
                found.push(json!({ "stream": stream, "consumer": consumer["name"], "handler": handler }));
            }
        }
    }
    Ok(found)
}
