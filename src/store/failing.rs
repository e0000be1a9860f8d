//! A disk that refuses any one thing that is asked of it, or everything for a while: memory and file stay the same,
//! nothing that was acknowledged is lost, and writing goes on by itself.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::{Error, Result};
use crate::store::{Store, Table};

const NOTES: Table<u32> = Table::new("NUMBER_TO_NOTE");
/// The error numbers: no room on the disk, and a broken disk.
const REFUSALS: [i32; 2] = [28, 5];

/// The state in memory beside the file, like that of catalog, accounts and tasks.
type Memory = Arc<Mutex<BTreeMap<u32, u32>>>;

fn put(store: &Store, memory: &Memory, number: u32) -> Result<()> {
    let memory = Arc::clone(memory);
    store.write_now(|w| {
        w.put(&NOTES, number.to_be_bytes(), &(number * 3))?;
        w.on_commit(move || {
            memory.lock().insert(number, number * 3);
        });
        Ok(())
    })
}

fn stored(store: &Store) -> Result<BTreeMap<u32, u32>> {
    store.read_now(|r| {
        let mut notes = BTreeMap::new();
        r.scan(&NOTES, [], |key, note| {
            notes.insert(u32::from_be_bytes(key.try_into().map_err(Error::internal)?), note);
            Ok(())
        })?;
        Ok(notes)
    })
}

/// Writes ten notes while the disk refuses this range of calls, and returns how many calls there were.
fn play(refused: &Range<u64>, number: i32) -> u64 {
    let what = format!("{refused:?} refused with {number}");
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let memory = Memory::default();
    put(&store, &memory, 0).unwrap();
    let disk = store.current().disk.clone().unwrap();
    *disk.faults() = super::disk::Faults { asked: 0, refused: Some((refused.clone(), number)) };
    let mut kept = vec![0];
    for number in 1..=10 {
        match put(&store, &memory, number) {
            Ok(()) => kept.push(number),
            Err(Error::Unavailable(why)) => {
                assert!(why.contains("goes on by itself"), "{what}: {why}");
                assert!(store.check_writable().is_err(), "{what}: it is told");
            }
            Err(why) => panic!("{what}: {why:?}"),
        }
    }
    let asked = disk.faults().asked;
    disk.faults().refused = None;
    // Writers soon find the disk working again, and memory equals the file.
    let begun = Instant::now();
    while let Err(why) = put(&store, &memory, 11) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {why:?}");
        std::thread::yield_now();
    }
    kept.push(11);
    store.check_writable().unwrap();
    let held = memory.lock().clone();
    assert_eq!(stored(&store).unwrap(), held, "{what}");
    assert!(kept.iter().all(|number| held.contains_key(number)), "{what}: {kept:?} of {held:?}");
    assert!(kept.len() >= 2, "{what}");
    drop((store, disk));
    assert_eq!(stored(&Store::open(directory.path()).unwrap()).unwrap(), held, "{what}: after a start");
    asked
}

#[test]
fn whatever_the_disk_refuses_once_memory_is_what_the_file_is() {
    for refusal in REFUSALS {
        let mut at = 0;
        while at < play(&(at..at + 1), refusal) {
            at += 1;
        }
        assert!(at > 50, "only {at} things were asked of the disk");
    }
}

#[test]
fn a_disk_that_refuses_everything_for_a_while_loses_nothing() {
    for refusal in REFUSALS {
        for at in 0..30 {
            play(&(at..at + 40 + at * 7 % 60), refusal);
        }
    }
}
