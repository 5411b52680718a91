//! What a page can ask.

use super::login::SessionJson;
use super::query::Query;
use super::session::ViewerSession;
use super::site::json;
use super::trouble::ConsoleError;
use super::{Console, audit, exports, letters, modules, now, registry, rights, state, waiting, whereabouts};
use crate::http::Answer;

pub async fn answer(
    console: &Console,
    session: &ViewerSession,
    call: &str,
    query: &Query,
) -> Result<Answer, ConsoleError> {
    if let Some(id) = call.strip_prefix("letter/") {
        return json(&letters::letter(session, id).await?);
    }
    match call {
        "session" => json(&SessionJson::of(console, session)),
        "mesh" => json(&now::picture(&session.plan)),
        "status" => now::status(console, session).await,
        "dead" => json(&now::dead(session).await?),
        "rights" => json(&rights::missing(session, query).await?),
        "groups" => letters::groups(console, session, query).await,
        "export" => json(&exports::state(session, query)?),
        "letters" => json(&letters::letters(session, query).await?),
        "audit" => json(&audit::records(session, query).await?),
        "trace" => json(&whereabouts::trace(session, query).await?),
        "modules" => json(&modules::modules(session).await?),
        "registry" => json(&registry::registry(session, query).await?),
        "buckets" => json(&serde_json::json!({ "buckets": state::buckets(&session.plan) })),
        "keys" => json(&state::keys(session, query).await?),
        "key" => json(&state::key(session, query).await?),
        "retrying" => json(&waiting::retrying(session, query).await?),
        "delayed" => json(&waiting::delayed(session, query).await?),
        "waiting" => json(&waiting::others(session).await?),
        _ => Err(ConsoleError::missing(format!("there is no query {call}"))),
    }
}
