//! From local times to points in time, over the changes of a zone's clock. Pure.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::cron::Cron;
use crate::plan::Dst;

/// A span in which the clock of a zone runs evenly.
struct Span {
    /// `None`: from ever.
    start: Option<Timestamp>,
    /// `None`: for ever.
    end: Option<Timestamp>,
    offset: Offset,
    /// Of the span before it.
    before: Offset,
}

/// The first time after this one at which an expression is due.
pub fn after(cron: &Cron, zone: &TimeZone, dst: Dst, after: Timestamp) -> Option<Timestamp> {
    // Where the hour is `*`, the change of the clock is no reason for an hour without events, or with none left out.
    let once = dst == Dst::Once && !cron.is_pace();
    let mut from = after.checked_add(SignedDuration::from_nanos(1)).ok()?;
    loop {
        let span = Span::of(zone, from);
        let shown = span.shown(cron, from, once);
        let due = match once {
            true => [shown, span.skipped(cron, from)].into_iter().flatten().min(),
            false => shown,
        };
        let end = span.end;
        match due.filter(|due| end.is_none_or(|end| *due < end)) {
            Some(due) => return Some(due),
            None => from = end?,
        }
    }
}

impl Span {
    fn of(zone: &TimeZone, at: Timestamp) -> Span {
        let offset = zone.to_offset(at);
        // Transitions that do not change the clock, but the zone's abbreviation, are none.
        let end = zone
            .following(at)
            .map(|t| (t.timestamp(), t.offset()))
            .find(|(_, to)| *to != offset);
        let next = at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at);
        let mut start = None;
        let mut before = offset;
        for earlier in zone.preceding(next) {
            let one = earlier
                .timestamp()
                .checked_sub(SignedDuration::from_nanos(1))
                .unwrap_or(Timestamp::MIN);
            before = zone.to_offset(one);
            if before != offset {
                start = Some(earlier.timestamp());
                break;
            }
        }
        Span {
            start,
            end: end.map(|(end, _)| end),
            offset,
            before,
        }
    }

    /// The first matching time that the clock shows from `from` on. `once`: not one that it has shown before it was set back.
    fn shown(&self, cron: &Cron, from: Timestamp, once: bool) -> Option<Timestamp> {
        let mut local = self.offset.to_datetime(from);
        if let (true, Some(start)) = (once, self.start) {
            // What the clock showed when it was changed.
            local = local.max(self.before.to_datetime(start));
        }
        self.offset.to_timestamp(cron.from(local)?).ok()
    }

    /// The first matching time from `from` on that the clock was set forward over: it comes when the clock would have shown it.
    fn skipped(&self, cron: &Cron, from: Timestamp) -> Option<Timestamp> {
        let start = self.start.filter(|_| self.offset > self.before)?;
        let local = cron.from(self.before.to_datetime(from.max(start)))?;
        let over: DateTime = self.offset.to_datetime(start);
        (local < over).then(|| self.before.to_timestamp(local).ok()).flatten()
    }
}
