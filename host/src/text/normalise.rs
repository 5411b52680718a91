//! Texts that say the same but for names and numbers.

/// A message without what differs from event to event: every word that has a digit in it becomes `#`, and so does what
/// stands in quotation marks.
pub fn normalise(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let quoted = matches!(first, '"' | '`' | '\'')
            .then(|| rest[1..].find(first).map(|end| end + 2))
            .flatten();
        // An apostrophe within a word opens nothing.
        let opens = first != '\'' || !out.ends_with(|c: char| c.is_alphanumeric());
        if let (Some(end), true) = (quoted, opens) {
            out.push('#');
            rest = &rest[end..];
            continue;
        }
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(word);
        if word.contains(|c: char| c.is_ascii_digit()) {
            out.push('#');
        } else {
            out.push_str(word);
        }
        rest = after;
    }
    out
}

/// Whether a character is part of a name or a number, so that an id goes as a whole.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_')
}
