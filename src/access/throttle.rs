//! How long somebody who gives wrong passwords has to wait before the next may be tried.
//!
//! Failures are counted for an account from an address, for an address over all accounts, and for an account over all
//! addresses. An address that has signed in to an account before answers for itself alone: it is held to the first
//! count only, so that nobody elsewhere can keep the owner out. The counts are kept over a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::Result;
use crate::base::clock::Clock;
use crate::base::places::net_of;
use crate::store::table::Writer;
use crate::store::{Store, Table};

const FAILURES: Table<Failures> = Table::new("TRIED_TO_FAILURES");
const KNOWN: Table<Vec<Known>> = Table::new("ACCOUNT_HASH_TO_ADDRESSES");

/// Longest wait.
const MAX_WAIT: SignedDuration = SignedDuration::from_mins(15);
/// Each time this long passes without another failure, one is forgotten.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(15);
/// Failures beyond those allowed that count: two to this power is more than [`MAX_WAIT`] in seconds, and what is
/// counted must be forgotten some day.
const MAX_BEYOND: u32 = 10;
/// How many counts are kept; beyond, the smallest go first. A few MB.
const MAX_COUNTS: usize = 50_000;
/// How many addresses of an account are remembered, the latest.
const MAX_KNOWN: usize = 16;
/// How exactly it is kept when an address last signed in.
const KNOWN_EXACTLY: SignedDuration = SignedDuration::from_hours(24);
/// How long an address is remembered.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The hash of an account's address, for accounts may be tried that do not exist and have any name.
type Account = [u8; 16];
/// An IPv4 address, or the half of an IPv6 address that a household or a machine has for itself.
type Net = Vec<u8>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(Account, Net),
    Account(Account),
    Net(Net),
}

impl Key {
    /// How many failures cost nothing: people mistype, and many of them may share an address.
    fn allowed(&self) -> u32 {
        match self {
            Self::Pair(..) => 5,
            Self::Account(_) => 20,
            Self::Net(_) => 50,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Pair(account, net) => [b"p".as_slice(), account, net].concat(),
            Self::Account(account) => [b"a".as_slice(), account].concat(),
            Self::Net(net) => [b"n".as_slice(), net].concat(),
        }
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            b'p' => {
                let (account, net) = rest.split_first_chunk::<16>()?;
                Some(Self::Pair(*account, net.to_vec()))
            }
            b'a' => Some(Self::Account(rest.try_into().ok()?)),
            b'n' => Some(Self::Net(rest.to_vec())),
            _ => None,
        }
    }
}

/// Failures as they are kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl Failures {
    /// Those that are not forgotten.
    fn left(self, now: Timestamp) -> u32 {
        let passed = now.duration_since(self.last).max(SignedDuration::ZERO);
        let forgotten = passed.as_secs() / FORGOTTEN.as_secs();
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// How much of the wait is not over. A clock that was set back does not make it longer.
    fn wait(self, allowed: u32, now: Timestamp) -> SignedDuration {
        let Some(beyond) = self.left(now).checked_sub(allowed) else { return SignedDuration::ZERO };
        let whole = SignedDuration::from_secs(1 << beyond.min(MAX_BEYOND)).min(MAX_WAIT);
        let passed = now.duration_since(self.last).max(SignedDuration::ZERO);
        (whole - passed).max(SignedDuration::ZERO)
    }
}

/// An address that signed in to an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    #[serde(with = "serde_bytes")]
    net: Net,
    at: Timestamp,
}

#[derive(Default)]
struct Count {
    failures: Option<Failures>,
    /// Attempts whose password is being checked: they count as failures until they are none, or many at once would go
    /// uncounted.
    pending: u32,
}

#[derive(Default)]
struct State {
    counts: HashMap<Key, Count>,
    known: HashMap<Account, Vec<Known>>,
}

impl State {
    fn is_known(&self, account: &Account, net: &Net, now: Timestamp) -> bool {
        let known = self.known.get(account).into_iter().flatten();
        known.into_iter().any(|known| known.net == *net && now.duration_since(known.at) < KNOWN_FOR)
    }

