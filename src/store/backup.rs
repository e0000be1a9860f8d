//! Backups: a copy of every record at one moment, in a database file of its own that says what it is.
//!
//! A backup is taken from one snapshot while others write, proven by a digest over all records, and restored only into
//! a directory that has no database.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::base::Error;
use crate::base::digest::hex;
use crate::store::disk::Disk;
use crate::store::guard::{Guarded, caught};
use crate::store::migrate::SCHEMA_VERSION;
use crate::store::open::{
    DATABASE_FILE, KEY_FILE, OpenError, SCHEMA, SCHEMA_KEY, begin, builder, closed_file, key_bytes,
    make_directory, proven, put_in_place,
};
use crate::store::overlay::Overlay;
use crate::store::seal::Seal;
use crate::store::table::Reader;
use crate::store::{Store, Table, is_full};

/// The format version of backups that this program writes, and the newest it reads.
const FORMAT: u32 = 1;
/// The label of a backup; a server's database does not have this table.
const LABEL: Table<Label> = Table::new("BACKUP_TO_LABEL");
const LABEL_KEY: &str = "backup";
/// How many bytes of records are written in one transaction: writes stay in memory until they are committed.
const BATCH: usize = 8 * 1024 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    format: u32,
    /// The version of wharf that took it.
    pub(crate) version: String,
    schema: u64,
    /// The moment whose records it has.
    pub(crate) taken_at: Timestamp,
    /// How many records it has.
    pub(crate) records: u64,
    /// SHA-256 over all tables, keys and values, in their order.
    digest: String,
    /// The key that opens the secrets, if the backup includes it.
    #[serde(default)]
    key: Option<ByteBuf>,
}

