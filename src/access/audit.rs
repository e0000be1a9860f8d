//! The audit log: one row for every mutation, done, denied or failed, in the transaction of what it changed.
//!
//! A service hands its mutation to [`Audit::perform`], which gives it a [`Deed`] to write with. What the deed writes
//! is committed together with the row, so neither is ever there without the other. What failed has changed nothing,
//! and has a row of its own.

use std::future::Future;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::ids::UserId;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::store::table::{Reader, Writer};
use crate::store::{Store, Table};

const ENTRIES: Table<Entry> = Table::new("NUMBER_TO_AUDIT_ENTRY");

/// Longest reason that is kept, in characters: enough for the sentence, not for a list.
const MAX_REASON: usize = 500;
/// How many old entries one write takes away: more than it adds, so that the log shrinks to its limit, and few, so that
/// no write is slow.
const MAX_TRIMMED: usize = 8;
/// How many entries a page may have.
pub const MAX_PAGE: usize = 1_000;

/// What came of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done, or accepted as a task.
    Done,
    /// The caller may not do it.
    Denied,
    /// It could not be done; nothing was changed.
    Failed,
}

impl Outcome {
    /// The word used in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A row of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up by one from row to row.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Whose account; none for somebody who proved to be nobody.
    pub user: Option<UserId>,
    /// Its e-mail address at that time, or the one that was tried.
    pub email: String,
    /// What proved who it was: `keypair AKIA…`, `session`, `token ci`, `console`.
    pub credential: String,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The mutation's name.
    pub action: String,
    /// What it was for: a reference, a name, an e-mail address.
    pub target: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was not done.
    pub reason: Option<String>,
}

/// When the last thing was done that a database knows of, for whoever looks at one without a server.
pub fn last_moment(reader: &Reader) -> Result<Option<Timestamp>> {
    let mut last = None;
    reader.scan_back(&ENTRIES, None, |entry: Entry| {
        last = Some(entry.at);
        ControlFlow::Break(())
    })?;
    Ok(last)
}

/// How long entries are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// This long at most.
    pub age: SignedDuration,
    /// This many at most.
    pub count: u64,
}

impl Retention {
    /// How many days unless told otherwise.
    pub const DAYS: u32 = 365;
    /// How many rows unless told otherwise: some 30 MB.
    pub const ROWS: u64 = 100_000;

    /// So many days and rows.
    pub fn new(days: u32, rows: u64) -> Self {
        Self { age: SignedDuration::from_hours(i64::from(days) * 24), count: rows }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::new(Self::DAYS, Self::ROWS)
    }
}

/// What is looked for in the log; what is `None` is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// By this e-mail address or user id.
    pub user: Option<String>,
    /// This mutation.
    pub action: Option<String>,
    /// On what contains this.
    pub target: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// Only rows with a lower number: for the next page.
    pub before: Option<u64>,
}

impl Search {
    fn takes(&self, entry: &Entry) -> bool {
        let is =
            |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|wanted| wanted == given);
        let by = |wanted: &str| {
            entry.email.eq_ignore_ascii_case(wanted)
                || entry.user.is_some_and(|id| id.to_string().eq_ignore_ascii_case(wanted))
        };
        self.user.as_deref().is_none_or(by)
            && is(&self.action, &entry.action)
            && self.target.as_deref().is_none_or(|part| entry.target.contains(part))
            && self.outcome.is_none_or(|outcome| outcome == entry.outcome)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// The log. Clones share it.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    clock: Clock,
    retention: Retention,
}

impl Audit {
    /// The log in this store.
    pub fn new(store: Store, clock: Clock, retention: Retention) -> Self {
        Self { store, clock, retention }
    }

    /// Does a mutation with `work` and keeps a row of it: with what the [`Deed`] writes if it is done, by itself if
    /// not. A read-only credential may do none.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Denied`] for a read-only credential.
    pub async fn perform<T, F>(
        &self,
        caller: &Caller,
        action: &str,
        target: &str,
        work: impl FnOnce(Deed) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deed = Deed::new(self.clone(), self.entry(caller, action, target));
        if caller.origin.read_only {
            let error = Error::Denied(format!("{action} with a read-only token"));
            deed.failed(&error).await;
            return Err(error);
        }
        let result = work(deed.clone()).await;
        match &result {
            // What changes nothing in the store, such as a test of a connection, has written no row yet.
            Ok(_) if !deed.is_written() => deed.write(|_| Ok(())).await?,
            Ok(_) => {}
            Err(error) => deed.failed(error).await,
        }
        result
    }