    fn wait(&self, key: &Key, now: Timestamp) -> SignedDuration {
        let Some(count) = self.counts.get(key) else { return SignedDuration::ZERO };
        let before = count.failures.unwrap_or(Failures { count: 0, last: now });
        if count.pending == 0 {
            return before.wait(key.allowed(), now);
        }
        Failures { count: before.left(now) + count.pending, last: now }.wait(key.allowed(), now)
    }

    /// Makes room for a count, where there are more than `most` with those on their way, and returns whose was given
    /// up.
    fn make_room(&mut self, most: usize, now: Timestamp) -> Option<Key> {
        if self.counts.len() <= most {
            return None;
        }
        let rank = |count: &Count| {
            count.failures.map_or((0, Timestamp::MIN), |failures| (failures.left(now), failures.last))
        };
        let settled = self.counts.iter().filter(|(_, count)| count.pending == 0);
        let least = settled.min_by_key(|(_, count)| rank(count)).map(|(key, _)| key.clone())?;
        self.counts.remove(&least);
        Some(least)
    }
}

/// The counts. Clones share them.
#[derive(Clone)]
pub struct Throttle {
    store: Store,
    clock: Clock,
    state: Arc<Mutex<State>>,
    /// [`MAX_COUNTS`].
    most: usize,
}

/// An attempt that may be made. When it is dropped, it is over.
pub struct Attempt {
    throttle: Throttle,
    keys: Vec<Key>,
    account: Account,
    net: Net,
}

impl Throttle {
    /// Reads the counts from the store.
    pub fn load(store: &Store, clock: Clock) -> Result<Self> {
        let mut state = State::default();
        store.read_now(|r| {
            r.scan(&FAILURES, [], |key, failures: Failures| {
                if let Some(key) = Key::of(key) {
                    state.counts.insert(key, Count { failures: Some(failures), pending: 0 });
                }
                Ok(())
            })?;
            r.scan(&KNOWN, [], |key, known: Vec<Known>| {
                if let Ok(account) = key.try_into() {
                    state.known.insert(account, known);
                }
                Ok(())
            })
        })?;
        Ok(Self { store: store.clone(), clock, state: Arc::new(Mutex::new(state)), most: MAX_COUNTS })
    }

    /// Whether a password for this account may be tried from this address now; if not, how long not.
    ///
    /// # Errors
    /// The time to wait.
    pub fn admit(&self, email: &str, address: Option<IpAddr>) -> std::result::Result<Attempt, Duration> {
        let (account, net) = (account_of(email), net_of(address));
        let now = self.clock.now();
        let mut state = self.state.lock();
        let mut keys = vec![Key::Pair(account, net.clone())];
        if !state.is_known(&account, &net, now) {
            keys.extend([Key::Account(account), Key::Net(net.clone())]);
        }
        let wait = keys.iter().map(|key| state.wait(key, now)).max().unwrap_or_default();
        if wait > SignedDuration::ZERO {
            return Err(Duration::try_from(wait).unwrap_or_default());
        }
        for key in &keys {
            state.counts.entry(key.clone()).or_default().pending += 1;
        }
        drop(state);
        Ok(Attempt { throttle: self.clone(), keys, account, net })
    }

    /// Forgets all failures with an account, whoever made them: for the console, where the password was reset.
    pub fn clear(&self, writer: &mut Writer, email: &str) -> Result<()> {
        let account = account_of(email);
        let pairs = writer.keys(&FAILURES, [b"p".as_slice(), &account].concat())?;
        for key in pairs.into_iter().chain([Key::Account(account).bytes()]) {
            writer.remove(&FAILURES, &key)?;
        }
        let state = Arc::clone(&self.state);
        writer.on_commit(move || {
            let is_of = |key: &Key| matches!(key, Key::Pair(of, _) | Key::Account(of) if *of == account);
            state.lock().counts.retain(|key, count| !is_of(key) || count.pending > 0);
        });
        Ok(())
    }

