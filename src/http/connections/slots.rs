//! Limits the connections, in all and from one address, and decides which one has to give way to another.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

use crate::base::slots::net_of;
use crate::http::connections::watch::Watch;
use crate::http::peer::Proxies;

/// The most connections from one address: a class behind it, each with a browser's six and a program, and agents.
const MOST_OF_ONE: usize = 1_200;
/// The most connections in all, however many descriptors there are: with incomplete heads they take half a gibibyte.
const MOST: usize = 16_384;
/// Descriptors reserved for other uses than incoming connections: the store, backups, engines, registries.
const RESERVE: usize = 256;

/// How many connections are given up at once when descriptors run out: more than a client that holds many opens
/// meanwhile.
const AT_ONCE: usize = 16;

/// Returns how many connections there may be with the descriptors that this process may open.
pub(super) fn most() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    descriptors.saturating_sub(RESERVE).clamp(RESERVE, MOST)
}

/// The slots for connections.
pub(super) struct ConnectionSlots {
    most: usize,
    most_of_one: usize,
    proxies: Proxies,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    count: usize,
    next: u64,
    /// The connections by their address, in the order in which they came.
    of: HashMap<Vec<u8>, BTreeMap<u64, Arc<Watch>>>,
}

/// A connection's slot, which is free again when this is dropped.
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    net: Vec<u8>,
    number: u64,
    watch: Arc<Watch>,
}

impl ConnectionSlots {
    /// Returns this many slots. A proxy's connections count as those of many clients.
    pub(super) fn new(most: usize, proxies: Proxies) -> Arc<Self> {
        Arc::new(Self { most, most_of_one: MOST_OF_ONE, proxies, taken: Mutex::default() })
    }

    /// Returns a slot for a connection from this address. If there is none, the connection that has been idle longest
    /// is given up: one of the same address, or of the address that has the most.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let mut taken = self.taken.lock();
        let own = net_of(Some(address));
        let has = taken.of.get(&own).map_or(0, BTreeMap::len);
        if has >= self.most_of_one && !self.proxies.trusts(address.to_canonical()) {
            taken.give_up_of(&own).then_some(())?;
        } else if taken.count >= self.most {
            taken.give_up().then_some(())?;
        }
        let (number, watch) = (taken.next, Arc::new(Watch::new()));
        taken.next += 1;
        taken.count += 1;
        taken.of.entry(own.clone()).or_default().insert(number, Arc::clone(&watch));
        Some(ConnectionSlot { slots: Arc::clone(self), net: own, number, watch })
    }

    /// Gives up some connections when descriptors run out.
    pub(super) fn give_some_up(&self) {
        let mut taken = self.taken.lock();
        for _ in 0..AT_ONCE {
            taken.give_up();
        }
    }
}

impl Taken {
    /// Gives up one idle connection of the address that has the most connections.
    fn give_up(&mut self) -> bool {
        let mut nets: Vec<_> = self.of.iter().map(|(net, all)| (all.len(), net.clone())).collect();
        nets.sort_unstable_by_key(|(count, _)| std::cmp::Reverse(*count));
        nets.into_iter().any(|(_, net)| self.give_up_of(&net))
    }

    /// Gives up the connection of this address that has been idle longest. Its slot is free at once, so a repeated
    /// call gives up another one.
    fn give_up_of(&mut self, net: &[u8]) -> bool {
        let all = self.of.get(net).into_iter().flatten();
        let spare = all.filter_map(|(number, watch)| watch.spare_since().map(|since| (since, *number)));
        let Some((_, number)): Option<(Instant, u64)> = spare.min() else { return false };
        let Some(watch) = self.remove(net, number) else { return false };
        watch.give_up();
        true
    }

    fn remove(&mut self, net: &[u8], number: u64) -> Option<Arc<Watch>> {
        let all = self.of.get_mut(net)?;
        let watch = all.remove(&number)?;
        if all.is_empty() {
            self.of.remove(net);
        }
        self.count -= 1;
        Some(watch)
    }
}

impl ConnectionSlot {
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.taken.lock().remove(&self.net, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{ConnectionSlot, ConnectionSlots};
    use crate::http::peer::Proxies;

    fn slots(most: usize, most_of_one: usize, proxies: &[&str]) -> Arc<ConnectionSlots> {
        let proxies = Proxies::new(proxies.iter().map(|proxy| proxy.parse().unwrap()).collect());
        Arc::new(ConnectionSlots { most, most_of_one, proxies, taken: Mutex::default() })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn given_up(slots: &[ConnectionSlot]) -> Vec<bool> {
        slots.iter().map(|slot| slot.watch().is_given_up()).collect()
    }

    #[test]
    fn the_one_that_nothing_was_done_for_for_longest_goes() {
        let slots = slots(10, 3, &[]);
        let mut own: Vec<_> = (0..3).map(|_| slots.take(address("192.0.2.1")).unwrap()).collect();
        own[0].watch().asked(false);
        let other = slots.take(address("192.0.2.2")).unwrap();
        own.push(slots.take(address("192.0.2.1")).unwrap());
        assert_eq!(given_up(&own), [false, true, false, false], "the first is being answered");
        assert!(!other.watch().is_given_up(), "nobody else's");
        for slot in &own {
            slot.watch().asked(false);
        }
        assert!(slots.take(address("192.0.2.1")).is_none(), "all of its three are being answered");
        drop(own.remove(2));
        assert!(slots.take(address("192.0.2.1")).is_some(), "a slot is free again");
    }

    #[test]
    fn when_all_places_are_taken_one_of_whoever_has_the_most_goes() {
        let slots = slots(6, 100, &[]);
        let many: Vec<_> = (0..4).map(|_| slots.take(address("192.0.2.1")).unwrap()).collect();
        let few: Vec<_> = (0..2).map(|_| slots.take(address("192.0.2.2")).unwrap()).collect();
        let fresh: Vec<_> =
            (0..2).map(|n| slots.take(address(&format!("198.51.100.{n}"))).unwrap()).collect();
        assert_eq!(given_up(&many), [true, true, false, false]);
        assert_eq!(given_up(&few), [false, false]);
        assert_eq!(given_up(&fresh), [false, false]);
        slots.give_some_up();
        assert_eq!(given_up(&many).iter().chain(&given_up(&few)).filter(|gone| !**gone).count(), 0);
    }

    #[test]
    fn a_household_is_one_address_and_a_proxy_is_many() {
        let slots = slots(10, 2, &["10.0.0.1"]);
        let house: Vec<_> =
            (0..3).map(|n| slots.take(address(&format!("2001:db8:1:1::{n}"))).unwrap()).collect();
        assert_eq!(given_up(&house), [true, false, false]);
        let proxy: Vec<_> = (0..5).map(|_| slots.take(address("::ffff:10.0.0.1")).unwrap()).collect();
        assert_eq!(given_up(&proxy), [false; 5]);
    }
}
