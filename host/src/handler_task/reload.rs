//! A changed module file is taken up while its handlers serve: compiled aside, checked, and then one pointer moves. A file
//! that cannot serve leaves the old module where it is.
//!
//! The files are looked at, not watched. What a look tells holds on every file system, in whichever way a file or a folder
//! on its path was changed, and whatever else goes on beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::handler_task::runner::Runner;
use crate::wasm::compile::Priority;
use crate::wasm::library::{Compiled, Error, Library};
use crate::wasm::source::{self, ModuleDigest, ModuleHash, Stamp};

/// How often the files are looked at. A file that has not changed from one look to the next is whole.
const LOOK: Duration = Duration::from_millis(200);
/// How many further files make the interval a second longer.
const FILES_A_SECOND: u32 = 1000;
/// A file that keeps changing is read anyway after this time.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Follows the module files of all handlers, for as long as it is polled.
pub async fn follow(library: Arc<Library>, runners: Vec<Arc<Runner>>) {
    let mut files: Vec<File> = files(runners);
    let paths: Arc<[PathBuf]> = files.iter().map(|file| file.path.clone()).collect();
    let pause = LOOK + Duration::from_secs(1) * u32::try_from(paths.len()).unwrap_or(u32::MAX) / FILES_A_SECOND;
    let mut jobs = FuturesUnordered::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            Some((at, came)) = jobs.next() => {
                let file: &mut File = &mut files[at];
                file.take(came);
            }
            () = tokio::time::sleep_until(next) => {
                let looks = source::look(Arc::clone(&paths)).await;
                next = Instant::now() + pause;
                for (at, (file, look)) in files.iter_mut().zip(looks).enumerate() {
                    if let Some(whole) = file.due(look, next) {
                        let (path, has, refused) = (file.path.clone(), file.has(), file.refused);
                        let library = &library;
                        jobs.push(async move { (at, read(library, path, (has, refused), whole).await) });
                    }
                }
            }
        }
    }
}

/// A module file and who serves with it.
struct File {
    path: PathBuf,
    runners: Vec<Arc<Runner>>,
    history: History,
    busy: bool,
    /// The content that cannot serve.
    refused: Option<ModuleHash>,
    /// Why it could not be read when that was last said.
    unread: Option<source::Error>,
}

/// What the looks at a file have shown.
#[derive(Default)]
struct History {
    /// What was read.
    known: Option<Stamp>,
    seen: Option<Result<Stamp, source::Error>>,
    /// Since when it is another than what is known.
    since: Option<Instant>,
}

/// What came of reading a file.
struct FileRead {
    /// What is known of it now.
    stamp: Option<Stamp>,
    content: Result<Content, source::Error>,
}

enum Content {
    /// It is what serves.
    Served,
    /// It was refused before.
    RefusedBefore,
    New(Arc<Compiled>),
    Refused(ModuleHash, Error),
}

fn files(runners: Vec<Arc<Runner>>) -> Vec<File> {
    let mut by_path: BTreeMap<PathBuf, Vec<Arc<Runner>>> = BTreeMap::new();
    for runner in runners {
        if let Some(path) = runner.origin.file().map(Path::to_owned) {
            by_path.entry(path).or_default().push(runner);
        }
    }
    let file = |(path, runners)| File {
        path,
        runners,
        history: History::default(),
        busy: false,
        refused: None,
        unread: None,
    };
    by_path.into_iter().map(file).collect()
}

/// Reads a file, and compiles what no handler has yet. `whole`: it stood still.
async fn read(
    library: &Library,
    path: PathBuf,
    (has, refused): (Option<ModuleHash>, Option<ModuleHash>),
    whole: bool,
) -> FileRead {
    let read = match library.read(&path).await {
        Ok(read) => read,
        Err(error) => {
            return FileRead {
                stamp: None,
                content: Err(error),
            };
        }
    };
    let hash = Some(read.source.hash);
    // What was just written may be written to again within the same tick of the file system's clock.
    let stamp = read.source.stamp.filter(|_| whole);
    let content = if hash == has {
        Content::Served
    } else if hash == refused {
        Content::RefusedBefore
    } else {
        let hash = read.source.hash;
        match library.compile(read, Priority::Lowest).await {
            Ok(compiled) => Content::New(compiled),
            Err(fault) => Content::Refused(hash, Error { path, fault }),
        }
    };
    FileRead {
        stamp,
        content: Ok(content),
    }
}

