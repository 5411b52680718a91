//! A panic is a defect of the mesh. It ends the step in which it happens and nothing else: the caller of the step gets it as an
//! error, reports it, and continues from a state that can be trusted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use parking_lot::Mutex;

use crate::event::clock::now_ms;
use crate::event::rfc3339;

/// What a panic said, and where.
#[derive(Debug, Clone)]
pub struct Panic {
    pub text: String,
}

impl std::fmt::Display for Panic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

thread_local! {
    /// This thread polls a future whose panic is caught.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What the newest panic of this thread said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on a panic that is caught is told by its catcher alone.
pub fn tell_only_the_catcher() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !CATCHING.get() {
            return usual(panic);
        }
        let text = panic.payload_as_str().unwrap_or("no text");
        let place = panic
            .location()
            .map_or_else(String::new, |place| format!(", at {place}"));
        SAID.set(Some(format!("{text}{place}")));
    }));
}

/// Runs a future to its end, or to its panic. It is pinned already: that of an event is large, and moving it costs more than
/// catching its panics.
pub fn caught<T>(mut future: Pin<&mut impl Future<Output = T>>) -> impl Future<Output = Result<T, Panic>> {
    poll_fn(move |context| {
        let outer = CATCHING.replace(true);
        // What the future has left half-way is what its runner must not trust; the future itself is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        CATCHING.set(outer);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(payload) => {
                let said = SAID.take();
                let text = said.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Poll::Ready(Err(Panic {
                    text: text.unwrap_or_else(|| "a panic without a text".to_owned()),
                }))
            }
        }
    })
}

/// The panics of a host since its start, by what has panicked.
#[derive(Default)]
pub struct Panics(Mutex<BTreeMap<String, TaskPanics>>);

/// The panics of one task.
#[derive(Debug, Clone, Default)]
pub struct TaskPanics {
    pub count: u64,
    /// The newest one.
    pub text: String,
    /// When it was, RFC 3339.
    pub at: String,
}

impl Panics {
    /// One more; returns how many it makes.
    pub fn note(&self, task: &str, panic: &Panic) -> u64 {
        let mut all = self.0.lock();
        let told = all.entry(task.to_owned()).or_default();
        told.count += 1;
        told.text.clone_from(&panic.text);
        told.at = rfc3339(now_ms());
        told.count
    }

    pub fn all(&self) -> BTreeMap<String, TaskPanics> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_text_wherever_it_happens_and_the_rest_goes_on() {
        let late = async {
            tokio::task::yield_now().await;
            let number: Result<u8, _> = "x".parse::<u8>();
            number.expect("a number")
        };
        let panic = caught(pin!(late)).await.expect_err("it panics");
        assert!(!panic.text.is_empty());
        assert_eq!(caught(pin!(async { 7 })).await.expect("it does not"), 7);
        let panics = Panics::default();
        assert_eq!(panics.note("relay of probe", &panic), 1);
        assert_eq!(panics.note("relay of probe", &panic), 2);
        assert_eq!(panics.all()["relay of probe"].count, 2);
    }
}
