//! Each handler is given one event, and each does its work.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::site::{Does, EMITTED, STREAMS, Site, stream};
use crate::support::{cli, eventually};

/// More than any machine needs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Events that are published at a time.
const AT_ONCE: usize = 256;

/// Publishes one event for each handler, and returns when all are decided and their effects are there: how long that took.
///
/// # Panics
/// When one is not decided.
pub async fn all_decide(site: &Site) -> Duration {
    let began = Instant::now();
    let publish = |handler: crate::site::Handler| async move {
        let ack = site.js.publish(handler.subject(), handler.order().into()).await;
        ack.expect("connected").await.expect("a stream takes it");
    };
    let all = futures_util::stream::iter(site.handlers.iter().copied()).map(publish);
    all.buffer_unordered(AT_ONCE).collect::<()>().await;
    eprintln!("published after {:?}", began.elapsed());

    for number in 0..STREAMS {
        let name = stream(number);
        let wanted = site.handlers.iter().filter(|h| h.stream() == name).count();
        eventually(format!("all events of {name} to be decided"), PATIENCE, async || {
            (settled(&site.js, &name).await == wanted).then_some(())
        })
        .await;
    }
    eprintln!("acked after {:?}", began.elapsed());
    let count = |does: Does| site.handlers.iter().filter(|h| h.does() == does).count();
    eventually("every emitted event", PATIENCE, async || {
        let info = site.js.get_stream(EMITTED).await.ok()?;
        (info.cached_info().state.messages == count(Does::Emits) as u64).then_some(())
    })
    .await;
    eprintln!("emitted after {:?}", began.elapsed());
    let mut written = 0;
    for bucket in site.buckets() {
        let stream = site
            .js
            .get_stream(format!("KV_{bucket}"))
            .await
            .expect("the host has made it");
        let keys = stream.info_with_subjects(format!("$KV.{bucket}.>")).await;
        written += keys.expect("it answers").count().await;
    }
    assert_eq!(written, count(Does::Writes), "keys that handlers have written");
    began.elapsed()
}

/// How many handlers of a stream have had a message, and nothing to deliver or to wait for any more.
async fn settled(js: &Context, name: &str) -> usize {
    let stream = js.get_stream(name).await.expect("the host has made it");
    let infos: Vec<_> = stream.consumers().try_collect().await.expect("they are told");
    let done = infos
        .iter()
        // A reader of the stream has a consumer as well.
        .filter(|info| info.name.starts_with('h'))
        .filter(|info| info.num_pending == 0 && info.num_ack_pending == 0 && info.delivered.stream_sequence > 0);
    done.count()
}

/// Whether `jetmesh status` says that every handler, ledger and relay serves: how long that took.
///
/// # Panics
/// When one does not; the text names it.
pub async fn all_serve(site: &Site, file: &str) -> Duration {
    let began = Instant::now();
    let (code, stdout, stderr) = cli::jetmesh_in(site.dir.path(), &["status", "--json", "--config", file]).await;
    let took = began.elapsed();
    let status: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let rows = status["handlers"].as_array().expect("it has handlers");
    assert_eq!(rows.len(), site.handlers.len());
    let not: Vec<&Value> = rows.iter().filter(|row| row["state"] != "serving").collect();
    assert!(
        code.success() && not.is_empty(),
        "{code}: these do not serve: {not:?}\n{stderr}"
    );
    took
}