impl Label {
    /// Whether the key that opens the secrets is in the backup.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// Why a backup can't be made or used. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The file system refused something.
    #[error("{path}: {why}")]
    Io {
        /// The file that could not be used.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The disk has no room for it.
    #[error("{0}: the disk is full; free some space there, or name a file on another disk")]
    Full(PathBuf),
    /// The file is no backup, or a damaged one.
    #[error("{path}: not a usable backup ({why}); take another one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A later version took it.
    #[error("{path}: taken by a newer wharf ({version}); restore it with that version or a later one")]
    Newer {
        /// The file.
        path: PathBuf,
        /// That version.
        version: String,
    },
    /// The directory has a database already.
    #[error("{0}: there is a database already, and it was left as it is; name an empty or a new directory")]
    Occupied(PathBuf),
    /// The key is needed and missing, or is another one.
    #[error("{path}: {why}; name the secret.key of the server it was taken from with --key-file")]
    Key {
        /// The backup, or the key file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The data directory can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database to be saved can't be read.
    #[error(transparent)]
    Source(Error),
}

impl Store {
    /// Writes a backup to a new file that only its owner can read. With `key`, the path of the key file, the backup
    /// includes the key. Records written meanwhile are not in it, and the writers do not wait.
    pub(crate) fn back_up(
        &self,
        path: &Path,
        key: Option<&Path>,
        now: Timestamp,
    ) -> Result<Label, BackupError> {
        let key = key.map(key_bytes).transpose()?;
        let disk = Disk::create(path).map_err(|why| io_error(path, why))?;
        let mut refused = None;
        let written = self.read_now(|reader| {
            write_backup(reader, &disk, key, now).map_err(|why| {
                refused = Some(why);
                Error::internal("no backup")
            })
        });
        let written = written.map_err(|why| match (why, refused) {
            // If the source can't be read, that is the error to report, whatever became of the backup.
            (why @ Error::Unavailable(_), _) | (why, None) => BackupError::Source(why),
            (_, Some(refused)) => refused,
        });
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    }
}

fn write_backup(
    reader: &Reader,
    disk: &Disk,
    key: Option<Zeroizing<Vec<u8>>>,
    now: Timestamp,
) -> Result<Label, BackupError> {
    let path = disk.path();
    let fail = |why| redb_error(path, why);
    let schema = reader.find(&SCHEMA, SCHEMA_KEY).map_err(BackupError::Source)?;
    let database = builder().create_with_backend(disk.clone()).map_err(|why| fail(why.into()))?;
    let (records, digest) = copy(reader.transaction(), &database).map_err(fail)?;
    let label = Label {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        schema: schema.unwrap_or(SCHEMA_VERSION),
        taken_at: now,
        records,
        digest,
        key: key.map(|key| ByteBuf::from(key.to_vec())),
    };
    let bytes = rmp_serde::to_vec_named(&label).map_err(|why| damaged(path, why.to_string()))?;
    put(&database, LABEL.name(), &[(LABEL_KEY.into(), bytes)]).map_err(fail)?;
    drop(database);
    // The backup counts only once it was read back.
    let label = read(path)?.label;
    disk.file().sync_all().map_err(|why| io_error(path, why))?;
    Ok(label)
}

/// A backup that was read to its end.
struct Found {
    label: Label,
    /// Kept open while it is read.
    _database: Guarded,
    records: ReadTransaction,
}

/// The label of a backup, after all its records were compared with the digest.
///
/// # Errors
/// A file that is no backup, was damaged or is from a later version.
pub(crate) fn check(path: &Path) -> Result<Label, BackupError> {
    read(path).map(|found| found.label)
}

/// Makes a data directory from a backup. Nothing there is overwritten, and a failed restore leaves nothing behind.
///
/// # Errors
/// Those of [`check`], a directory that has a database, and a key that is missing or another one.
pub(crate) fn restore(
    backup: &Path,
    directory: &Path,
    key_file: Option<&Path>,
) -> Result<Label, BackupError> {
    let found = read(backup)?;
    let key = key_of(backup, &found.label, key_file)?;
    let path = directory.join(DATABASE_FILE);
    make_directory(directory, &path)?;
    if path.try_exists().map_err(|why| io_error(&path, why))? {
        return Err(BackupError::Occupied(directory.into()));
    }
    let (disk, _lock) = begin(directory)?;
    let unfinished = disk.path().to_owned();
    let made = fill(&found.records, &disk, &key).and_then(|()| {
        put_key(&directory.join(KEY_FILE), &key)?;
        Ok(put_in_place(&disk, &path)?)
    });
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    made.map(|_| found.label)
}

fn key_of(backup: &Path, label: &Label, key_file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    match (key_file, &label.key) {
        (Some(path), _) => Ok(key_bytes(path)?),
        (None, Some(key)) => Ok(Zeroizing::new(key.to_vec())),
        (None, None) => {
            let why = "the key that opens its secrets is not in it".into();
            Err(BackupError::Key { path: backup.into(), why })
        }
    }
}

/// Writes the records to a new database, reads them back, and opens the result with the key.
fn fill(source: &ReadTransaction, disk: &Disk, key: &[u8]) -> Result<(), BackupError> {
    let path = disk.path();
    let wrong_key = |why: String| BackupError::Key { path: path.into(), why };
    let seal = Seal::from_key(key).map_err(|_| wrong_key("what was named is no key".into()))?;
    let database = copy_proven(source, disk)?;
    let written = database.begin_read().map_err(|why| redb_error(path, why.into()))?;
    let opens = proven(&Reader::new(written), &seal, path);
    opens.map_err(|_| wrong_key("the key is not the one its secrets were sealed with".into()))
}

/// Writes the records to a new database, and reads them back.
pub(in crate::store) fn copy_proven(source: &ReadTransaction, disk: &Disk) -> Result<Database, BackupError> {
    let path = disk.path();
    let fail = |why| redb_error(path, why);
    let database = builder().create_with_backend(disk.clone()).map_err(|why| fail(why.into()))?;
    let read = copy(source, &database).map_err(fail)?;
    let written = database.begin_read().map_err(|why| fail(why.into()))?;
    if digest_of(&written).map_err(fail)? != read {
        return Err(damaged(path, "what was written is not what was read".into()));
    }
    Ok(database)
}

/// Writes the key file. A file with the same key is accepted: a restore that was cut short left it.
fn put_key(path: &Path, key: &[u8]) -> Result<(), BackupError> {
    match fs::read(path) {
        Ok(found) if found == key => return Ok(()),
        Ok(_) => {
            let why = io::Error::other("there is another key already, and it was left as it is");
            return Err(io_error(path, why));
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(io_error(path, why)),
    }
    let written = closed_file(path).and_then(|mut file| file.write_all(key).and_then(|()| file.sync_all()));
    written.map_err(|why| io_error(path, why))
}

fn read(path: &Path) -> Result<Found, BackupError> {
    let disk = Disk::open_to_read(path).map_err(|why| io_error(path, why))?;
    if disk.file().metadata().map_err(|why| io_error(path, why))?.len() == 0 {
        return Err(damaged(path, "it is empty".into()));
    }
    let broken = |why: redb::Error| damaged(path, why.to_string());
    // redb documents that it may panic on a file something else has altered.
    let read = caught(|| {
        let overlay = Overlay::new(disk).map_err(|why| io_error(path, why))?;
        let database = builder().create_with_backend(overlay).map_err(|why| broken(why.into()))?;
        let records = database.begin_read().map_err(|why| broken(why.into()))?;
        let label = label_of(path, &records)?;
        if digest_of(&records).map_err(broken)? != (label.records, label.digest.clone()) {
            return Err(damaged(path, "its records are not those it was taken with".into()));
        }
        Ok(Found { label, _database: database.into(), records })
    });
    read.unwrap_or_else(|why| Err(damaged(path, why)))
}

fn label_of(path: &Path, snapshot: &ReadTransaction) -> Result<Label, BackupError> {
    let none = || damaged(path, "it has no label: a database itself is no backup".into());
    let table = snapshot.open_table(raw(LABEL.name())).map_err(|_| none())?;
    let value = table.get(LABEL_KEY.as_bytes()).map_err(|why| damaged(path, why.to_string()))?;
    let value = value.ok_or_else(none)?;
    let label: Label = rmp_serde::from_slice(value.value()).map_err(|why| damaged(path, why.to_string()))?;
    if label.format > FORMAT || label.schema > SCHEMA_VERSION {
        return Err(BackupError::Newer { path: path.into(), version: label.version });
    }
    Ok(label)
}

fn raw(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Calls `each` with the records of every table, in batches, and returns how many there are and their digest.
fn walk(
    from: &ReadTransaction,
    mut each: impl FnMut(&str, &Rows) -> Result<(), redb::Error>,
) -> Result<(u64, String), redb::Error> {
    let mut names: Vec<String> = from.list_tables()?.map(|table| table.name().to_owned()).collect();
    names.sort_unstable();
    let (mut records, mut hasher) = (0, Sha256::new());
    for name in names.iter().filter(|name| *name != LABEL.name()) {
        hash(&mut hasher, name.as_bytes());
        let (mut rows, mut size) = (Rows::new(), 0);
        for row in from.open_table(raw(name))?.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value().to_vec(), value.value().to_vec());
            hash(&mut hasher, &key);
            hash(&mut hasher, &value);
            (records, size) = (records + 1, size + key.len() + value.len());
            rows.push((key, value));
            if size >= BATCH {
                each(name, &rows)?;
                (rows, size) = (Rows::new(), 0);
            }
        }
        // Called for empty tables too: an empty table is a table.
        each(name, &rows)?;
    }
    Ok((records, hex(&hasher.finalize())))
}

/// Hashes a text with its length, so that no two lists of texts have the same digest.
fn hash(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(bytes.len().to_be_bytes());
    hasher.update(bytes);
}

/// Reads all records, and counts them by table.
pub(in crate::store) fn count(from: &ReadTransaction) -> Result<BTreeMap<String, usize>, redb::Error> {
    let mut counts = BTreeMap::new();
    walk(from, |name, rows| {
        *counts.entry(name.to_owned()).or_default() += rows.len();
        Ok(())
    })?;
    Ok(counts)
}

fn digest_of(from: &ReadTransaction) -> Result<(u64, String), redb::Error> {
    walk(from, |_, _| Ok(()))
}

fn copy(from: &ReadTransaction, to: &Database) -> Result<(u64, String), redb::Error> {
    walk(from, |name, rows| put(to, name, rows))
}

fn put(to: &Database, name: &str, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), redb::Error> {
    let mut transaction = to.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(raw(name))?;
        for (key, value) in rows {
            table.insert(key.as_slice(), value.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn damaged(path: &Path, why: String) -> BackupError {
    BackupError::Damaged { path: path.into(), why }
}

fn io_error(path: &Path, why: io::Error) -> BackupError {
    if is_full(&why) { BackupError::Full(path.into()) } else { BackupError::Io { path: path.into(), why } }
}

fn redb_error(path: &Path, why: redb::Error) -> BackupError {
    match why {
        redb::Error::Io(why) => io_error(path, why),
        why => BackupError::Io { path: path.into(), why: io::Error::other(why) },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use jiff::Timestamp;

    use super::{BackupError, check, restore};
    use crate::store::open::KEY_FILE;
    use crate::store::{Store, Table};

    const NOTES: Table<String> = Table::new("NAME_TO_NOTE");

    fn filled(directory: &Path) -> Store {
        let store = Store::open(directory).unwrap();
        let note = |n: u32| (n.to_be_bytes(), format!("{n} {}", "x".repeat(20_000)));
        store
            .write_now(|w| (0..1000).map(note).try_for_each(|(key, text)| w.put(&NOTES, key, &text)))
            .unwrap();
        store
    }

    fn notes(store: &Store) -> usize {
        store
            .read_now(|r| {
                let mut count = 0;
                r.scan(&NOTES, [], |_, _: String| {
                    count += 1;
                    Ok(())
                })?;
                Ok(count)
            })
            .unwrap()
    }

    #[test]
    fn what_is_restored_is_what_was_there_and_opens_with_the_key_that_was_in_it() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let store = filled(&at("data"));
        let label = store.back_up(&at("b"), Some(&at("data").join(KEY_FILE)), Timestamp::UNIX_EPOCH).unwrap();
        assert!(label.has_key() && label.records > 1000);
        assert_eq!(fs::metadata(at("b")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(store.back_up(&at("b"), None, Timestamp::UNIX_EPOCH).is_err(), "nothing is overwritten");
        restore(&at("b"), &at("other"), None).unwrap();
        let restored = Store::open(&at("other")).unwrap();
        assert_eq!(notes(&restored), 1000);
        drop(restored);
        let again = restore(&at("b"), &at("other"), None).unwrap_err();
        assert!(matches!(again, BackupError::Occupied(_)), "{again}");
        assert!(matches!(check(&at("data").join("wharf.redb")), Err(BackupError::Damaged { .. })));
    }

    #[test]
    fn without_the_key_in_it_the_right_one_has_to_be_named() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let store = filled(&at("data"));
        assert!(!store.back_up(&at("b"), None, Timestamp::UNIX_EPOCH).unwrap().has_key());
        let open = at("open");
        fs::copy(at("data").join(KEY_FILE), &open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = restore(&at("b"), &at("other"), Some(&open)).unwrap_err().to_string();
        assert!(refused.contains("mode 0640") && refused.contains("chmod 600"), "{refused}");
        assert!(store.back_up(&at("c"), Some(&open), Timestamp::UNIX_EPOCH).is_err() && !at("c").exists());
        for (name, length) in [("wrong", 32), ("short", 3)] {
            fs::write(at(name), vec![7; length]).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        for key in [None, Some(at("wrong")), Some(at("short"))] {
            let refused = restore(&at("b"), &at("other"), key.as_deref()).unwrap_err();
            assert!(matches!(refused, BackupError::Key { .. }), "{refused}");
            assert!(refused.to_string().contains("--key-file"), "{refused}");
        }
        let left: Vec<_> = fs::read_dir(at("other")).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        restore(&at("b"), &at("other"), Some(&at("data").join(KEY_FILE))).unwrap();
        assert_eq!(notes(&Store::open(&at("other")).unwrap()), 1000);
    }

    #[test]
    fn a_backup_with_a_single_other_bit_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        drop(filled(&at("data")).back_up(&at("b"), None, Timestamp::UNIX_EPOCH).unwrap());
        let whole = fs::read(at("b")).unwrap();
        // In the middle of a record's text; elsewhere much of a file is unused.
        let place = whole.windows(64).position(|window| window == [b'x'; 64]).unwrap();
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        for broken in [bytes, whole[..whole.len() / 2].to_vec(), Vec::new(), b"hello".repeat(1000)] {
            fs::write(at("broken"), &broken).unwrap();
            let refused = restore(&at("broken"), &at("other"), None).unwrap_err();
            assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
            assert!(!at("other").exists());
        }
    }
}
