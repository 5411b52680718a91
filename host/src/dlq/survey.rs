//! Dead letters by fault, the newest first, as far as a limit allows. It is told how far it is while it goes on.

use std::time::{Duration, Instant};

use super::select::{LookBack, LookedBack};
use super::{Filter, Groups};
use crate::broker::{Connection, Error};
use crate::event::clock::now_ms;

/// How far a survey goes: so many letters, and so long, but for the piece at which it is then.
#[derive(Debug, Clone, Copy)]
pub struct SurveyLimits {
    pub letters: u64,
    pub time: Duration,
}

/// The groups of the letters that were looked at.
pub struct Survey<'a> {
    pub groups: Groups,
    back: LookBack<'a>,
    /// How many letters the stream holds, resolved ones among them.
    pub in_stream: u64,
    limits: SurveyLimits,
    began: Instant,
}

impl<'a> Survey<'a> {
    pub async fn start(
        connection: &'a Connection,
        filter: &'a Filter,
        limits: SurveyLimits,
    ) -> Result<Survey<'a>, Error> {
        let back = LookBack::start(connection, filter, None).await?;
        Ok(Survey {
            groups: Groups::until(now_ms()),
            in_stream: back.in_stream().await?,
            back,
            limits,
            began: Instant::now(),
        })
    }

    pub fn looked(&self) -> &LookedBack {
        &self.back.looked
    }

    /// Whether everything was looked at.
    pub fn is_whole(&self) -> bool {
        self.back.is_over()
    }

    /// Looks at the next letters. `false`: there are none, or a limit is reached.
    pub async fn go_on(&mut self) -> Result<bool, Error> {
        if self.looked().at >= self.limits.letters || self.began.elapsed() >= self.limits.time {
            return Ok(false);
        }
        let Some(piece) = self.back.piece().await? else {
            return Ok(false);
        };
        for letter in piece {
            self.groups.add(&letter);
        }
        Ok(true)
    }
}
