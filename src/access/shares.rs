//! Places in a waiting line, of which no key may take more than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// A number of places in all, and a limit for each key. Clones share them.
#[derive(Clone)]
pub(crate) struct Shares<K> {
    taken: Arc<Mutex<Taken<K>>>,
    each: usize,
    all: usize,
}

struct Taken<K> {
    by: HashMap<K, usize>,
    all: usize,
}

/// A taken place. Dropping it frees the place.
pub(crate) struct Share<K: Eq + Hash> {
    taken: Arc<Mutex<Taken<K>>>,
    whose: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Creates `all` places, of which one key may take `each`.
    pub(crate) fn new(each: usize, all: usize) -> Self {
        Self { taken: Arc::new(Mutex::new(Taken { by: HashMap::new(), all: 0 })), each, all }
    }

    /// Takes a place for this key, if one is left.
    pub(crate) fn take(&self, whose: &K) -> Option<Share<K>> {
        let mut taken = self.taken.lock();
        let own = taken.by.get(whose).copied().unwrap_or_default();
        if own >= self.each || taken.all >= self.all {
            return None;
        }
        taken.by.insert(whose.clone(), own + 1);
        taken.all += 1;
        drop(taken);
        Some(Share { taken: Arc::clone(&self.taken), whose: whose.clone() })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by.get_mut(&self.whose) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn nobody_has_more_than_a_share_and_a_place_that_is_left_is_free() {
        let shares = Shares::new(2, 3);
        let first = [shares.take(&"a"), shares.take(&"a"), shares.take(&"a")];
        assert_eq!(first.map(|place| place.is_some()), [true, true, false]);
        let held = [shares.take(&"a"), shares.take(&"b"), shares.take(&"c"), shares.take(&"d")];
        assert_eq!(held.each_ref().map(Option::is_some), [true, true, true, false]);
        drop(held);
        assert!(shares.taken.lock().by.is_empty());
    }
}
