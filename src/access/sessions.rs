//! Sessions: what a browser, or a client in session mode, presents instead of the password that was checked once.
//!
//! The server keeps only the hash of the key it gave out. A session's age is measured by the time that passes while the
//! server runs, and over a restart by the time of day: a clock that is set forward or back meanwhile neither ends all
//! sessions nor keeps one for ever. While the time of day is not believed, a session that it makes too old is refused,
//! but nothing is removed or written because of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::accounts::Accounts;
use crate::access::caller::{Caller, Credential, Origin, SessionId};
use crate::access::generate::random_text;
use crate::base::clock::Clock;
use crate::base::ids::UserId;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::Writer;
use crate::store::{Store, Table};

const SESSIONS: Table<Record> = Table::new("SESSION_HASH_TO_SESSION");

/// The length of a key in characters of six bits: 258 bits, more than anyone can guess.
const KEY_LENGTH: usize = 43;
/// The most sessions of a user: more than one person has browsers. Beyond that, the one unused for longest ends.
const MAX_PER_USER: usize = 20;
/// How precisely a session's age and idle time survive a crash.
const SAVED: Duration = Duration::from_mins(5);

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// How long a session lasts without a request.
    pub(crate) idle: Duration,
    /// How long a session lasts in any case.
    pub(crate) lifetime: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { idle: Duration::from_hours(12), lifetime: Duration::from_hours(7 * 24) }
    }
}

/// A session as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    user: UserId,
    address: Option<IpAddr>,
    created_at: Timestamp,
    last_seen: Timestamp,
    /// How long it had been open when this was written, in seconds.
    age: u64,
    /// How long it had been unused when this was written, in seconds.
    idle: u64,
    saved_at: Timestamp,
}

/// A session in memory.
struct Open {
    id: SessionId,
    user: UserId,
    address: Option<IpAddr>,
    created_at: Timestamp,
    age: Span,
    /// Whether it has ended but the store could not be written yet.
    has_ended: AtomicBool,
    seen: Mutex<Seen>,
}

struct Seen {
    at: Timestamp,
    idle: Span,
    /// When it was last written; `None` if it is not in the store at all.
    saved: Option<Instant>,
}

/// A length of time that may have begun before this server started.
#[derive(Clone, Copy)]
struct Span {
    /// How long it had been at `since`.
    before: Duration,
    since: Instant,
    /// When an earlier server wrote `before`.
    saved_at: Option<Timestamp>,
}

/// The clocks that spans are measured by.
#[derive(Clone, Copy)]
struct Present {
    now: Instant,
    /// The time of day at which this server began.
    began: Timestamp,
}

impl Present {
    fn of(clock: &Clock) -> Self {
        Self { now: clock.steady(), began: clock.began() }
    }
}

impl Span {
    fn none(now: Instant) -> Self {
        Self { before: Duration::ZERO, since: now, saved_at: None }
    }

    fn length(self, present: Present) -> Duration {
        // A clock that was set back adds nothing; the time counted before stays.
        let away =
            self.saved_at.map(|at| Duration::try_from(present.began.duration_since(at)).unwrap_or_default());
        let here = present.now.saturating_duration_since(self.since);
        self.before.saturating_add(away.unwrap_or_default()).saturating_add(here)
    }
}

impl Open {
    fn new(id: SessionId, record: &Record, age: Span, idle: Span) -> Self {
        Self {
            id,
            user: record.user,
            address: record.address,
            created_at: record.created_at,
            age,
            has_ended: AtomicBool::new(false),
            seen: Mutex::new(Seen { at: record.last_seen, idle, saved: Some(idle.since) }),
        }
    }

    /// The session as the store keeps it.
    fn kept(id: SessionId, record: &Record, now: Instant) -> Self {
        let span = |seconds| Span {
            before: Duration::from_secs(seconds),
            since: now,
            saved_at: Some(record.saved_at),
        };
        Self::new(id, record, span(record.age), span(record.idle))
    }

    fn is_over(&self, limits: SessionLimits, present: Present) -> bool {
        self.has_ended() || self.age.length(present) >= limits.lifetime || self.unused(present) >= limits.idle
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    fn unused(&self, present: Present) -> Duration {
        self.seen.lock().idle.length(present)
    }

    fn touch(&self, now: Instant, today: Timestamp) {
        let mut seen = self.seen.lock();
        *seen = Seen { at: today, idle: Span::none(now), saved: seen.saved };
    }

    fn record(&self, present: Present, today: Timestamp) -> Record {
        let seen = self.seen.lock();
        Record {
            user: self.user,
            address: self.address,
            created_at: self.created_at,
            last_seen: seen.at,
            age: self.age.length(present).as_secs(),
            idle: seen.idle.length(present).as_secs(),
            saved_at: today,
        }
    }
}

#[derive(Default)]
struct Index {
    sessions: HashMap<SessionId, Arc<Open>>,
    users: HashMap<UserId, Vec<SessionId>>,
}

impl Index {
    fn put(&mut self, open: Open) {
        self.users.entry(open.user).or_default().push(open.id);
        self.sessions.insert(open.id, Arc::new(open));
    }

