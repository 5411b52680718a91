//! Why a guest died, in words that help its author. What it wrote before often explains more than its trap, and some traps have
//! a cause that their own text does not name.

use super::Line;
use crate::text::display::clean;

/// How a traceback of Python begins.
const TRACEBACK: &str = "Traceback (most recent call last):";
/// Below address 0 there is the end of the address space: so far from it an overflowing stack has come.
const BELOW_ZERO: u64 = 64 * 1024 * 1024;

/// The message of a trap. `lines`: what the guest wrote; `trap`: the engine's text.
pub fn explained(lines: &[Line], trap: String) -> String {
    let message = panicked(lines).unwrap_or(trap);
    match hint(&message) {
        Some(hint) => clean(&format!("{message} ({hint})")),
        None => message,
    }
}

/// What a guest wrote when it panicked. The trap itself only says that an instruction was reached that never should be.
/// The SDK writes it on one line, Rust's own hook on two. A guest in Python has an exception to tell before.
fn panicked(lines: &[Line]) -> Option<String> {
    let at = lines
        .iter()
        .rposition(|line| line.text.starts_with("panicked at ") || line.text.starts_with("thread '"))?;
    if let Some(exception) = exception(&lines[..at]) {
        return Some(exception.to_owned());
    }
    let text = &lines[at].text;
    let text = &text[text.find("panicked at ")?..];
    Some(match lines.get(at + 1) {
        Some(next) if text.ends_with(':') => clean(&format!("{text} {}", next.text)),
        _ => text.to_owned(),
    })
}

/// The line of a traceback that names the exception: the last one that is not indented.
fn exception(lines: &[Line]) -> Option<&str> {
    let at = lines.iter().rposition(|line| line.text.starts_with(TRACEBACK))?;
    let mut after = lines[at + 1..].iter().map(|line| line.text.as_str());
    after.rfind(|text| !text.is_empty() && !text.starts_with(' '))
}

fn hint(message: &str) -> Option<&'static str> {
    let overflowed = message.contains("call stack exhausted") || fault(message).is_some_and(is_below_zero);
    if overflowed {
        return Some(
            "it has most likely overflowed its stack: it recurses too deeply, or needs a larger one, by the link \
             argument -zstack-size=1048576",
        );
    }
    let unsupported = [
        "time not implemented on this platform",
        "operation not supported on this platform",
    ];
    unsupported.iter().any(|text| message.contains(text)).then_some(
        "a handler for wasm32-unknown-unknown has no clock and nothing else of a system: take the event's time_ms, or \
         build it for wasm32-wasip2",
    )
}

/// The address of a memory fault.
fn fault(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("memory fault at wasm address 0x")?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// A stack that lies at the beginning of its memory goes below 0, where 32 bits begin again at their end; an offset may
/// then lead beyond it.
fn is_below_zero(address: u64) -> bool {
    let end = 1 << 32;
    (end - BELOW_ZERO..end + BELOW_ZERO).contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str]) -> String {
        let line = |text: &&str| Line {
            at: std::time::Instant::now(),
            level: tracing::Level::WARN,
            text: (*text).to_owned(),
        };
        explained(&texts.iter().map(line).collect::<Vec<_>>(), "a trap".to_owned())
    }

    #[test]
    fn a_panic_is_found_in_what_the_guest_wrote() {
        let whole = "panicked at src/lib.rs:7:5: no stock";
        assert_eq!(found(&["before", whole]), whole);
        let two = [
            "thread 'main' (1) panicked at src/lib.rs:7:5:",
            "no stock",
            "note: run with",
        ];
        assert_eq!(found(&two), whole);
        assert_eq!(found(&["it panicked at midnight", "thread 'a' ended"]), "a trap");
        assert_eq!(found(&[]), "a trap");
    }

    #[test]
    fn an_exception_of_python_is_told_and_not_where_its_runtime_panicked() {
        let lines = [
            "Traceback (most recent call last):",
            "  File \"/app/app.py\", line 9, in handle",
            "    raise ValueError(\"no stock\")",
            "ValueError: no stock",
            "",
            "thread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:21:",
            "explicit panic",
        ];
        assert_eq!(found(&lines), "ValueError: no stock");
        assert_eq!(found(&lines[..4]), "a trap", "it was caught");
    }

    #[test]
    fn causes_that_a_trap_does_not_name_are_named_with_the_way_out() {
        let of = |trap: &str| explained(&[], trap.to_owned());
        for trap in [
            "memory fault at wasm address 0x100000150 in linear memory of size 0x80000: wasm trap: out of bounds memory access",
            "memory fault at wasm address 0xfffffff0 in linear memory of size 0x80000: wasm trap: out of bounds memory access",
            "wasm trap: call stack exhausted",
        ] {
            let told = of(trap);
            assert!(
                told.starts_with(trap) && told.contains("overflowed its stack"),
                "{told}"
            );
        }
        let wild = "memory fault at wasm address 0x90000 in linear memory of size 0x80000";
        assert_eq!(of(wild), wild);
        let told = found(&[
            "panicked at library/std/src/sys/pal/unsupported/time.rs:31:9: time not implemented on this platform",
        ]);
        assert!(told.contains("time_ms") && told.contains("wasm32-wasip2"), "{told}");
    }
}
