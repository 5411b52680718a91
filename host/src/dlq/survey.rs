//! Dead letters by fault, the newest first, as far as a limit allows.

use std::time::{Duration, Instant};

use super::select::{Unread, backwards};
use super::{Filter, Groups};
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;

/// The groups of the letters that were looked at.
#[derive(Debug, Default)]
pub struct Survey {
    pub groups: Groups,
    /// Letters that were looked at, whatever the filter says of them.
    pub looked_at: u64,
    /// How many of them the filter means.
    pub meant: u64,
    /// When the oldest of them was written, in milliseconds since the Unix epoch.
    pub back_to_ms: u64,
    /// `None`: everything was looked at. Else how many the stream holds, settled ones among them.
    pub in_stream: Option<u64>,
    pub unread: Unread,
}

/// Looks at no more letters than `most`, and for no longer than `time`, but for the piece at which it is then.
pub async fn survey(connection: &Connection, filter: &Filter, most: u64, time: Duration) -> Result<Survey, Error> {
    let (began, mut groups) = (Instant::now(), Groups::until(now_ms()));
    let looked = backwards(
        connection,
        filter,
        None,
        |looked| looked.looked_at < most && began.elapsed() < time,
        |piece| {
            for letter in piece {
                groups.add(&letter);
            }
        },
    )
    .await?;
    Ok(Survey {
        groups,
        meant: looked.meant,
        looked_at: looked.looked_at,
        back_to_ms: looked.back_to_ms,
        in_stream: looked.in_stream,
        unread: looked.unread,
    })
}
