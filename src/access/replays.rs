//! The signatures that were used, so that a third party who read one on its way can't use it again.
//!
//! The official clients sign a request's head and the hash of no bytes, so a signature does not cover the body it comes
//! with: a third party who has it could send another body as long as its date is accepted. So the server remembers each
//! signature for that time. Within [`AT_ONCE`] it may be used again, for dates of whole seconds give all requests sent
//! in one second the same signature; but not with another body from another address. Later it is refused.
//!
//! What is remembered is bounded, per keypair and in all. Beyond that, the keypair with the most loses its earliest
//! signatures, and the server then refuses any other signature of that keypair made before them: no other keypair
//! notices. A restart works the same way: the file has, for each keypair, the time of its last signature, and only
//! later ones are accepted. The file is written every [`EVERY`] and when the server stops, so after `kill -9` the
//! signatures of the last two seconds could be used once more.
//!
//! What this can't give without TLS: an attacker on the path may keep a request back and send another body in its
//! place, once, and can read everything.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::access::signature::WINDOW;
use crate::base::Result;
use crate::base::clock::Clock;
use crate::base::signal::Signal;
use crate::store::{Store, Table};

const LAST_SIGNED: Table<Timestamp> = Table::new("ACCESS_KEY_TO_LAST_SIGNED");

/// How long after its first use a signature may be used again: some dates have no parts of a second, and requests of
/// one moment take a moment to arrive.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How often the used signatures are written.
const EVERY: Duration = Duration::from_secs(2);
/// How long to wait after that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// The most signatures that are remembered, some 100 bytes each: a hundred a second over the time they are valid.
const MOST: usize = 100_000;
/// The most signatures of one keypair that are remembered.
const MOST_OF_ONE: usize = 20_000;

/// A signature that was verified.
#[derive(Debug, Clone)]
pub struct Signed {
    access_key: String,
    mark: u128,
    at: Timestamp,
}

impl Signed {
    /// The signature in hex digits, made with this key at that time by the client's clock.
    pub fn new(access_key: &str, signature_hex: &str, at: Timestamp) -> Self {
        // As long as the shortest signature; these digits are as good as a hash of it.
        let start = signature_hex.get(..32).unwrap_or_default();
        Self { access_key: access_key.into(), mark: u128::from_str_radix(start, 16).unwrap_or_default(), at }
    }
}

/// Why a signature is not accepted again. It prints as the message to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replayed {
    /// It was used before.
    #[error("this signature was used before; sign each request anew, with the time at which it is sent")]
    Used,
    /// It is no newer than signatures that are no longer remembered.
    #[error(
        "this signature is older than others of the same keypair that were used before the server started, or before \
         it had to forget some; sign the request anew, and keep clocks right"
    )]
    Old,
}

/// The first use of a signature.
struct First {
    at: Instant,
    body: u64,
    address: u64,
}

#[derive(Default)]
struct Key {
    used: BTreeMap<(Timestamp, u128), First>,
    /// A signature made up to this time is refused, unless it is among those above.
    forgotten: Option<Timestamp>,
    /// When the latest signature was made, and what the file says of that.
    last: Option<Timestamp>,
    saved: Option<Timestamp>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    count: usize,
}

/// The remembered signatures. Clones share them.
#[derive(Clone)]
pub struct Replays {
    store: Store,
    clock: Clock,
    hashes: RandomState,
    state: Arc<Mutex<State>>,
    used: Signal,
}

impl Replays {
    /// Reads what the file has.
    pub fn load(store: &Store, clock: Clock) -> Result<Self> {
        let mut state = State::default();
        store.read_now(|r| {
            r.scan(&LAST_SIGNED, [], |key, at: Timestamp| {
                let key = String::from_utf8_lossy(key).into_owned();
                let known = Key { forgotten: Some(at), last: Some(at), saved: Some(at), ..Key::default() };
                state.keys.insert(key, known);
                Ok(())
            })
        })?;
        let (store, state) = (store.clone(), Arc::new(Mutex::new(state)));
        Ok(Self { store, clock, hashes: RandomState::new(), state, used: Signal::default() })
    }

