//! Checks the free space on the database's disk.

use crate::cli::{doctor::finding::Finding, text};

/// Free bytes below which the next large scan may be refused.
const TOO_LITTLE: u64 = 64 << 20;
/// Free bytes below which an administrator should act, before [`TOO_LITTLE`] is reached.
const LITTLE: u64 = 1 << 30;

/// Checks whether there is enough free space for a database of this size.
pub(super) fn enough(check: &str, free: u64, database: u64) -> Finding {
    const REMEDY: &str = "free some space there, or move the data directory to another disk";
    let found = format!("{} free", text::size(free));
    if free < TOO_LITTLE {
        Finding::fail(check, format!("{found}, so that soon nothing can be written"), REMEDY)
    } else if free < LITTLE {
        Finding::warn(check, found, REMEDY)
    } else if free < database {
        let database = text::size(database);
        Finding::warn(check, format!("{found}, but a backup of {database} needs as much again"), REMEDY)
    } else {
        Finding::ok(check, found)
    }
}

#[cfg(test)]
mod tests {
    use super::{LITTLE, TOO_LITTLE, enough};

    #[test]
    fn there_is_to_be_room_for_what_comes_and_for_a_backup() {
        for (free, database, expected) in [
            (LITTLE, LITTLE, "ok disk: 1.1 GB free"),
            (LITTLE, LITTLE + 1, "warn disk: 1.1 GB free, but a backup of 1.1 GB"),
            (LITTLE - 1, 0, "warn disk: 1.1 GB free;"),
            (TOO_LITTLE - 1, 0, "fail disk: 67.1 MB free, so"),
        ] {
            let found = enough("disk", free, database).to_string();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
