//! Opening the data directory: making it the first time, refusing what must not be touched.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageError};
use zeroize::Zeroizing;

use crate::base::Error;
use crate::base::secret::Secret;
use crate::store::disk::Disk;
use crate::store::lock::Lock;
use crate::store::migrate::{self, SCHEMA_VERSION, Step};
use crate::store::seal::{Seal, Sealed};
use crate::store::table::Reader;
use crate::store::{Access, Opened, Store, Table, Turn};

/// The database's file in the data directory.
pub(crate) const DATABASE_FILE: &str = "wharf.redb";
/// The key's file beside it.
pub(crate) const KEY_FILE: &str = "secret.key";

/// The size of redb's page cache. Lists come from memory, so the cache serves start-up and rare lookups; redb's own
/// default of 1 GiB would be most of the machine in a small lab.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// The size of the page cache where a database is read once from end to end: nothing is read twice, and cached pages
/// would leave holes in the memory of the process when they are freed.
const CACHE_BYTES_AT_REST: usize = 256 * 1024;

/// The row that says which schema the file has. It decodes in every version.
pub(in crate::store) const SCHEMA: Table<u64> = Table::new("NAME_TO_VERSION");
pub(in crate::store) const SCHEMA_KEY: &str = "schema";
/// A known text sealed with the key, to recognize a foreign key when the database is opened.
const PROBE: Table<Sealed> = Table::new("NAME_TO_PROBE");
const PROBE_KEY: &str = "key";
const PROBE_TEXT: &str = "wharf";

