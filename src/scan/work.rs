//! The items of a scan, as the store keeps them.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::tasks::task::NewItem;

/// What an item of a scan does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Find out which repositories a registry has.
    List {
        /// The registry's host.
        registry: String,
        /// Only repositories of this project.
        project: Option<String>,
        /// Passed on to the sweep at the end.
        confirm_removals: bool,
    },
    /// Read one repository.
    Repository {
        /// The registry's host.
        registry: String,
        /// The repository's name.
        name: String,
    },
    /// Read one tag.
    Tag {
        /// The registry's host.
        registry: String,
        /// The repository.
        name: String,
        /// The tag.
        tag: String,
    },
    /// Remove what this scan found to be gone.
    Sweep {
        /// The registry's host.
        registry: String,
        /// Whether to remove it even if it is most of what there was.
        confirm_removals: bool,
    },
}

impl Work {
    /// Makes the item for this work.
    pub(crate) fn item(&self) -> Result<NewItem> {
        let (name, phase) = match self {
            Self::List { registry, .. } => (format!("{registry}: repositories"), 0),
            Self::Repository { registry, name } => (format!("{registry}/{name}"), 1),
            Self::Tag { registry, name, tag } => (format!("{registry}/{name}:{tag}"), 1),
            Self::Sweep { registry, .. } => (format!("{registry}: removals"), 2),
        };
        let work = rmp_serde::to_vec_named(self).map_err(Error::internal)?;
        Ok(NewItem { name, pair: None, phase, work })
    }

    /// The host of the registry to work on.
    pub(crate) fn registry(&self) -> &str {
        match self {
            Self::List { registry, .. }
            | Self::Repository { registry, .. }
            | Self::Tag { registry, .. }
            | Self::Sweep { registry, .. } => registry,
        }
    }

    /// Decodes the work of an item.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        rmp_serde::from_slice(bytes).map_err(Error::internal)
    }
}
