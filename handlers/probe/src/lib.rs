//! The guest of the host's tests: it does what its events say.
//!
//! The orders are the JSON of one step, `{"op": "add", "key": "n", "by": 1}`, or of several, `{"do": [step, …]}`, in
//! the payload or, before it, in the header `Probe`. A payload without orders is handled without doing anything;
//! orders that make no sense are rejected with the code `bad-orders`.

use std::{
    hash::{BuildHasher, RandomState},
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

use jetmesh_sdk::{
    Error, Event, context,
    events::{self, When},
    json, log,
    serde_json::{self, Value},
    settings, state, timers,
};
use serde::Deserialize;

mod step;

use step::Step;

/// What `version` tells, without the prefix. There are two ways to a second version of this handler: a build with
/// another `PROBE_VERSION`, or, without a build, `probe-version=2` written over this text in the component.
const VERSION: &str = match option_env!("PROBE_VERSION") {
    Some(version) => version,
    None => "probe-version=1",
};

fn probe(event: Event) -> Result<(), Error> {
    let mut held = Vec::new();
    for step in orders(&event)? {
        carry_out(step, &event, &mut held)?;
    }
    black_box(&held);
    Ok(())
}

fn orders(event: &Event) -> Result<Vec<Step>, Error> {
    let text = event.header("Probe").map_or(&event.payload[..], str::as_bytes);
    let steps = match serde_json::from_slice(text) {
        Ok(Value::Object(mut object)) => match object.remove("do") {
            Some(Value::Array(steps)) => steps,
            Some(other) => vec![other],
            None if object.contains_key("op") => vec![Value::Object(object)],
            None => vec![],
        },
        Ok(_) | Err(_) => vec![],
    };
    let steps = steps.into_iter().map(Step::deserialize).collect::<Result<_, _>>();
    steps.map_err(|error| Error::reject("bad-orders", error.to_string()))
}

fn carry_out(step: Step, event: &Event, held: &mut Vec<Vec<u8>>) -> Result<(), Error> {
    match step {
        Step::Ok => {}
        Step::Retry {
            code,
            message,
            delay_ms: None,
        } => return Err(Error::retry(code, message)),
        Step::Retry {
            code,
            message,
            delay_ms: Some(ms),
        } => {
            return Err(Error::retry(code, message).after(Duration::from_millis(ms)));
        }
        Step::Reject { code, message } => return Err(Error::reject(code, message)),
        Step::FailUntil { attempt } if context::attempt() >= attempt => {}
        Step::FailUntil { attempt } => {
            return Err(Error::retry(
                "not-yet",
                format!("attempt {} is before {attempt}", context::attempt()),
            ));
        }
        Step::Need { key } => {
            if state::get(&key)?.is_none() {
                return Err(Error::retry("not-there", format!("there is no {key}")));
            }
        }
        Step::Panic { message } => panic!("{message}"),
        Step::Trap => trap(),
        Step::Spin => loop {
            std::hint::spin_loop();
        },
        Step::Burn { ms } => burn(Duration::from_millis(ms)),
        #[expect(clippy::disallowed_methods, reason = "a handler has its thread for itself")]
        Step::Sleep { ms } => std::thread::sleep(Duration::from_millis(ms)),
        // The pages are written to: memory that is only reserved would prove nothing.
        Step::Grow { mib } => held.extend((0..mib).map(|_| black_box(vec![1; 1 << 20]))),
        Step::Recurse => {
            black_box(recurse(black_box(0)));
        }
        Step::Log { level, message, times } => {
            for _ in 0..times.unwrap_or(1) {
                log::log(level.into(), &message);
            }
        }
        Step::Get { key } => {
            state::get(&key)?;
        }
        Step::Set { key, value } => state::set(&key, value)?,
        Step::Delete { key } => state::delete(&key)?,
        Step::Add { key, by } => {
            let sum = state::get_parsed::<i64>(&key)?.unwrap_or(0).saturating_add(by);
            state::set(&key, sum.to_string())?;
        }
        Step::Take { key } => {
            let left = state::get_parsed::<i64>(&key)?.unwrap_or(0);
            if left <= 0 {
                return Err(Error::reject("sold-out", format!("nothing is left of {key}")));
            }
            state::set(&key, (left - 1).to_string())?;
        }
        Step::Append { key, text, with } => {
            let mut word = format!("{}:{text}", context::handler_name());
            if let Some(with) = with {
                word += &format!("={}", text_of(&with)?.unwrap_or_default());
            }
            let list = text_of(&key)?.map_or(word.clone(), |list| format!("{list} {word}"));
            state::set(&key, list)?;
        }
        Step::Tell { key, subject } => events::emit(&subject, &json!(text_of(&key)?))?,
        Step::For { handler, steps } => {
            if handler == context::handler_name() {
                for step in steps {
                    carry_out(step, event, held)?;
                }
            }
        }
        Step::InVersion { version: wanted, steps } => {
            if wanted == version() {
                for step in steps {
                    carry_out(step, event, held)?;
                }
            }
        }
        Step::Emit {
            subject,
            payload,
            headers,
        } => {
            let headers = headers.unwrap_or_default();
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            events::emit_with_headers(&subject, &headers, &payload)?;
        }
        Step::EmitLater {
            subject,
            payload,
            after_ms,
            at_ms,
        } => {
            when(after_ms, at_ms).emit(&subject, &payload)?;
        }
        Step::TimerSet {
            name,
            subject,
            payload,
            after_ms,
            at_ms,
        } => timers::set(&name, when(after_ms, at_ms), &subject, &payload)?,
        Step::TimerCancel { name } => timers::cancel(&name)?,
        Step::EmitMany { subject, count, bytes } => {
            let payload = vec![b'x'; bytes];
            for _ in 0..count {
                events::emit_bytes(&subject, &[], &payload)?;
            }
        }
        Step::Echo { subject } => events::emit(&subject, &echo(event))?,
        Step::Context { subject } => events::emit(&subject, &all_context())?,
        Step::Version { subject } => events::emit(&subject, &version())?,
        Step::Stdout { message } => println!("{message}"),
        Step::Stderr { message } => eprintln!("{message}"),
        Step::Random { subject } => {
            let [secure, insecure] = random();
            let time_ms = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64;
            let numbers = json!({ "secure": secure, "insecure": insecure, "time_ms": time_ms });
            events::emit(&subject, &numbers)?;
        }
        Step::Draw => return Err(Error::reject("drew", random().join(" "))),
        Step::Fs { path } => {
            std::fs::read(path).map_err(|error| Error::reject("fs-denied", error.to_string()))?;
        }
        Step::Net { address } => {
            std::net::TcpStream::connect(address).map_err(|error| Error::reject("net-denied", error.to_string()))?;
        }
        Step::Env => {
            let names: Vec<_> = std::env::vars_os()
                .map(|(name, _)| name.to_string_lossy().into_owned())
                .collect();
            return Err(Error::reject("env", names.join(" ")));
        }
    }
    Ok(())
}

fn when(after_ms: Option<u64>, at_ms: Option<u64>) -> When {
    match (after_ms, at_ms) {
        (_, Some(ms)) => events::at(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
        (ms, None) => events::after(Duration::from_millis(ms.unwrap_or(0))),
    }
}

fn text_of(key: &str) -> Result<Option<String>, Error> {
    Ok(state::get(key)?.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// The black box keeps the text whole in the component.
fn version() -> &'static str {
    black_box(VERSION).trim_start_matches("probe-version=")
}

/// From `wasi:random/random`, and from `wasi:random/insecure-seed`, which hash tables take theirs from.
fn random() -> [String; 2] {
    unsafe extern "C" {
        fn getentropy(buffer: *mut u8, length: usize) -> i32;
    }
    let mut bytes = [0; 16];
    // SAFETY: it writes so many bytes.
    let failed = unsafe { getentropy(bytes.as_mut_ptr(), bytes.len()) };
    assert_eq!(failed, 0, "there are random numbers");
    let secure = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [secure, format!("{:016x}", RandomState::new().hash_one(0))]
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

fn burn(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        black_box((0..10_000_u64).fold(0, |sum, n| black_box(sum ^ n)));
    }
}

/// The addition after the call keeps this from becoming a loop.
#[expect(unconditional_recursion, reason = "the overflow is the purpose")]
fn recurse(depth: u64) -> u64 {
    recurse(black_box(depth + 1)) + black_box(1)
}

fn echo(event: &Event) -> Value {
    json!({
        "id": event.id,
        "subject": event.subject,
        "headers": event.headers,
        "payload_bytes": event.payload.len(),
        "payload_fnv1a": event.payload.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)),
        "time_ms": event.time_ms,
    })
}

fn all_context() -> Value {
    json!({
        "handler_name": context::handler_name(),
        "attempt": context::attempt(),
        "max_attempts": context::max_attempts(),
        "idempotency_key": context::idempotency_key(),
        "trace_id": context::trace_id(),
        "greeting": settings::get("greeting"),
    })
}

jetmesh_sdk::handler!(probe);

#[cfg(test)]
mod tests;