    /// Records a signature's use, for a request with this body from that address.
    ///
    /// # Errors
    /// [`Replayed`] if it is not accepted.
    pub fn take(&self, signed: &Signed, body: &[u8], address: Option<IpAddr>) -> Result<(), Replayed> {
        let (now, at) = (self.clock.now(), self.clock.steady());
        let first = First { at, body: self.hashes.hash_one(body), address: self.hashes.hash_one(address) };
        self.state.lock().take(signed, first, now)?;
        self.used.raise();
        Ok(())
    }

    /// Writes the used signatures, again and again, until shutdown.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let pause = async |time| drop(tokio::time::timeout(time, shutdown.cancelled()).await);
        let mut used = self.used.follow();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = used.changed() => {}
            }
            pause(EVERY).await;
            if let Err(why) = self.save().await {
                tracing::warn!(%why, "which signatures were used could not be written; it is tried again");
                pause(AGAIN).await;
                self.used.raise();
            }
        }
    }

    /// Writes the used signatures, and forgets keypairs that have been unused for long.
    pub(crate) async fn save(&self) -> Result<()> {
        let (fresh, gone) = self.state.lock().unsaved(&self.clock);
        if fresh.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let state = Arc::clone(&self.state);
        self.store
            .write(move |w| {
                for (key, last) in &fresh {
                    w.put(&LAST_SIGNED, key, last)?;
                }
                for key in &gone {
                    w.remove(&LAST_SIGNED, key)?;
                }
                w.on_commit(move || state.lock().saved(fresh, &gone));
                Ok(())
            })
            .await
    }
}

impl State {
    fn take(&mut self, signed: &Signed, first: First, now: Timestamp) -> Result<(), Replayed> {
        let key = match self.keys.get_mut(&signed.access_key) {
            Some(key) => key,
            None => self.keys.entry(signed.access_key.clone()).or_default(),
        };
        self.count -= key.forget_expired(now, first.at);
        let what = (signed.at, signed.mark);
        if let Some(before) = key.used.get(&what) {
            let is_late = first.at.saturating_duration_since(before.at) > AT_ONCE;
            let is_other = before.body != first.body && before.address != first.address;
            return if is_late || is_other { Err(Replayed::Used) } else { Ok(()) };
        }
        if key.is_forgotten(signed.at, now) {
            return Err(Replayed::Old);
        }
        key.used.insert(what, first);
        key.last = key.last.max(Some(signed.at));
        self.count += 1;
        if key.used.len() > MOST_OF_ONE {
            self.count -= key.forget(MOST_OF_ONE / 8);
        } else if self.count > MOST
            && let Some(most) = self.keys.values_mut().max_by_key(|key| key.used.len())
        {
            self.count -= most.forget(most.used.len() / 8 + 1);
        }
        Ok(())
    }

    /// The keypairs' times that the file lacks, and the keypairs that can be forgotten.
    fn unsaved(&mut self, clock: &Clock) -> (Vec<(String, Timestamp)>, Vec<String>) {
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        let (now, steady, today) = (clock.now(), clock.steady(), clock.calendar());
        for (name, key) in &mut self.keys {
            self.count -= key.forget_expired(now, steady);
            let Some(last) = key.last else { continue };
            if today.is_some_and(|today| key.is_over(today)) {
                gone.push(name.clone());
            } else if key.saved != Some(last) {
                fresh.push((name.clone(), last));
            }
        }
        (fresh, gone)
    }

    fn saved(&mut self, fresh: Vec<(String, Timestamp)>, gone: &[String]) {
        for (name, last) in fresh {
            if let Some(key) = self.keys.get_mut(&name) {
                key.saved = Some(last);
            }
        }
        for name in gone {
            // A key that was used meanwhile is not over; the next save writes it.
            if let Some(key) = self.keys.get_mut(name) {
                key.saved = None;
                if key.used.is_empty() {
                    self.keys.remove(name);
                }
            }
        }
    }
}

