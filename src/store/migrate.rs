//! Migrations: changes to the form of stored records. Each runs once, in order, after the file was copied.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::base::Result;
use crate::store::Store;
use crate::store::open::{OpenError, SCHEMA, SCHEMA_KEY};
use crate::store::table::Writer;

/// The schema this program writes.
pub(crate) const SCHEMA_VERSION: u64 = newest(STEPS);

/// A migration from the schema before to the one it is listed for.
pub(crate) struct Step {
    /// The schema the step leads to.
    pub(crate) to: u64,
    /// The change. The new schema version is written in the same transaction.
    pub(crate) apply: fn(&mut Writer) -> Result<()>,
}

/// All steps, oldest first. A released step never changes.
pub(crate) const STEPS: &[Step] = &[];

/// The schema that these steps lead to.
pub(in crate::store) const fn newest(steps: &[Step]) -> u64 {
    match steps.last() {
        Some(step) => step.to,
        None => 1,
    }
}

/// Brings the database from schema `from` through `steps`. Before the first step the file is copied to
/// `wharf.redb.schema-<from>`, which is kept.
pub(crate) fn run(store: &Store, path: &Path, from: u64, steps: &[Step]) -> Result<(), OpenError> {
    let pending: Vec<&Step> = steps.iter().filter(|step| step.to > from).collect();
    if pending.is_empty() {
        return Ok(());
    }
    let copy = path.with_extension(format!("redb.schema-{from}"));
    keep_copy(path, &copy).map_err(|why| OpenError::Io { path: copy.clone(), why })?;
    for step in pending {
        tracing::info!(schema = step.to, copy = %copy.display(), "migrating the database");
        store
            .write_now(|w| {
                (step.apply)(w)?;
                w.put(&SCHEMA, SCHEMA_KEY, &step.to)
            })
            .map_err(|error| OpenError::Migration {
                path: path.into(),
                copy: copy.clone(),
                why: format!("{error:?}"),
            })?;
    }
    Ok(())
}

