//! Module files: whether one has changed, and its contents. A file may be on a network file system that does not answer, so
//! this is done beside the threads that events run on.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::process::limits;

/// Most that a module file may be: seven times a handler with the whole of CPython.
pub const MODULE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Which content a path leads to, without reading it. A file that is replaced has another inode, one that is written to
/// another time of change, which no program can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// SHA-256 of a module file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleHash([u8; 32]);

impl ModuleHash {
    pub fn of(bytes: &[u8]) -> ModuleHash {
        ModuleHash(Sha256::digest(bytes).into())
    }

    /// In 64 small hex digits.
    pub fn hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Of 64 small hex digits.
    pub fn parse(text: &str) -> Option<ModuleHash> {
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 64 || !text.bytes().all(digits) {
            return None;
        }
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(ModuleHash(hash))
    }
}

/// The first 12 hex digits of it: which version a module was, wherever the mesh writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleDigest(Arc<str>);

impl From<ModuleHash> for ModuleDigest {
    fn from(hash: ModuleHash) -> ModuleDigest {
        let digits: String = hash.0.iter().take(6).map(|b| format!("{b:02x}")).collect();
        ModuleDigest(digits.into())
    }
}

impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A module file that was read.
pub struct Source {
    pub bytes: Vec<u8>,
    pub hash: ModuleHash,
    /// What it was; `None`: it was written to while it was read, or is no file.
    pub stamp: Option<Stamp>,
}

/// Why a module file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such file")]
    Gone,
    #[error("cannot be read: {0}")]
    Io(String),
    #[error("not a file")]
    NotAFile,
    #[error("larger than {} MiB, which is the most that a module may be", MODULE_BYTES_MAX / (1024 * 1024))]
    TooLarge,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::Gone,
            _ => Error::Io(limits::told(&error)),
        }
    }
}

/// Reads a module file.
///
/// # Cancel safety
/// Dropped half-way, nothing is left of it; the file is read to its end.
pub async fn read(path: &Path) -> Result<Source, Error> {
    let path = path.to_owned();
    aside(move || read_here(&path)).await?
}

/// A module that did not come from a file here.
///
/// # Cancel safety
/// Dropped half-way, nothing is left of it.
pub async fn given(bytes: Vec<u8>) -> Result<Source, Error> {
    let given = move || Source {
        hash: ModuleHash::of(&bytes),
        bytes,
        stamp: None,
    };
    aside(given).await
}

fn read_here(path: &Path) -> Result<Source, Error> {
    // Asked first: to open a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::NotAFile);
    }
    let file = File::open(path)?;
    let before = Stamp::of(&file.metadata()?);
    if before.bytes > MODULE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or_default());
    (&file).take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    let after = Stamp::of(&file.metadata()?);
    Ok(Source {
        hash: ModuleHash::of(&bytes),
        bytes,
        stamp: (before == after).then_some(before),
    })
}

/// What each path leads to now, in this order.
pub async fn look(paths: Arc<[PathBuf]>) -> Vec<Result<Stamp, Error>> {
    let count = paths.len();
    let stamp = |path: &PathBuf| Ok(Stamp::of(&std::fs::metadata(path)?));
    match aside(move || paths.iter().map(stamp).collect()).await {
        Ok(stamps) => stamps,
        Err(error) => vec![Err(error); count],
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|error| Error::Io(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn stamp(path: &Path) -> Result<Stamp, String> {
        let mut looks = look(Arc::from([path.to_owned()])).await;
        looks.remove(0).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn whatever_changes_a_file_changes_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("m.wasm"), dir.path().join("n.wasm"));
        assert_eq!(stamp(&path).await, Err("there is no such file".to_owned()));
        fs::write(&path, "1").unwrap();
        let first = stamp(&path).await;
        assert_eq!(stamp(&path).await, first);
        // The same bytes, length and times under the same name.
        fs::write(&other, "1").unwrap();
        let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
        File::options()
            .append(true)
            .open(&other)
            .unwrap()
            .set_times(times)
            .unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(&path).await, first);
    }

    #[tokio::test]
    async fn what_is_no_file_or_too_large_is_told_and_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let why = async |path: &Path| read(path).await.err().map(|e| e.to_string());
        assert_eq!(why(dir.path()).await.as_deref(), Some("not a file"));
        assert_eq!(why(Path::new("/dev/zero")).await.as_deref(), Some("not a file"));
        let large = dir.path().join("large.wasm");
        File::create(&large).unwrap().set_len(MODULE_BYTES_MAX + 1).unwrap();
        let text = "larger than 128 MiB, which is the most that a module may be";
        assert_eq!(why(&large).await.as_deref(), Some(text));
    }
}
