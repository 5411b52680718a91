//! A text in the editor of the person at the terminal: `VISUAL`, or else `EDITOR`, as git and kubectl do it.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use crate::broker::connection::token;

/// The text while it is edited. The file stays until [`EditedFile::remove`]: what a person has typed is not lost by an error.
pub struct EditedFile {
    path: PathBuf,
    /// What the editor has left.
    pub text: String,
}

impl EditedFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn remove(self) {
        // A file that is left in the folder for temporary files does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// Has a text edited; waits until the editor ends. `ending`: of the name of the file, by which editors know what it is.
///
/// # Errors
/// `Err` if there is no editor, or if it ends with a failure.
pub fn edit(text: &str, ending: &str) -> Result<EditedFile, Error> {
    let Some(editor) = editor(|name| env::var(name).ok()) else {
        return Err(Error::Failed(
            "no editor: set the variable EDITOR, or give the new payload with --payload FILE".to_owned(),
        ));
    };
    let path = env::temp_dir().join(format!("jetmesh-{}.{ending}", token()));
    let not_made = |error: &io::Error| Error::Failed(format!("{}: {error}", path.display()));
    // Other users of the machine must not read it.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| not_made(&error))?;
    // Through a shell: the variable may have arguments.
    let run = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg("sh")
        .arg(&path)
        .status();
    let failed = match run {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("the editor `{editor}` ended with {status}")),
        Err(error) => Some(format!("the editor `{editor}` cannot be started: {error}")),
    };
    let text = fs::read_to_string(&path);
    if let Some(why) = failed {
        let _ = fs::remove_file(&path);
        return Err(Error::Failed(format!("{why}; nothing is edited")));
    }
    let text = text.map_err(|error| not_made(&error))?;
    Ok(EditedFile { path, text })
}

fn editor(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(variable)
        .find(|editor| !editor.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_editor_is_the_visual_one_or_else_the_other_and_an_empty_variable_is_none() {
        let of = |visual: &'static str, other: &'static str| {
            editor(move |name| match name {
                "VISUAL" => Some(visual.to_owned()),
                _ => Some(other.to_owned()),
            })
        };
        assert_eq!(of("code --wait", "vi").as_deref(), Some("code --wait"));
        assert_eq!(of(" ", "vi").as_deref(), Some("vi"));
        assert_eq!(of("", ""), None);
    }
}
