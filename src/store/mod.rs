//! Where everything is kept: one redb file, and the key that seals the secrets in it.
//!
//! This is the only module that names redb. Others declare a [`Table`] for each kind of record they own and read and
//! write it inside [`Store::read`] and [`Store::write`]. Values are MessagePack with field names: readable by any
//! MessagePack tool, and a record written before a field existed still decodes (`#[serde(default)]`).

pub mod at_rest;
pub mod backup;
#[cfg(test)]
pub(crate) mod held;
pub mod migrate;
pub mod open;
mod overlay;
#[cfg(test)]
mod powerfail;
pub mod seal;
pub mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, StorageError};

use crate::base::{Error, Result};
use crate::store::seal::Seal;
use crate::store::table::{Reader, Writer};

pub use table::{Table, pair};

/// The open database. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    seal: Seal,
    directory: PathBuf,
    /// Held from the start of a write until what it changed in memory is applied too, so that memory sees
    /// commits in the order the file does.
    writing: Mutex<()>,
    /// Set once the disk has failed a write: redb takes none after that before the file is opened anew.
    failed: AtomicBool,
}

impl Store {
    fn new(database: Database, seal: Seal, directory: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                database,
                seal,
                directory: directory.into(),
                writing: Mutex::new(()),
                failed: AtomicBool::new(false),
            }),
        }
    }

    /// The key that seals secrets at rest.
    pub fn seal(&self) -> &Seal {
        &self.shared.seal
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// What the database takes on disk, in bytes, if that can be seen.
    pub fn size(&self) -> Option<u64> {
        fs::metadata(self.directory().join(open::DATABASE_FILE)).ok().map(|found| found.len())
    }

    /// Whether it still takes writes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the disk has failed one, until the next start.
    pub fn check_writable(&self) -> Result<()> {
        if self.shared.failed.load(Ordering::Relaxed) { Err(fault(redb::Error::PreviousIo)) } else { Ok(()) }
    }

    /// Takes note of what ends all writing, on the way to the caller.
    fn noted(&self, error: redb::Error) -> Error {
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        fault(error)
    }

    /// Runs `work` against one consistent snapshot, on the blocking pool.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.read_now(work)).await
    }

    /// [`Store::read`] on the calling thread: for start-up and command-line tools.
    pub fn read_now<T>(&self, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let transaction = self.shared.database.begin_read().map_err(|e| fault(e.into()))?;
        work(&Reader::new(transaction))
    }

    /// Runs `work` in one write transaction, on the blocking pool. It is committed, and durable, only when `work`
    /// returns `Ok`; what `work` handed to [`Writer::on_commit`] runs after the commit and before the next write.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.write_now(work)).await
    }

    /// [`Store::write`] on the calling thread: for start-up and command-line tools.
    pub fn write_now<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        let _turn = self.shared.writing.lock();
        let mut transaction = self.shared.database.begin_write().map_err(|e| self.noted(e.into()))?;
        transaction.set_durability(Durability::Immediate).map_err(Error::internal)?;
        // Records hold bytes that registries chose; redb asks for two-phase commits with such input. Quick repair
        // implies them, and makes the start after a crash independent of the file's size.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let mut writer = Writer::new(transaction);
        let value = work(&mut writer)?;
        let (transaction, after) = writer.into_parts();
        transaction.commit().map_err(|e| self.noted(e.into()))?;
        for apply in after {
            apply();
        }
        Ok(value)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

/// What a redb failure is to the caller: a full disk can be told and mended, anything else is ours to look into.
fn fault(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(io) if is_full(&io) => Error::Unavailable(
            "the disk that holds the data directory is full; nothing was changed: free some space, then restart wharf"
                .into(),
        ),
        redb::Error::PreviousIo => Error::Unavailable(
            "the database stopped after a disk error; see the log, then restart wharf".into(),
        ),
        error => Error::internal(error),
    }
}

/// A disk, a quota or a limit on the size of files.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn storage_fault(error: StorageError) -> Error {
    fault(error.into())
}
