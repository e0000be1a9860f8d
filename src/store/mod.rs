//! The store: one redb file, and the key that seals the secrets in it.
//!
//! This is the only module that names redb. Other modules declare a [`Table`] for each kind of record they own, and
//! read and write it inside [`Store::read`] and [`Store::write`]. Values are MessagePack with field names: any
//! MessagePack tool can read them, and a record written before a field existed still decodes (`#[serde(default)]`).

pub mod at_rest;
pub(crate) mod backup;
pub(crate) mod compact;
mod compared;
#[cfg(test)]
mod damage;
mod disk;
#[cfg(test)]
mod failing;
mod guard;
#[cfg(test)]
pub(crate) mod held;
pub(crate) mod last_seen;
mod lock;
pub(crate) mod migrate;
pub(crate) mod open;
mod overlay;
#[cfg(test)]
mod powerfail;
pub(crate) mod seal;
pub(crate) mod table;
mod trouble;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{Durability, ReadableDatabase as _, StorageError, WriteTransaction};
use tokio_util::sync::CancellationToken;

use crate::base::{Error, Result};
use crate::store::compared::Comparison;
use crate::store::disk::Disk;
use crate::store::guard::{Guarded, caught};
use crate::store::lock::Lock;
use crate::store::open::{SCHEMA, builder};
use crate::store::overlay::Overlay;
use crate::store::seal::Seal;
use crate::store::table::{AfterCommit, Reader, Writer};

pub use table::Table;
pub(crate) use table::pair;
pub(crate) use trouble::Trouble;

/// The key of the number of transactions, beside the schema: after a failure it tells whether the last one was kept.
const COMMITS_KEY: &str = "commits";
/// How often to check whether a failed disk works again, and whether the file is in its place.
const LOOK: Duration = Duration::from_secs(2);
/// How soon a file that could only be opened for reading is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// A full disk has room again when this many bytes can be written.
const ROOM: usize = 1024 * 1024;

/// The open database. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    opened: RwLock<Arc<Opened>>,
    seal: Seal,
    directory: PathBuf,
    /// Held from the start of a write until what it changed in memory is applied too, so that memory sees
    /// commits in the order the file does.
    writing: Mutex<Turn>,
    /// What prevents writing, except a file that is not in its place, which is checked each time.
    trouble: RwLock<Option<Trouble>>,
    /// Whether the log already says that the file is not in its place.
    is_replaced: AtomicBool,
}

/// A database, and the file it is in.
struct Opened {
    database: Guarded,
    /// `None` in tests that bring a disk of their own.
    disk: Option<Disk>,
    access: Access,
}

/// How a database was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// To be read before the comparison has shown that the file is whole.
    Early,
    /// To be read: writes do not reach the file.
    Read,
    Write,
}

/// The state that a writer works with.
#[derive(Default)]
struct Turn {
    unsettled: Option<Unsettled>,
    /// When the file was last opened anew.
    reopened: Option<Instant>,
    comparison: Comparison,
    /// The lock on the file, until the last database in it is closed.
    lock: Option<Lock>,
}

/// A transaction whose commit failed, so that only the file can tell whether it was kept.
struct Unsettled {
    number: u64,
    after: Vec<AfterCommit>,
}

/// How a write went.
enum Attempt<T> {
    Kept(T, Vec<AfterCommit>),
    /// Nothing was changed.
    Refused(Error),
    Failed(redb::Error, Unsettled),
}

impl Opened {
    /// The failure after which redb does nothing more with this database, if there was one.
    fn failure(&self) -> Option<Trouble> {
        self.disk.as_ref().and_then(Disk::failure)
    }

