//! A power cut at every sync, and between them: only synced writes are sure to be on the disk; any part of the others
//! may be.
//!
//! A disk that remembers every write is recorded under a short history of commits made by [`Store::write_now`] itself.
//! Then each crash that could have happened is opened as a database of its own.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use crate::store::open::builder;
use crate::store::seal::Seal;
use crate::store::{Access, Opened, Store, Table, Turn};

const NOTES: Table<Vec<u8>> = Table::new("NUMBER_TO_NOTE");
/// Commits in the history.
const COMMITS: u32 = 24;
/// How many crashes are tried at each sync, with different parts of the unsynced writes, besides none and all of them.
const CRASHES: u64 = 12;
/// The unit that a disk writes whole, at best.
const SECTOR: usize = 512;

/// One step that reached the disk's cache.
#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
    /// Everything before it is safe.
    Synced,
    /// The store has told its caller that this commit is done.
    Acknowledged(u32),
}

/// A disk that remembers every write.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), steps: Arc::default() }
    }

    fn note(&self, step: Step) {
        self.steps.lock().push(step);
    }
}

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write { offset, bytes: new } => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(new);
        }
        Step::Length(length) => bytes.resize(*length, 0),
        Step::Synced | Step::Acknowledged(_) => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock();
        let part = bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let step = Step::Length(usize::try_from(len).unwrap());
        apply(&mut self.bytes.lock(), &step);
        self.note(step);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.note(Step::Synced);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let step = Step::Write { offset: usize::try_from(offset).unwrap(), bytes: data.to_vec() };
        apply(&mut self.bytes.lock(), &step);
        self.note(step);
        Ok(())
    }
}

fn open(disk: Disk) -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let seal = Seal::create(&folder.path().join("key")).unwrap();
    let mut database: Database =
        builder().create_with_backend(disk).expect("a disk after a power cut is a database");
    assert!(database.check_integrity().unwrap(), "a start would take what a power cut leaves for damage");
    let opened = Opened { database: database.into(), disk: None, access: Access::Write };
    (Store::new(opened, seal, folder.path(), Turn::default()), folder)
}

/// The note of a commit: of many sizes, so that pages split and the file grows.
fn note(commit: u32) -> Vec<u8> {
    vec![u8::try_from(commit).unwrap(); 50 + 977 * commit as usize % 9000]
}

/// The history: each commit adds a note, counts itself, and removes an old note.
fn history() -> Vec<Step> {
    let disk = Disk::default();
    let (store, _folder) = open(disk.clone());
    for commit in 1..=COMMITS {
        store
            .write_now(|w| {
                w.put(&NOTES, commit.to_be_bytes(), &note(commit))?;
                if commit > 6 {
                    w.remove(&NOTES, (commit - 6).to_be_bytes())?;
                }
                Ok(())
            })
            .unwrap();
        disk.note(Step::Acknowledged(commit));
    }
    disk.steps.lock().clone()
}

/// Opens a database after a crash and checks it; returns the last commit in it.
fn last_commit(bytes: Vec<u8>, what: &str) -> u32 {
    let (store, _folder) = open(Disk::holding(bytes));
    let mut notes = Vec::new();
    let read = store.read_now(|r| {
        r.scan(&NOTES, [], |key, note: Vec<u8>| {
            notes.push((u32::from_be_bytes(key.try_into().unwrap()), note));
            Ok(())
        })
    });
    read.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let last = notes.last().map_or(0, |(commit, _)| *commit);
    let expected: Vec<_> =
        (last.saturating_sub(5).max(1)..=last).map(|commit| (commit, note(commit))).collect();
    assert!(notes == expected, "{what}: not what commit {last} left, but {} notes", notes.len());
    // It can be written, too.
    store.write_now(|w| w.put(&NOTES, u32::MAX.to_be_bytes(), &Vec::new())).unwrap();
    last
}

/// A generator of numbers that look random and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Some of the unsynced steps: any subset, and of one write any sectors.
fn some(unsynced: &[Step], chance: &mut Chance) -> Vec<Step> {
    let mut kept = Vec::new();
    for step in unsynced {
        match (step, chance.below(4)) {
            (_, 0) => {}
            (Step::Write { offset, bytes }, 1) => {
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    if chance.below(2) == 0 {
                        kept.push(Step::Write { offset: offset + number * SECTOR, bytes: sector.to_vec() });
                    }
                }
            }
            _ => kept.push(step.clone()),
        }
    }
    kept
}

#[test]
fn after_a_power_cut_at_any_sync_every_acknowledged_commit_is_there() {
    let steps = history();
    let (mut safe, mut acknowledged, mut crashes) = (Vec::new(), 0, 0);
    let mut unsynced: Vec<Step> = Vec::new();
    let mut chance = Chance(7);
    let first = steps.iter().position(|step| matches!(step, Step::Acknowledged(1))).unwrap();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Acknowledged(commit) => acknowledged = *commit,
            Step::Write { .. } | Step::Length(_) => unsynced.push(step.clone()),
            Step::Synced => {
                // A new file is moved into place when it is whole, so none is opened before.
                if number > first {
                    let mut subsets = vec![Vec::new(), unsynced.clone()];
                    subsets.extend((0..CRASHES).map(|_| some(&unsynced, &mut chance)));
                    for (which, subset) in subsets.iter().enumerate() {
                        let what = format!("sync {number}, subset {which}, after commit {acknowledged}");
                        let mut bytes = safe.clone();
                        for step in subset {
                            apply(&mut bytes, step);
                        }
                        let last = last_commit(bytes, &what);
                        assert!(
                            last == acknowledged || last == acknowledged + 1,
                            "{what}: the last commit is {last}"
                        );
                        crashes += 1;
                    }
                }
                for step in unsynced.drain(..) {
                    apply(&mut safe, &step);
                }
            }
        }
    }
    assert_eq!(acknowledged, COMMITS);
    assert!(crashes > u64::from(COMMITS) * CRASHES, "only {crashes} crashes");
}