    fn remove(&mut self, id: SessionId) {
        let Some(open) = self.sessions.remove(&id) else { return };
        if let Some(ids) = self.users.get_mut(&open.user) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.users.remove(&open.user);
            }
        }
    }

    fn of(&self, user: UserId) -> Vec<Arc<Open>> {
        let ids = self.users.get(&user).into_iter().flatten();
        ids.filter_map(|id| self.sessions.get(id)).cloned().collect()
    }
}

/// A session as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// When its owner signed in.
    pub(crate) created_at: Timestamp,
    /// When it was last used.
    pub(crate) last_seen: Timestamp,
    /// Where its owner signed in from.
    pub(crate) address: Option<IpAddr>,
    /// Whether it is the session that asks.
    pub(crate) current: bool,
}

/// The open sessions. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
    store: Store,
    accounts: Accounts,
    clock: Clock,
    limits: SessionLimits,
    index: Arc<RwLock<Index>>,
}

impl Sessions {
    /// Reads the sessions from the store.
    pub(crate) fn load(
        store: &Store,
        accounts: &Accounts,
        clock: Clock,
        limits: SessionLimits,
    ) -> Result<Self> {
        let now = clock.steady();
        let mut index = Index::default();
        store.read_now(|r| {
            r.scan(&SESSIONS, [], |key, record: Record| {
                let id = SessionId(key.try_into().map_err(Error::internal)?);
                index.put(Open::kept(id, &record, now));
                Ok(())
            })
        })?;
        let index = Arc::new(RwLock::new(index));
        Ok(Self { store: store.clone(), accounts: accounts.clone(), clock, limits, index })
    }

