//! Damage: a file in which something else changed a bit is refused and left as it is, unless nothing reads that bit.

use std::collections::BTreeMap;
use std::fs;

use crate::base::{Error, Result};
use crate::store::open::{DATABASE_FILE, OpenError};
use crate::store::{Store, Table};

const NOTES: Table<String> = Table::new("NUMBER_TO_NOTE");
const LABELS: Table<u64> = Table::new("NAME_TO_LABEL");

fn note(number: u32) -> String {
    format!("{number} {}", "x".repeat(number as usize * 37 % 900))
}

/// Fills several pages of each kind, some of them free.
fn fill(store: &Store) {
    store
        .write_now(|w| {
            (0..400_u32).try_for_each(|number| w.put(&NOTES, number.to_be_bytes(), &note(number)))?;
            (0..300_u64).try_for_each(|number| w.put(&LABELS, format!("label-{number}"), &number))
        })
        .unwrap();
    for number in (0..400_u32).step_by(7) {
        store.write_now(|w| w.remove(&NOTES, number.to_be_bytes())).unwrap();
    }
}

type Contents = (BTreeMap<Vec<u8>, String>, BTreeMap<Vec<u8>, u64>);

fn contents(store: &Store) -> Result<Contents> {
    store.read_now(|r| {
        let (mut notes, mut labels) = Contents::default();
        r.scan(&NOTES, [], |key, note| {
            notes.insert(key.to_vec(), note);
            Ok(())
        })?;
        r.scan(&LABELS, [], |key, label| {
            labels.insert(key.to_vec(), label);
            Ok(())
        })?;
        Ok((notes, labels))
    })
}

#[test]
fn a_bit_that_something_else_changed_is_refused_at_the_start_or_means_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let store = Store::open(directory.path()).unwrap();
    fill(&store);
    let expected = contents(&store).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refusals = 0;
    for at in used.iter().step_by(used.len() / 300) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        match Store::open(directory.path()) {
            Ok(store) => assert!(contents(&store).unwrap() == expected, "other data was read: byte {at}"),
            Err(OpenError::Damaged { .. }) => {
                assert!(fs::read(&path).unwrap() == bytes, "byte {at}: a damaged file was written");
                refusals += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refusals > 150, "only {refusals} were refused");
}

#[test]
fn damage_under_a_running_server_is_told_and_nothing_is_written_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let store = Store::open(directory.path()).unwrap();
    fill(&store);
    let expected = contents(&store).unwrap();
    // More than redb keeps in memory, so that reads come from the file.
    let bulk = |number: u32| (format!("bulk-{number:04}"), "y".repeat(20_000));
    store.write_now(|w| (0..500).map(bulk).try_for_each(|(key, text)| w.put(&NOTES, key, &text))).unwrap();
    let read = |store: &Store| store.read_now(|r| r.scan(&NOTES, "bulk-", |_, _: String| Ok(())));
    read(&store).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 64).step_by(4096).filter(|at| bytes[at + 7] == b'y').collect();
    assert!(places.len() > 1000, "{}", places.len());
    for at in &places {
        bytes[at + 7] = b'z';
    }
    fs::write(&path, &bytes).unwrap();
    let why = read(&store).unwrap_err();
    let says = |why: Error| matches!(&why, Error::Unavailable(why) if why.contains("damaged") && why.contains("restore"));
    assert!(says(why), "what was damaged was read");
    assert!(says(store.check_writable().unwrap_err()));
    assert!(says(store.write_now(|w| w.put(&LABELS, "new", &1)).unwrap_err()));
    // Intact records may still be read, but never as something else; and closing writes nothing either.
    if let Ok(label) = store.read_now(|r| r.find(&LABELS, "label-7")) {
        assert_eq!(label, expected.1.get(b"label-7".as_slice()).copied());
    }
    drop(store);
    assert!(fs::read(&path).unwrap() == bytes, "a damaged file was written");
    assert!(matches!(Store::open(directory.path()), Err(OpenError::Damaged { .. })));
}
