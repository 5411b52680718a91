//! Text of others, made fit for a terminal or a log. A terminal obeys control characters. It shows what stands between
//! bidirectional controls in another order than it has, and some characters not at all: a subject could read as another
//! one.

use std::borrow::Cow;

/// Most that one log line, or a failure's message, may be.
pub const LINE_BYTES_MAX: usize = 4 * 1024;

/// One line for a terminal: control characters replaced, invisible ones written out, cut at its limit.
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
        .all(|c| (!c.is_control() || "\n\t".contains(c)) && !is_invisible(c))
    {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| write(&mut shown, c));
    Cow::Owned(shown)
}

/// Text that may have colours of ours: only invisible characters are written out.
pub fn straight(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut straight = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) {
            true => write(&mut straight, c),
            false => straight.push(c),
        }
    }
    Cow::Owned(straight)
}

fn write(text: &mut String, c: char) {
    if is_invisible(c) {
        // As JSON writes it, so that a line of JSON keeps its value.
        for unit in c.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    } else if c.is_control() && !"\n\t".contains(c) {
        text.push(' ');
    } else {
        text.push(c);
    }
}

/// Whether a character is not seen itself, and may change how the text around it is seen: DEL and the C1 controls, the line
/// and paragraph separators, and all format characters (general category Cf of Unicode 16, with the bidirectional
/// controls among them).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_replaced_or_written_out() {
        let text = "a\u{1b}[31m\tb\u{202e}c\u{2066}d\u{200f}\u{85}e\nf ü库存";
        let rest = "a [31m\tb\\u202ec\\u2066d\\u200f\\u0085e";
        assert_eq!(clean(text), format!("{rest} f ü库存"));
        assert_eq!(shown(text), format!("{rest}\nf ü库存"));
        assert_eq!(straight("\u{1b}[31mb\u{202e}"), "\u{1b}[31mb\\u202e");
    }

    #[test]
    fn what_nobody_would_see_is_written_out_and_keeps_its_value_in_json() {
        let invisible = "\u{7f}\u{9b}\u{ad}\u{200b}\u{200d}\u{feff}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{2060}\u{e0041}";
        for c in invisible.chars() {
            let text = format!("a{c}b");
            for shown in [clean(&text), shown(&text).into_owned(), straight(&text).into_owned()] {
                assert!(shown.starts_with("a\\u") && shown.is_ascii(), "{shown:?}");
            }
            let json = serde_json::to_string(&text).unwrap();
            assert_eq!(serde_json::from_str::<String>(&shown(&json)).unwrap(), text);
        }
        for seen in ["Zoë é 库存 \u{1f600}\u{fe0f}", "e\u{301}", "\u{3000}"] {
            assert_eq!(shown(seen), seen);
        }
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