    /// Opens a session and returns the key for its owner. A user who had another session before now has two, with
    /// different keys.
    pub(in crate::access) fn open(
        &self,
        writer: &mut Writer,
        user: UserId,
        address: Option<IpAddr>,
    ) -> Result<Secret> {
        let (key, record, open) = self.fresh(user, address)?;
        let others = self.index.read().of(user);
        for open in self.too_many(others) {
            self.end(writer, open.id)?;
        }
        writer.put(&SESSIONS, open.id.0, &record)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().put(open));
        Ok(key)
    }

    /// Opens a session where nothing can be written: it is in memory, and [`Sessions::tidy`] writes it later.
    pub(in crate::access) fn open_unkept(&self, user: UserId, address: Option<IpAddr>) -> Result<Secret> {
        let (key, _, open) = self.fresh(user, address)?;
        let mut index = self.index.write();
        let others = index.of(user);
        self.too_many(others).for_each(|open| open.has_ended.store(true, Ordering::SeqCst));
        open.seen.lock().saved = None;
        index.put(open);
        Ok(key)
    }

    /// Ends a session where the store can't be written yet.
    pub(in crate::access) fn end_unkept(&self, id: SessionId) {
        if let Some(open) = self.index.read().sessions.get(&id) {
            open.has_ended.store(true, Ordering::SeqCst);
        }
    }

    fn fresh(&self, user: UserId, address: Option<IpAddr>) -> Result<(Secret, Record, Open)> {
        let key = Secret::new(random_text(KEY_LENGTH)?);
        let today = self.clock.stamp();
        let record =
            Record { user, address, created_at: today, last_seen: today, age: 0, idle: 0, saved_at: today };
        let new = Span::none(self.clock.steady());
        let open = Open::new(id_of(key.expose()), &record, new, new);
        Ok((key, record, open))
    }

    /// The sessions of a user that must end to make room for one more: those unused for longest.
    fn too_many(&self, mut open: Vec<Arc<Open>>) -> impl Iterator<Item = Arc<Open>> {
        let present = Present::of(&self.clock);
        open.sort_by_key(|open| open.unused(present));
        open.into_iter().skip(MAX_PER_USER - 1)
    }

    /// The caller whose session has this key.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a session that is not open, or an account that may not be used.
    pub(crate) fn caller(&self, key: &str, address: Option<IpAddr>) -> Result<Caller> {
        if key.len() != KEY_LENGTH {
            return Err(Error::Unauthenticated);
        }
        let id = id_of(key);
        let open = self.index.read().sessions.get(&id).cloned().ok_or(Error::Unauthenticated)?;
        let present = Present::of(&self.clock);
        if open.is_over(self.limits, present) {
            return Err(Error::Unauthenticated);
        }
        let caller = self.accounts.caller(open.user, Credential::Session)?;
        open.touch(present.now, self.clock.now());
        Ok(Caller { origin: Origin { address, session: Some(id), ..caller.origin }, ..caller })
    }

    /// Whether a session is still open; asking does not count as use.
    pub(crate) fn is_open(&self, id: SessionId) -> bool {
        let present = Present::of(&self.clock);
        self.index.read().sessions.get(&id).is_some_and(|open| !open.is_over(self.limits, present))
    }

    /// The caller's own sessions, the latest first.
    pub(crate) fn list(&self, caller: &Caller) -> Vec<Shown> {
        let present = Present::of(&self.clock);
        let mut open = self.index.read().of(caller.user);
        open.retain(|open| !open.is_over(self.limits, present));
        open.sort_by_key(|open| std::cmp::Reverse(open.created_at));
        let shown = |open: Arc<Open>| Shown {
            created_at: open.created_at,
            last_seen: open.seen.lock().at,
            address: open.address,
            current: caller.origin.session == Some(open.id),
        };
        open.into_iter().map(shown).collect()
    }

    /// Ends one session.
    pub(in crate::access) fn end(&self, writer: &mut Writer, id: SessionId) -> Result<()> {
        writer.remove(&SESSIONS, id.0)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().remove(id));
        Ok(())
    }

    /// Ends all sessions of a user but `except`: whenever the password changes or the account is switched off. Returns
    /// how many ended.
    pub(crate) fn end_all(
        &self,
        writer: &mut Writer,
        user: UserId,
        except: Option<SessionId>,
    ) -> Result<usize> {
        let mut open = self.index.read().of(user);
        open.retain(|open| Some(open.id) != except);
        for open in &open {
            self.end(writer, open.id)?;
        }
        Ok(open.len())
    }

    /// Removes the sessions that are over, and writes how long the others have been unused: with `all` every one, else
    /// only those whose stored time is too far off.
    pub(crate) async fn tidy(&self, all: bool) -> Result<()> {
        let (present, today) = (Present::of(&self.clock), self.clock.calendar());
        let now = present.now;
        let is_over = |open: &Open| {
            (today.is_some() && open.is_over(self.limits, present))
                || open.has_ended()
                || self.accounts.caller(open.user, Credential::Session).is_err()
        };
        let is_late = |open: &Open| {
            let saved = open.seen.lock().saved;
            let is_due = |saved| all || now.saturating_duration_since(saved) >= SAVED;
            saved.is_none_or(|saved| today.is_some() && is_due(saved))
        };
        let (over, late): (Vec<_>, Vec<_>) = {
            let index = self.index.read();
            let touched = index.sessions.values().filter(|open| is_over(open) || is_late(open));
            touched.cloned().partition(|open| is_over(open))
        };
        if over.is_empty() && late.is_empty() {
            return Ok(());
        }
        let (sessions, today) = (self.clone(), today.unwrap_or_else(|| self.clock.stamp()));
        self.store
            .write(move |w| {
                for open in over {
                    sessions.end(w, open.id)?;
                }
                for open in late {
                    // A session that ended meanwhile stays ended.
                    if sessions.index.read().sessions.contains_key(&open.id) {
                        w.put(&SESSIONS, open.id.0, &open.record(present, today))?;
                        open.seen.lock().saved = Some(now);
                    }
                }
                Ok(())
            })
            .await
    }
}

