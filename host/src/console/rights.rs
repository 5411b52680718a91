//! Which orders the viewer's user of NATS may not give, so that the page says it before.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::session::ViewerSession;
use super::trouble::ConsoleError;
use crate::broker::provision::{ATTEMPTS, MESH_BUCKET};
use crate::fit::may_publish;

/// By order: the first subject that the user may not publish to; null: none is known. Each is tried with a request that the server
/// refuses for another reason, so nothing is changed.
pub async fn missing(session: &ViewerSession) -> Result<BTreeMap<&'static str, Option<String>>, ConsoleError> {
    let connection = session.connection().await?;
    let prefix = connection.api_prefix();
    let handler = session.plan.handlers.first();
    let name = handler.map_or("check", |handler| handler.name.as_str());
    let consumer = handler.map_or_else(
        || "check.check".to_owned(),
        |one| format!("{}.{}", one.stream, one.consumer),
    );
    let bucket = format!("$KV.{MESH_BUCKET}.check");
    let orders: [(&str, Vec<String>); 7] = [
        ("replay", vec![format!("$MESH.replay.{name}.list.check")]),
        ("discard", vec![format!("$MESH.dead.check.{name}.check.check")]),
        ("retry-now", vec![format!("$JS.ACK.{consumer}.check")]),
        ("give-up", vec![format!("$KV.{ATTEMPTS}.{name}.check.check")]),
        (
            "pause",
            vec![bucket.clone(), format!("{prefix}.CONSUMER.PAUSE.{consumer}.check")],
        ),
        ("note", vec![bucket.clone()]),
        ("schedule", vec![bucket, format!("$MESH.state.{MESH_BUCKET}.check")]),
    ];
    let all = orders.into_iter().map(|(order, subjects)| {
        let connection = &connection;
        async move {
            for subject in subjects {
                if !may_publish(connection, &subject).await {
                    return (order, Some(subject));
                }
            }
            (order, None)
        }
    });
    Ok(join_all(all).await.into_iter().collect())
}
