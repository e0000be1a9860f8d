//! Slots: so many in all and so many for one key. When they are taken, the oldest slot gives way.
//!
//! No newcomer is turned away. If its key has all the slots that it may have, the oldest of these is given up; if all
//! slots are taken, the oldest of the key that has the most. So a client that takes many only displaces itself.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The network that counts as one origin of connections and requests: an IPv4 address, or the half of an IPv6 address
/// that a household or a machine has for itself; empty where the network has no addresses.
pub(crate) fn net_of(address: Option<IpAddr>) -> Vec<u8> {
    match address.map(|address| address.to_canonical()) {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().split_at(8).0.to_vec(),
    }
}

/// A set of slots. Clones share them.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    taken: Arc<Mutex<Taken<K>>>,
    most: usize,
    most_of_one: usize,
}

#[derive(Debug)]
struct Taken<K> {
    next: u64,
    slots: BTreeMap<u64, (K, CancellationToken)>,
}

/// A taken slot. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot<K> {
    taken: Arc<Mutex<Taken<K>>>,
    number: u64,
    given_up: CancellationToken,
}

impl<K> Clone for Slots<K> {
    fn clone(&self) -> Self {
        Self { taken: Arc::clone(&self.taken), most: self.most, most_of_one: self.most_of_one }
    }
}

impl<K: Clone + Eq + Hash> Slots<K> {
    /// Creates `most` slots, of which one key may take `most_of_one`.
    pub(crate) fn new(most: usize, most_of_one: usize) -> Self {
        let taken = Arc::new(Mutex::new(Taken { next: 0, slots: BTreeMap::new() }));
        Self { taken, most, most_of_one }
    }

    /// Takes a slot for this key; another slot may have to give way for it.
    pub(crate) fn take(&self, whose: K) -> Slot<K> {
        let mut taken = self.taken.lock();
        if taken.slots.values().filter(|(owner, _)| *owner == whose).count() >= self.most_of_one {
            taken.give_up(&whose);
        }
        if taken.slots.len() >= self.most
            && let Some(loudest) = taken.loudest()
        {
            taken.give_up(&loudest);
        }
        let (number, given_up) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.slots.insert(number, (whose, given_up.clone()));
        Slot { taken: Arc::clone(&self.taken), number, given_up }
    }
}

impl<K: Clone + Eq + Hash> Taken<K> {
    /// The key that has the most slots; of several, the one that has the oldest.
    fn loudest(&self) -> Option<K> {
        let mut counts: HashMap<&K, (usize, u64)> = HashMap::new();
        for (number, (owner, _)) in &self.slots {
            counts.entry(owner).or_insert((0, *number)).0 += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)));
        most.map(|(owner, _)| owner.clone())
    }

    fn give_up(&mut self, whose: &K) {
        let oldest = self.slots.iter().find(|(_, (owner, _))| owner == whose).map(|(number, _)| *number);
        if let Some((_, given_up)) = oldest.and_then(|number| self.slots.remove(&number)) {
            given_up.cancel();
        }
    }
}

impl<K> Slot<K> {
    /// Waits until this slot has to give way.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// A token that is cancelled when this slot has to give way.
    pub(crate) fn signal(&self) -> CancellationToken {
        self.given_up.clone()
    }
}

impl<K> Drop for Slot<K> {
    fn drop(&mut self) {
        self.taken.lock().slots.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Slot, Slots};

    fn stays(slot: &Slot<&str>) -> bool {
        !slot.given_up.is_cancelled()
    }

    #[test]
    fn who_takes_many_gives_way_and_nobody_else() {
        let slots = Slots::new(5, 3);
        let quiet = slots.take("quiet");
        let many: Vec<_> = (0..4).map(|_| slots.take("a")).collect();
        assert_eq!(many.iter().map(stays).collect::<Vec<_>>(), [false, true, true, true]);
        let other = slots.take("b");
        // All slots are taken now, so the key with the most gives one up for a new key.
        let new = slots.take("c");
        assert_eq!(many.iter().map(stays).collect::<Vec<_>>(), [false, false, true, true]);
        assert!([&quiet, &other, &new].into_iter().all(stays));
        drop(many);
        let later: Vec<_> = (0..2).map(|_| slots.take("a")).collect();
        assert!(later.iter().chain([&quiet, &other, &new]).all(stays), "what was left is free");
    }
}