/// Why the data directory can't be used. Each message says what to do about it, and no file is changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{0}: another wharf is running on this data directory; stop it, or give --data-dir another one")]
    InUse(PathBuf),
    /// A lock file says that another process uses it, on a file system without locks.
    #[error(
        "{directory}: {owner} holds it by {path}, for its file system has no locks; stop that wharf, or remove {path} if \
         it is surely gone"
    )]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// The owner that the lock file names.
        owner: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The database has a schema that this program does not know yet.
    #[error(
        "{path}: written by a newer wharf (schema {found}; this one knows {known}); run that version or a later one"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The file is damaged, cut short, or no database of ours.
    #[error(
        "{path}: not a usable wharf database ({why}); it was left as it is: restore a backup, or move it away to \
         start empty"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is missing, or is another one.
    #[error(
        "{path}: {why}; the passwords and keys in the database can't be read without it: restore it from your backup"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Users other than its owner can get at the key.
    #[error(
        "{path}: it has mode {mode:04o}, so others can get at the key to all secrets; close it, or a copy that you name \
         instead: chmod 600 {path}"
    )]
    OpenKey {
        /// The key file.
        path: PathBuf,
        /// The key file's mode.
        mode: u32,
    },
    /// The directory holds other things and no database.
    #[error("{0}: holds other files and no wharf database; give --data-dir an empty or a new directory")]
    Foreign(PathBuf),
    /// The directory has no database, where it must have one.
    #[error("{0}: no wharf data directory (it has no {DATABASE_FILE}); name the server's with --data-dir")]
    Absent(PathBuf),
    /// The file system refused something.
    #[error("{path}: {why}")]
    Io {
        /// The file or directory that could not be used.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A migration failed; the copy made before it is whole.
    #[error("{path}: migration failed ({why}); the copy {copy} is as it was before")]
    Migration {
        /// The database file.
        path: PathBuf,
        /// The copy kept.
        copy: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// An internal failure.
    #[error("the database can't be read: {0:?}")]
    Other(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Store {
    /// Opens the data directory, or makes it when there is none.
    ///
    /// The directory is kept at mode 0700 and the key at 0600. A new database is made under another name and moved into
    /// place when it is whole, so a file cut short is never one of ours. An existing one is compared with all its
    /// checksums before anything is written to it, and written anew if most of its file is free.
    ///
    /// A server uses [`Store::open_and_load`]; this is for tests and measurements.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_through(directory, migrate::STEPS, true)
    }

    /// [`Store::open`] with these migrations. `compacts` says whether the file may be written anew to give room back.
    pub(in crate::store) fn open_through(
        directory: &Path,
        steps: &[Step],
        compacts: bool,
    ) -> Result<Self, OpenError> {
        Self::load_through(directory, steps, compacts, |store| Ok(store.clone()))
    }

    /// [`Store::open`] for tools that change an existing database and must not make a new one where a path was
    /// mistyped.
    ///
    /// # Errors
    /// [`OpenError::Absent`] when there is no database.
    pub(crate) fn open_existing(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(DATABASE_FILE);
        match path.try_exists() {
            Ok(true) => Self::open_through(directory, migrate::STEPS, false),
            Ok(false) => Err(OpenError::Absent(directory.into())),
            Err(why) => Err(io_error(&path, why)),
        }
    }
}

pub(in crate::store) fn load_key(path: &Path) -> Result<Seal, OpenError> {
    let unusable = |why: io::Error| OpenError::Key { path: path.into(), why: why.to_string() };
    let bytes = key_bytes(path).map_err(|error| match error {
        OpenError::Io { why, .. } => unusable(why),
        error => error,
    })?;
    Seal::from_key(&bytes).map_err(unusable)
}

/// The content of a key file, if only its owner can get at it.
///
/// # Errors
/// [`OpenError::OpenKey`], and [`OpenError::Io`] where it can't be read.
pub(in crate::store) fn key_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let fail = |why| io_error(path, why);
    // Not a pipe: opening one would wait for a writer.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(fail(io::Error::other("it is no file")));
    }
    let mut file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o7777;
    if is_open(mode) {
        return Err(OpenError::OpenKey { path: path.into(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Whether users other than its owner have any access to a file or a directory of this mode.
pub(crate) fn is_open(mode: u32) -> bool {
    mode & 0o077 != 0
}

/// A new file that only its owner can read.
pub(in crate::store) fn closed_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// The schema, if it is not newer than the newest that we know.
pub(in crate::store) fn known_schema(reader: &Reader, path: &Path, known: u64) -> Result<u64, OpenError> {
    match reader.find(&SCHEMA, SCHEMA_KEY)? {
        None => Err(OpenError::Damaged {
            path: path.into(),
            why: "it has no schema version, so it is some other program's".into(),
        }),
        Some(found) if found > known => Err(OpenError::Newer { path: path.into(), found, known }),
        Some(found) => Ok(found),
    }
}

/// Whether the probe opens with this key.
pub(in crate::store) fn proven(reader: &Reader, seal: &Seal, key_path: &Path) -> Result<(), OpenError> {
    match reader.find(&PROBE, PROBE_KEY)?.map(|sealed| seal.open(PROBE_KEY, &sealed)) {
        Some(Ok(_)) => Ok(()),
        _ => Err(OpenError::Key {
            path: key_path.into(),
            why: "it is not the key this database was written with".into(),
        }),
    }
}

/// Opens the file of an existing database, for this process alone.
pub(in crate::store) fn take(directory: &Path, path: &Path) -> Result<(Disk, Lock), OpenError> {
    let disk = Disk::open(path).map_err(|why| io_error(path, why))?;
    let lock = Lock::take(disk.file(), directory)?;
    // Another process may have written it anew between opening and locking.
    if disk.is_in_place() { Ok((disk, lock)) } else { Err(OpenError::InUse(directory.into())) }
}

/// Makes a new file for a database of this directory, for this process alone. It gets the database's name when it is
/// whole.
pub(in crate::store) fn begin(directory: &Path) -> Result<(Disk, Lock), OpenError> {
    let unfinished = unfinished(directory);
    if let Ok(left) = Disk::open(&unfinished) {
        // A start that was cut short left this file, unless another start is writing it right now.
        let _lock = Lock::take(left.file(), directory)?;
        fs::remove_file(&unfinished).map_err(|why| io_error(&unfinished, why))?;
    }
    let disk = match Disk::create(&unfinished) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            return Err(OpenError::InUse(directory.into()));
        }
        created => created.map_err(|why| io_error(&unfinished, why))?,
    };
    let lock = Lock::take(disk.file(), directory)?;
    // Another start may have taken it for a left-over and removed it before it was locked.
    if disk.is_in_place() { Ok((disk, lock)) } else { Err(OpenError::InUse(directory.into())) }
}

pub(in crate::store) fn create(directory: &Path, path: &Path) -> Result<(Disk, Lock), OpenError> {
    let (disk, lock) = begin(directory)?;
    // Another start has made the database meanwhile.
    if path.try_exists().map_err(|why| io_error(path, why))? {
        let _ = fs::remove_file(disk.path());
        return Err(OpenError::InUse(directory.into()));
    }
    // A first start that was cut short leaves a key without a database; it has sealed nothing yet.
    let key_path = directory.join(KEY_FILE);
    let seal = if key_path.exists() {
        load_key(&key_path)?
    } else {
        Seal::create(&key_path).map_err(|why| OpenError::Key { path: key_path, why: why.to_string() })?
    };
    let probe = seal.seal(PROBE_KEY, &Secret::new(PROBE_TEXT))?;
    let database = builder().create_with_backend(disk.clone()).map_err(|why| refusal(path, why))?;
    let opened = Opened { database: database.into(), disk: Some(disk.clone()), access: Access::Write };
    let store = Store::new(opened, seal, directory, Turn::default());
    store.write_now(|w| {
        w.put(&SCHEMA, SCHEMA_KEY, &SCHEMA_VERSION)?;
        w.put(&PROBE, PROBE_KEY, &probe)
    })?;
    drop(store);
    Ok((put_in_place(&disk, path)?, lock))
}

/// The path of a database of this directory until it is whole.
pub(crate) fn unfinished(directory: &Path) -> PathBuf {
    directory.join(format!("{DATABASE_FILE}.new"))
}

/// Gives a finished file the database's name.
pub(in crate::store) fn put_in_place(disk: &Disk, path: &Path) -> Result<Disk, OpenError> {
    let moved = disk.file().sync_all().and_then(|()| {
        let renamed = disk.renamed(path)?;
        fs::rename(disk.path(), path)?;
        Ok(renamed)
    });
    let moved = moved.map_err(|why| io_error(path, why))?;
    // The file has its name by now, even if this fails.
    if let Err(why) = File::open(path.parent().unwrap_or(path)).and_then(|folder| folder.sync_all()) {
        tracing::warn!(%why, path = %path.display(), "the new file's name may be lost if the power fails now");
    }
    Ok(moved)
}

pub(in crate::store) fn make_directory(directory: &Path, database: &Path) -> Result<(), OpenError> {
    let fail = |why| io_error(directory, why);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)
        }
        Err(error) => Err(fail(error)),
        Ok(entries) => {
            let ours = |name: &std::ffi::OsStr| {
                name == KEY_FILE || name.to_str().is_some_and(|name| name.starts_with(DATABASE_FILE))
            };
            let foreign = entries.filter_map(Result::ok).any(|entry| !ours(&entry.file_name()));
            if foreign && !database.exists() {
                return Err(OpenError::Foreign(directory.into()));
            }
            if is_open(directory.metadata().map_err(fail)?.permissions().mode()) {
                fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(fail)?;
            }
            Ok(())
        }
    }
}