fn id_of(key: &str) -> SessionId {
    SessionId(Sha256::digest(key.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{SessionLimits, Sessions};
    use crate::access::accounts::Accounts;
    use crate::access::first_admin::FirstAdmin;
    use crate::access::hasher::Hasher;
    use crate::access::user::{Status, User};
    use crate::base::clock::Clock;
    use crate::base::ids::UserId;
    use crate::base::secret::Secret;
    use crate::store::Store;

    const HOUR: u64 = 3_600;
    const YEARS: i64 = 10 * 365 * 24 * 3_600;

    /// A server with one account, whose two clocks stand where the test sets them, in seconds.
    struct Server {
        store: Store,
        accounts: Accounts,
        user: UserId,
        day: Arc<AtomicI64>,
        steady: Arc<AtomicU64>,
        _directory: tempfile::TempDir,
    }

    impl Server {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let accounts = Accounts::load(&store).unwrap();
            let made = accounts.create_first_admin(
                &Hasher::new().unwrap(),
                FirstAdmin::default(),
                "default",
                Timestamp::UNIX_EPOCH,
            );
            let user = accounts.user_by_email(&made.unwrap().email).unwrap().id;
            let day = Arc::new(AtomicI64::new(1_700_000_000));
            Self { store, accounts, user, day, steady: Arc::default(), _directory: directory }
        }

        /// The clock of a new process.
        fn clock(&self) -> Clock {
            let (start, day, steady) = (Instant::now(), Arc::clone(&self.day), Arc::clone(&self.steady));
            Clock::new(move || Timestamp::from_second(day.load(Ordering::Relaxed)).unwrap())
                .with_steady(move || start + Duration::from_secs(steady.load(Ordering::Relaxed)))
        }

        /// The sessions after a restart.
        fn sessions(&self) -> Sessions {
            self.sessions_by(self.clock())
        }

        fn sessions_by(&self, clock: Clock) -> Sessions {
            Sessions::load(&self.store, &self.accounts, clock, SessionLimits::default()).unwrap()
        }

        fn open(&self, sessions: &Sessions) -> Secret {
            self.store.write_now(|w| sessions.open(w, self.user, None)).unwrap()
        }

        /// Lets time pass on both clocks.
        fn pass(&self, hours: u64) {
            self.steady.fetch_add(hours * HOUR, Ordering::Relaxed);
            self.set_clock(SignedDuration::from_hours(i64::try_from(hours).unwrap()).as_secs());
        }

        /// Sets the time of day.
        fn set_clock(&self, seconds: i64) {
            self.day.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    fn is_open(sessions: &Sessions, key: &Secret) -> bool {
        sessions.caller(key.expose(), None).is_ok()
    }

    #[test]
    fn a_clock_that_jumps_neither_ends_a_session_nor_keeps_it() {
        for jump in [YEARS, -YEARS, 86_400, -86_400] {
            let server = Server::new();
            let sessions = server.sessions();
            let key = server.open(&sessions);
            server.set_clock(jump);
            assert!(is_open(&sessions, &key), "{jump} s: it is as old as before");
            server.pass(11);
            assert!(is_open(&sessions, &key), "{jump} s: eleven hours unused");
            server.pass(12);
            assert!(!is_open(&sessions, &key), "{jump} s: twelve hours unused");
        }
    }

    #[test]
    fn use_keeps_a_session_for_its_lifetime_and_no_longer() {
        let server = Server::new();
        let sessions = server.sessions();
        let key = server.open(&sessions);
        for hour in 1..7 * 24 {
            server.pass(1);
            assert!(is_open(&sessions, &key), "after {hour} hours");
        }
        server.pass(1);
        assert!(!is_open(&sessions, &key));
    }

    #[tokio::test]
    async fn a_restart_keeps_what_had_passed_whatever_the_clock_says() {
        let server = Server::new();
        let mut sessions = server.sessions();
        let key = server.open(&sessions);
        // Each start finds the clock a day behind, and still the session reaches its age limit.
        for day in 0..7 {
            assert!(is_open(&sessions, &key), "day {day}");
            for _ in 0..3 {
                server.pass(8);
                let _ = is_open(&sessions, &key);
            }
            sessions.tidy(true).await.unwrap();
            server.set_clock(-86_400);
            sessions = server.sessions();
        }
        assert!(!is_open(&sessions, &key));
        sessions.tidy(false).await.unwrap();
        assert!(sessions.index.read().sessions.is_empty() && sessions.index.read().users.is_empty());
        assert!(server.sessions().index.read().sessions.is_empty(), "nor is it in the store");
    }

    #[tokio::test]
    async fn a_start_with_a_clock_that_is_far_ahead_refuses_who_is_over_by_it_and_ends_nobody() {
        let server = Server::new();
        let key = server.open(&server.sessions());
        let last = server.clock().now();
        server.set_clock(YEARS);
        let clock = server.clock();
        clock.go_on_from(last);
        let sessions = server.sessions_by(clock);
        sessions.tidy(true).await.unwrap();
        assert!(!is_open(&sessions, &key), "by the calendar it is over");
        server.pass(1);
        server.set_clock(-YEARS);
        assert!(is_open(&sessions, &key), "the clock is right again");
        sessions.tidy(true).await.unwrap();
        server.pass(11);
        assert!(is_open(&sessions, &key));
        sessions.tidy(true).await.unwrap();
        server.pass(6 * 24);
        sessions.tidy(false).await.unwrap();
        assert!(sessions.index.read().sessions.is_empty(), "its time is over now");
    }

    #[tokio::test]
    async fn an_account_that_was_switched_off_has_no_session_at_once() {
        let server = Server::new();
        let sessions = server.sessions();
        let key = server.open(&sessions);
        let user = server.accounts.user(server.user).unwrap();
        let set = |status| {
            let changed = User { status, ..(*user).clone() };
            server.store.write_now(|w| server.accounts.put_user(w, changed)).unwrap();
        };
        set(Status::Inactive);
        assert!(!is_open(&sessions, &key));
        set(Status::Active);
        assert!(is_open(&sessions, &key));
        set(Status::Deleted);
        sessions.tidy(false).await.unwrap();
        set(Status::Active);
        assert!(!is_open(&sessions, &key), "housekeeping took it away");
    }
}
