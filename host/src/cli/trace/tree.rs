//! Trees as text.

use unicode_width::UnicodeWidthStr as _;

use crate::cli::text::fit;

/// A line, and what belongs to it.
#[derive(Debug, Default)]
pub struct Node {
    pub text: String,
    pub below: Vec<Node>,
}

impl Node {
    pub fn leaf(text: impl Into<String>) -> Node {
        Node {
            text: text.into(),
            below: Vec::new(),
        }
    }

    /// Each line cut to the columns of a terminal; `None`: whole.
    pub fn lines(&self, columns: Option<usize>) -> Vec<String> {
        let mut lines = vec![fit(self.text.clone(), columns)];
        self.draw("", columns, &mut lines);
        lines
    }

    fn draw(&self, before: &str, columns: Option<usize>, lines: &mut Vec<String>) {
        for (at, node) in self.below.iter().enumerate() {
            let (branch, under) = match at + 1 == self.below.len() {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            let room = columns.map(|columns| columns.saturating_sub(before.width() + 3));
            lines.push(format!("{before}{branch}{}", fit(node.text.clone(), room)));
            node.draw(&format!("{before}{under}"), columns, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_its_branches_and_fits_its_terminal() {
        let below = vec![Node::leaf("c, which is long"), Node::leaf("d")];
        let b = Node {
            text: "b".to_owned(),
            below,
        };
        let a = Node {
            text: "a".to_owned(),
            below: vec![b, Node::leaf("e")],
        };
        insta::assert_snapshot!(a.lines(Some(14)).join("\n"), @r"
        a
        ├─ b
        │  ├─ c, whic…
        │  └─ d
        └─ e
        ");
    }
}
