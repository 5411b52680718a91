//! Compiled modules in a folder that only this host's user can read and write: a start finds there what an earlier one has compiled.
//!
//! What is found is machine code, which runs as it is. So the folder must be this user's own, and closed to all others; each entry has a
//! digest over its content, and the name of the engine that it is for. What does not fit is ignored, and written again.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::process::limits;
use crate::wasm::source::ModuleHash;

/// The most that the entries may have together: some hundred modules, or ten with an interpreter.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Before the digest and the code. The last byte is the version of the format.
const MAGIC: &[u8; 16] = b"jetmesh-module\0\x01";
const DIGEST_BYTES: usize = 32;
/// What is being written has this suffix.
const UNFINISHED: &str = ".new";

/// Compiled modules of one engine in a folder.
#[derive(Debug, Clone)]
pub struct CompiledCache {
    folder: Arc<Path>,
    /// Of the engine and of this build.
    engine: Arc<str>,
    bytes_max: u64,
}

impl CompiledCache {
    /// Uses a folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or others can write to it: says what to change.
    pub fn open(folder: &Path, engine: &Engine) -> Result<CompiledCache, String> {
        let told = |error: &io::Error| format!("{}: {}", folder.display(), limits::told(error));
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(folder).map_err(|error| told(&error))?;
        let found = fs::symlink_metadata(folder).map_err(|error| told(&error))?;
        let (mode, own) = (found.mode() & 0o777, found.uid() == rustix::process::geteuid().as_raw());
        if !found.is_dir() || !own || mode & 0o077 != 0 {
            return Err(format!(
                "{}: it must be a folder of this user that no other can use (mode 0700), and has mode {mode:04o}{}: `chmod 700` it, or \
                 set modules.cache to another folder",
                folder.display(),
                if own { "" } else { " and another owner" }
            ));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Ok(CompiledCache {
            folder: folder.into(),
            engine: format!("{:016x}", hasher.finish()).into(),
            bytes_max: BYTES_MAX,
        })
    }

    fn path(&self, module: ModuleHash) -> PathBuf {
        self.folder.join(format!("{}-{}", module.hex(), self.engine))
    }

    /// What a module was compiled to, if it is there and whole.
    pub async fn get(&self, module: ModuleHash) -> Option<Vec<u8>> {
        let path = self.path(module);
        let read = tokio::task::spawn_blocking(move || {
            let code = read(&path)?;
            // What is used stays longest. That it cannot be said is no harm.
            let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            Some(code)
        });
        read.await.ok()?
    }

    /// Keeps what a module was compiled to. A failure costs the next start a compilation, and is logged.
    pub async fn put(&self, module: ModuleHash, code: Vec<u8>) {
        let (path, cache) = (self.path(module), self.clone());
        let written = tokio::task::spawn_blocking(move || {
            cache.make_room(code.len() as u64)?;
            write(&path, &code)
        });
        if let Ok(Err(error)) = written.await {
            let folder = self.folder.display();
            tracing::warn!(%folder, error = limits::told(&error), "a compiled module cannot be kept for the next start");
        }
    }

    /// Removes what was used longest ago, until so much more fits.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            entries.push((found.modified()?, found.len(), entry.path()));
        }
        entries.sort();
        let mut all: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, old, path) in entries {
            if all + bytes <= self.bytes_max {
                break;
            }
            // Another host of this user may have been faster.
            let _ = fs::remove_file(path);
            all -= old;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let whole = bytes.strip_prefix(MAGIC)?;
    let (digest, code) = whole.split_at_checked(DIGEST_BYTES)?;
    if Sha256::digest(code).as_slice() != digest {
        tracing::warn!(entry = %path.display(), "a compiled module was changed in its cache, and is compiled again");
        return None;
    }
    Some(code.to_vec())
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let name = format!("{}.{}{UNFINISHED}", path.display(), std::process::id());
    let unfinished = Path::new(&name);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(unfinished)?;
    let written = [MAGIC.as_slice(), &Sha256::digest(code), code]
        .into_iter()
        .try_for_each(|part| file.write_all(part));
    written.and_then(|()| fs::rename(unfinished, path)).inspect_err(|_| {
        let _ = fs::remove_file(unfinished);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn cache(folder: &Path) -> CompiledCache {
        CompiledCache::open(folder, &Engine::default()).expect("it is this user's")
    }

    #[tokio::test]
    async fn what_is_kept_is_found_by_the_same_engine_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let (cache, module) = (cache(&folder), ModuleHash::of(b"m"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(cache.get(module).await, None);
        cache.put(module, b"code".to_vec()).await;
        assert_eq!(cache.get(module).await.as_deref(), Some(b"code".as_slice()));
        let other = CompiledCache {
            engine: "other".into(),
            ..cache.clone()
        };
        assert_eq!(other.get(module).await, None);
        let path = cache.path(module);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let good = fs::read(&path).unwrap();
        for at in [0, MAGIC.len(), good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.get(module).await, None, "byte {at}");
        }
        for length in [0, MAGIC.len() + 3] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(cache.get(module).await, None, "{length} bytes");
        }
        cache.put(module, b"code".to_vec()).await;
        assert_eq!(cache.get(module).await.as_deref(), Some(b"code".as_slice()));
    }

    #[tokio::test]
    async fn it_stays_within_its_bytes_and_keeps_what_was_used_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = cache(&dir.path().join("c"));
        cache.bytes_max = 300;
        let module = |n: u8| ModuleHash::of(&[n]);
        let at = |n: u8, seconds: u64| {
            let file = File::options().write(true).open(cache.path(module(n))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .unwrap();
        };
        for n in 0..3 {
            cache.put(module(n), vec![n; 50]).await;
            at(n, u64::from(n));
        }
        // The first is used again, so the second is the one that goes.
        assert!(cache.get(module(0)).await.is_some());
        cache.put(module(3), vec![3; 50]).await;
        let mut there = Vec::new();
        for n in 0..4 {
            there.push(cache.get(module(n)).await.is_some());
        }
        assert_eq!(there, [true, false, true, true]);
    }

    #[test]
    fn a_folder_that_others_can_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("open");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let why = CompiledCache::open(&folder, &Engine::default()).expect_err("it is open");
        assert!(why.contains("mode 0755") && why.contains("chmod 700"), "{why}");
        let link = dir.path().join("link");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(
            CompiledCache::open(&link, &Engine::default()).is_err(),
            "where it leads can be changed"
        );
        assert!(CompiledCache::open(&folder, &Engine::default()).is_ok());
    }
}
