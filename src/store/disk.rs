//! The database's file, as redb reads and writes it.
//!
//! It keeps a checksum of every block that was read or written, so that a block that changed on the disk is noticed
//! when it is read again. And it keeps the first failure of the disk, since redb does nothing more after one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use crate::store::is_full;
use crate::store::open::closed_file;
use crate::store::trouble::Trouble;

/// The size of a block, which has a checksum of its own; redb's pages are as large or a multiple.
pub(in crate::store) const BLOCK: usize = 4096;
/// The number of the header's block, which redb writes in parts and proves by itself.
const HEADER: u64 = 0;

/// An open file. Clones share it and its failure; see [`Disk::anew`].
#[derive(Debug, Clone)]
pub(in crate::store) struct Disk {
    shared: Arc<Shared>,
    failure: Arc<Failure>,
}

/// The first failure. From then on everything is refused, as redb itself does: the database that is opened anew must be
/// the only one that reads and writes.
#[derive(Debug, Default)]
struct Failure {
    is_over: AtomicBool,
    what: Mutex<Option<Trouble>>,
}

impl Failure {
    fn set(&self, trouble: impl FnOnce() -> Trouble) {
        self.what.lock().get_or_insert_with(trouble);
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.is_over.load(Ordering::SeqCst) {
            Err(io::Error::other("the file is used by another database"))
        } else {
            Ok(())
        }
    }
}

#[derive(Debug)]
struct Shared {
    file: File,
    path: PathBuf,
    /// The length that the file has at least, in bytes, unless something else has cut it.
    length: AtomicU64,
    /// The checksum of each block by its number; `None` for a block that was neither read nor written.
    sums: RwLock<Vec<Option<u32>>>,
    #[cfg(test)]
    faults: Mutex<Faults>,
}

/// Lets tests have the disk refuse chosen calls.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::store) struct Faults {
    /// How many calls there were so far.
    pub(in crate::store) asked: u64,
    /// The range of calls to refuse, and the system's error number for them.
    pub(in crate::store) refused: Option<(std::ops::Range<u64>, i32)>,
}

