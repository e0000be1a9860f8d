//! Which share each row of the log belongs to, and which rows go first when it is full.
//!
//! Rows are removed from the share that has the most, so one user's flood can't push out the rows of others. A share
//! that adds very many rows in a day loses its own even if another has more: a flood does not live on a long history of
//! others. All clients that have proved nothing have one share together, divided by address.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::access::audit::ENTRIES;
use crate::access::audit::entry::Entry;
use crate::base::Result;
use crate::base::ids::UserId;
use crate::base::slots::net_of;
use crate::store::table::Writer;
use crate::store::{Store, Table};

/// The share of each row: the same as the rows say, in a form that is read quickly at the start.
const SHARES: Table<Share> = Table::new("AUDIT_NUMBER_TO_SHARE");

/// The owner of rows, who loses some when the log is full.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Share {
    /// A user, whatever the credential.
    #[serde(rename = "u")]
    User(UserId),
    /// The rules that a user made: their repeated work does not push out rows of the user's own deeds.
    #[serde(rename = "r")]
    Rules(UserId),
    /// A client that has proved nothing, by its address.
    #[serde(rename = "a")]
    Address(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Share {
    /// The share that this row belongs to.
    pub(super) fn of(entry: &Entry) -> Self {
        match entry.user {
            Some(user) if entry.credential.starts_with("rule ") => Self::Rules(user),
            Some(user) => Self::User(user),
            None => Self::Address(net_of(entry.address)),
        }
    }

    fn is_stranger(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

/// The numbers of the rows of each share. Each write updates it with the table; after a write that failed it is read
/// again.
#[derive(Debug, Default)]
pub(super) struct Shares {
    rows: HashMap<Share, BTreeSet<u64>>,
    strangers: BTreeSet<u64>,
    count: u64,
    /// Whether a write has changed this and is not committed yet.
    is_ahead: bool,
}

impl Shares {
    /// Reads the shares. Rows that a version without shares wrote last are counted from the rows themselves.
    pub(super) fn load(store: &Store) -> Result<Self> {
        let (listed, is_whole) = store.read_now(|r| {
            let listed = r.collect(&SHARES, |key, share| Ok((number_of(key), share)))?;
            Ok((listed, r.extent(&SHARES)? == r.extent(&ENTRIES)?))
        })?;
        let found = if is_whole { listed } else { recount(store)? };
        let mut shares = Self::default();
        for (number, share) in found {
            shares.insert(share, number);
        }
        Ok(shares)
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Reads the table again if a write that failed has changed this.
    pub(super) fn settle(&mut self, writer: &Writer) -> Result<()> {
        if self.is_ahead {
            let mut shares = Self::default();
            for key in writer.keys(&SHARES, [])? {
                if let Some(share) = writer.find(&SHARES, &key)? {
                    shares.insert(share, number_of(&key));
                }
            }
            *self = shares;
        }
        self.is_ahead = true;
        Ok(())
    }

    /// Records that the changes are committed.
    pub(super) fn committed(&mut self) {
        self.is_ahead = false;
    }

    /// Records a new row.
    pub(super) fn add(&mut self, writer: &mut Writer, share: Share, number: u64) -> Result<()> {
        writer.put(&SHARES, number.to_be_bytes(), &share)?;
        self.insert(share, number);
        Ok(())
    }

    /// Records that a row was removed.
    pub(super) fn remove(&mut self, writer: &mut Writer, share: &Share, number: u64) -> Result<()> {
        writer.remove(&SHARES, number.to_be_bytes())?;
        let Some(rows) = self.rows.get_mut(share) else { return Ok(()) };
        if rows.remove(&number) {
            self.count -= 1;
        }
        if rows.is_empty() {
            self.rows.remove(share);
        }
        self.strangers.remove(&number);
        Ok(())
    }

    /// The row of this share that has this many later rows of the same share, if there is one.
    pub(super) fn back(&self, share: &Share, others: usize) -> Option<u64> {
        let rows = if share.is_stranger() { Some(&self.strangers) } else { self.rows.get(share) };
        rows?.iter().rev().nth(others).copied()
    }

    /// The oldest row of the share that has the most, or of the share `by`.
    pub(super) fn oldest(&self, by: Option<&Share>) -> Option<(Share, u64)> {
        let most = |is_one: &dyn Fn(&Share) -> bool| {
            let shares = self.rows.iter().filter(|(share, _)| is_one(share));
            let found = shares.filter_map(|(share, rows)| Some((share, rows.len(), *rows.first()?)));
            found.max_by_key(|(_, count, first)| (*count, Reverse(*first)))
        };
        let found = match by {
            Some(share) if share.is_stranger() => most(&Share::is_stranger),
            Some(by) => most(&|share| share == by),
            None => {
                let user = most(&|share| !share.is_stranger());
                let is_less = |(_, count, _): &(_, usize, _)| *count < self.strangers.len();
                if user.as_ref().is_none_or(is_less) { most(&Share::is_stranger) } else { user }
            }
        };
        found.map(|(share, _, first)| (share.clone(), first))
    }

    fn insert(&mut self, share: Share, number: u64) {
        if share.is_stranger() {
            self.strangers.insert(number);
        }
        if self.rows.entry(share).or_default().insert(number) {
            self.count += 1;
        }
    }
}

fn number_of(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// Finds the share of each row from the rows themselves, and keeps it for the next start.
fn recount(store: &Store) -> Result<Vec<(u64, Share)>> {
    let found =
        store.read_now(|r| r.collect(&ENTRIES, |_, entry: Entry| Ok((entry.number, Share::of(&entry)))))?;
    let kept = store.write_now(|w| {
        for key in w.keys(&SHARES, [])? {
            w.remove(&SHARES, key)?;
        }
        found.iter().try_for_each(|(number, share)| w.put(&SHARES, number.to_be_bytes(), share))
    });
    if let Err(why) = kept {
        tracing::warn!(%why, "whose the rows of the audit log are could not be kept; the next start counts again");
    }
    Ok(found)
}
