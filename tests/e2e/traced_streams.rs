//! Traces of streams that have removed messages, or store them under other subjects.

use async_nats::jetstream::stream::{self, RetentionPolicy, SubjectTransform};
use serde_json::json;

use crate::mesh::{Config, Mesh};
use crate::schemas::{assert_fits, object};
use crate::support::modules;
use crate::trace::told;
use crate::whereabouts::emit;

/// The lines in which a search without a result reports what it has searched, one for each stream.
async fn searched(mesh: &Mesh) -> String {
    let (status, stdout, stderr) = mesh.jetmesh(&["trace", "--key", "n=0"]).await;
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    told(
        stderr
            .strip_prefix("error: no event has n=0\n")
            .expect("nothing is found"),
    )
}

#[tokio::test]
async fn a_search_says_from_where_on_each_stream_could_be_searched() {
    let probe = modules::handler("probe");
    let mut config = Config::new();
    for (name, stream) in [
        ("a", "LIMITED"),
        ("b", "GAPS"),
        ("c", "PURGED"),
        ("d", "WHOLE"),
        ("e", "ABSENT"),
    ] {
        config = config.handler(name, &probe, &format!("stream = \"{stream}\""));
    }
    let mesh = Mesh::new(config).await;
    let limited = stream::Config {
        name: "LIMITED".to_owned(),
        subjects: vec!["limited".to_owned()],
        max_messages: 2,
        ..stream::Config::default()
    };
    mesh.js.create_stream(limited).await.expect("it can be made");
    for name in ["GAPS", "PURGED", "WHOLE"] {
        mesh.add_stream(name, &[&name.to_lowercase()], RetentionPolicy::Limits)
            .await;
    }
    for n in 1..=5 {
        for subject in ["limited", "gaps", "purged", "whole"] {
            mesh.publish(subject, json!({ "n": n }).to_string()).await;
        }
    }
    let of = async |name: &str| mesh.js.get_stream(name).await.expect("it is there");
    of("GAPS").await.delete_message(3).await.expect("it goes");
    of("PURGED").await.purge().await.expect("it goes");
    insta::assert_snapshot!(searched(&mesh).await, @r"
    not searched: there is no stream ABSENT
    searched GAPS, messages read: 4; everything within the time of --since that the stream holds; it has removed 1 of its messages (by a purge or a deletion)
    searched LIMITED, messages read: 2; back to sequence 4, stored at [time]: the stream has removed all older messages (max_msgs 2)
    searched PURGED, messages read: 0; the stream is empty: it has removed all messages before sequence 6 (by a purge or a deletion)
    searched WHOLE, messages read: 5; everything within the time of --since
    ");
    // What was removed is no unknown event: the stream had it.
    let (status, _, stderr) = mesh.jetmesh(&["trace", "LIMITED:2"]).await;
    assert_eq!(status.code(), Some(1));
    let said =
        "no event LIMITED:2 is known: stream LIMITED holds messages from 4 to 5 and has removed this one, and no";
    assert!(stderr.contains(said), "{stderr}");
    let found = object(&mesh, &["trace", "--key", "n=5", "--json"]).await;
    assert_fits(&mesh, "trace", &found).await;
    let found: serde_json::Value = serde_json::from_str(&found).expect("JSON");
    let removed: Vec<_> = found["searched"].as_array().expect("a list").iter().collect();
    let of = |name: &str| {
        removed
            .iter()
            .find(|one| one["stream"] == name)
            .expect("it was searched")
    };
    assert_eq!(of("LIMITED")["removed"]["before"], json!(4));
    assert_eq!(of("GAPS")["removed"]["between"], json!(1));
    assert_eq!(of("WHOLE")["removed"], json!(null));
    assert_eq!(of("ABSENT")["missing"], json!(true));
}

#[tokio::test]
async fn an_emitted_event_is_found_under_the_subject_that_its_stream_gives_it_and_its_absence_is_told_as_it_is() {
    let mut mesh = Mesh::new(Config::probe()).await;
    let transformed = stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        subject_transform: Some(SubjectTransform {
            source: "events.*".to_owned(),
            destination: "stored.{{wildcard(1)}}".to_owned(),
        }),
        ..stream::Config::default()
    };
    mesh.js.create_stream(transformed).await.expect("it can be made");
    let host = mesh.host(&[]).await;
    mesh.order(emit("events.a", json!(1))).await;
    mesh.wait_emitted(1).await;
    host.stop().await;
    let followed = async |mesh: &Mesh, id: &str| {
        let text = told(&mesh.jetmesh_ok(&["trace", id]).await);
        let at = text.find("emitted ").expect("something is emitted");
        text[at..].lines().next().unwrap_or_default().to_owned()
    };
    let published = followed(&mesh, "ORDERS:1").await;
    assert_eq!(published, "emitted EVENTS:[n]  stored.a  at [time]");
    let events = mesh.js.get_stream("EVENTS").await.expect("it is there");
    events.purge().await.expect("it goes");
    let removed = followed(&mesh, "ORDERS:1").await;
    assert_eq!(
        removed,
        "emitted events.a: published; stream EVENTS does not hold it any more"
    );
    mesh.js.delete_stream("EVENTS").await.expect("it goes");
    let lost = followed(&mesh, "ORDERS:1").await;
    assert!(
        lost.starts_with("emitted events.a: published; where it is stored is not known"),
        "{lost}"
    );
    // Without a relay nothing is published.
    mesh.config = mesh.config.clone().top("relay = false");
    let host = mesh.host(&[]).await;
    mesh.order(emit("events.b", json!(2))).await;
    mesh.wait_decisions("probe", 2).await;
    host.stop().await;
    let waits = followed(&mesh, "ORDERS:2").await;
    assert_eq!(
        waits,
        "emitted events.b: not published yet, as far as the relay of its ledger has recorded"
    );
    let text = object(&mesh, &["trace", "--json", "ORDERS:2"]).await;
    assert_fits(&mesh, "trace", &text).await;
}