    /// [`Audit::perform`] for what only super-admins may do.
    pub async fn superadmin<T, F>(
        &self,
        caller: &Caller,
        action: &str,
        target: &str,
        work: impl FnOnce(Deed) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let permission = caller.require_superadmin(action);
        self.perform(caller, action, target, |deed| async move {
            permission?;
            work(deed).await
        })
        .await
    }

    /// Keeps a row of what is no caller's mutation: an attempt to sign in, a sign-out. `email` is the account that was
    /// named, whether it exists or not.
    pub fn note(
        &self,
        writer: &mut Writer,
        email: &str,
        user: Option<UserId>,
        address: Option<IpAddr>,
        action: &str,
        result: &Result<()>,
    ) -> Result<()> {
        let entry = Entry {
            number: 0,
            at: self.clock.now(),
            user,
            email: shown(email),
            credential: "password".into(),
            address,
            action: action.into(),
            target: shown(email),
            outcome: Outcome::Done,
            reason: None,
        };
        self.append(writer, outcome_of(entry, result.as_ref().err()))
    }

    /// Keeps a row of an attempt to make the first super-admin by the server's link.
    pub fn set_up(
        &self,
        writer: &mut Writer,
        email: &str,
        user: Option<UserId>,
        address: Option<IpAddr>,
        result: &Result<()>,
    ) -> Result<()> {
        let entry = Entry {
            number: 0,
            at: self.clock.now(),
            user,
            email: shown(email),
            credential: "set-up link".into(),
            address,
            action: "set_up".into(),
            target: shown(email),
            outcome: Outcome::Done,
            reason: None,
        };
        self.append(writer, outcome_of(entry, result.as_ref().err()))
    }