    /// Whether another database has taken its place.
    fn is_retired(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_retired)
    }

    fn write<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T>) -> Attempt<T> {
        let prepared = self.begin().and_then(|transaction| {
            let mut writer = Writer::new(transaction);
            let value = work(&mut writer)?;
            let number = writer.find(&SCHEMA, COMMITS_KEY)?.unwrap_or(0) + 1;
            writer.put(&SCHEMA, COMMITS_KEY, &number)?;
            Ok((value, number, writer.into_parts()))
        });
        match prepared {
            Err(why) => Attempt::Refused(why),
            Ok((value, number, (transaction, after))) => match transaction.commit() {
                Ok(()) => Attempt::Kept(value, after),
                Err(why) => Attempt::Failed(why.into(), Unsettled { number, after }),
            },
        }
    }

    fn begin(&self) -> Result<WriteTransaction> {
        let database = self.database.get().map_err(Error::internal)?;
        let mut transaction = database.begin_write().map_err(|why| fault(why.into()))?;
        transaction.set_durability(Durability::Immediate).map_err(Error::internal)?;
        // Records hold bytes that registries chose; redb asks for two-phase commits with such input. Quick repair
        // implies them, and makes the start after a crash independent of the file's size.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let database = self.database.get().map_err(Error::internal)?;
        let transaction = database.begin_read().map_err(|why| fault(why.into()))?;
        work(&Reader::new(transaction))
    }
}

impl Store {
    fn new(opened: Opened, seal: Seal, directory: &Path, turn: Turn) -> Self {
        Self {
            shared: Arc::new(Shared {
                opened: RwLock::new(Arc::new(opened)),
                seal,
                directory: directory.into(),
                writing: Mutex::new(turn),
                trouble: RwLock::default(),
                is_replaced: AtomicBool::new(false),
            }),
        }
    }

    /// The key that seals secrets at rest.
    pub fn seal(&self) -> &Seal {
        &self.shared.seal
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// The size of the database on disk, in bytes, if it can be read.
    pub(crate) fn size(&self) -> Option<u64> {
        fs::metadata(self.directory().join(open::DATABASE_FILE)).ok().map(|found| found.len())
    }

    /// Whether the store takes writes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the trouble and its remedy.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.trouble().map_or(Ok(()), |trouble| Err(trouble.error()))
    }

