//! Plain tables: a header, columns as wide as their cells. On a terminal the last column is cut to what is left of a line,
//! and where that is too little, wide tables do without some columns; anywhere else (a pipe, a file) all is shown.

use std::fmt::Write as _;
use std::io::stdout;

use rustix::termios::{isatty, tcgetwinsize};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::text::display::shown;

/// What a cut column keeps at least, so that a narrow terminal wraps instead of showing nothing.
const LAST_MIN: usize = 20;
/// And one within a table: before others are left out, and after that.
const CUT_EASY: usize = 16;
const CUT_MIN: usize = 8;

/// Prints rows under a header.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(header, rows, terminal_columns()));
}

/// The cells as they will be shown, so that their widths are true.
fn written_out(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let cell = |cell: &String| shown(cell).into_owned();
    rows.iter().map(|row| row.iter().map(cell).collect()).collect()
}

/// What a wide table does on a terminal that is too narrow for it. Columns are named by their places. The last one has what the others leave, and
/// is not named.
pub struct Narrow<'a> {
    /// Are left out until the rest fits, the first of these first.
    pub leave_out: &'a [usize],
    /// Are cut: a little before that, and more where it was not enough.
    pub cut: &'a [usize],
}

/// Prints rows under a header, and what had no room.
pub fn print_narrow(header: &[&str], rows: &[Vec<String>], narrow: &Narrow<'_>) {
    print!("{}", fit(header, rows, narrow, terminal_columns()));
}

/// The same as text, for a terminal of this number of columns.
pub fn fit(header: &[&str], rows: &[Vec<String>], narrow: &Narrow<'_>, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return render(header, rows, None);
    };
    let rows = &written_out(rows);
    let mut widths = widths(header, rows);
    let last = widths.pop().map_or(0, |width| width.min(LAST_MIN));
    let mut over = (widths.iter().map(|width| width + 2).sum::<usize>() + last).saturating_sub(columns);
    let cut_to = |widths: &mut Vec<usize>, over: &mut usize, least: usize| {
        for &at in narrow.cut {
            let Some(width) = widths.get_mut(at) else { continue };
            let less = (*over).min(width.saturating_sub(least));
            *width -= less;
            *over -= less;
        }
    };
    // A single long name does not cost the others a column.
    cut_to(&mut widths, &mut over, CUT_EASY);
    let mut left_out = Vec::new();
    for &at in narrow.leave_out {
        if over > 0 {
            let width = widths.get(at).copied().unwrap_or(LAST_MIN);
            over = over.saturating_sub(width + 2);
            left_out.push(at);
        }
    }
    cut_to(&mut widths, &mut over, CUT_MIN);
    let stays = |at: &usize| !left_out.contains(at);
    let shown: Vec<usize> = (0..header.len()).filter(stays).collect();
    let cell = |row: &Vec<String>, at: usize| match widths.get(at) {
        Some(width) => cut(&row[at], *width),
        None => row[at].clone(),
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| shown.iter().map(|&at| cell(row, at)).collect())
        .collect();
    let names = |places: &[usize]| places.iter().map(|&at| header[at]).collect::<Vec<_>>();
    let mut text = render(&names(&shown), &rows, Some(columns));
    if !left_out.is_empty() {
        let note = format!("(no room for {}: --json has all)", names(&left_out).join(", "));
        let _ = writeln!(text, "{}", cut(&note, columns));
    }
    text
}

/// How many columns the terminal has that standard output goes to; `None`: it goes elsewhere.
pub fn terminal_columns() -> Option<usize> {
    let out = stdout();
    let size = isatty(&out).then(|| tcgetwinsize(&out).ok()).flatten()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The same as text, for a terminal of this number of columns.
pub fn render(header: &[&str], rows: &[Vec<String>], columns: Option<usize>) -> String {
    let rows = &written_out(rows);
    let widths = widths(header, rows);
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

/// How wide each column is.
fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|h| h.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    widths
}

/// A text of at most this number of columns; one that is cut ends in an ellipsis.
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

    #[test]
    fn a_wide_table_does_without_what_is_least_wanted_says_so_and_fits() {
        let header = ["ID", "COUNT", "CODE", "MODULE", "ERROR"];
        let row = [
            "8a1f2b3c",
            "1204",
            "out-of-stock",
            "31c1afd9d381",
            "sku-1: 5 wanted, 4 left of it",
        ];
        let rows = [row.map(str::to_owned).to_vec()];
        let narrow = Narrow {
            leave_out: &[3, 1],
            cut: &[2],
        };
        let shown = |columns| fit(&header, &rows, &narrow, columns);
        insta::assert_snapshot!(shown(None), @r"
        ID        COUNT  CODE          MODULE        ERROR
        8a1f2b3c  1204   out-of-stock  31c1afd9d381  sku-1: 5 wanted, 4 left of it
        ");
        assert_eq!(shown(Some(80)), shown(None));
        insta::assert_snapshot!(shown(Some(60)), @r"
        ID        COUNT  CODE          ERROR
        8a1f2b3c  1204   out-of-stock  sku-1: 5 wanted, 4 left of it
        (no room for MODULE: --json has all)
        ");
        insta::assert_snapshot!(shown(Some(40)), @r"
        ID        CODE      ERROR
        8a1f2b3c  out-of-…  sku-1: 5 wanted, 4 …
        (no room for MODULE, COUNT: --json has …
        ");
        for columns in 40..100 {
            let text = shown(Some(columns));
            assert!(text.lines().all(|line| line.width() <= columns), "{columns}: {text}");
        }
    }

    #[test]
    fn the_last_column_may_be_named_as_well() {
        let header = ["NAME", "WHAT", "NOTE"];
        let row = |note: &str| vec!["a-long-name".to_owned(), "something".to_owned(), note.to_owned()];
        let rows = [row("a note that is longer than any terminal is wide"), row("-")];
        let narrow = Narrow {
            leave_out: &[2],
            cut: &[2, 0],
        };
        for columns in [22, 30, 80] {
            let text = fit(&header, &rows, &narrow, Some(columns));
            assert!(text.contains("some"), "{columns}: {text}");
            assert_eq!(text.contains("(no room for NOTE"), columns < 80, "{columns}: {text}");
        }
    }
}
