//! What a cache has, who was used last, and what is being read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use crate::base::digest::Digest;

/// A blob's registry and digest.
pub(super) type Key = (String, Digest);

/// The state of a cache.
#[derive(Default)]
pub(super) struct State {
    pub(super) kept: HashMap<Key, Kept>,
    /// The keys by when they were used last.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    /// The parts of blobs that an earlier process was in the middle of. They go before any whole blob.
    left: HashMap<Key, u64>,
    /// The bytes of all that is kept or left.
    pub(super) bytes: u64,
    /// The bytes that blobs on their way will take.
    pub(super) arriving: u64,
}

/// A blob that is there whole.
pub(super) struct Kept {
    size: u64,
    used: u64,
    readers: Weak<()>,
}

impl State {
    /// Notes that a blob is used now.
    pub(super) fn touch(&mut self, key: &Key, size: u64) -> Arc<()> {
        self.uses += 1;
        let used = self.uses;
        let before = self.kept.remove(key);
        if let Some(before) = &before {
            self.by_use.remove(&before.used);
            self.bytes = self.bytes.saturating_sub(before.size);
        }
        let readers = before.and_then(|kept| kept.readers.upgrade()).unwrap_or_default();
        self.kept.insert(key.clone(), Kept { size, used, readers: Arc::downgrade(&readers) });
        self.by_use.insert(used, key.clone());
        self.bytes = self.bytes.saturating_add(size);
        readers
    }

    /// Notes that a blob is there no longer.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.by_use.remove(&kept.used);
            self.bytes = self.bytes.saturating_sub(kept.size);
        }
    }

    /// The blob that was used longest ago and is not being read.
    pub(super) fn oldest(&self) -> Option<Key> {
        let is_idle = |key: &&Key| self.kept.get(key).is_some_and(|kept| kept.readers.strong_count() == 0);
        self.by_use.values().find(is_idle).cloned()
    }

    /// Notes a part that an earlier process left.
    pub(super) fn leave(&mut self, key: Key, size: u64) {
        self.bytes = self.bytes.saturating_add(size);
        self.left.insert(key, size);
    }

    /// Takes up a part that was left, if there is one: what it becomes is counted elsewhere.
    pub(super) fn take_up(&mut self, key: &Key) {
        if let Some(size) = self.left.remove(key) {
            self.bytes = self.bytes.saturating_sub(size);
        }
    }

    /// A part that was left.
    pub(super) fn any_left(&self) -> Option<Key> {
        self.left.keys().next().cloned()
    }
}
