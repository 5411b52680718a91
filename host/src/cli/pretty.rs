//! JSON laid out for reading, and else as it is: its keys in their order, its numbers digit by digit.

/// `None`: the text is not JSON.
pub fn json(text: &str) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut rest = text.chars().filter(not_blank()).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut within = false;
    let mut escaped = false;
    while let Some(c) = rest.next() {
        if within {
            out.push(c);
            within = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                out.push(c);
                within = c == '"';
            }
        }
    }
    Some(out)
}

/// The same on one line. `None`: the text is not JSON.
pub fn compact(text: &str) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(text.chars().filter(not_blank()).collect())
}

/// Tells blanks within strings, which stay, from those between, which go.
fn not_blank() -> impl FnMut(&char) -> bool {
    let (mut within, mut escaped) = (false, false);
    move |c| {
        let keep = within || !c.is_ascii_whitespace();
        if within {
            within = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
        } else {
            within = *c == '"';
        }
        keep
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn keys_keep_their_order_and_numbers_their_digits() {
        let text = r#"{"z": 12345678901234567890123, "a":[ ],"b": {},"s":"x: {\"y\", [1] \\","n":[1.10,null]}"#;
        insta::assert_snapshot!(json(text).unwrap(), @r#"
        {
          "z": 12345678901234567890123,
          "a": [],
          "b": {},
          "s": "x: {\"y\", [1] \\",
          "n": [
            1.10,
            null
          ]
        }
        "#);
        assert_eq!(json("{"), None);
        let compacted = compact(&json(text).unwrap()).unwrap();
        assert_eq!(
            compacted,
            r#"{"z":12345678901234567890123,"a":[],"b":{},"s":"x: {\"y\", [1] \\","n":[1.10,null]}"#
        );
        assert_eq!(json("7").as_deref(), Some("7"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_looks_as_the_library_lays_it_out_and_says_the_same(value in value()) {
            let pretty = json(&value.to_string()).unwrap();
            prop_assert_eq!(&pretty, &serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(json(&pretty), Some(pretty.clone()));
        }
    }
}
