//! Single values: as text, as a problem quotes them, and as sizes.

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