    /// Takes away what is forgotten.
    pub async fn tidy(&self) -> Result<()> {
        let now = self.clock.now();
        let is_over = |count: &Count| count.pending == 0 && count.failures.is_none_or(|f| f.left(now) == 0);
        let over: Vec<Key> = {
            let state = self.state.lock();
            state.counts.iter().filter(|(_, count)| is_over(count)).map(|(key, _)| key.clone()).collect()
        };
        if over.is_empty() {
            return Ok(());
        }
        let throttle = self.clone();
        self.store
            .write(move |w| {
                let mut state = throttle.state.lock();
                for key in over {
                    let is_over =
                        |count: &Count| count.pending == 0 && count.failures.is_none_or(|f| f.left(now) == 0);
                    if state.counts.get(&key).is_some_and(is_over) {
                        state.counts.remove(&key);
                        w.remove(&FAILURES, key.bytes())?;
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Attempt {
    /// The password was wrong.
    pub(in crate::access) fn failed(&self, writer: &mut Writer) -> Result<()> {
        let now = self.throttle.clock.now();
        let mut state = self.throttle.state.lock();
        for key in &self.keys {
            let is_new = state.counts.get(key).is_none_or(|count| count.failures.is_none());
            if is_new && let Some(given_up) = state.make_room(self.throttle.most, now) {
                writer.remove(&FAILURES, given_up.bytes())?;
            }
            let count = state.counts.entry(key.clone()).or_default();
            let before = count.failures.map_or(0, |failures| failures.left(now));
            let failures = Failures { count: (before + 1).min(key.allowed() + MAX_BEYOND), last: now };
            count.failures = Some(failures);
            writer.put(&FAILURES, key.bytes(), &failures)?;
        }
        Ok(())
    }

    /// The password was right: the address is one of the account's, and its failures there are forgotten.
    pub(in crate::access) fn succeeded(&self, writer: &mut Writer) -> Result<()> {
        let now = self.throttle.clock.now();
        let pair = Key::Pair(self.account, self.net.clone());
        writer.remove(&FAILURES, pair.bytes())?;
        let mut known = self.throttle.state.lock().known.get(&self.account).cloned().unwrap_or_default();
        let is_fresh = known
            .iter()
            .any(|known| known.net == self.net && now.duration_since(known.at).abs() < KNOWN_EXACTLY);
        if !is_fresh {
            known.retain(|known| known.net != self.net && now.duration_since(known.at) < KNOWN_FOR);
            known.insert(0, Known { net: self.net.clone(), at: now });
            known.truncate(MAX_KNOWN);
            writer.put(&KNOWN, self.account, &known)?;
        }
        let (state, account) = (Arc::clone(&self.throttle.state), self.account);
        writer.on_commit(move || {
            let mut state = state.lock();
            state.known.insert(account, known);
            if let Some(count) = state.counts.get_mut(&pair) {
                count.failures = None;
                if count.pending == 0 {
                    state.counts.remove(&pair);
                }
            }
        });
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.throttle.state.lock();
        for key in &self.keys {
            let Some(count) = state.counts.get_mut(key) else { continue };
            count.pending = count.pending.saturating_sub(1);
            if count.pending == 0 && count.failures.is_none() {
                state.counts.remove(key);
            }
        }
    }
}

fn account_of(email: &str) -> Account {
    let digest: [u8; 32] = Sha256::digest(email.trim().to_lowercase().as_bytes()).into();
    let mut account = Account::default();
    account.copy_from_slice(digest.split_at(16).0);
    account
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use jiff::Timestamp;

    use super::Throttle;
    use crate::base::clock::Clock;
    use crate::store::Store;

    const START: i64 = 1_700_000_000;

    struct Bench {
        throttle: Throttle,
        store: Store,
        now: Arc<AtomicI64>,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let now = Arc::new(AtomicI64::new(START));
            let shown = Arc::clone(&now);
            let clock = Clock::new(move || Timestamp::from_second(shown.load(Ordering::Relaxed)).unwrap());
            let throttle = Throttle::load(&store, clock).unwrap();
            Self { throttle, store, now, _directory: directory }
        }

        fn fail(&self, email: &str, address: &str) -> Result<(), Duration> {
            let attempt = self.throttle.admit(email, Some(address.parse::<IpAddr>().unwrap()))?;
            self.store.write_now(|w| attempt.failed(w)).unwrap();
            Ok(())
        }

        fn succeed(&self, email: &str, address: &str) -> Result<(), Duration> {
            let attempt = self.throttle.admit(email, Some(address.parse::<IpAddr>().unwrap()))?;
            self.store.write_now(|w| attempt.succeeded(w)).unwrap();
            Ok(())
        }

        fn pass(&self, seconds: i64) {
            self.now.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_quarter_of_an_hour() {
        let bench = Bench::new();
        let mut waits = Vec::new();
        for _ in 0..17 {
            while bench.fail("a@lab", "192.0.2.1").is_ok() {}
            let wait = bench.fail("a@lab", "192.0.2.1").unwrap_err().as_secs();
            waits.push(wait);
            bench.pass(i64::try_from(wait).unwrap());
        }
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert!(waits[10..].iter().all(|wait| *wait <= 900), "{waits:?}");
        assert!(waits[10..].contains(&900) || waits[10..].contains(&512), "{waits:?}");
    }

    #[test]
    fn a_clock_that_jumps_makes_nobody_wait_longer() {
        let bench = Bench::new();
        for _ in 0..5 {
            bench.fail("a@lab", "192.0.2.1").unwrap();
        }
        bench.pass(-86_400 * 3_650);
        assert_eq!(bench.fail("a@lab", "192.0.2.1"), Err(Duration::from_secs(1)));
        bench.pass(86_400 * 7_300);
        bench.fail("a@lab", "192.0.2.1").unwrap();
    }

    #[test]
    fn an_address_the_owner_has_used_answers_for_itself_alone() {
        let bench = Bench::new();
        bench.succeed("a@lab", "192.0.2.1").unwrap();
        let mut refused = 0;
        for n in 0..200 {
            refused += u32::from(bench.fail("a@lab", &format!("198.51.100.{n}")).is_err());
            refused += u32::from(bench.fail(&format!("u{n}@lab"), "192.0.2.1").is_err());
        }
        assert!(refused > 300, "{refused}");
        bench.succeed("a@lab", "192.0.2.1").unwrap();
        bench.succeed("A@LAB ", "192.0.2.1").unwrap();
    }

    #[test]
    fn the_addresses_of_a_household_are_one() {
        let bench = Bench::new();
        for n in 0..5 {
            bench.fail("a@lab", &format!("2001:db8:1:1::{n}")).unwrap();
        }
        assert!(bench.fail("a@lab", "2001:db8:1:1:ffff::1").is_err());
        bench.fail("a@lab", "2001:db8:1:2::1").unwrap();
        for _ in 0..4 {
            bench.fail("b@lab", "192.0.2.1").unwrap();
        }
        bench.fail("b@lab", "::ffff:192.0.2.1").unwrap();
        assert!(bench.fail("b@lab", "192.0.2.1").is_err());
    }

    #[tokio::test]
    async fn what_is_forgotten_is_taken_away() {
        let bench = Bench::new();
        bench.fail("a@lab", "192.0.2.1").unwrap();
        bench.throttle.tidy().await.unwrap();
        assert_eq!(bench.throttle.state.lock().counts.len(), 3);
        bench.pass(900);
        bench.throttle.tidy().await.unwrap();
        assert_eq!(bench.throttle.state.lock().counts.len(), 0);
        let again = Throttle::load(&bench.store, Clock::system()).unwrap();
        assert_eq!(again.state.lock().counts.len(), 0);
    }

    #[test]
    fn what_is_kept_has_an_end_and_the_worst_stay() {
        let mut bench = Bench::new();
        bench.throttle.most = 20;
        for _ in 0..5 {
            bench.fail("victim@lab", "192.0.2.1").unwrap();
        }
        for n in 0..40 {
            bench.fail(&format!("u{n}@lab"), &format!("198.51.100.{n}")).unwrap();
        }
        assert!(bench.throttle.state.lock().counts.len() <= 20);
        let kept = Throttle::load(&bench.store, Clock::system()).unwrap();
        assert!(kept.state.lock().counts.len() <= 20, "in the store too");
        assert!(
            bench.fail("victim@lab", "192.0.2.1").is_err(),
            "many others push nobody out who has to wait"
        );
    }

    #[test]
    fn an_attempt_that_came_to_nothing_counts_for_nothing() {
        let bench = Bench::new();
        for _ in 0..100 {
            drop(bench.throttle.admit("a@lab", None).unwrap());
        }
        assert_eq!(bench.throttle.state.lock().counts.len(), 0);
        let open: Vec<_> = (0..5).map(|_| bench.throttle.admit("a@lab", None).unwrap()).collect();
        assert!(bench.throttle.admit("a@lab", None).is_err(), "five are on their way");
        drop(open);
        assert!(bench.throttle.admit("a@lab", None).is_ok());
    }
}