impl Disk {
    /// Opens an existing file for reading and writing.
    pub(in crate::store) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::options().read(true).write(true).open(path)?, path))
    }

    /// Opens an existing file for reading only.
    pub(in crate::store) fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?, path))
    }

    /// Creates a file that only its owner can read.
    pub(in crate::store) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(closed_file(path)?, path))
    }

    fn new(file: File, path: &Path) -> Self {
        let shared = Shared {
            length: AtomicU64::new(file.metadata().map_or(0, |found| found.len())),
            file,
            path: path.into(),
            sums: RwLock::default(),
            #[cfg(test)]
            faults: Mutex::default(),
        };
        Self { shared: Arc::new(shared), failure: Arc::default() }
    }

    /// The same file, for a database that is opened anew after a failure.
    pub(in crate::store) fn anew(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), failure: Arc::default() }
    }

    /// The same file under its new name.
    pub(in crate::store) fn renamed(&self, path: &Path) -> io::Result<Self> {
        let renamed = Self::new(self.shared.file.try_clone()?, path);
        renamed.shared.sums.write().clone_from(&self.shared.sums.read());
        Ok(renamed)
    }

    #[cfg(test)]
    pub(in crate::store) fn faults(&self) -> parking_lot::MutexGuard<'_, Faults> {
        self.shared.faults.lock()
    }

    pub(in crate::store) fn file(&self) -> &File {
        &self.shared.file
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The first failure: a call that the disk refused, or a block that had changed.
    pub(in crate::store) fn failure(&self) -> Option<Trouble> {
        self.failure.what.lock().clone()
    }

    /// Makes the database that has this do nothing more to the file, because it is damaged.
    pub(in crate::store) fn fail(&self, trouble: &Trouble) {
        self.failure.set(|| trouble.clone());
    }

    /// Makes the database that has this do nothing more to the file, because another one takes its place.
    pub(in crate::store) fn retire(&self) {
        self.failure.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether another database has taken the place of the one that has this.
    pub(in crate::store) fn is_retired(&self) -> bool {
        self.failure.is_over.load(Ordering::SeqCst) && self.failure.what.lock().is_none()
    }

    /// Asks the system to fetch the whole file from the disk, since all of it is about to be read, and not in order.
    pub(in crate::store) fn fetch(&self) {
        #[cfg(target_os = "linux")]
        {
            // Where the file system does not support it, blocks are fetched as they are read.
            let _ = rustix::fs::fadvise(self.file(), 0, None, rustix::fs::Advice::WillNeed);
        }
    }

    /// How many bytes of the file were read or written so far, in whole blocks.
    pub(in crate::store) fn known(&self) -> u64 {
        self.shared.sums.read().iter().flatten().count() as u64 * BLOCK as u64
    }

    /// Whether the file's name still stands for this file.
    pub(in crate::store) fn is_in_place(&self) -> bool {
        match (self.file().metadata(), fs::metadata(self.path())) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            (_, Err(why)) => why.kind() != io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        }
    }

    /// Whether something else has cut the file, which no database that reads from it does.
    pub(in crate::store) fn is_cut(&self) -> bool {
        self.file().metadata().is_ok_and(|found| found.len() < self.shared.length.load(Ordering::SeqCst))
    }

    /// Does `act` to the file, unless there was a failure before.
    fn tried<T>(&self, what: &'static str, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        self.failure.check()?;
        #[cfg(test)]
        let act = |file: &File| {
            let mut faults = self.faults();
            faults.asked += 1;
            match &faults.refused {
                Some((refused, number)) if refused.contains(&(faults.asked - 1)) => {
                    Err(io::Error::from_raw_os_error(*number))
                }
                _ => act(file),
            }
        };
        act(self.file()).inspect_err(|why| {
            self.failure.set(|| match why {
                why if is_full(why) => Trouble::full(self.path()),
                why if why.kind() == io::ErrorKind::UnexpectedEof => {
                    Trouble::Damaged { path: self.path().into(), why: "it is cut short".into() }
                }
                why => Trouble::Io { path: self.path().into(), what, why: why.to_string() },
            });
        })
    }

    /// Whether these bytes are the same as before. Blocks that are not known yet are taken as right, and remembered.
    fn is_as_it_was(&self, offset: u64, bytes: &[u8]) -> bool {
        blocks(offset, bytes).all(|(number, block)| {
            let sum = crc32fast::hash(block);
            let known = sum_of(&self.shared.sums.read(), number);
            // Another thread may have read the block meanwhile.
            let learn = |slot: &mut Option<u32>| *slot.get_or_insert(sum);
            known.or_else(|| self.with_slot(number, learn)).is_none_or(|known| known == sum)
        })
    }

    fn with_slot<T>(&self, number: u64, act: impl FnOnce(&mut Option<u32>) -> T) -> Option<T> {
        let number = usize::try_from(number).ok()?;
        let mut sums = self.shared.sums.write();
        if sums.len() <= number {
            sums.resize(number + 1, None);
        }
        sums.get_mut(number).map(act)
    }

    /// Forgets the checksum of every block that these bytes touch.
    fn forget(&self, offset: u64, length: usize) {
        let mut sums = self.shared.sums.write();
        let (first, end) = (offset / BLOCK as u64, (offset + length as u64).div_ceil(BLOCK as u64));
        for number in first..end {
            if let Some(slot) = usize::try_from(number).ok().and_then(|number| sums.get_mut(number)) {
                *slot = None;
            }
        }
    }

    fn damaged(&self, offset: u64) -> io::Error {
        let why = format!("the block at byte {offset} is not what was there before");
        self.failure.set(|| Trouble::Damaged { path: self.path().into(), why: why.clone() });
        io::Error::new(io::ErrorKind::InvalidData, why)
    }
}

