//! The demo's directory for everything it needs. Nothing in it stays: a demo removes its own directory, and those of
//! demos that were killed.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    access::generate::random_text,
    cli::failure::{Failure, Result},
};

/// Prefix of these directories' names.
const PREFIX: &str = "wharf-demo-";
/// A directory without a lock is kept for this long after it is made: a demo may be about to lock it.
const FRESH: Duration = Duration::from_secs(10);
/// How often removing a directory is tried: a file that is just being written may stop it once.
const TRIES: usize = 5;

/// A directory that is removed when this value is dropped.
pub(super) struct Scratch {
    path: PathBuf,
    /// Locked while a demo uses the directory; the system releases the lock however the process ends.
    _lock: File,
}

impl Scratch {
    /// Makes a new directory that only its owner can read. Removes the directories of demos that were killed.
    pub(super) fn new() -> Result<Self> {
        let temporary = std::env::temp_dir();
        let scratch = Self::within(&temporary)?;
        scratch.sweep(&temporary);
        Ok(scratch)
    }

    fn within(temporary: &Path) -> Result<Self> {
        let name = random_text(8).map_err(|why| Failure::failed("demo", why.to_string()))?;
        let path = temporary.join(format!("{PREFIX}{name}"));
        let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| {
            let lock = File::open(&path)?;
            lock.lock()?;
            Ok(lock)
        });
        let lock = made.map_err(|why| {
            Failure::failed(path.display().to_string(), why.to_string())
                .remedy("name a directory that can be written to with TMPDIR")
        })?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directories of this user's demos that were killed. Failing to remove one is no reason not to start.
    fn sweep(&self, temporary: &Path) {
        let (Ok(own), Ok(entries)) = (self.path.symlink_metadata(), fs::read_dir(temporary)) else { return };
        let is_named = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        for entry in entries.filter_map(io::Result::ok).filter(|entry| is_named(&entry.file_name())) {
            let path = entry.path();
            if is_abandoned(&path, own.uid()).unwrap_or(false) && fs::remove_dir_all(&path).is_ok() {
                tracing::info!(path = %path.display(), "removed what a killed demo had left");
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let gone = |removed: &io::Result<()>| match removed {
            Err(why) => why.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        let removed = (0..TRIES).map(|_| fs::remove_dir_all(&self.path)).any(|removed| gone(&removed));
        if !removed {
            tracing::warn!(path = %self.path.display(), "could not be removed; the next demo tries again");
        }
    }
}

fn is_abandoned(path: &Path, owner: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    let is_fresh = found.modified()?.elapsed().is_ok_and(|age| age < FRESH);
    if !found.is_dir() || found.uid() != owner || is_fresh {
        return Ok(false);
    }
    Ok(File::open(path)?.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::Scratch;

    #[test]
    fn what_killed_demos_left_is_removed_and_what_is_used_or_not_ours_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let used = Scratch::within(temporary.path()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_hours(1);
        let make = |name: &str| {
            let path = temporary.path().join(name);
            fs::create_dir_all(path.join("nodes/gpu01")).unwrap();
            path
        };
        let (left, fresh, other) = (make("wharf-demo-4711"), make("wharf-demo-new"), make("wharf-data"));
        let link = temporary.path().join("wharf-demo-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        for path in [&left, &other, &used.path().to_path_buf()] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        used.sweep(temporary.path());
        assert!(!left.exists());
        assert!(fresh.exists() && other.join("nodes").exists() && link.exists() && used.path().exists());
        let path = used.path().to_path_buf();
        drop(used);
        assert!(!path.exists());
    }
}