    /// [`Store::check_writable`] for clients of any kind: its message names no paths.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn check_health(&self) -> Result<()> {
        let store = self.clone();
        let trouble = blocking(move || Ok(store.trouble())).await?;
        trouble.map_or(Ok(()), |trouble| Err(Error::Unavailable(trouble.short().into())))
    }

    fn trouble(&self) -> Option<Trouble> {
        let noted = self.shared.trouble.read().clone();
        match noted {
            Some(trouble) if !trouble.may_pass() => Some(trouble),
            trouble => self.misplaced().or(trouble),
        }
    }

    /// Checks regularly whether the file is in its place and whether a failed disk works again, until the server stops.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            if self.check_writable().is_err() {
                let store = self.clone();
                // A trouble that persists was logged when it began.
                let _ = blocking(move || store.try_again()).await;
            }
        }
    }

    /// Writes as much as a disk with room must take, so that writing goes on.
    fn try_again(&self) -> Result<()> {
        if matches!(*self.shared.trouble.read(), Some(Trouble::Full(_))) {
            let path = self.directory().join(format!("{}.room", open::DATABASE_FILE));
            let room = File::create(&path)
                .and_then(|mut file| file.write_all(&vec![0; ROOM]).and_then(|()| file.sync_all()));
            let _ = fs::remove_file(&path);
            room.map_err(Error::internal)?;
        }
        self.write_now(|_| Ok(()))
    }

    /// Runs `work` against one consistent snapshot, on the blocking pool.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.read_now(work)).await
    }

    /// [`Store::read`] on the calling thread: for start-up and command-line tools.
    pub fn read_now<T>(&self, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let opened = self.readable();
        match caught(|| opened.read(work)) {
            Ok(Err(why)) => Err(self.explained(&opened, why)),
            Ok(read) => read,
            Err(panic) => Err(self.damaged(&opened, panic)),
        }
    }

    /// Runs `work` in one write transaction, on the blocking pool. It is committed, and durable, only when `work`
    /// returns `Ok`; what `work` handed to [`Writer::on_commit`] runs after the commit and before the next write.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.write_now(work)).await
    }

    /// [`Store::write`] on the calling thread: for start-up and command-line tools.
    pub fn write_now<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        let mut turn = self.shared.writing.lock();
        let opened = self.writable(&mut turn)?;
        match caught(|| opened.write(work)) {
            Ok(Attempt::Kept(value, after)) => {
                // A write has just worked, so the trouble is over; damage stays.
                self.shared.trouble.write().take_if(|trouble| trouble.may_pass());
                for apply in after {
                    apply();
                }
                // A file without a name is gone when the process ends, so no change to it counts as done.
                self.misplaced().map_or(Ok(value), |trouble| Err(trouble.error()))
            }
            Ok(Attempt::Refused(why)) => {
                let why = self.explained(&opened, why);
                let has_failed = opened.failure().is_some();
                self.reopen(&mut turn);
                Err(if has_failed { uncertain(why, Some(false)) } else { why })
            }
            Ok(Attempt::Failed(why, unsettled)) => {
                let why = self.explained(&opened, fault(why));
                let number = unsettled.number;
                turn.unsettled = Some(unsettled);
                self.reopen(&mut turn);
                let is_settled = turn.unsettled.is_none();
                Err(uncertain(why, is_settled.then(|| self.count() == Some(number))))
            }
            Err(panic) => Err(self.damaged(&opened, panic)),
        }
    }

    /// The number of the last transaction that was kept.
    fn count(&self) -> Option<u64> {
        let opened = self.current();
        caught(|| opened.read(|r| r.find(&SCHEMA, COMMITS_KEY))).ok()?.ok().map(Option::unwrap_or_default)
    }

    fn current(&self) -> Arc<Opened> {
        Arc::clone(&self.shared.opened.read())
    }

    /// The database to read from; if the disk failed it, it is opened anew first. A writer does that itself.
    fn readable(&self) -> Arc<Opened> {
        let opened = self.current();
        if opened.failure().is_some()
            && let Some(mut turn) = self.shared.writing.try_lock()
        {
            self.reopen(&mut turn);
            return self.current();
        }
        opened
    }

    /// The database to write to, opened anew if needed.
    fn writable(&self, turn: &mut Turn) -> Result<Arc<Opened>> {
        if let Some(trouble) = self.trouble().filter(|trouble| !trouble.may_pass()) {
            return Err(trouble.error());
        }
        self.reopen(turn);
        let opened = self.current();
        if opened.access == Access::Write && opened.failure().is_none() && turn.unsettled.is_none() {
            return Ok(opened);
        }
        let trouble = opened.failure().or_else(|| self.trouble());
        Err(trouble
            .map_or_else(|| Error::internal("the database can only be read"), |trouble| trouble.error()))
    }

    /// Opens the file anew if the database can't be used any more, since redb does nothing after the disk has refused
    /// anything: for writing, or if that fails, for reading.
    fn reopen(&self, turn: &mut Turn) {
        if !self.is_compared(turn) {
            return;
        }
        // Read again: another caller may have reopened it before this one had its turn.
        let failed = self.current();
        let Some(disk) = &failed.disk else { return };
        if failed.access == Access::Write && failed.failure().is_none() && turn.unsettled.is_none() {
            return;
        }
        // The caller that met the trouble may not have noted it yet.
        if let Some(trouble) = failed.failure() {
            self.noted(&trouble);
        }
        // Readers can go on with a database that can only be read, so reopening it is not urgent.
        let is_early = turn.reopened.is_some_and(|at| at.elapsed() < AGAIN);
        if is_early && failed.failure().is_none() {
            return;
        }
        turn.reopened = Some(Instant::now());
        // The retired database must neither write its view of the file on closing nor read what is written from now on.
        disk.retire();
        let is_damaged = matches!(*self.shared.trouble.read(), Some(Trouble::Damaged { .. }));
        let opened = if is_damaged { None } else { self.opened_to_write(disk) };
        let Some(opened) = opened.or_else(|| opened_to_read(disk)) else { return };
        *self.shared.opened.write() = Arc::new(opened);
        // The file now tells whether the failed transaction is in it; memory follows.
        if let Some(number) = self.count()
            && let Some(unsettled) = turn.unsettled.take()
            && number == unsettled.number
        {
            for apply in unsettled.after {
                apply();
            }
        }
    }

    fn opened_to_write(&self, disk: &Disk) -> Option<Opened> {
        let disk = disk.anew();
        // redb would make a new database of an empty file.
        let is_there = disk.file().metadata().is_ok_and(|found| found.len() > 0);
        let database = is_there.then(|| caught(|| builder().create_with_backend(disk.clone())).ok()?.ok())?;
        if let Some(trouble) = disk.failure() {
            self.noted(&trouble);
        }
        Some(Opened { database: database?.into(), disk: Some(disk), access: Access::Write })
    }

    /// The error for the caller: if the disk or a damaged file is the cause, it says so, and the trouble is noted.
    fn explained(&self, opened: &Opened, why: Error) -> Error {
        if opened.access == Access::Early {
            // The comparison will say whether the file is damaged, and how.
            return opened.failure().map_or(why, |trouble| trouble.error());
        }
        let corrupted = match &why {
            Error::Internal(cause) => match cause.downcast_ref() {
                Some(redb::Error::Corrupted(why)) => Some(why.clone()),
                _ => None,
            },
            _ => None,
        };
        match (opened.failure(), corrupted) {
            _ if opened.is_retired() => {
                Error::Unavailable("the database was opened anew after the disk had failed; try again".into())
            }
            (Some(trouble), _) => self.noted(&trouble),
            (None, Some(why)) => self.damaged(opened, why),
            (None, None) => why,
        }
    }

    /// Records damage: from now on nothing is written, not even by this database when it is closed.
    fn damaged(&self, opened: &Opened, why: String) -> Error {
        let trouble = Trouble::Damaged { path: self.directory().join(open::DATABASE_FILE), why };
        if opened.access == Access::Early {
            return trouble.error();
        }
        if let Some(disk) = &opened.disk {
            disk.fail(&trouble);
        }
        self.noted(&trouble)
    }

    /// Notes a trouble and logs it; damage is never replaced by another trouble.
    fn noted(&self, trouble: &Trouble) -> Error {
        let mut noted = self.shared.trouble.write();
        if noted.as_ref().is_none_or(Trouble::may_pass) {
            if noted.as_ref() != Some(trouble) {
                tracing::error!("{trouble}");
            }
            *noted = Some(trouble.clone());
        }
        trouble.error()
    }

    /// The trouble with a file that is no longer where it was opened, or was cut short.
    fn misplaced(&self) -> Option<Trouble> {
        let opened = self.current();
        let disk = opened.disk.as_ref()?;
        if disk.is_cut() {
            let trouble = Trouble::Damaged { path: disk.path().into(), why: "it is cut short".into() };
            disk.fail(&trouble);
            self.noted(&trouble);
            return Some(trouble);
        }
        let is_replaced = !disk.is_in_place();
        let trouble = is_replaced.then(|| Trouble::Replaced(disk.path().into()));
        match (&trouble, self.shared.is_replaced.swap(is_replaced, Ordering::SeqCst)) {
            (Some(trouble), false) => tracing::error!("{trouble}"),
            (None, true) => tracing::warn!("the database file is in its place again"),
            _ => {}
        }
        trouble
    }
}

fn opened_to_read(disk: &Disk) -> Option<Opened> {
    let disk = disk.anew();
    let database = caught(|| {
        let overlay = Overlay::new(disk.clone()).ok()?;
        builder().create_with_backend(overlay).ok()
    });
    Some(Opened { database: database.ok()??.into(), disk: Some(disk), access: Access::Read })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

/// A failure of redb, as [`Store::explained`] finds it.
fn fault(error: redb::Error) -> Error {
    Error::internal(error)
}

/// The error for a failed commit: it says whether the transaction was kept, if that could be found out.
fn uncertain(why: Error, is_kept: Option<bool>) -> Error {
    match (why, is_kept) {
        (Error::Unavailable(why), Some(false)) => Error::Unavailable(format!("{why}; nothing was changed")),
        (Error::Unavailable(why), Some(true)) => {
            Error::Unavailable(format!("{why}; the change was made, and may be lost if the power fails now"))
        }
        (Error::Unavailable(why), None) => Error::Unavailable(format!(
            "{why}; whether the change was made is seen once the file can be read"
        )),
        (why, _) => why,
    }
}

/// Whether an error says that a disk or a quota is full, or that a file would exceed its size limit.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn storage_fault(error: StorageError) -> Error {
    fault(error.into())
}
