//! The lock that lets only one wharf use a data directory at a time.
//!
//! Where the file system has locks, it is the system's lock on the database's file. Network and cluster file systems
//! may have none; there it is a lock file beside the database, which names host, boot and process of its owner. The
//! lock file of an owner that is surely gone is taken over.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::store::open::{OpenError, closed_file, io_error};

/// The lock file's name in the data directory.
const LOCK_FILE: &str = "wharf.redb.lock";
/// The name of a file held while the lock of a gone owner is taken over, so that only one process takes it.
const TAKING_FILE: &str = "wharf.redb.lock.taking";
/// The namespace in which a machine's own processes are (`PROC_PID_INIT_INO`); containers have others.
const OF_MACHINE: &str = "pid:[4026531836]";
/// The most bytes read of a lock file; no owner takes more.
const MAX_OWNER: usize = 4096;

/// The lock. It is held as long as the directory is used.
#[derive(Debug)]
pub(in crate::store) struct Lock {
    /// The open database file that has the system's lock.
    system: Option<File>,
    /// The lock file, where the file system has no locks.
    _file: Option<LockFile>,
}

/// A lock file that this process has made.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    owner: Owner,
}

/// The owner that a lock file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    host: String,
    machine: String,
    /// The kernel's id for the time since the machine was started.
    boot: String,
    /// The namespace that the process id is valid in.
    namespace: String,
    process: u32,
    /// When the process was started, in the kernel's ticks since the boot: a process id may be reused later.
    started: u64,
}

/// Whether an owner still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Ended,
    /// It runs, or can't be checked from here.
    Unknown,
}

impl Lock {
    /// Takes the lock for this open database file, or for a file that is to become one.
    ///
    /// # Errors
    /// [`OpenError::InUse`], or [`OpenError::Held`] if a lock file says so.
    pub(in crate::store) fn take(file: &File, directory: &Path) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => {
                // A lock file of another host, whose mount has no locks, or from before the file system had any.
                refuse_other(directory)?;
                let system = file.try_clone().map_err(|why| io_error(directory, why))?;
                Ok(Self { system: Some(system), _file: None })
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.into())),
            Err(TryLockError::Error(why)) if has_locks(&why) => {
                let why = io::Error::new(
                    why.kind(),
                    format!("it can't be locked: {why}; see that the file system's locks work"),
                );
                Err(io_error(directory, why))
            }
            Err(TryLockError::Error(why)) => {
                let path = directory.join(LOCK_FILE);
                tracing::warn!(%why, path = %path.display(), "no locks on this file system: a lock file is held instead");
                Ok(Self { system: None, _file: Some(LockFile::take(path)?) })
            }
        }
    }

    /// Also locks the file that is to replace the one this lock was taken for.
    pub(in crate::store) fn pass_on(&mut self, file: &File) -> io::Result<()> {
        if self.system.is_some() {
            file.try_lock()?;
            self.system = Some(file.try_clone()?);
        }
        Ok(())
    }

    /// [`Lock::take`] for a database that is only read, maybe on a file system that can't be written.
    ///
    /// # Errors
    /// Those of [`Lock::take`].
    pub(in crate::store) fn take_to_read(file: &File, directory: &Path) -> Result<Option<Self>, OpenError> {
        match Self::take(file, directory) {
            Err(OpenError::Io { why, .. }) if is_read_only(&why) => refuse_other(directory).map(|()| None),
            taken => taken.map(Some),
        }
    }
}

impl Drop for Lock {
    /// Unlocks explicitly instead of closing the file: a process that another thread is just starting has it open, too.
    fn drop(&mut self) {
        if let Some(file) = &self.system {
            let _ = file.unlock();
        }
    }
}