    /// Keeps a row of an agent that joined, within the transaction that lets it in.
    pub fn joined(
        &self,
        writer: &mut Writer,
        agent: &str,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<()> {
        let entry = Entry {
            number: 0,
            at: self.clock.now(),
            user: None,
            email: String::new(),
            credential: format!("join token {token}"),
            address,
            action: "join_agent".into(),
            target: shown(agent),
            outcome: Outcome::Done,
            reason: None,
        };
        self.append(writer, entry)
    }

    /// The newest rows that the search finds, `limit` at most, and whether there may be more. For super-admins.
    pub async fn search(&self, caller: &Caller, search: Search, limit: usize) -> Result<(Vec<Entry>, bool)> {
        caller.require_superadmin("audit_log")?;
        let limit = limit.clamp(1, MAX_PAGE);
        self.store
            .read(move |r| {
                let mut found = Vec::new();
                let from = search.before.map(|number| number.saturating_sub(1).to_be_bytes());
                if search.before == Some(0) {
                    return Ok((found, false));
                }
                r.scan_back(&ENTRIES, from.as_ref().map(<[u8; 8]>::as_slice), |entry: Entry| {
                    if search.since.is_some_and(|since| entry.at < since) {
                        return ControlFlow::Break(());
                    }
                    if search.takes(&entry) {
                        found.push(entry);
                    }
                    if found.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                let more = found.len() > limit;
                found.truncate(limit);
                Ok((found, more))
            })
            .await
    }

    fn entry(&self, caller: &Caller, action: &str, target: &str) -> Entry {
        Entry {
            number: 0,
            at: self.clock.now(),
            user: Some(caller.user),
            email: caller.email.clone(),
            credential: caller.origin.credential.to_string(),
            address: caller.origin.address,
            action: action.into(),
            target: shown(target),
            outcome: Outcome::Done,
            reason: None,
        }
    }

    /// Adds a row and takes away what is too old or too much.
    fn append(&self, writer: &mut Writer, entry: Entry) -> Result<()> {
        let last = writer.last::<Entry>(&ENTRIES)?.map_or(0, |entry| entry.number);
        let entry = Entry { number: last + 1, ..entry };
        writer.put(&ENTRIES, entry.number.to_be_bytes(), &entry)?;
        let too_old = entry.at.checked_sub(self.retention.age).unwrap_or(Timestamp::MIN);
        for _ in 0..MAX_TRIMMED {
            let Some(first) = writer.first::<Entry>(&ENTRIES)? else { break };
            let is_kept = first.at >= too_old && entry.number - first.number < self.retention.count;
            if is_kept || first.number == entry.number {
                break;
            }
            writer.remove(&ENTRIES, first.number.to_be_bytes())?;
        }
        Ok(())
    }
}

fn outcome_of(entry: Entry, error: Option<&Error>) -> Entry {
    let outcome = match error {
        None => Outcome::Done,
        Some(Error::Denied(_) | Error::Unauthenticated) => Outcome::Denied,
        Some(_) => Outcome::Failed,
    };
    Entry {
        outcome,
        reason: error.map(|error| error.to_string().chars().take(MAX_REASON).collect()),
        ..entry
    }
}

/// A mutation on its way, and the row it will leave.
#[derive(Clone)]
pub struct Deed {
    audit: Audit,
    entry: Arc<Entry>,
    written: Arc<AtomicBool>,
}

impl Deed {
    fn new(audit: Audit, entry: Entry) -> Self {
        Self { audit, entry: Arc::new(entry), written: Arc::new(AtomicBool::new(false)) }
    }

    /// Runs `work` in one transaction with the row: both are there when this returns, or neither.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    {
        let deed = self.clone();
        self.audit
            .store
            .write(move |w| {
                let value = work(w)?;
                if !deed.is_written() {
                    deed.audit.append(w, deed.entry.as_ref().clone())?;
                    let written = Arc::clone(&deed.written);
                    w.on_commit(move || written.store(true, Ordering::Release));
                }
                Ok(value)
            })
            .await
    }

    fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Keeps the row of what changed nothing. If even that can't be written, as on a full disk, the caller is still told
    /// what went wrong first.
    async fn failed(&self, error: &Error) {
        let entry = outcome_of(self.entry.as_ref().clone(), Some(error));
        let (audit, action) = (self.audit.clone(), entry.action.clone());
        if let Err(why) = self.audit.store.write(move |w| audit.append(w, entry)).await {
            tracing::error!(action, %error, %why, "a mutation failed, and the audit log could not take it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::Timestamp;

    use super::{Audit, Outcome, Retention, Search};
    use crate::access::caller::{Caller, Credential, Origin, Role};
    use crate::base::clock::Clock;
    use crate::base::ids::UserId;
    use crate::base::{Error, Result};
    use crate::store::{Store, Table};

    const THINGS: Table<String> = Table::new("NAME_TO_THING");

    fn caller(role: Role) -> Caller {
        Caller {
            user: UserId::random(),
            email: format!("{}@lab", role.as_str()),
            role,
            domain: "default".into(),
            access_key: "AK".into(),
            origin: Origin {
                credential: Credential::Keypair("AK".into()),
                address: Some([10, 1, 2, 3].into()),
                ..Origin::default()
            },
        }
    }

    /// A log, what it is kept in, and the seconds on its clock.
    fn log(retention: Retention) -> (Audit, Store, Arc<AtomicI64>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let seconds = Arc::new(AtomicI64::new(1_000_000_000));
        let now = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_second(now.load(Ordering::Relaxed)).unwrap());
        (Audit::new(store.clone(), clock, retention), store, seconds, directory)
    }

    async fn put(audit: &Audit, by: &Caller, name: &'static str) -> Result<()> {
        audit
            .superadmin(by, "put_thing", name, |deed| async move {
                deed.write(move |w| {
                    w.put(&THINGS, name, &String::new())?;
                    if name == "bad" { Err(Error::invalid("name", "bad")) } else { Ok(()) }
                })
                .await
            })
            .await
    }

    async fn rows(audit: &Audit, search: Search) -> Vec<super::Entry> {
        audit.search(&caller(Role::Superadmin), search, 1_000).await.unwrap().0
    }

    #[tokio::test]
    async fn what_is_done_denied_and_failed_has_one_row_each_and_only_the_first_changes_anything() {
        let (audit, store, ..) = log(Retention::default());
        let (admin, user) = (caller(Role::Superadmin), caller(Role::User));
        put(&audit, &admin, "good").await.unwrap();
        assert!(matches!(put(&audit, &user, "foreign").await, Err(Error::Denied(_))));
        assert!(put(&audit, &admin, "bad").await.is_err());
        let mut reader = caller(Role::Superadmin);
        reader.origin.read_only = true;
        let refused = put(&audit, &reader, "unwritten").await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");

        let rows = rows(&audit, Search::default()).await;
        let told: Vec<_> = rows.iter().map(|row| (row.number, row.target.as_str(), row.outcome)).collect();
        assert_eq!(
            told,
            [
                (4, "unwritten", Outcome::Denied),
                (3, "bad", Outcome::Failed),
                (2, "foreign", Outcome::Denied),
                (1, "good", Outcome::Done),
            ]
        );
        let done = rows.last().unwrap();
        assert_eq!((done.email.as_str(), done.credential.as_str()), ("superadmin@lab", "keypair AK"));
        assert_eq!(done.address.unwrap().to_string(), "10.1.2.3");
        assert_eq!(rows.iter().find(|row| row.number == 3).unwrap().reason.as_deref(), Some("name: bad"));
        let kept = |name| store.read_now(|r| r.find(&THINGS, name)).unwrap().is_some();
        assert_eq!(["good", "foreign", "bad", "unwritten"].map(kept), [true, false, false, false]);
    }

    #[tokio::test]
    async fn what_writes_nothing_has_a_row_too() {
        let (audit, ..) = log(Retention::default());
        audit.superadmin(&caller(Role::Superadmin), "try", "x", |_| async { Ok(()) }).await.unwrap();
        assert_eq!(rows(&audit, Search::default()).await.len(), 1);
    }

    #[tokio::test]
    async fn old_rows_go_by_count_and_by_age() {
        let (audit, _, seconds, _directory) = log(Retention::new(2, 5));
        let admin = caller(Role::Superadmin);
        for _ in 0..20 {
            put(&audit, &admin, "thing").await.unwrap();
        }
        let numbers = |rows: Vec<super::Entry>| rows.iter().map(|row| row.number).collect::<Vec<_>>();
        assert_eq!(numbers(rows(&audit, Search::default()).await), [20, 19, 18, 17, 16]);
        seconds.fetch_add(3 * 24 * 3600, Ordering::Relaxed);
        put(&audit, &admin, "thing").await.unwrap();
        assert_eq!(numbers(rows(&audit, Search::default()).await), [21]);
    }

    #[tokio::test]
    async fn a_search_finds_by_every_criterion_and_goes_on_page_by_page() {
        let (audit, _, seconds, _directory) = log(Retention::default());
        let (admin, user) = (caller(Role::Superadmin), caller(Role::User));
        for name in ["one", "two", "three"] {
            put(&audit, &admin, name).await.unwrap();
            seconds.fetch_add(60, Ordering::Relaxed);
        }
        let _ = put(&audit, &user, "four").await;
        let found = async |search: Search| -> Vec<String> {
            rows(&audit, search).await.into_iter().map(|row| row.target).collect()
        };
        let at = |seconds: i64| Some(Timestamp::from_second(1_000_000_000 + seconds).unwrap());
        let any = Search::default;
        assert_eq!(found(Search { user: Some("USER@lab".into()), ..any() }).await, ["four"]);
        assert_eq!(found(Search { user: Some(admin.user.to_string()), ..any() }).await.len(), 3);
        assert_eq!(found(Search { target: Some("o".into()), ..any() }).await, ["four", "two", "one"]);
        assert_eq!(found(Search { outcome: Some(Outcome::Denied), ..any() }).await, ["four"]);
        assert_eq!(found(Search { since: at(60), until: at(180), ..any() }).await, ["three", "two"]);
        assert!(found(Search { action: Some("put".into()), ..any() }).await.is_empty());

        let reader = caller(Role::Superadmin);
        let (first, more) = audit.search(&reader, any(), 3).await.unwrap();
        assert!(more && first.len() == 3);
        let rest = Search { before: Some(first[2].number), ..any() };
        let (rest, more) = audit.search(&reader, rest, 3).await.unwrap();
        assert!(!more && rest.len() == 1 && rest[0].target == "one");
        assert!(audit.search(&user, any(), 3).await.is_err());
    }
}