impl History {
    /// Whether the file is to be read now, and if so, whether it has stood still.
    fn due(&mut self, look: Result<Stamp, source::Error>, now: Instant) -> Option<bool> {
        let still = self.seen.as_ref() == Some(&look);
        let known = look.as_ref().is_ok_and(|stamp| self.known == Some(*stamp));
        self.seen = Some(look);
        if known {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        (still || now - since >= SETTLE_MAX).then(|| {
            self.since = None;
            still
        })
    }
}

impl File {
    fn due(&mut self, look: Result<Stamp, source::Error>, now: Instant) -> Option<bool> {
        if self.busy {
            return None;
        }
        let gone = look.as_ref().err().cloned();
        let due = self.history.due(look, now)?;
        if let Some(error) = gone {
            self.not_read(error);
            return None;
        }
        self.busy = true;
        Some(due)
    }

    /// The content that all of its handlers have, if they have the same.
    fn has(&self) -> Option<ModuleHash> {
        let mut hashes = self.runners.iter().map(|runner| runner.module.load().hash());
        let first = hashes.next()?;
        hashes.all(|hash| hash == first).then_some(first)
    }

    fn handlers(&self) -> String {
        let names: Vec<&str> = self.runners.iter().map(|runner| runner.handler.as_str()).collect();
        names.join(",")
    }

    fn serving(&self) -> ModuleDigest {
        self.runners[0].digest()
    }

    fn not_read(&mut self, error: source::Error) {
        if self.unread.as_ref() == Some(&error) {
            return;
        }
        let (handler, module, serving) = (self.handlers(), self.path.display(), self.serving());
        if matches!(error, source::Error::Gone) {
            tracing::warn!(%handler, %module, %serving, "the module file does not exist; the loaded module continues \
                                                         to serve");
        } else {
            tracing::warn!(%handler, %module, %serving, %error,
                "the module file cannot be read; the loaded module continues to serve");
        }
        self.not_taken(Some(format!("{module}: {error}")));
        self.unread = Some(error);
    }

    /// What keeps the file from being taken up, for people; `None`: it is what serves.
    fn not_taken(&self, why: Option<String>) {
        let of = |runner: &Arc<Runner>| runner.set_not_taken(why.clone());
        self.runners.iter().for_each(of);
    }

    fn take(&mut self, came: FileRead) {
        self.busy = false;
        self.history.known = came.stamp;
        let content = match came.content {
            Ok(content) => content,
            Err(error) => return self.not_read(error),
        };
        self.unread = None;
        match content {
            Content::Served => self.not_taken(None),
            Content::RefusedBefore => {}
            Content::New(compiled) => {
                self.refused = None;
                self.not_taken(None);
                self.runners.iter().for_each(|runner| runner.swap(&compiled));
            }
            Content::Refused(hash, error) => {
                tracing::error!(handler = %self.handlers(), %error, serving = %self.serving(),
                    "the changed module cannot serve; the old one continues to serve");
                self.not_taken(Some(error.to_string()));
                self.refused = Some(hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stamps(count: usize) -> Vec<Result<Stamp, source::Error>> {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(n.to_string());
        (0..count).for_each(|n| std::fs::write(path(n), "").unwrap());
        source::look((0..count).map(path).collect()).await
    }

    #[tokio::test]
    async fn a_file_is_read_when_it_stands_still_and_after_two_seconds_at_the_latest() {
        let looks = stamps(20).await;
        let begin = Instant::now();
        let at = |tick: u32| begin + LOOK * tick;
        let mut history = History::default();
        assert_eq!(history.due(looks[0].clone(), at(0)), None);
        assert_eq!(history.due(looks[0].clone(), at(1)), Some(true));
        history.known = looks[0].clone().ok();
        assert_eq!(history.due(looks[0].clone(), at(2)), None, "it is known");
        assert_eq!(history.due(looks[1].clone(), at(3)), None, "it may be half written");
        assert_eq!(history.due(looks[0].clone(), at(4)), None, "it is what it was");
        // One that is always another.
        let dues: Vec<_> = (5..20).map(|n| history.due(looks[n].clone(), at(n as u32))).collect();
        let ticks = usize::try_from(SETTLE_MAX.as_millis().div_ceil(LOOK.as_millis())).unwrap();
        assert!(dues[..ticks].iter().all(Option::is_none), "{dues:?}");
        assert_eq!(dues[ticks], Some(false));
        // And one that goes.
        let mut history = History::default();
        assert_eq!(history.due(Err(source::Error::Gone), at(20)), None);
        assert_eq!(history.due(Err(source::Error::Gone), at(21)), Some(true));
    }
}
