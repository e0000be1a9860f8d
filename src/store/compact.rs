//! Compaction: writes a database anew if most of its file is free, since redb reuses free room for new records but does
//! not return it to the disk.

use std::fs;
use std::path::Path;

use crate::store::at_rest::AtRest;
use crate::store::backup::{BackupError, copy_proven};
use crate::store::disk::Disk;
use crate::store::lock::Lock;
use crate::store::migrate::SCHEMA_VERSION;
use crate::store::open::{DATABASE_FILE, OpenError, put_in_place, take, unfinished};

/// The size of a file, in bytes, below which its free room does not matter.
const SMALL: u64 = 32 * 1024 * 1024;

/// The size of a file before and after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compacted {
    /// The size before, in bytes.
    pub(crate) before: u64,
    /// The size after, in bytes.
    pub(crate) after: u64,
}

/// Writes the database of a data directory anew; its server must be stopped. The old file stays until the new one was
/// read back.
///
/// # Errors
/// Those of [`Store::open_existing`](crate::store::Store::open_existing), and a disk without room for a second file.
pub(crate) fn compact(directory: &Path) -> Result<Compacted, BackupError> {
    let path = directory.join(DATABASE_FILE);
    if !path.exists() {
        return Err(OpenError::Absent(directory.into()).into());
    }
    let (disk, mut lock) = take(directory, &path)?;
    let (before, found) = (length(&disk), AtRest::over(&disk, SCHEMA_VERSION)?);
    let written = write_anew(&disk, &found, &mut lock)?;
    Ok(Compacted { before, after: length(&written) })
}

/// Returns the database's file, written anew if half of it or more is free. Every used block was just read, so the
/// blocks that were not read are free.
pub(in crate::store) fn where_worthwhile(disk: Disk, found: &AtRest, lock: &mut Lock) -> Disk {
    let (length, used) = (length(&disk), disk.known());
    if length < SMALL || used > length / 2 {
        return disk;
    }
    tracing::info!(bytes = length, used, "the database is mostly free: writing it anew");
    match write_anew(&disk, found, lock) {
        Ok(written) => {
            tracing::info!(bytes = self::length(&written), "the database was written anew");
            written
        }
        Err(why) => {
            tracing::warn!(%why, "the database could not be written anew, and stays as it is");
            disk
        }
    }
}

fn write_anew(disk: &Disk, found: &AtRest, lock: &mut Lock) -> Result<Disk, BackupError> {
    let path = unfinished(disk.path().parent().unwrap_or(disk.path()));
    let _ = fs::remove_file(&path);
    let fail = |why| BackupError::Io { path: path.clone(), why };
    let new = Disk::create(&path).map_err(fail)?;
    let written = found
        .read(|reader| Ok(copy_proven(reader.transaction(), &new).map(drop)))
        .map_err(BackupError::from)
        .and_then(|written| written)
        .and_then(|()| {
            lock.pass_on(new.file()).map_err(fail)?;
            AtRest::over(&new, found.schema())?;
            Ok(put_in_place(&new, disk.path())?)
        });
    if written.is_err() {
        let _ = fs::remove_file(&path);
    }
    written
}

fn length(disk: &Disk) -> u64 {
    disk.file().metadata().map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{SMALL, compact};
    use crate::store::open::{DATABASE_FILE, OpenError};
    use crate::store::{Store, Table};

    const NOTES: Table<Vec<u8>> = Table::new("NUMBER_TO_NOTE");

    fn notes(store: &Store) -> Vec<usize> {
        let mut notes = Vec::new();
        let scan = |r: &crate::store::table::Reader| {
            r.scan(&NOTES, [], |_, note: Vec<u8>| {
                notes.push(note.len());
                Ok(())
            })
        };
        store.read_now(scan).unwrap();
        notes
    }

    #[test]
    fn a_start_gives_the_disk_back_what_is_free_and_keeps_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATABASE_FILE);
        let size = || fs::metadata(&path).unwrap().len();
        let store = Store::open(directory.path()).unwrap();
        let note = |number: u32| (number.to_be_bytes(), vec![7_u8; 40_000 + number as usize]);
        store
            .write_now(|w| (0..1500).map(note).try_for_each(|(key, note)| w.put(&NOTES, key, &note)))
            .unwrap();
        store
            .write_now(|w| {
                (10..1500_u32).try_for_each(|number| w.remove(&NOTES, number.to_be_bytes()).map(drop))
            })
            .unwrap();
        drop(store);
        assert!(size() > SMALL, "{}", size());
        let store = Store::open(directory.path()).unwrap();
        assert!(size() < SMALL / 8, "{}", size());
        let kept: Vec<usize> = (0..10).map(|number| 40_000 + number).collect();
        assert_eq!(notes(&store), kept);
        // The new file is the one that is locked and written.
        assert!(matches!(Store::open(directory.path()), Err(OpenError::InUse(_))));
        assert!(compact(directory.path()).is_err());
        store.write_now(|w| w.put(&NOTES, 10_u32.to_be_bytes(), &vec![7; 5])).unwrap();
        drop(store);
        let done = compact(directory.path()).unwrap();
        assert!(done.after <= done.before && done.after == size(), "{done:?}");
        assert_eq!(notes(&Store::open(directory.path()).unwrap()).len(), 11);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