fn sum_of(sums: &[Option<u32>], number: u64) -> Option<u32> {
    usize::try_from(number).ok().and_then(|number| *sums.get(number)?)
}

/// The whole blocks in these bytes, except the header, with their numbers.
fn blocks(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = offset.div_ceil(BLOCK as u64);
    let skipped = usize::try_from(first * BLOCK as u64 - offset).unwrap_or(usize::MAX);
    let whole = bytes.get(skipped..).unwrap_or_default().chunks_exact(BLOCK);
    (first..).zip(whole).filter(|(number, _)| *number != HEADER)
}

/// Without the locks that redb would take: `store::lock` keeps other processes out.
impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.tried("looked at", File::metadata).map(|found| found.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.tried("read", |file| file.read_exact_at(out, offset))?;
        if !self.is_as_it_was(offset, out) {
            // Read once more because damage is final, not because a reader may have met a writer: redb reads no page
            // while it is written.
            self.tried("read", |file| file.read_exact_at(out, offset))?;
            if !self.is_as_it_was(offset, out) {
                return Err(self.damaged(offset));
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A block written in part is neither the old nor the new one.
        self.forget(offset, data.len());
        self.tried("written", |file| file.write_all_at(data, offset))?;
        for (number, block) in blocks(offset, data) {
            self.with_slot(number, |slot| *slot = Some(crc32fast::hash(block)));
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        // In this order, so that the file is never shorter than the length kept here, for any reader meanwhile.
        self.shared.length.fetch_min(length, Ordering::SeqCst);
        self.tried("resized", |file| file.set_len(length))?;
        self.shared.length.store(length, Ordering::SeqCst);
        let whole = usize::try_from(length / BLOCK as u64).unwrap_or(usize::MAX);
        self.shared.sums.write().truncate(whole);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.tried("synced", File::sync_data)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::StorageBackend as _;

    use super::{BLOCK, Disk};
    use crate::store::trouble::Trouble;

    #[test]
    fn a_block_that_something_else_changed_is_found_when_it_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let disk = Disk::create(&path).unwrap();
        disk.set_len(4 * BLOCK as u64).unwrap();
        let (mut block, at) = ([7; BLOCK], |number: usize| (number * BLOCK) as u64);
        disk.write(at(1), &block).unwrap();
        disk.read(at(1), &mut block).unwrap();
        disk.read(at(2), &mut block).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[2 * BLOCK + 100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        disk.read(at(1), &mut block).unwrap();
        assert!(disk.failure().is_none());
        disk.read(at(1), &mut [0; 3 * BLOCK]).unwrap_err();
        assert!(matches!(disk.failure(), Some(Trouble::Damaged { .. })), "{:?}", disk.failure());
        // Neither redb's own writes nor blocks that were never read count as damage.
        let disk = disk.anew();
        disk.write(at(2), &block).unwrap();
        disk.read(at(1), &mut [0; 3 * BLOCK]).unwrap();
        assert_eq!(disk.known(), 3 * BLOCK as u64);
    }

    #[test]
    fn a_file_that_something_else_has_cut_is_known_as_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let disk = Disk::create(&path).unwrap();
        disk.set_len(4 * BLOCK as u64).unwrap();
        disk.set_len(2 * BLOCK as u64).unwrap();
        assert!(!disk.is_cut(), "it was made shorter by its database");
        fs::File::options().write(true).open(&path).unwrap().set_len(BLOCK as u64).unwrap();
        assert!(disk.is_cut());
    }

    #[test]
    fn a_file_that_was_replaced_is_not_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["file", "other"].map(|name| folder.path().join(name));
        let disk = Disk::create(&path).unwrap();
        assert!(disk.is_in_place());
        fs::rename(&path, &other).unwrap();
        assert!(!disk.is_in_place());
        fs::write(&path, "x").unwrap();
        assert!(!disk.is_in_place());
        fs::rename(&other, &path).unwrap();
        assert!(disk.is_in_place());
    }
}
