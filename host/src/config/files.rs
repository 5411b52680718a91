//! Files that a configuration names.

use std::path::Path;

use super::reader::Reader;

/// Tells what is wrong with the file that a key names, if it names one.
pub fn check_file(reader: &mut Reader, key: &str, path: Option<&Path>, check: impl Fn(&Path) -> Result<(), String>) {
    let Some(path) = path else { return };
    let Err(why) = check(path) else { return };
    match path.is_file() {
        true => reader.problem(key, format!("{}: {why}", path.display()), ""),
        false => reader.problem(
            key,
            format!("there is no file {}", path.display()),
            "a path, not its content",
        ),
    }
}
