//! Trouble: what prevents writing to the database.

use std::path::{Path, PathBuf};

use crate::base::Error;

/// Why nothing is written, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// No room on the disk, in the quota, or within the limit on the size of files.
    #[error(
        "the disk that holds {} is full: free some space there, and wharf goes on by itself",
        .0.display()
    )]
    Full(PathBuf),
    /// The disk refuses reads or writes.
    #[error(
        "{} can't be {what} ({why}): look at the disk and at the system's log; wharf goes on by itself once it can",
        path.display()
    )]
    Io {
        /// The database file.
        path: PathBuf,
        /// What the disk refused: `read`, `written`.
        what: &'static str,
        /// The system's error.
        why: String,
    },
    /// The file does not hold what was written to it.
    #[error(
        "{} is damaged ({why}), and nothing is written to it any more: stop wharf, look at the disk, and restore a \
         backup (wharf restore)",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file's name stands for another file, or for none.
    #[error(
        "{} was removed or replaced while wharf uses it, so nothing is written any more: what it held can still be \
         saved (wharf backup); then put the file back, or restart wharf",
        .0.display()
    )]
    Replaced(PathBuf),
}

impl Trouble {
    /// The trouble of a full disk, by the path of the database file on it.
    pub(in crate::store) fn full(path: &Path) -> Self {
        Self::Full(path.parent().unwrap_or(path).into())
    }

    /// Whether it may end by itself, which the next write finds out.
    pub(in crate::store) fn may_pass(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io { .. })
    }

    /// A message for any client: it names no paths.
    pub(in crate::store) fn short(&self) -> &'static str {
        match self {
            Self::Full(_) => "the disk is full",
            Self::Io { .. } => "the disk fails",
            Self::Damaged { .. } => "the database is damaged",
            Self::Replaced(_) => "the database file was removed or replaced",
        }
    }

    /// The error for a caller.
    pub(in crate::store) fn error(&self) -> Error {
        Error::Unavailable(self.to_string())
    }
}
