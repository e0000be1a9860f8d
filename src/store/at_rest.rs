//! Reads a database that no server uses, as a server would open it, and leaves it as it is: no file is made, migrated,
//! or given another mode, and whatever a start would recover is recovered in memory only.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase as _};

use crate::base::Result;
use crate::store::backup::count;
use crate::store::disk::Disk;
use crate::store::fault;
use crate::store::guard::{Guarded, caught};
use crate::store::lock::{Lock, is_read_only};
use crate::store::migrate::SCHEMA_VERSION;
use crate::store::open::{
    DATABASE_FILE, KEY_FILE, OpenError, builder_at_rest, io_error, known_schema, load_key, proven, refusal,
};
use crate::store::overlay::Overlay;
use crate::store::seal::Seal;
use crate::store::table::Reader;
use crate::store::{Access, Opened};

/// A database that no server uses. No server can start on it while this is held.
pub struct AtRest {
    database: Guarded,
    disk: Disk,
    schema: u64,
    _lock: Option<Lock>,
}

impl AtRest {
    /// Opens the database in this directory, and compares all of it with its checksums. The directory may be one that
    /// can only be read.
    ///
    /// # Errors
    /// Those of [`Store::open_existing`](crate::store::Store::open_existing).
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(DATABASE_FILE);
        let fail = |why| io_error(&path, why);
        if !path.try_exists().map_err(fail)? {
            return Err(OpenError::Absent(directory.into()));
        }
        // Opened for writing, as some file systems require for the lock; nothing is written.
        let disk = match Disk::open(&path) {
            Err(why) if is_read_only(&why) => Disk::open_to_read(&path),
            opened => opened,
        };
        let disk = disk.map_err(fail)?;
        let lock = Lock::take_to_read(disk.file(), directory)?;
        Ok(Self { _lock: lock, ..Self::over(&disk, SCHEMA_VERSION)? })
    }

    /// The database in an open file. The whole file is compared with its checksums, and a schema newer than `known` is
    /// refused.
    pub(in crate::store) fn over(disk: &Disk, known: u64) -> Result<Self, OpenError> {
        disk.fetch();
        let path = disk.path();
        Self::opened(disk.anew(), known, |database| {
            if database.check_integrity().map_err(|why| refusal(path, why))? {
                Ok(())
            } else {
                Err(damaged(path, "it does not agree with its checksums"))
            }
        })
    }

    /// [`AtRest::over`] without the comparison: no caller may rely on what it reads before another one has compared it.
    pub(in crate::store) fn uncompared(disk: Disk, known: u64) -> Result<Self, OpenError> {
        Self::opened(disk, known, |_| Ok(()))
    }

    fn opened(
        disk: Disk,
        known: u64,
        check: impl FnOnce(&mut Database) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let path = disk.path();
        if disk.file().metadata().map_err(|why| io_error(path, why))?.len() == 0 {
            return Err(damaged(path, "it is empty"));
        }
        let (database, schema) = guarded(path, || {
            let overlay = Overlay::new(disk.clone()).map_err(|why| io_error(path, why))?;
            let mut database =
                builder_at_rest().create_with_backend(overlay).map_err(|why| refusal(path, why))?;
            check(&mut database)?;
            let schema = known_schema(&reader(&database)?, path, known)?;
            Ok((Guarded::from(database), schema))
        })?;
        Ok(Self { database, disk, schema, _lock: None })
    }

    /// The opened database, for a store that reads it before it was compared.
    pub(in crate::store) fn into_opened(self) -> Opened {
        Opened { database: self.database, disk: Some(self.disk), access: Access::Early }
    }

    /// The schema that the database was written with, one that this program knows.
    pub(crate) fn schema(&self) -> u64 {
        self.schema
    }

    /// The key in the key file, if it is the one that the database was written with.
    ///
    /// # Errors
    /// [`OpenError::Key`].
    pub(in crate::store) fn key(&self) -> Result<Seal, OpenError> {
        let key_path = self.disk.path().with_file_name(KEY_FILE);
        let seal = load_key(&key_path)?;
        guarded(self.disk.path(), || {
            proven(&reader(self.database.get().map_err(fault)?)?, &seal, &key_path)
        })?;
        Ok(seal)
    }

    /// Checks that the key in the key file is the one that the database was written with.
    ///
    /// # Errors
    /// [`OpenError::Key`].
    pub(crate) fn check_key(&self) -> Result<(), OpenError> {
        self.key().map(drop)
    }

    /// Reads every record, and counts them by table.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if a record can't be read.
    pub fn check_records(&self) -> Result<BTreeMap<String, usize>, OpenError> {
        let path = self.disk.path();
        guarded(path, || {
            let counted = count(reader(self.database.get().map_err(fault)?)?.transaction());
            counted.map_err(|why| OpenError::Damaged { path: path.into(), why: why.to_string() })
        })
    }

    /// Runs `work` against the database.
    ///
    /// # Errors
    /// Those of `work`, and [`OpenError::Damaged`] if something it reads is broken.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T, OpenError> {
        guarded(self.disk.path(), || Ok(work(&reader(self.database.get().map_err(fault)?)?)?))
    }
}

