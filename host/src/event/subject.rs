//! Subjects and patterns of subjects, as the server reads them. Pure.

/// Whether a subject lies within a pattern with `*` and `>`.
pub fn subject_matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in pattern.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(part)) if token == part => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

/// Whether some subject matches both patterns.
pub fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == "*" || y == "*" || x == y => {}
            _ => return false,
        }
    }
}

/// Why a text is no subject with wildcards: tokens without spaces, `*` a token of its own, `>` the last one.
pub fn no_subject(text: &str) -> Option<&'static str> {
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().find_map(|(i, token)| {
        if token.is_empty() {
            Some("a part between dots is empty")
        } else if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Some("it has a space or a control character")
        } else if (token.contains('*') && *token != "*") || (token.contains('>') && *token != ">") {
            Some("a wildcard stands for a whole part")
        } else if *token == ">" && i < last {
            Some("`>` can only be the last part")
        } else {
            None
        }
    })
}

/// Whether every subject of `narrow` is one of `wide`.
pub fn covers(wide: &str, narrow: &str) -> bool {
    // A wildcard in `narrow` stands for itself: only the same or a wider one in `wide` covers it.
    let plain = narrow.replace('*', "\u{1}").replace('>', "\u{1}.\u{1}");
    subject_matches(wide, &plain) || wide == narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_match_as_the_server_matches_them() {
        let yes = [
            ("a", "a"),
            ("a.*", "a.b"),
            ("a.>", "a.b.c"),
            (">", "a"),
            ("*.b.>", "a.b.c"),
        ];
        let no = [
            ("a", "b"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("a.>", "a"),
            ("a.b", "a"),
            ("a", "a.b"),
        ];
        assert!(yes.iter().all(|(p, s)| subject_matches(p, s)));
        assert!(!no.iter().any(|(p, s)| subject_matches(p, s)));
    }
}
