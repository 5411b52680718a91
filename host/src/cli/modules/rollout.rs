//! A version that takes over step by step, as flags.

use crate::config;
use crate::control::modules::RolloutOrder;
use crate::mesh_streams::modules::{MILLION, RolloutStep};

/// What a step asks for if nothing else is said.
const EVENTS: u64 = 300;

#[derive(Debug, clap::Args)]
pub(super) struct RolloutFlags {
    /// Take over step by step: shares of the events in percent, such as 1%,10%,50%. All hosts count the first attempts in the
    /// ledgers: the version goes back by itself when it fails more than the serving one, and takes over when it is no worse
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = share)]
    canary: Vec<u32>,
    /// Run events on both versions for this long first; nothing that the new version wants is carried out
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    shadow: Option<u64>,
    /// What each step waits for: events on the new version, and a time
    #[arg(long, value_name = "EVENTS,TIME", default_value = "300 events, 1m", value_parser = each)]
    each: Each,
    /// How probable it may be that a version goes back which is no worse
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = alpha)]
    alpha: u32,
    /// How much more of the first attempts may fail on a version that takes over
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = share)]
    margin: u32,
    /// Only events with this header and value run on the new version
    #[arg(long, value_name = "HEADER=VALUE", value_parser = header)]
    only: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Each {
    events: u64,
    seconds: u64,
}

impl RolloutFlags {
    /// `None`: the version serves at once.
    pub fn order(&self) -> Result<Option<RolloutOrder>, String> {
        if self.canary.is_empty() && self.shadow.is_none() {
            return Ok(None);
        }
        if let Some(pair) = self.canary.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!(
                "--canary: {} is not more than {}: each share must be larger than the one before",
                percent(pair[1]),
                percent(pair[0])
            ));
        }
        let shadow = self.shadow.map(|seconds| RolloutStep {
            shadow: true,
            share: MILLION,
            events: self.each.events,
            seconds,
        });
        let canary = self.canary.iter().map(|share| RolloutStep {
            shadow: false,
            share: *share,
            events: self.each.events,
            seconds: self.each.seconds,
        });
        Ok(Some(RolloutOrder {
            steps: shadow.into_iter().chain(canary).collect(),
            alpha: self.alpha,
            margin: self.margin,
            only: self.only.clone(),
        }))
    }
}

/// Millionths as a person reads them: `0.5%`.
pub(super) fn percent(millionths: u32) -> String {
    format!("{}%", f64::from(millionths) / f64::from(MILLION / 100))
}

/// A part such as `10%` or `0.5%`, in millionths.
fn share(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not a percentage above 0 and up to 100, such as 10% or 0.5%");
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let millionths = (number * f64::from(MILLION / 100)).round();
    match millionths >= 1.0 && millionths <= f64::from(MILLION) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 1 and a million"
        )]
        true => Ok(millionths as u32),
        false => Err(wrong()),
    }
}

fn alpha(text: &str) -> Result<u32, String> {
    match share(text)? {
        alpha if alpha <= MILLION / 5 => Ok(alpha),
        _ => Err("at most 20%: with more, a version would go back by chance".to_owned()),
    }
}

fn duration(text: &str) -> Result<u64, String> {
    let duration = config::duration(text.trim()).map_err(|hint| format!("not a time: {hint}"))?;
    Ok(duration.as_secs())
}

/// `500 events, 2m`, in any order; what is left out is the usual.
fn each(text: &str) -> Result<Each, String> {
    let mut each = Each {
        events: EVENTS,
        seconds: 0,
    };
    for part in text.split(',').map(str::trim) {
        match part.strip_suffix("events").or_else(|| part.strip_suffix("event")) {
            Some(count) => {
                let count: u64 = count.trim().parse().unwrap_or(0);
                if count == 0 {
                    return Err(format!(
                        "`{part}` is not a number of events above 0, such as 500 events"
                    ));
                }
                each.events = count;
            }
            None => each.seconds = duration(part)?,
        }
    }
    Ok(each)
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a header and its value, such as Customer-Group=test".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_steps_are_read_as_people_write_them() {
        assert_eq!(
            ["1%", "0.5 %", " 100%"].map(|text| share(text).ok()),
            [Some(10_000), Some(5_000), Some(1_000_000)]
        );
        for wrong in ["1", "0%", "101%", "x%", "", "%", "nan%", "-1%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent(5_000), "0.5%");
        assert!(alpha("21%").is_err());
        let of = |events, seconds| Ok(Each { events, seconds });
        assert_eq!(each("500 events, 2m"), of(500, 120));
        assert_eq!(each("2m,500events"), of(500, 120));
        assert_eq!(each("10s"), of(EVENTS, 10));
        assert_eq!(each("1 event"), of(1, 0));
        for wrong in ["0 events", "events", "5 even", "5", "1M", ""] {
            assert!(each(wrong).is_err(), "{wrong}");
        }
        assert!(header("Customer-Group").is_err());
        assert_eq!(header("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
    }
}
