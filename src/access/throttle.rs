//! How long a client that gives wrong passwords has to wait before it may try the next one.
//!
//! The server counts failures for an account from an address, for an address over all accounts, for an account over all
//! addresses, and over everything. An address that has signed in to an account before is held to the first count only,
//! so that failures from elsewhere can't keep the owner out. All counts but the last survive a restart.
//!
//! Only failures count against a client. Attempts in progress only bound how many passwords are checked at once: an
//! attempt waits if all those in progress could use up the failures still allowed, and has its turn once one of them
//! turns out right. So a class may sign in through one address, and parallel guesses are no more than those allowed one
//! by one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::access::bucket::Bucket;
use crate::access::hasher::Line;
use crate::access::shares::Shares;
use crate::base::Result;
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::slots::net_of;
use crate::store::table::Writer;
use crate::store::{Store, Table};

const FAILURES: Table<Record> = Table::new("TRIED_TO_FAILURES");
const KNOWN: Table<Vec<Known>> = Table::new("ACCOUNT_HASH_TO_ADDRESSES");

/// The waits after each failure beyond those allowed.
const WAITS: Backoff = Backoff::doubling(Duration::from_secs(1), MAX_WAIT);
const MAX_WAIT: Duration = Duration::from_mins(15);
/// Each time this long passes without another failure, one failure is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(15);
/// The most failures beyond those allowed that count. Two to this power is more than [`MAX_WAIT`] in seconds, and every
/// count must be forgotten some day.
const MAX_BEYOND: u32 = 10;
/// How many failures from unknown addresses cost nothing, over all accounts and addresses, and how soon one more may be
/// made then: some twenty thousand a day, whoever guesses and from however many machines. A school with a thousand
/// people who mistype on one morning stays below it.
const STRANGERS: u32 = 1_000;
const STRANGERS_EVERY: Duration = Duration::from_secs(4);
/// How many attempts may wait for others to be checked first, from one address and from all: a lecture hall, at a few
/// kB each.
const WAITING: (usize, usize) = (400, 1_000);
/// How long an attempt may wait for that. A person who has waited this long has given up.
const WAITING_FOR: Duration = Duration::from_mins(1);
/// How many counts are kept; beyond that, the smallest are dropped first. A few MB.
const MAX_COUNTS: usize = 50_000;
/// How many addresses of an account are remembered: the latest ones.
const MAX_KNOWN: usize = 16;
/// How precisely the time of an address's last sign-in is kept.
const KNOWN_EXACTLY: SignedDuration = SignedDuration::from_hours(24);
/// How long an address is remembered.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The hash of an account's e-mail address: attempts may name accounts that do not exist, of any length.
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

/// Failures as the store keeps them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    count: u32,
    last: Timestamp,
}

/// Failures in memory.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    /// The time between the last failure and the start of this server, if an earlier one counted it.
    away: Duration,
}

impl Failures {
    /// Failures as read from the store. The time since then is known only where the time of day is.
    fn kept(record: Record, now: Instant, today: Option<Timestamp>) -> Self {
        let away = today.and_then(|today| Duration::try_from(today.duration_since(record.last)).ok());
        Self { count: record.count, last: now, away: away.unwrap_or_default() }
    }

    fn passed(self, now: Instant) -> Duration {
        self.away.saturating_add(now.saturating_duration_since(self.last))
    }

