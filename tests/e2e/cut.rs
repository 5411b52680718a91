//! The mesh's own streams when they have lost their end, while the consumers on them have not.
//!
//! Servers from 2.15 on set such consumers back when they start; earlier ones do not.

use serde_json::json;

use crate::ahead::Files;
use crate::delayed::lie_there;
use crate::mesh::{Config, PATIENT};
use crate::poisoned::{config, fix, publish, replay};
use crate::support::eventually;

#[tokio::test]
async fn replays_that_are_asked_for_after_their_stream_has_lost_its_end_run() {
    let mut files = Files::new(config()).await;
    let _host = files.mesh.host(&[]).await;
    publish(&files.mesh, 0, 6).await;
    files.mesh.wait_letters(6).await;
    fix(&files.mesh).await;
    let kept = files.keep("MESH_REPLAY").await;
    // As many replays as the stream loses come again under the same sequences, and more of them.
    for (before, after) in [(1, 1), (1, 3)] {
        for count in [before, after] {
            let letters = files.mesh.letters().await;
            let ids: Vec<&str> = letters.iter().take(count).map(|letter| letter.letter_id()).collect();
            for id in ids {
                let (code, account) = replay(&files.mesh, &[id]).await;
                assert_eq!((code, &account["succeeded"]), (Some(0), &json!(1)), "{account}");
            }
            files.mesh.wait_replayed().await;
            if count == before {
                files.lose_end("MESH_REPLAY", &kept).await;
                files.mesh.server.restart().await;
            }
        }
    }
    crate::poisoned::judge(&files.mesh, 6).await;
}

/// The server fires with no host up, and the events that are due take the sequences of what was lost.
#[tokio::test]
async fn delayed_events_that_were_due_before_a_host_came_are_published_when_their_stream_has_lost_its_end() {
    let mut files = Files::new(Config::probe()).await;
    let host = files.mesh.host(&[]).await;
    let later = |ms: u64| json!({ "op": "emit_later", "subject": "events.later", "payload": ms, "after_ms": ms });
    files.mesh.order(json!([later(5000), later(5001)])).await;
    eventually("both to wait", PATIENT, async || {
        (lie_there(&files.mesh, "delay").await.len() == 2).then_some(())
    })
    .await;
    let kept = files.keep("MESH_DELAYED").await;
    files.mesh.order(later(100)).await;
    files.mesh.wait_emitted(1).await;
    let given = files.mesh.wait_settled("MESH_DELAYED", "mesh-due").await;
    host.stop().await;
    files.lose_end("MESH_DELAYED", &kept).await;
    files.mesh.server.restart().await;
    eventually("both to be due", PATIENT, async || {
        (lie_there(&files.mesh, "due").await.len() == 2).then_some(())
    })
    .await;
    let mut delayed = files.mesh.js.get_stream("MESH_DELAYED").await.expect("it is there");
    let last = delayed.info().await.expect("it tells").state.last_sequence;
    assert_eq!(
        given["delivered"]["stream_seq"], last,
        "they have the sequences of what was lost"
    );
    let _host = files.mesh.host(&[]).await;
    files.mesh.wait_emitted(3).await;
    files.mesh.wait_settled("MESH_DELAYED", "mesh-due").await;
}

/// Letters that were lost are put back from an export; one that was resolved and has come back is resolved again by a replay.
#[tokio::test]
async fn dead_letters_are_put_back_and_replayed_when_their_stream_has_lost_its_end() {
    let mut files = Files::new(config()).await;
    let _host = files.mesh.host(&[]).await;
    publish(&files.mesh, 0, 2).await;
    let first = files.mesh.wait_letters(2).await;
    let kept = files.keep("MESH_DEAD").await;
    publish(&files.mesh, 2, 4).await;
    files.mesh.wait_letters(4).await;
    let exported = files.mesh.jetmesh_ok(&["dlq", "export", "--all"]).await;
    fix(&files.mesh).await;
    let (code, account) = replay(&files.mesh, &[first[0].letter_id()]).await;
    assert_eq!(code, Some(0), "{account}");
    files.mesh.wait_letters(3).await;
    files.lose_end("MESH_DEAD", &kept).await;
    files.mesh.server.restart().await;
    files.mesh.wait_letters(2).await;
    let file = files.mesh.dir.path().join("letters.jsonl");
    std::fs::write(&file, exported).expect("the test's folder is writable");
    let file = file.to_str().expect("a path in UTF-8");
    files.mesh.jetmesh_ok(&["dlq", "import", file]).await;
    files.mesh.wait_letters(4).await;
    let (code, account) = replay(&files.mesh, &["--all"]).await;
    assert_eq!(code, Some(0), "{account}");
    crate::poisoned::judge(&files.mesh, 4).await;
}