/// Whether this error means that a lock is taken, and not that the file system has none.
fn has_locks(why: &io::Error) -> bool {
    let none = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL, Errno::BADF];
    !none.iter().any(|errno| why.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether this error means that a file can only be read.
pub(in crate::store) fn is_read_only(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Refuses a directory that another process holds by a lock file.
fn refuse_other(directory: &Path) -> Result<(), OpenError> {
    let path = directory.join(LOCK_FILE);
    match read(&path)? {
        Some(found) if found.life() == Life::Unknown => Err(held(&path, &found)),
        _ => Ok(()),
    }
}

impl LockFile {
    fn take(path: PathBuf) -> Result<Self, OpenError> {
        let owner = Owner::this().map_err(|why| io_error(&path, why))?;
        match write(&path, &owner) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => take_over(&path, &owner)?,
            written => written.map_err(|why| io_error(&path, why))?,
        }
        Ok(Self { path, owner })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if read(&self.path).is_ok_and(|found| found == Some(Found::Owner(self.owner.clone()))) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes `owner` the owner, in place of one that has ended.
fn take_over(path: &Path, owner: &Owner) -> Result<(), OpenError> {
    let taking = path.with_file_name(TAKING_FILE);
    match write(&taking, owner) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            let found = read(&taking)?.unwrap_or(Found::Nobody);
            if found.life() == Life::Unknown {
                return Err(held(&taking, &found));
            }
            // The process that was taking it over was killed meanwhile.
            fs::remove_file(&taking).map_err(|why| io_error(&taking, why))?;
            write(&taking, owner).map_err(|why| io_error(&taking, why))?;
        }
        Err(why) => return Err(io_error(&taking, why)),
    }
    // Read once more, now that no other process can be here.
    let taken = match read(path)? {
        Some(found) if found.life() == Life::Unknown => Err(held(path, &found)),
        found => {
            tracing::warn!(path = %path.display(), owner = ?found, "taking over the lock file of a wharf that has ended");
            let removed = if found.is_some() { fs::remove_file(path) } else { Ok(()) };
            removed.and_then(|()| write(path, owner)).map_err(|why| io_error(path, why))
        }
    };
    let _ = fs::remove_file(&taking);
    taken
}

fn write(path: &Path, owner: &Owner) -> io::Result<()> {
    let text = serde_json::to_vec(owner)?;
    let mut file = closed_file(path)?;
    file.write_all(&text).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// The content of a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Owner(Owner),
    /// It is empty: its maker may still be writing it.
    Nobody,
}

impl Found {
    fn life(&self) -> Life {
        match self {
            Self::Owner(owner) => owner.life(),
            Self::Nobody => Life::Unknown,
        }
    }
}

fn read(path: &Path) -> Result<Option<Found>, OpenError> {
    let text = match fs::read(path) {
        Ok(text) if text.len() <= MAX_OWNER => text,
        Ok(_) => return Ok(Some(Found::Nobody)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(io_error(path, why)),
    };
    Ok(Some(serde_json::from_slice(&text).map_or(Found::Nobody, Found::Owner)))
}

fn held(path: &Path, found: &Found) -> OpenError {
    let owner = match found {
        Found::Owner(owner) => format!("process {} on {}", owner.process, owner.host),
        Found::Nobody => "a wharf that has not said its name".into(),
    };
    OpenError::Held { directory: path.parent().unwrap_or(path).into(), owner, path: path.into() }
}

impl Owner {
    /// The owner that this process is.
    fn this() -> io::Result<Self> {
        let process = std::process::id();
        Ok(Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            machine: text("/etc/machine-id").unwrap_or_default(),
            boot: text("/proc/sys/kernel/random/boot_id")?,
            namespace: namespace()?,
            process,
            started: started(process)?,
        })
    }

    fn life(&self) -> Life {
        let Ok(this) = Self::this() else { return Life::Unknown };
        // Compares more than the host: containers and pods may have another's host name, and no machine id.
        let names = |owner: &Self| (owner.host.clone(), owner.machine.clone(), owner.namespace.clone());
        let is_here = names(self) == names(&this) && !this.machine.is_empty() && this.namespace == OF_MACHINE;
        let has_ended = if self.boot == this.boot {
            self.namespace == this.namespace && !is_running(self.process, self.started)
        } else {
            // This machine was restarted since. The processes of another machine can't be seen from here.
            is_here
        };
        if has_ended { Life::Ended } else { Life::Unknown }
    }
}

fn is_running(process: u32, since: u64) -> bool {
    match started(process) {
        Ok(started) => started == since,
        Err(why) => why.kind() != io::ErrorKind::NotFound,
    }
}

/// When a process was started: word 22 of its `stat`, which is word 20 after its name, which may have spaces and
/// brackets.
fn started(process: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let words = stat.rsplit_once(')').map(|(_, words)| words).unwrap_or_default();
    let word = words.split_whitespace().nth(19).and_then(|word| word.parse().ok());
    word.ok_or_else(|| io::Error::other("not the process file that was expected"))
}

fn namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/pid")?.display().to_string())
}

fn text(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Found, Life, LockFile, Owner, read, write};
    use crate::store::open::OpenError;

    #[test]
    fn one_lock_file_at_a_time_and_none_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = LockFile::take(path.clone()).unwrap();
        let refused = LockFile::take(path.clone()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()) && refused.contains("lock"), "{refused}");
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(LockFile::take(path).unwrap());
    }

    #[test]
    fn the_lock_of_an_owner_that_is_gone_is_taken_over_and_another_hosts_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let this = Owner::this().unwrap();
        let boot = "another".to_owned();
        // Whether the tests run on a machine that can be told from others.
        let is_machine = !this.machine.is_empty() && this.namespace == super::OF_MACHINE;
        let owners = [
            (Owner { process: u32::MAX, ..this.clone() }, Life::Ended),
            (Owner { started: this.started + 1, ..this.clone() }, Life::Ended),
            (
                Owner { boot: boot.clone(), ..this.clone() },
                if is_machine { Life::Ended } else { Life::Unknown },
            ),
            (this.clone(), Life::Unknown),
            (Owner { boot: boot.clone(), host: "b".into(), ..this.clone() }, Life::Unknown),
            (Owner { boot, machine: "b".into(), ..this.clone() }, Life::Unknown),
            (Owner { namespace: "b".into(), process: u32::MAX, ..this.clone() }, Life::Unknown),
        ];
        for (owner, life) in owners {
            write(&path, &owner).unwrap();
            let taken = LockFile::take(path.clone());
            assert_eq!(taken.is_ok(), life == Life::Ended, "{owner:?}");
            if taken.is_err() {
                assert_eq!(read(&path).unwrap(), Some(Found::Owner(owner)));
                fs::remove_file(&path).unwrap();
            }
            drop(taken);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_lock_file_that_says_nothing_and_one_that_is_being_taken_are_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wharf.redb.lock");
        fs::write(&path, "").unwrap();
        assert!(matches!(LockFile::take(path.clone()), Err(OpenError::Held { .. })));
        let ended = Owner { process: u32::MAX, ..Owner::this().unwrap() };
        fs::remove_file(&path).unwrap();
        write(&path, &ended).unwrap();
        fs::write(folder.path().join("wharf.redb.lock.taking"), "").unwrap();
        let refused = LockFile::take(path).unwrap_err().to_string();
        assert!(refused.contains("wharf.redb.lock.taking"), "{refused}");
    }
}
