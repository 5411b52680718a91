//! A value within JSON, as it is written: numbers keep their digits however many they are, and nothing is too deep.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// JSON that has been checked.
#[derive(Clone, Copy)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// `None`: it is none.
    pub fn read(bytes: &'a [u8]) -> Option<Json<'a>> {
        // Some writers put a byte order mark before it.
        let text = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}').trim();
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        Some(Json(text))
    }

    /// The member of an object, or, if the name is a number, the place in a list.
    pub fn step(self, name: &str) -> Option<Json<'a>> {
        match self.0.as_bytes().first()? {
            b'{' => self
                .parts()
                .find_map(|(key, value)| (text(key?)? == name).then_some(value)),
            b'[' => self.parts().nth(name.parse().ok()?).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether it is a string, number, boolean or null that reads so.
    pub fn is(self, value: &str) -> bool {
        match self.0.as_bytes().first() {
            Some(b'"') => text(self.0).is_some_and(|text| text == value),
            Some(b'{' | b'[') | None => false,
            // As it is written, or as it would be written usually.
            Some(_) => {
                let usual = || serde_json::from_str::<serde_json::Number>(self.0).is_ok_and(|n| n.to_string() == value);
                self.0 == value || usual()
            }
        }
    }

    /// The members of an object, or the values of a list.
    fn parts(self) -> impl Iterator<Item = (Option<&'a str>, Json<'a>)> {
        let is_object = self.0.starts_with('{');
        // Without its brackets.
        let mut rest = self.0[1..self.0.len() - 1].trim_start();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut next = || {
                let (value, after) = rest.split_at(end(rest));
                rest = after.trim_start().trim_start_matches([',', ':']).trim_start();
                value
            };
            let key = is_object.then(&mut next);
            Some((key, Json(next())))
        })
    }
}

/// Where the value ends with which a text begins.
fn end(text: &str) -> usize {
    let (mut depth, mut within, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if within {
            within = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            if !within && depth == 0 {
                return at + 1;
            }
            continue;
        }
        match byte {
            b'"' => within = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            // After a number or a word.
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// The text of a JSON string.
fn text(written: &str) -> Option<Cow<'_, str>> {
    match written.contains('\\') {
        true => serde_json::from_str::<String>(written).ok().map(Cow::Owned),
        false => Some(Cow::Borrowed(written.strip_prefix('"')?.strip_suffix('"')?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    fn agrees(json: Json<'_>, value: &Value) -> bool {
        let all = |parts: Vec<(String, &Value)>| {
            let one = |(name, value): &(String, &Value)| json.step(name).is_some_and(|json| agrees(json, value));
            parts.iter().all(one)
        };
        match value {
            Value::Object(map) => all(map.iter().map(|(name, value)| (name.clone(), value)).collect()),
            Value::Array(list) => {
                let numbered = list.iter().enumerate().map(|(at, value)| (at.to_string(), value));
                json.step(&list.len().to_string()).is_none() && all(numbered.collect())
            }
            Value::String(text) => json.is(text),
            other => json.is(&other.to_string()),
        }
    }

    proptest! {
        /// Each part is found where the library finds it, however it is laid out.
        #[test]
        fn every_part_is_found(value in value()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert!(agrees(Json::read(text.as_bytes()).unwrap(), &value), "{text}");
            }
        }
    }
}