    /// The failures that are not yet forgotten.
    fn left(self, now: Instant) -> u32 {
        let forgotten = self.passed(now).as_secs() / FORGOTTEN.as_secs();
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// How much of the wait is left.
    fn wait(self, allowed: u32, now: Instant) -> Duration {
        let Some(beyond) = self.left(now).checked_sub(allowed) else { return Duration::ZERO };
        WAITS.after(beyond.saturating_add(1)).saturating_sub(self.passed(now))
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
    /// Attempts whose password is being checked. They are bounded by the failures still allowed, or many parallel
    /// attempts would go uncounted.
    pending: u32,
}

/// All attempts from unknown addresses together.
#[derive(Default)]
struct Strangers {
    failures: Bucket,
    pending: u32,
}

#[derive(Default)]
struct State {
    counts: HashMap<Key, Count>,
    known: HashMap<Account, Vec<Known>>,
    strangers: Strangers,
}

impl State {
    fn is_known(&self, account: &Account, net: &Net, now: Timestamp) -> bool {
        let known = self.known.get(account).into_iter().flatten();
        known.into_iter().any(|known| known.net == *net && now.duration_since(known.at) < KNOWN_FOR)
    }

    fn wait(&self, key: &Key, now: Instant) -> Duration {
        let failures = self.counts.get(key).and_then(|count| count.failures);
        failures.map_or(Duration::ZERO, |failures| failures.wait(key.allowed(), now))
    }

    /// Whether the attempts in progress could use up the failures still allowed.
    fn is_full(&self, key: &Key, now: Instant) -> bool {
        let Some(count) = self.counts.get(key).filter(|count| count.pending > 0) else { return false };
        count.failures.map_or(0, |failures| failures.left(now)) + count.pending >= key.allowed()
    }

    /// If there are more than `most` counts, drops the smallest without an attempt in progress, and returns its key.
    fn make_room(&mut self, most: usize, now: Instant) -> Option<Key> {
        if self.counts.len() <= most {
            return None;
        }
        let rank = |count: &Count| {
            let passed = count.failures.map_or(Duration::MAX, |failures| failures.passed(now));
            (count.failures.map_or(0, |failures| failures.left(now)), Reverse(passed))
        };
        let settled = self.counts.iter().filter(|(_, count)| count.pending == 0);
        let least = settled.min_by_key(|(_, count)| rank(count)).map(|(key, _)| key.clone())?;
        self.counts.remove(&least);
        Some(least)
    }
}

/// The counts. Clones share them.
#[derive(Clone)]
pub(crate) struct Throttle {
    store: Store,
    clock: Clock,
    state: Arc<Mutex<State>>,
    waiting: Shares<Net>,
    /// Notified whenever an attempt ends.
    over: Arc<Notify>,
    /// The limit [`MAX_COUNTS`]; tests set another.
    most: usize,
    /// The limit [`STRANGERS`]; tests set another.
    strangers: u32,
}

/// Why no password may be tried now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// There were too many failures; the next attempt may be made after this long.
    Wait(Duration),
    /// Too many attempts are waiting already.
    Busy,
}

/// The answer of the counts to one attempt.
enum Decision {
    Go(Attempt),
    Line,
    Wait(Duration),
}

/// An attempt that may be made. Dropping it ends it.
pub(crate) struct Attempt {
    throttle: Throttle,
    keys: Vec<Key>,
    account: Account,
    net: Net,
    is_known: bool,
    is_counted: AtomicBool,
}

/// The counts that changed and have to be written.
#[derive(Default)]
struct Counted {
    failures: Vec<(Key, Record)>,
    given_up: Vec<Key>,
}

impl Throttle {
    /// Reads the counts from the store.
    pub(crate) fn load(store: &Store, clock: Clock) -> Result<Self> {
        let mut state = State::default();
        let (now, today) = (clock.steady(), clock.calendar());
        store.read_now(|r| {
            r.scan(&FAILURES, [], |key, record: Record| {
                if let Some(key) = Key::of(key) {
                    let failures = Failures::kept(record, now, today);
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
        let (each, all) = WAITING;
        Ok(Self {
            store: store.clone(),
            clock,
            state: Arc::new(Mutex::new(state)),
            waiting: Shares::new(each, all),
            over: Arc::default(),
            most: MAX_COUNTS,
            strangers: STRANGERS,
        })
    }

    /// Admits an attempt at this account's password from this address; waits for attempts in progress first.
    ///
    /// # Errors
    /// A [`Denial`].
    pub(crate) async fn admit(&self, email: &str, address: Option<IpAddr>) -> Result<Attempt, Denial> {
        let (account, net) = (account_of(email), net_of(address));
        let given_up = tokio::time::Instant::now() + WAITING_FOR;
        let mut place = None;
        loop {
            // Taken before the counts are read, so that an attempt that ends between the two is not missed.
            let over = self.over.notified();
            match self.look(account, &net) {
                Decision::Go(attempt) => return Ok(attempt),
                Decision::Wait(wait) => return Err(Denial::Wait(wait)),
                Decision::Line => {}
            }
            if place.is_none() {
                place = Some(self.waiting.take(&net).ok_or(Denial::Busy)?);
            }
            tokio::time::timeout_at(given_up, over).await.map_err(|_| Denial::Busy)?;
        }
    }

    fn look(&self, account: Account, net: &Net) -> Decision {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let mut state = self.state.lock();
        let is_known = state.is_known(&account, net, now);
        let mut keys = vec![Key::Pair(account, net.clone())];
        if !is_known {
            keys.extend([Key::Account(account), Key::Net(net.clone())]);
        }
        let wait = keys.iter().map(|key| state.wait(key, steady)).max().unwrap_or_default();
        let all = if is_known { Duration::ZERO } else { self.wait_of_strangers(&state, steady) };
        let wait = wait.max(all);
        if !wait.is_zero() {
            return Decision::Wait(wait);
        }
        let is_full = keys.iter().any(|key| state.is_full(key, steady));
        if is_full || (!is_known && self.is_full_of_strangers(&state, steady)) {
            return Decision::Line;
        }
        for key in &keys {
            state.counts.entry(key.clone()).or_default().pending += 1;
        }
        state.strangers.pending += u32::from(!is_known);
        drop(state);
        let is_counted = AtomicBool::new(false);
        Decision::Go(Attempt {
            throttle: self.clone(),
            keys,
            account,
            net: net.clone(),
            is_known,
            is_counted,
        })
    }

    fn wait_of_strangers(&self, state: &State, now: Instant) -> Duration {
        let failures = &state.strangers.failures;
        if failures.level(STRANGERS_EVERY, now) < self.strangers {
            return Duration::ZERO;
        }
        failures.next(STRANGERS_EVERY, now)
    }

    fn is_full_of_strangers(&self, state: &State, now: Instant) -> bool {
        let Strangers { failures, pending } = &state.strangers;
        *pending > 0 && failures.level(STRANGERS_EVERY, now) + pending >= self.strangers
    }

    /// Forgets all failures with an account, from all addresses: for the console, after the password was reset.
    pub(crate) fn clear(&self, writer: &mut Writer, email: &str) -> Result<()> {
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

    /// Removes the counts that are forgotten.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let now = self.clock.steady();
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
    /// The queue in which its password waits to be hashed.
    pub(in crate::access) fn line(&self) -> Line {
        if self.is_known { Line::Known } else { Line::Strangers }
    }

    /// Counts a wrong password.
    pub(in crate::access) fn failed(&self, writer: &mut Writer) -> Result<()> {
        let counted = self.count();
        for key in counted.given_up {
            writer.remove(&FAILURES, key.bytes())?;
        }
        for (key, record) in counted.failures {
            writer.put(&FAILURES, key.bytes(), &record)?;
        }
        Ok(())
    }

    /// Counts a wrong password where nothing can be written.
    pub(in crate::access) fn failed_unkept(&self) {
        self.count();
    }

    /// Counts the failure in memory, once.
    fn count(&self) -> Counted {
        let mut counted = Counted::default();
        if self.is_counted.swap(true, Ordering::SeqCst) {
            return counted;
        }
        let (today, now) = (self.throttle.clock.now(), self.throttle.clock.steady());
        let mut state = self.throttle.state.lock();
        if !self.is_known {
            state.strangers.failures.add(STRANGERS_EVERY, now);
        }
        for key in &self.keys {
            let is_new = state.counts.get(key).is_none_or(|count| count.failures.is_none());
            if is_new && let Some(given_up) = state.make_room(self.throttle.most, now) {
                counted.given_up.push(given_up);
            }
            let count = state.counts.entry(key.clone()).or_default();
            let before = count.failures.map_or(0, |failures| failures.left(now));
            let record = Record { count: (before + 1).min(key.allowed() + MAX_BEYOND), last: today };
            count.failures = Some(Failures { count: record.count, last: now, away: Duration::ZERO });
            counted.failures.push((key.clone(), record));
        }
        counted
    }

    /// Records a right password: the address is now one of the account's, and its failures there are forgotten.
    pub(in crate::access) fn succeeded(&self, writer: &mut Writer) -> Result<()> {
        let (now, today) = (self.throttle.clock.now(), self.throttle.clock.calendar());
        let pair = Key::Pair(self.account, self.net.clone());
        writer.remove(&FAILURES, pair.bytes())?;
        let mut known = self.throttle.state.lock().known.get(&self.account).cloned().unwrap_or_default();
        let is_fresh = known
            .iter()
            .any(|known| known.net == self.net && now.duration_since(known.at).abs() < KNOWN_EXACTLY);
        if !is_fresh {
            let is_old = |at: Timestamp| today.is_some_and(|today| today.duration_since(at) >= KNOWN_FOR);
            known.retain(|known| known.net != self.net && !is_old(known.at));
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
        state.strangers.pending = state.strangers.pending.saturating_sub(u32::from(!self.is_known));
        drop(state);
        self.throttle.over.notify_waiters();
    }
}

fn account_of(email: &str) -> Account {
    let digest: [u8; 32] = Sha256::digest(email.trim().to_lowercase().as_bytes()).into();
    let mut account = Account::default();
    account.copy_from_slice(digest.split_at(16).0);
    account
}

#[cfg(test)]
mod tests;
