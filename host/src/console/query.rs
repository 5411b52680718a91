//! What stands behind `?` in an address.

use super::trouble::ConsoleError;

/// Names and values, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(text: Option<&str>) -> Query {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Query(pairs.map(pair).collect())
    }

    /// A value; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, ConsoleError> {
        let wrong = |_| ConsoleError::wrong(format!("{name} is not a number"));
        self.get(name).map(|text| text.parse().map_err(wrong)).transpose()
    }
}

/// `+` is a space, `%2F` a slash; what is no such thing stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::of(Some("a=b%20c+d&empty=&e%3D=%zz%f&n=7&x=seven&%C3%A4=%E2%82%AC"));
        assert_eq!(query.get("a"), Some("b c d"));
        assert_eq!((query.get("empty"), query.get("none")), (None, None));
        assert_eq!((query.get("e="), query.get("ä")), (Some("%zz%f"), Some("€")));
        assert!(matches!(query.number("n"), Ok(Some(7))) && query.number("x").is_err());
    }
}
