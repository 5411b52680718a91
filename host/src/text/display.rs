//! Text of others, made fit for a terminal or a log. A terminal obeys control characters, and shows what stands between
//! bidirectional controls in another order than it has: a subject could read as another one.

use std::borrow::Cow;

/// Most that one log line, or a failure's message, may be.
pub const LINE_BYTES_MAX: usize = 4 * 1024;

/// One line for a terminal: control characters replaced, those that turn the text written out, cut at its limit.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for c in text.chars() {
        let whole = cleaned.len();
        write(&mut cleaned, if c == '\n' { ' ' } else { c });
        if cleaned.len() > LINE_BYTES_MAX {
            cleaned.truncate(whole);
            break;
        }
    }
    cleaned
}

/// The same of any text, in lines as it is.
pub fn shown(text: &str) -> Cow<'_, str> {
    if text
        .chars()
        .all(|c| (!c.is_control() || "\n\t".contains(c)) && !turns(c))
    {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| write(&mut shown, c));
    Cow::Owned(shown)
}

/// Text that may have colours of ours: only what turns it is written out.
pub fn straight(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || !text.chars().any(turns) {
        return Cow::Borrowed(text);
    }
    let mut straight = String::with_capacity(text.len());
    for c in text.chars() {
        match turns(c) {
            true => write(&mut straight, c),
            false => straight.push(c),
        }
    }
    Cow::Owned(straight)
}

fn write(text: &mut String, c: char) {
    if turns(c) {
        // As JSON writes it, so that a line of JSON stays what it is.
        text.push_str(&format!("\\u{:04x}", u32::from(c)));
    } else if c.is_control() && !"\n\t".contains(c) {
        text.push(' ');
    } else {
        text.push(c);
    }
}

/// Whether a character changes the order or the lines of the text around it (Unicode Standard Annex 9, and the two
/// separators of lines).
fn turns(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_replaced_or_written_out() {
        let text = "a\u{1b}[31m\tb\u{202e}c\u{2066}d\u{200f}\u{85}e\nf ü库存";
        let rest = "a [31m\tb\\u202ec\\u2066d\\u200f e";
        assert_eq!(clean(text), format!("{rest} f ü库存"));
        assert_eq!(shown(text), format!("{rest}\nf ü库存"));
        assert_eq!(straight("\u{1b}[31mb\u{202e}"), "\u{1b}[31mb\\u202e");
        let json = serde_json::to_string("b\u{202e}").unwrap();
        assert_eq!(serde_json::from_str::<String>(&shown(&json)).unwrap(), "b\u{202e}");
    }

    #[test]
    fn a_cleaned_line_has_its_limit() {
        for c in ["x", "ü", "库", "\u{202e}"] {
            let line = clean(&c.repeat(LINE_BYTES_MAX));
            assert!(
                (LINE_BYTES_MAX - 6..=LINE_BYTES_MAX).contains(&line.len()),
                "{c:?}: {}",
                line.len()
            );
        }
    }
}
