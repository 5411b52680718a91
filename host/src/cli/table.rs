//! Plain tables: a header, columns as wide as their cells. On a terminal the last column is cut to what is left of a line;
//! anywhere else (a pipe, a file) nothing is.

use std::fmt::Write as _;
use std::io::stdout;

use rustix::termios::{isatty, tcgetwinsize};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a cut column keeps at least, so that a narrow terminal wraps instead of showing nothing.
const LAST_MIN: usize = 20;

/// Prints rows under a header.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(header, rows, terminal_columns()));
}

/// How many columns the terminal has that standard output goes to; `None`: it goes elsewhere.
pub fn terminal_columns() -> Option<usize> {
    let out = stdout();
    let size = isatty(&out).then(|| tcgetwinsize(&out).ok()).flatten()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The same as text, for a terminal of so many columns.
pub fn render(header: &[&str], rows: &[Vec<String>], columns: Option<usize>) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
    let last = columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(LAST_MIN));
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.zip(&widths).enumerate() {
            if at + 1 == widths.len() {
                text.push_str(&cut(cell, last));
            } else {
                let padding = width - cell.width() + 2;
                let _ = write!(text, "{cell}{:padding$}", "");
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// A text of at most so many columns; one that is cut ends in an ellipsis.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let mut text: String = text.chars().take_while(fits).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal_and_is_whole_elsewhere() {
        let rows = [
            vec!["a".to_owned(), "sku-1: 5 wanted, 4 left of it".to_owned()],
            vec!["库存".to_owned(), "ok".to_owned()],
        ];
        insta::assert_snapshot!(render(&["ID", "ERROR"], &rows, Some(26)), @r"
        ID    ERROR
        a     sku-1: 5 wanted, 4 …
        库存  ok
        ");
        insta::assert_snapshot!(render(&["ID", "ERROR"], &rows, None), @r"
        ID    ERROR
        a     sku-1: 5 wanted, 4 left of it
        库存  ok
        ");
        assert_eq!(cut("库存不足", 6), "库存…");
    }
}
