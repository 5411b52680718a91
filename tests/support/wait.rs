//! Waiting for facts. Nothing else in the tests sleeps.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

/// How long a test waits for what normally takes well under a second, on a busy machine with two cores.
pub const SOON: Duration = Duration::from_secs(30);

/// Between two looks. Short, so that a test ends when its fact is there; long enough to leave the processor to others.
const POLL: Duration = Duration::from_millis(20);

/// Calls `probe` every 20 ms until it answers `Some`, and returns that. `what` names the fact waited for.
///
/// # Panics
/// When `limit` has passed, also while a call of `probe` still hangs; the text names `what` and the waiting line.
#[track_caller]
pub fn eventually<T>(
    what: impl Display,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let line = Location::caller();
    async move {
        let mut looks = 0_u32;
        let found = tokio::time::timeout(limit, async {
            loop {
                looks += 1;
                if let Some(found) = probe().await {
                    return found;
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
        match found {
            Ok(found) => found,
            Err(_) => panic!("waited {limit:?} in vain, {looks} looks, for {what} (at {line})"),
        }
    }
}