fn damaged(path: &Path, why: &str) -> OpenError {
    OpenError::Damaged { path: path.into(), why: why.into() }
}

fn reader(database: &Database) -> Result<Reader> {
    database.begin_read().map(Reader::new).map_err(|why| fault(why.into()))
}

/// Runs `work`, and reports a panic as damage: redb documents that it may panic on a file something else has altered.
pub(in crate::store) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    caught(work).unwrap_or_else(|why| Err(OpenError::Damaged { path: path.into(), why }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::AtRest;
    use crate::store::open::{DATABASE_FILE, KEY_FILE, OpenError};
    use crate::store::{Store, Table};

    const NOTES: Table<String> = Table::new("NAME_TO_NOTE");

    fn made(directory: &Path) -> Store {
        let store = Store::open(directory).unwrap();
        store.write_now(|w| w.put(&NOTES, "a", &"x".to_owned())).unwrap();
        store
    }

    #[test]
    fn looking_changes_nothing_and_says_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        drop(made(directory.path()));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join(DATABASE_FILE);
        let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        let found = AtRest::open(directory.path()).unwrap();
        assert_eq!(
            (found.schema(), found.check_records().unwrap().values().sum()),
            (1, 4),
            "the schema, the count of commits, the probe and the note"
        );
        found.check_key().unwrap();
        assert_eq!(found.read(|r| r.find(&NOTES, "a")).unwrap().as_deref(), Some("x"));
        drop(found);
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(before == (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()));
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn another_key_a_damaged_file_and_a_server_at_work_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let refused = || AtRest::open(directory.path()).err().unwrap();
        assert!(matches!(refused(), OpenError::Absent(_)));
        let store = made(directory.path());
        assert!(matches!(refused(), OpenError::InUse(_)));
        drop(store);
        let key = directory.path().join(KEY_FILE);
        for bytes in [vec![7; 32], vec![7; 3]] {
            fs::write(&key, bytes).unwrap();
            let refused = AtRest::open(directory.path()).unwrap().check_key().unwrap_err();
            assert!(matches!(refused, OpenError::Key { .. }), "{refused}");
        }
        let path = directory.path().join(DATABASE_FILE);
        let whole = fs::read(&path).unwrap();
        for bytes in [Vec::new(), b"garbage".repeat(2000), whole[..whole.len() / 2].to_vec()] {
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(refused(), OpenError::Damaged { .. }), "{} bytes: {}", bytes.len(), refused());
        }
    }

    #[test]
    fn a_server_that_was_killed_leaves_a_database_that_can_be_looked_at() {
        let [directory, copy] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let _killed = made(directory.path());
        let path = copy.path().join(DATABASE_FILE);
        fs::copy(directory.path().join(DATABASE_FILE), &path).unwrap();
        let before = fs::read(&path).unwrap();
        let records = AtRest::open(copy.path()).unwrap().check_records().unwrap();
        assert_eq!(records.values().sum::<usize>(), 4, "{records:?}");
        assert!(fs::read(&path).unwrap() == before, "the file was recovered");
    }

    #[test]
    fn a_single_other_bit_in_a_record_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let store = made(directory.path());
        store.write_now(|w| w.put(&NOTES, "b", &"y".repeat(100))).unwrap();
        drop(store);
        let path = directory.path().join(DATABASE_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.windows(64).position(|window| window == [b'y'; 64]).unwrap();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let refused = AtRest::open(directory.path()).and_then(|found| found.check_records()).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        assert!(fs::read(&path).unwrap() == bytes, "the file was mended");
    }
}
