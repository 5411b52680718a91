//! The pause of a handler, as its circuit on this host obeys it: no events are taken, and none of those that are here begins.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Circuit, HOLD, HeldBack, PAUSED};
use crate::mesh_streams::pauses::HandlerPause;
use crate::process::drain::Drain;

impl Circuit {
    pub fn is_paused(&self) -> bool {
        self.held.load(Ordering::Relaxed) & PAUSED != 0
    }

    pub fn paused(&self) -> Option<HandlerPause> {
        self.pause.lock().clone()
    }

    /// Takes in whether the handler is paused. What has changed is in the log once.
    pub fn set_pause(&self, pause: Option<&HandlerPause>) {
        let mut known = self.pause.lock();
        if known.as_ref() == pause {
            return;
        }
        let handler = &self.handler;
        match pause {
            Some(pause) => {
                self.held.fetch_or(PAUSED, Ordering::Relaxed);
                let (by, reason, until) = (&pause.by, pause.reason.as_deref(), pause.until.as_deref());
                tracing::info!(
                    handler,
                    by,
                    reason,
                    until,
                    "the handler is paused: no event of it begins until it is resumed"
                );
            }
            None => {
                self.held.fetch_and(!PAUSED, Ordering::Relaxed);
                tracing::info!(handler, "the handler is resumed: its events are taken again");
            }
        }
        *known = pause.cloned();
        drop(known);
        self.changed.notify_waiters();
        self.pause_changed.notify_one();
    }

    /// Completes once for all changes of the pause since it completed last.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn pause_changed(&self) {
        self.pause_changed.notified().await;
    }

    /// Held back until the handler is not paused. `None`: the event is to be given back.
    pub async fn resumed(&self, drain: &Drain) -> Option<()> {
        if !self.is_paused() {
            return Some(());
        }
        let _waits = HeldBack::of(&self.waiting);
        let until = Instant::now() + HOLD;
        loop {
            let changed = self.changed.notified();
            if !self.is_paused() {
                return Some(());
            }
            tokio::select! {
                biased;
                () = drain.begun() => return None,
                () = tokio::time::sleep_until(until) => return None,
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn pause() -> HandlerPause {
        HandlerPause {
            by: "anna@laptop".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            until: None,
            reason: None,
        }
    }

    #[tokio::test]
    async fn an_event_that_is_here_begins_when_the_handler_is_resumed_and_not_before() {
        let (circuit, drain) = (Circuit::new("points", None), Drain::default());
        let before = circuit.pass(&drain).await.expect("it is not paused");
        circuit.set_pause(Some(&pause()));
        assert!(!before.stands(), "it waited for an instance, and must not begin");
        assert_eq!((circuit.is_paused(), circuit.room(16)), (true, 0));
        let (mut event, mut replay) = (Box::pin(circuit.pass(&drain)), Box::pin(circuit.resumed(&drain)));
        assert!((&mut event).now_or_never().is_none() && (&mut replay).now_or_never().is_none());
        circuit.set_pause(None);
        assert!(event.await.is_some_and(|pass| pass.stands()));
        assert_eq!(replay.await, Some(()));
        assert_eq!((circuit.is_paused(), circuit.room(16)), (false, 16));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_waits_for_long_is_given_back_and_so_it_is_when_the_host_ends() {
        let (circuit, drain) = (Circuit::new("points", None), Drain::default());
        circuit.set_pause(Some(&pause()));
        let began = Instant::now();
        assert!(circuit.pass(&drain).await.is_none());
        assert_eq!(circuit.resumed(&drain).await, None);
        assert_eq!(began.elapsed(), HOLD * 2);
        drain.begin();
        assert!(circuit.pass(&drain).await.is_none());
        assert_eq!(circuit.resumed(&drain).await, None);
        assert_eq!(began.elapsed(), HOLD * 2);
    }

    #[tokio::test]
    async fn the_handler_task_is_told_of_each_change_and_of_nothing_else() {
        let circuit = Circuit::new("points", None);
        let told = || circuit.pause_changed().now_or_never().is_some();
        circuit.set_pause(None);
        assert!(!told());
        circuit.set_pause(Some(&pause()));
        circuit.set_pause(Some(&pause()));
        assert_eq!((told(), told()), (true, false));
        circuit.set_pause(None);
        assert!(told());
    }
}