impl Key {
    /// Forgets the signatures that are refused by their date anyway. They must have been used long enough ago that a
    /// clock that is ahead for a moment does not make them valid again.
    fn forget_expired(&mut self, now: Timestamp, steady: Instant) -> usize {
        let is_expired = |at: Timestamp, first: &First| {
            let used = steady.saturating_duration_since(first.at);
            now.duration_since(at) >= WINDOW && used >= WINDOW.unsigned_abs()
        };
        let mut count = 0;
        while self.used.first_key_value().is_some_and(|((at, _), first)| is_expired(*at, first)) {
            self.used.pop_first();
            count += 1;
        }
        count
    }

    /// Forgets this many of the earliest signatures.
    fn forget(&mut self, count: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < count
            && let Some(((at, _), _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(at));
            forgotten += 1;
        }
        forgotten
    }

    /// Whether a signature made then may be among the forgotten. A `forgotten` time that is further ahead than any
    /// accepted date shows that a clock was wrong and is right now.
    fn is_forgotten(&self, at: Timestamp, now: Timestamp) -> bool {
        self.forgotten.is_some_and(|until| at <= until && until.duration_since(now) < WINDOW)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let is_over = |at: Timestamp| now.duration_since(at).abs() >= WINDOW;
        self.used.is_empty() && self.last.is_none_or(is_over) && self.forgotten.is_none_or(is_over)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{MOST, MOST_OF_ONE, Replayed, Replays, Signed};
    use crate::base::clock::Clock;
    use crate::store::Store;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const THERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)));

    struct Scene {
        replays: Replays,
        store: Store,
        clock: Clock,
        passed: Arc<AtomicU64>,
        /// How far the time of day is ahead of the steady clock.
        ahead: Arc<AtomicU64>,
        start: Timestamp,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        fn set() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let start = Timestamp::from_second(1_800_000_000).unwrap();
            let (passed, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
            let (day, steady, ahead) =
                (Arc::clone(&passed), Arc::clone(&passed), Arc::new(AtomicU64::new(0)));
            let jump = Arc::clone(&ahead);
            let clock = Clock::new(move || {
                let shown = day.load(Ordering::Relaxed) + jump.load(Ordering::Relaxed);
                start + SignedDuration::from_millis(i64::try_from(shown).unwrap())
            })
            .with_steady(move || began + Duration::from_millis(steady.load(Ordering::Relaxed)));
            let replays = Replays::load(&store, clock.clone()).unwrap();
            Self { replays, store, clock, passed, ahead, start, _directory: directory }
        }

        fn pass(&self, milliseconds: u64) {
            self.passed.fetch_add(milliseconds, Ordering::Relaxed);
        }

        fn signed(&self, key: &str, after: i64, number: u128) -> Signed {
            let at = self.start + SignedDuration::from_millis(after);
            Signed { access_key: key.into(), mark: number, at }
        }

        fn count(&self) -> usize {
            let state = self.replays.state.lock();
            assert_eq!(state.count, state.keys.values().map(|key| key.used.len()).sum::<usize>());
            state.count
        }
    }

    #[test]
    fn a_signature_is_used_again_only_at_once_and_by_whoever_may_have_made_it() {
        let scene = Scene::set();
        let signed = scene.signed("A", 0, 1);
        let again = |body: &str, address| scene.replays.take(&signed, body.as_bytes(), address);
        assert_eq!(again("one", HERE), Ok(()));
        assert_eq!(again("two", HERE), Ok(()), "two requests of one second");
        assert_eq!(again("one", THERE), Ok(()), "the same request by another way");
        assert_eq!(again("two", THERE), Err(Replayed::Used));
        scene.pass(2_001);
        for (body, address) in [("one", HERE), ("two", HERE), ("one", THERE)] {
            assert_eq!(again(body, address), Err(Replayed::Used));
        }
        assert_eq!(scene.replays.take(&scene.signed("A", 0, 2), b"two", THERE), Ok(()), "another signature");
        assert_eq!(scene.replays.take(&scene.signed("B", 0, 1), b"two", THERE), Ok(()), "another keypair");
    }

    #[tokio::test]
    async fn after_a_restart_only_later_ones_are_taken() {
        let scene = Scene::set();
        for (key, after) in [("A", 500), ("A", 0), ("B", 9_000)] {
            scene.replays.take(&scene.signed(key, after, 1), b"", HERE).unwrap();
        }
        scene.replays.save().await.unwrap();
        let again = Replays::load(&scene.store, scene.clock.clone()).unwrap();
        let take = |key, after, number| again.take(&scene.signed(key, after, number), b"", HERE);
        assert_eq!(take("A", 500, 1), Err(Replayed::Old));
        assert_eq!(take("A", 499, 7), Err(Replayed::Old), "it may have been used and forgotten");
        assert_eq!(take("A", 501, 7), Ok(()));
        assert_eq!(take("C", 0, 1), Ok(()), "of this one none was used");
        // No keypair's name is kept for ever.
        scene.pass(16 * 60_000);
        again.save().await.unwrap();
        assert_eq!(Replays::load(&scene.store, scene.clock.clone()).unwrap().state.lock().keys.len(), 0);
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_keeps_nobody_out_for_longer_than_a_date_is_taken() {
        let scene = Scene::set();
        scene.pass(24 * 3_600_000);
        scene.replays.take(&scene.signed("A", 24 * 3_600_000, 1), b"", HERE).unwrap();
        scene.replays.save().await.unwrap();
        scene.passed.store(0, Ordering::Relaxed);
        let again = Replays::load(&scene.store, scene.clock.clone()).unwrap();
        assert_eq!(again.take(&scene.signed("A", 0, 2), b"", HERE), Ok(()));
    }

    #[tokio::test]
    async fn a_clock_that_is_ahead_for_a_moment_brings_no_signature_back() {
        let scene = Scene::set();
        scene.pass(20 * 60_000);
        scene.replays.take(&scene.signed("A", 20 * 60_000, 1), b"", HERE).unwrap();
        scene.replays.save().await.unwrap();
        for ahead in [20 * 60_000, 3_650 * 24 * 3_600_000] {
            scene.ahead.store(ahead, Ordering::Relaxed);
            let _ = scene.replays.take(
                &scene.signed("A", i64::try_from(ahead).unwrap() + 20 * 60_000, 2),
                b"",
                HERE,
            );
            scene.replays.save().await.unwrap();
            scene.ahead.store(0, Ordering::Relaxed);
            scene.pass(3_000);
            let again = scene.replays.take(&scene.signed("A", 20 * 60_000, 1), b"", HERE);
            assert_eq!(again, Err(Replayed::Used), "{ahead}");
        }
    }

    #[test]
    fn what_is_remembered_has_an_end_and_the_loudest_pays() {
        let scene = Scene::set();
        let take = |key: &str, after: i64, number: u128| {
            scene.replays.take(&scene.signed(key, after, number), b"", HERE)
        };
        take("quiet", 0, 1).unwrap();
        let keys = ["a", "b", "c", "d", "e", "f", "g"];
        for number in 0..MOST_OF_ONE as u128 + 1_000 {
            for key in keys {
                take(key, i64::try_from(number).unwrap(), number).unwrap();
            }
            assert!(scene.count() <= MOST || number % 1_000 != 0);
        }
        assert!(scene.count() <= MOST, "{}", scene.count());
        for key in keys {
            assert_eq!(take(key, 0, 0), Err(Replayed::Old), "what was forgotten is not taken");
            assert_eq!(take(key, 60_000, 0), Ok(()));
        }
        assert_eq!(take("quiet", 0, 2), Ok(()), "this one has forgotten nothing");
        scene.pass(17 * 60_000);
        scene.replays.state.lock().unsaved(&scene.clock);
        assert_eq!(scene.count(), 0);
    }
}
