//! Single values: as text, as a problem quotes them, and as sizes.

use std::time::Duration;

use figment::value::Value;

/// A simple value as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, c) => c.to_string(),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, n) => n
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| n.to_u128().map(|n| n.to_string()))
            .or_else(|| n.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

/// A value as it is quoted in a problem.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("\"{}\"", text.escape_debug()),
        other => plain(other),
    }
}

/// A duration such as `1m 30s`. `Err`: a hint. Months and years are refused: `1M` is hardly ever meant to be a month.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let units = text.split(|c: char| !c.is_alphabetic());
    if units
        .into_iter()
        .any(|unit| matches!(unit, "M" | "month" | "months" | "y" | "year" | "years"))
    {
        return Err("months and years are not taken: \"1m\" is a minute, \"30d\" are thirty days");
    }
    let parsed = humantime::parse_duration(text);
    parsed.map_err(|_| "a number and a unit: \"500ms\", \"30s\", \"5m\", \"24h\"")
}

/// A duration as [`duration`] reads it: days are the largest unit.
pub fn format_duration(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    let days = duration.as_secs() / DAY;
    let rest = duration - Duration::from_secs(days * DAY);
    match (days, rest.is_zero()) {
        (0, _) => humantime::format_duration(rest).to_string(),
        (days, true) => format!("{days}d"),
        (days, false) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

/// A rate such as `200/s` or `30/min`: how many in a second.
pub fn rate(text: &str) -> Result<f64, String> {
    let wrong = || "not a rate such as 200/s or 30/min".to_owned();
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(wrong()),
    };
    if number.is_finite() && number > 0.0 {
        Ok(number / seconds)
    } else {
        Err(wrong())
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size such as `64MiB`, or a bare number of bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    for (unit, size) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim().parse::<u64>().ok()?.checked_mul(size);
        }
    }
    text.parse().ok()
}

/// What is probably meant by a size with another unit, such as `64MB`.
pub fn meant_bytes(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => return None,
    };
    (!number.is_empty()).then(|| format!("{number}{unit}"))
}

/// A size in its largest whole unit.
pub fn format_bytes(bytes: u64) -> String {
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

/// TOML's bare dates come as a table with one secret key: as text they are what was written.
pub fn date_as_text(value: Value) -> Value {
    match value {
        Value::Dict(tag, mut table) => match table.remove("$__toml_private_datetime") {
            Some(date) => date,
            None => Value::Dict(tag, table),
        },
        other => other,
    }
}
