//! At a start, the database is read while its file is still being compared with its checksums, each through an overlay
//! of its own. Until the comparison has succeeded, nothing is written to the file, and nothing that was read counts.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::base::Error;
use crate::store::at_rest::{AtRest, guarded};
use crate::store::compact;
use crate::store::disk::Disk;
use crate::store::lock::Lock;
use crate::store::migrate::{self, Step, newest};
use crate::store::open::{
    DATABASE_FILE, OpenError, builder, create, io_error, make_directory, refusal, take,
};
use crate::store::{Access, Opened, Store, Turn};

/// The state of the comparison of a store's file.
#[derive(Default)]
pub(in crate::store) enum Comparison {
    Running(Running),
    /// The file must not be used. Holds the reason until it was reported.
    Refused(Option<OpenError>),
    /// The file is whole.
    #[default]
    Done,
}

/// A comparison that runs on its own thread, and what to do with the file afterwards.
pub(in crate::store) struct Running {
    thread: JoinHandle<Result<AtRest, OpenError>>,
    disk: Disk,
    /// Whether the file is written anew if most of it is free.
    compacts: bool,
}

impl Running {
    /// Starts to compare the whole file. If it is not whole, the database in `early` is not read any more.
    fn begin(disk: Disk, early: &Disk, known: u64, compacts: bool) -> Result<Self, OpenError> {
        let (file, early) = (disk.clone(), early.clone());
        let compare = move || AtRest::over(&file, known).inspect_err(|_| early.retire());
        let thread = thread::Builder::new().name("comparison".into()).spawn(compare);
        let thread = thread.map_err(|why| io_error(disk.path(), why))?;
        Ok(Self { thread, disk, compacts })
    }

    /// Waits for the comparison to end.
    fn end(self) -> Result<(Disk, AtRest, bool), OpenError> {
        let broken = |_| OpenError::Other(Error::internal("the comparison with its checksums broke down"));
        let found = self.thread.join().map_err(broken)??;
        Ok((self.disk, found, self.compacts))
    }
}

impl Store {
    /// Opens the store like [`Store::open`], and returns what `load` makes of it. `load` runs while the file is still
    /// being compared with its checksums, so it should only read, and its result is handed out only when the file is
    /// found whole. If `load` writes nevertheless, the write waits for that.
    ///
    /// # Errors
    /// Those of [`Store::open`], whatever `load` met meanwhile; then those of `load`.
    pub(crate) fn open_and_load<T, E: From<OpenError>>(
        directory: &Path,
        load: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        Self::load_through(directory, migrate::STEPS, true, load)
    }

