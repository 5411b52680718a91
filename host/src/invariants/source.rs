//! The source files as the rules read them.

use std::path::{Path, PathBuf};

pub struct SourceFile {
    /// Relative to `src`.
    pub name: String,
    pub text: String,
}

impl SourceFile {
    /// The lines without comments, each with its number.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    pub fn names(&self, word: &str) -> bool {
        self.code().any(|(_, line)| line.contains(word))
    }
}

/// A function of a source file.
pub struct Function<'a> {
    pub name: &'a str,
    pub lines: usize,
    /// The comment above it says why it is long.
    pub says_why: bool,
}

impl SourceFile {
    /// The functions with a body. They are laid out by `rustfmt`: a body ends with the first brace as far in as its function.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        let lines: Vec<&str> = self.text.lines().collect();
        let function = move |start: usize| {
            let name = function_name(lines[start])?;
            let indent = &lines[start][..lines[start].len() - lines[start].trim_start().len()];
            let ends = |line: &&str| line.ends_with(['{', ';', '}']);
            if !lines[start..].iter().find(|line| ends(line))?.ends_with('{') {
                return None;
            }
            let end = |line: &&str| line.strip_prefix(indent) == Some("}");
            let length = lines[start..].iter().position(end)? + 1;
            let above = lines[..start].iter().rev();
            let mut above = above.take_while(|line| line.trim_start().starts_with(['/', '#']));
            Some(Function {
                name,
                lines: length,
                says_why: above.any(|line| line.trim_start_matches(['/', ' ']).starts_with("Long: ")),
            })
        };
        (0..self.text.lines().count()).filter_map(function)
    }

    /// The types that it defines; those inside others are left out.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.code().filter_map(|(_, line)| {
            let (kind, name) = after_visibility(line).split_once(' ')?;
            let inside = line.starts_with(' ') && kind == "type";
            let is_type = ["struct", "enum", "trait", "type"].contains(&kind) && !inside;
            is_type.then(|| name.split(|c: char| !c.is_alphanumeric()).next())?
        })
    }
}

/// What stands in a line behind `pub` or `pub(…)`.
fn after_visibility(line: &str) -> &str {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    let inner = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
    inner.map_or(rest, |(_, rest)| rest).trim_start()
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = after_visibility(line).split_once("fn ")?;
    let modifier = |word: &str| ["const", "async", "unsafe"].contains(&word);
    let is_one = before.split_whitespace().all(modifier);
    is_one.then(|| after.split(['(', '<']).next())?
}

/// Every source file but those of this folder, which name everything.
pub fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.expect("a source folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let source = |path: PathBuf| SourceFile {
        text: std::fs::read_to_string(&path).expect("a source file can be read"),
        name: path.strip_prefix(&root).expect("it lies in src").display().to_string(),
    };
    let own = root.join("invariants");
    files
        .into_iter()
        .filter(|path| !path.starts_with(&own))
        .map(source)
        .collect()
}

#[test]
fn the_rules_find_functions_and_types() {
    let text = "\
/// Long: it has a reason.
pub async fn one(
    x: u8,
) -> u8
where
    u8: Copy,
{
    let fnord = 1;
}

impl A {
    fn two(self) {
    }
    type Item = u8;
    fn none(self);
    pub(in crate::a) const fn three() {}
}
pub(super) enum B<T> {
struct C;
";
    let source = SourceFile {
        name: String::new(),
        text: text.to_owned(),
    };
    let functions = source.functions().map(|f| (f.name, f.lines, f.says_why));
    assert_eq!(functions.collect::<Vec<_>>(), [("one", 8, true), ("two", 2, false)]);
    assert_eq!(source.types().collect::<Vec<_>>(), ["B", "C"]);
}
