//! Changes to the shape of what is stored, each run once, in order, after a copy was kept.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::base::Result;
use crate::store::Store;
use crate::store::open::{OpenError, SCHEMA, SCHEMA_KEY};
use crate::store::table::Writer;

/// The schema this program writes.
pub const SCHEMA_VERSION: u64 = 1;

/// Takes a database from the schema before to the one it is listed for.
pub struct Step {
    /// The schema the step leads to.
    pub to: u64,
    /// The change. The new version is written in the same transaction.
    pub apply: fn(&mut Writer) -> Result<()>,
}

/// Every step there is, oldest first. A released step never changes.
pub const STEPS: &[Step] = &[];

/// Brings the database from schema `from` through `steps`. Before the first step the file is copied to
/// `wharf.redb.schema-<from>`, which stays.
pub fn run(store: &Store, path: &Path, from: u64, steps: &[Step]) -> Result<(), OpenError> {
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

/// A copy that has its name only when it is whole and on the disk.
fn keep_copy(path: &Path, copy: &Path) -> io::Result<()> {
    let unfinished = copy.with_extension("part");
    fs::copy(path, &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, copy)?;
    File::open(copy.parent().unwrap_or(copy))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Step, run};
    use crate::base::Error;
    use crate::store::open::{DATABASE_FILE, SCHEMA, SCHEMA_KEY};
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
}