    /// [`Store::open_and_load`] with these migrations. `compacts` says whether the file may be written anew to give
    /// room back.
    pub(in crate::store) fn load_through<T, E: From<OpenError>>(
        directory: &Path,
        steps: &[Step],
        compacts: bool,
        load: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let store = Self::open_early(directory, steps, compacts)?;
        // Damage may be the reason why it fails or panics.
        let loaded = catch_unwind(AssertUnwindSafe(|| load(&store)));
        store.compared()?;
        loaded.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn open_early(directory: &Path, steps: &[Step], compacts: bool) -> Result<Self, OpenError> {
        let path = directory.join(DATABASE_FILE);
        make_directory(directory, &path)?;
        let is_there = path.try_exists().map_err(|why| io_error(&path, why))?;
        // A symbolic link's target may come back, with the database in it.
        if !is_there && path.is_symlink() {
            let why = io::Error::new(io::ErrorKind::NotFound, "it is a link to a file that is not there");
            return Err(io_error(&path, why));
        }
        let (disk, lock) = if is_there { take(directory, &path)? } else { create(directory, &path)? };
        let (early, known) = (disk.anew(), newest(steps));
        let running = Running::begin(disk, &early, known, compacts)?;
        let opened = AtRest::uncompared(early, known).and_then(|found| Ok((found.key()?, found)));
        let (seal, found) = match opened {
            Ok(opened) => opened,
            // If the file is no database at all, the missing key is not the error to report.
            Err(why) => return running.end().and(Err(why)),
        };
        let schema = found.schema();
        let turn = Turn { comparison: Comparison::Running(running), lock: Some(lock), ..Turn::default() };
        let store = Self::new(found.into_opened(), seal, directory, turn);
        if schema < known {
            store.compared()?;
            migrate::run(&store, &path, schema, steps)?;
        }
        Ok(store)
    }

    /// Waits until the file was compared with its checksums, and opens it for writing.
    fn compared(&self) -> Result<(), OpenError> {
        let mut turn = self.shared.writing.lock();
        self.is_compared(&mut turn);
        match &mut turn.comparison {
            Comparison::Refused(why) => Err(why
                .take()
                .unwrap_or_else(|| OpenError::Other(Error::internal("the database was refused before")))),
            Comparison::Running(_) | Comparison::Done => Ok(()),
        }
    }

    /// Whether the file is whole, so that it may be written. Waits until that is known; from then on the database that
    /// writes is the only one open in the file.
    pub(in crate::store) fn is_compared(&self, turn: &mut Turn) -> bool {
        turn.comparison = match mem::replace(&mut turn.comparison, Comparison::Refused(None)) {
            Comparison::Running(running) => match self.opened_whole(running, turn.lock.as_mut()) {
                Ok(opened) => {
                    *self.shared.opened.write() = Arc::new(opened);
                    Comparison::Done
                }
                Err(why) => Comparison::Refused(Some(why)),
            },
            ended => ended,
        };
        matches!(turn.comparison, Comparison::Done)
    }

    fn opened_whole(&self, running: Running, lock: Option<&mut Lock>) -> Result<Opened, OpenError> {
        let (disk, found, compacts) = running.end()?;
        let disk = match lock {
            Some(lock) if compacts => compact::where_worthwhile(disk, &found, lock),
            _ => disk,
        };
        // Dropped before anything is written to the file that it reads.
        drop(found);
        if let Some(early) = &self.current().disk {
            early.retire();
        }
        let database = guarded(disk.path(), || {
            builder().create_with_backend(disk.clone()).map_err(|why| refusal(disk.path(), why))
        })?;
        Ok(Opened { database: database.into(), disk: Some(disk.clone()), access: Access::Write })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use crate::base::{Error, Result};
    use crate::store::open::{DATABASE_FILE, OpenError};
    use crate::store::{Store, Table};

    const NOTES: Table<String> = Table::new("NAME_TO_NOTE");
    const UNREAD: Table<String> = Table::new("NAME_TO_UNREAD");

    type Load = fn(&Store) -> Result<(), OpenError>;

    /// Writes more notes than redb keeps in memory.
    fn fill(directory: &Path) {
        let store = Store::open(directory).unwrap();
        let note = |number: u32| (format!("note-{number:03}"), "x".repeat(20_000));
        store
            .write_now(|w| {
                (0..400).map(note).try_for_each(|(name, note)| w.put(&NOTES, name, &note))?;
                w.put(&UNREAD, "a", &"y".repeat(100))
            })
            .unwrap();
    }

    fn read(store: &Store) -> Result<usize> {
        let mut count = 0;
        let mut each = |_: &[u8], note: String| {
            count += usize::from(note.len() == 20_000);
            Ok(())
        };
        store.read_now(|r| r.scan(&NOTES, [], &mut each)).map(|()| count)
    }

    fn write(store: &Store) -> Result<()> {
        store.write_now(|w| w.put(&NOTES, "new", &"z".repeat(20_000)))
    }

    #[test]
    fn nothing_counts_and_nothing_is_written_where_a_record_that_was_not_read_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATABASE_FILE);
        fill(directory.path());
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let at = bytes.windows(100).position(|window| window == [b'y'; 100]).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let loads: [Load; 5] = [
            |store| Ok(read(store).map(drop)?),
            |store| Ok(write(store)?),
            |store| Ok(write(store).or_else(|_| write(store))?),
            |_| Err(Error::Unauthenticated.into()),
            |_| panic!("it met what can't be"),
        ];
        for (number, load) in loads.into_iter().enumerate() {
            let refused = Store::open_and_load(directory.path(), load).unwrap_err();
            assert!(matches!(refused, OpenError::Damaged { .. }), "{number}: {refused}");
            assert!(fs::read(&path).unwrap() == bytes, "{number}: a damaged file was written");
        }
        // Damage may lead in circles: an endless read must also get an answer.
        let begun = Instant::now();
        let endless = |store: &Store| -> Result<(), OpenError> {
            while begun.elapsed() < Duration::from_mins(1) {
                read(store)?;
            }
            Ok(())
        };
        let refused = Store::open_and_load(directory.path(), endless).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        assert!(begun.elapsed() < Duration::from_mins(1), "it read on");
        fs::write(&path, &whole).unwrap();
        assert_eq!(read(&Store::open(directory.path()).unwrap()).unwrap(), 400);
    }

    #[test]
    fn a_file_is_not_written_while_it_is_loaded_but_by_who_waits_for_the_comparison() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATABASE_FILE);
        fill(directory.path());
        let before = fs::read(&path).unwrap();
        let load = |store: &Store| -> Result<(Store, usize, usize), OpenError> {
            let first = read(store)?;
            assert!(fs::read(&path).unwrap() == before, "it was written before it was compared");
            let early = store.current();
            write(store)?;
            assert!(early.is_retired(), "two databases are in one file");
            Ok((store.clone(), first, read(store)?))
        };
        let (store, first, second) = Store::open_and_load(directory.path(), load).unwrap();
        assert_eq!((first, second, read(&store).unwrap()), (400, 401, 401));
        assert!(matches!(Store::open(directory.path()), Err(OpenError::InUse(_))));
        drop(store);
        assert_eq!(read(&Store::open(directory.path()).unwrap()).unwrap(), 401);
    }

    #[test]
    fn what_a_load_refuses_is_told_where_the_file_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let load = |_: &Store| -> Result<(), OpenError> { Err(Error::Unauthenticated.into()) };
        let refused = Store::open_and_load(directory.path(), load).unwrap_err();
        assert!(matches!(refused, OpenError::Other(Error::Unauthenticated)), "{refused}");
        Store::open(directory.path()).unwrap();
    }
}