pub(in crate::store) fn builder() -> redb::Builder {
    with_cache(CACHE_BYTES)
}

/// [`builder`] for a database that no server uses.
pub(in crate::store) fn builder_at_rest() -> redb::Builder {
    with_cache(CACHE_BYTES_AT_REST)
}

fn with_cache(bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(bytes);
    builder.set_repair_callback(|repair| {
        tracing::warn!(
            percent = (repair.progress() * 100.0).round(),
            "recovering the database after a crash"
        );
    });
    builder
}

pub(in crate::store) fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    let damaged = |why: String| OpenError::Damaged { path: path.into(), why };
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.parent().unwrap_or(path).to_path_buf()),
        DatabaseError::Storage(StorageError::Io(why)) if why.kind() == io::ErrorKind::InvalidData => {
            damaged("it is no redb file".into())
        }
        DatabaseError::Storage(StorageError::Io(why)) if why.kind() == io::ErrorKind::UnexpectedEof => {
            damaged("it is cut short".into())
        }
        DatabaseError::Storage(StorageError::Io(why)) => io_error(path, why),
        error => damaged(error.to_string()),
    }
}

pub(in crate::store) fn io_error(path: &Path, why: io::Error) -> OpenError {
    OpenError::Io { path: path.into(), why }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{DATABASE_FILE, KEY_FILE, OpenError, SCHEMA, SCHEMA_KEY};
    use crate::store::Store;

    #[test]
    fn a_new_data_directory_is_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        drop(Store::open(&directory).unwrap());
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.clone()), 0o700);
        assert_eq!((mode(directory.join(KEY_FILE)), mode(directory.join(DATABASE_FILE))), (0o600, 0o600));
        Store::open(&directory).expect("it opens again");
    }

    #[test]
    fn a_second_opening_is_refused_while_the_first_lasts() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenError::InUse(_))));
        drop(first);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn the_lock_ends_with_the_store_though_a_process_that_is_being_started_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        // A child process has this between its start and its exec.
        let _inherited = store.current().disk.as_ref().unwrap().file().try_clone().unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenError::InUse(_))));
        drop(store);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn what_is_no_database_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join(DATABASE_FILE);
        let whole = fs::read(&path).unwrap();
        let mut cases =
            vec![b"".to_vec(), b"garbage".to_vec(), vec![0; 100_000], b"SQLite format 3\0".repeat(1000)];
        for keep in [1, 8, 64, 320, 4096, 8192, whole.len() / 2, whole.len() - 1] {
            cases.push(whole[..keep].to_vec());
        }
        for bytes in cases {
            fs::write(&path, &bytes).unwrap();
            let refused = Store::open(directory.path()).err().unwrap_or_else(|| {
                panic!("{} bytes of {} were taken for a database", bytes.len(), whole.len())
            });
            assert!(matches!(refused, OpenError::Damaged { .. }), "{} bytes: {refused}", bytes.len());
            assert!(fs::read(&path).unwrap() == bytes, "{} bytes were changed", bytes.len());
        }
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.write_now(|w| w.put(&SCHEMA, SCHEMA_KEY, &99)).unwrap();
        drop(store);
        let refused = Store::open(directory.path()).err().unwrap();
        assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    }

    #[test]
    fn a_missing_or_foreign_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let key = directory.path().join(KEY_FILE);
        let bytes = fs::read(&key).unwrap();
        fs::remove_file(&key).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenError::Key { .. })));
        assert!(!key.exists(), "no new key is made over a database that needs the old one");
        fs::write(&key, [7; 32]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenError::Key { .. })));
        fs::write(&key, bytes).unwrap();
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn a_key_that_others_can_get_at_is_refused_with_what_closes_it() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let key = directory.path().join(KEY_FILE);
        let set = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o644, 0o640, 0o620, 0o601, 0o604] {
            set(mode);
            let refused = Store::open(directory.path()).err().unwrap();
            assert!(matches!(refused, OpenError::OpenKey { mode: found, .. } if found == mode), "{refused}");
            assert!(refused.to_string().ends_with(&format!("chmod 600 {}", key.display())), "{refused}");
        }
        set(0o400);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn a_data_directory_that_has_to_be_there_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        assert!(matches!(Store::open_existing(&directory), Err(OpenError::Absent(_))));
        assert!(!directory.exists());
        drop(Store::open(&directory).unwrap());
        Store::open_existing(&directory).unwrap();
    }

    #[test]
    fn a_directory_with_other_files_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenError::Foreign(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
