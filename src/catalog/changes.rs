//! What changed in the catalog: which images came, which names came to mean another image, which images went.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::visibility::Owner;
use crate::base::Result;
use crate::base::digest::Digest;
use crate::base::ids::UserId;
use crate::catalog::image::{Config, Image, ImageRecord};
use crate::store::Table;
use crate::store::table::Writer;

/// Changes, by their numbers.
pub(in crate::catalog) const CHANGES: Table<Change> = Table::new("NUMBER_TO_CHANGE");
/// Most changes kept; the oldest go first. A first scan of a large registry is some ten thousand.
const MOST: u64 = 100_000;

/// A change of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    number: u64,
    /// When the catalog took it in.
    pub(crate) at: Timestamp,
    /// The registry's host.
    pub(crate) registry: String,
    /// The repository.
    pub(crate) name: String,
    /// The tag.
    pub(crate) tag: String,
    /// The architecture, normalized.
    pub(crate) architecture: String,
    /// What the tag pointed to before; `None` for a new image.
    #[serde(default)]
    pub(crate) before: Option<Digest>,
    /// What it points to now; `None` for one that was removed.
    #[serde(default)]
    pub(crate) after: Option<Digest>,
    #[serde(default)]
    whose: Whose,
    #[serde(default)]
    is_operation: bool,
}

/// Who an image is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whose {
    /// Everybody.
    #[default]
    Everybodys,
    /// A user who made it for himself.
    Users(UserId),
    /// Nobody: its label names no user that we know.
    Nobodys,
}

impl Change {
    /// The change of an image that was this before, if it was there, and is this now.
    pub(in crate::catalog) fn between(
        at: Timestamp,
        before: Option<&ImageRecord>,
        (after, config): (Option<&ImageRecord>, &Config),
    ) -> Option<Self> {
        let record = after.or(before)?;
        let target = |record: Option<&ImageRecord>| record.map(|record| record.target.clone());
        Some(Self {
            number: 0,
            at,
            registry: record.registry.clone(),
            name: record.name.clone(),
            tag: record.tag.clone(),
            architecture: record.architecture.clone(),
            before: target(before),
            after: target(after),
            whose: match config.owner.as_deref() {
                None => Whose::Everybodys,
                Some(Owner::User(id)) => Whose::Users(*id),
                Some(Owner::Nobody) => Whose::Nobodys,
            },
            is_operation: config.is_operation,
        })
    }

    /// The removal of an image.
    pub(in crate::catalog) fn removal(at: Timestamp, image: &Image) -> Option<Self> {
        Self::between(at, Some(&image.record), (None, &image.config))
    }

    /// What happened to the image: `new`, `moved` or `removed`.
    pub(crate) fn kind(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "new",
            (Some(_), Some(_)) => "moved",
            (Some(_), None) => "removed",
        }
    }

    /// Whose the image is, if it is a user's.
    pub(in crate::catalog) fn owner(&self) -> Option<Owner> {
        match self.whose {
            Whose::Everybodys => None,
            Whose::Users(id) => Some(Owner::User(id)),
            Whose::Nobodys => Some(Owner::Nobody),
        }
    }

    /// Whether it is an operation image.
    pub(in crate::catalog) fn is_operation(&self) -> bool {
        self.is_operation
    }
}

/// Keeps these changes, and forgets the oldest where there are too many.
pub(in crate::catalog) fn note(writer: &mut Writer, changes: Vec<Change>) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut number = writer.last(&CHANGES)?.map_or(0, |change: Change| change.number);
    for change in changes {
        number += 1;
        writer.put(&CHANGES, number.to_be_bytes(), &Change { number, ..change })?;
    }
    while let Some(first) = writer.first(&CHANGES)?
        && first.number <= number.saturating_sub(MOST)
    {
        writer.remove(&CHANGES, first.number.to_be_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Whose;
    use crate::base::ids::UserId;

    #[test]
    fn what_is_nobodys_is_still_nobodys_when_it_is_read() {
        let user: UserId = "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172".parse().unwrap();
        for whose in [Whose::Everybodys, Whose::Users(user), Whose::Nobodys] {
            let bytes = rmp_serde::to_vec_named(&whose).unwrap();
            assert_eq!(rmp_serde::from_slice::<Whose>(&bytes).unwrap(), whose);
        }
    }
}