/// Copies the file; the copy gets its name only when it is whole and on the disk.
fn keep_copy(path: &Path, copy: &Path) -> io::Result<()> {
    let unfinished = copy.with_extension("part");
    fs::copy(path, &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, copy)?;
    File::open(copy.parent().unwrap_or(copy))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::{Step, run};
    use crate::base::{Error, Result};
    use crate::store::open::{DATABASE_FILE, SCHEMA, SCHEMA_KEY};
    use crate::store::table::Writer;
    use crate::store::{Store, Table};

    const NOTES: Table<String> = Table::new("NAME_TO_NOTE");

    #[test]
    fn pending_steps_run_once_in_order_and_a_copy_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let path = directory.path().join(DATABASE_FILE);
        let steps = [
            Step { to: 1, apply: |_| Err(Error::internal("an old step ran again")) },
            Step { to: 2, apply: |w| w.put(&NOTES, "a", &"two".to_owned()) },
            Step {
                to: 3,
                apply: |w| {
                    let before = w.find(&NOTES, "a")?.unwrap_or_default();
                    w.put(&NOTES, "a", &format!("{before} three"))
                },
            },
        ];
        run(&store, &path, 1, &steps).unwrap();
        let after = store.read_now(|r| Ok((r.find(&NOTES, "a")?, r.find(&SCHEMA, SCHEMA_KEY)?))).unwrap();
        assert_eq!(after, (Some("two three".into()), Some(3)));
        assert!(directory.path().join("wharf.redb.schema-1").exists());
    }

    #[test]
    fn a_failed_step_leaves_the_schema_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let steps = [Step {
            to: 2,
            apply: |w| {
                w.put(&NOTES, "a", &"half".to_owned())?;
                Err(Error::internal("broken"))
            },
        }];
        let failed = run(&store, &directory.path().join(DATABASE_FILE), 1, &steps);
        assert!(failed.unwrap_err().to_string().contains("wharf.redb.schema-1"));
        let after = store.read_now(|r| Ok((r.find(&NOTES, "a")?, r.find(&SCHEMA, SCHEMA_KEY)?))).unwrap();
        assert_eq!(after, (None, Some(1)));
    }

    /// A second schema and a third, each of which writes all notes anew.
    const STEPS: &[Step] = &[Step { to: 2, apply: grown }, Step { to: 3, apply: grown }];
    const NOTE_COUNT: u32 = 1500;
    /// The variable that tells the child process which directory to migrate.
    const DIRECTORY: &str = "WHARF_TEST_MIGRATION";

    fn grown(w: &mut Writer) -> Result<()> {
        let schema = w.find(&SCHEMA, SCHEMA_KEY)?.unwrap_or_default();
        for key in w.keys(&NOTES, [])? {
            let note = w.find(&NOTES, &key)?.unwrap_or_default();
            w.put(&NOTES, &key, &format!("{note}, {schema}"))?;
        }
        Ok(())
    }

    fn notes_of(directory: &Path) -> Vec<String> {
        let store = Store::open_through(directory, STEPS, true).unwrap();
        let mut notes = Vec::new();
        let scan = |r: &crate::store::table::Reader| {
            r.scan(&NOTES, [], |_, note: String| {
                notes.push(note);
                Ok(())
            })
        };
        store.read_now(scan).unwrap();
        notes
    }

    /// Not a test by itself: the test below starts it as a process of its own, to kill it.
    #[test]
    fn a_child_that_migrates() {
        if let Some(directory) = std::env::var_os(DIRECTORY) {
            drop(Store::open_through(Path::new(&directory), STEPS, true).unwrap());
            fs::write(Path::new(&directory).join("wharf.redb.done"), "").unwrap();
        }
    }

    #[test]
    fn a_migration_that_is_killed_goes_on_at_the_next_start_and_the_copy_is_whole() {
        let template = tempfile::tempdir().unwrap();
        let store = Store::open(template.path()).unwrap();
        let note = |number: u32| (number.to_be_bytes(), format!("{number} {}", "x".repeat(2000)));
        store
            .write_now(|w| (0..NOTE_COUNT).map(note).try_for_each(|(key, note)| w.put(&NOTES, key, &note)))
            .unwrap();
        drop(store);
        let (mut kills, mut delay) = (0, Duration::ZERO);
        // Kills the child later each time, until it finishes before it is killed.
        loop {
            let directory = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(template.path()).unwrap().map(|entry| entry.unwrap().path()) {
                fs::copy(&entry, directory.path().join(entry.file_name().unwrap())).unwrap();
            }
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::migrate::tests::a_child_that_migrates"])
                .env(DIRECTORY, directory.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Counts from the moment it has begun: before that there is nothing to break.
            let begun = Instant::now();
            let has_begun = || {
                let names = fs::read_dir(directory.path()).unwrap();
                names
                    .map(|entry| entry.unwrap().file_name())
                    .any(|name| name.to_string_lossy().contains("schema-1"))
            };
            while !has_begun() {
                assert!(begun.elapsed() < Duration::from_mins(1), "no migration begins");
                std::thread::yield_now();
            }
            std::thread::sleep(delay);
            child.kill().unwrap();
            child.wait().unwrap();
            let is_done = directory.path().join("wharf.redb.done").exists();
            let expected: Vec<String> = (0..NOTE_COUNT).map(|n| format!("{}, 1, 2", note(n).1)).collect();
            let notes = notes_of(directory.path());
            assert!(notes == expected, "after {delay:?}: {} notes, as {:?}", notes.len(), notes.first());
            // The copy made before is a database of its own.
            let copy = tempfile::tempdir().unwrap();
            fs::copy(directory.path().join("wharf.redb.schema-1"), copy.path().join(DATABASE_FILE)).unwrap();
            fs::copy(directory.path().join("secret.key"), copy.path().join("secret.key")).unwrap();
            let before = Store::open(copy.path()).unwrap();
            let first = before.read_now(|r| r.find(&NOTES, 0_u32.to_be_bytes())).unwrap();
            assert_eq!(first, Some(note(0).1), "after {delay:?}");
            if is_done {
                break;
            }
            kills += 1;
            delay = delay * 5 / 4 + Duration::from_millis(3);
        }
        assert!(kills >= 3, "only {kills} were killed on the way");
    }
}
