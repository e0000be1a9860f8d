//! The audit log: one row for every mutation, done, denied or failed, in the transaction of what it changed.
//!
//! A service hands its mutation to [`Audit::perform`], which gives it a [`Deed`] to write with. The row is committed in
//! the same transaction as the deed's writes, so neither exists without the other. A refused or failed mutation has
//! changed nothing and gets a row of its own, in which similar ones are counted ([`refusals`]). Rows are removed by
//! age, and when there are too many, from the share that has the most ([`shares`]).

mod entry;
mod refusals;
mod shares;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::access::audit::refusals::{EVERY, Likeness, Refusals, Waiting};
use crate::access::audit::shares::{Share, Shares};
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::ids::UserId;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::store::table::{Reader, Writer};
use crate::store::{Store, Table};

pub(crate) use crate::access::audit::entry::{Entry, Outcome, Search};

const ENTRIES: Table<Entry> = Table::new("NUMBER_TO_AUDIT_ENTRY");

/// How many old entries one write removes: more than it adds, so that the log shrinks to its limit, and few, so that no
/// write is slow.
const MAX_TRIMMED: usize = 8;
/// One part in this many of a full log is the most that a share may add within [`A_DAY`]; a share that adds more loses
/// its own rows first. That is a thousand rows unless the operator sets another limit: more than a person adds by hand.
const MOST_A_DAY: u64 = 100;
const A_DAY: SignedDuration = SignedDuration::from_hours(24);
/// How many later rows are read to date a row whose clock was ahead.
const LOOKED_BEHIND: usize = 64;
/// How long to wait before trying again to write refusals.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
/// A mutation that is done even when the audit log can't take its row yet.
pub(crate) const BACK_UP: &str = "back_up";
pub(in crate::access) const SIGN_OUT: &str = "sign_out";
const UNKEPT: [&str; 2] = [BACK_UP, SIGN_OUT];
/// How many entries a page may have.
pub(crate) const MAX_PAGE: usize = 1_000;

/// The time of the last deed that a database records, for tools that read one without a server.
pub(crate) fn last_moment(reader: &Reader) -> Result<Option<Timestamp>> {
    let mut last = None;
    reader.scan_back(&ENTRIES, None, |entry: Entry| {
        last = Some(entry.last_at());
        ControlFlow::Break(())
    })?;
    Ok(last)
}

/// How long entries are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// This long at most.
    pub(crate) age: SignedDuration,
    /// This many at most.
    pub(crate) count: u64,
}

impl Retention {
    /// The default number of days.
    pub(crate) const DAYS: u32 = 365;
    /// The default number of rows: some 30 MB.
    pub(crate) const ROWS: u64 = 100_000;

    /// A limit of this many days and rows.
    pub(crate) fn new(days: u32, rows: u64) -> Self {
        Self { age: SignedDuration::from_hours(i64::from(days) * 24), count: rows }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::new(Self::DAYS, Self::ROWS)
    }
}

/// The log. Clones share it.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    clock: Clock,
    retention: Retention,
    shares: Arc<Mutex<Shares>>,
    refusals: Arc<Refusals>,
}

impl Audit {
    /// Opens the log in this store.
    pub fn load(store: &Store, clock: Clock, retention: Retention) -> Result<Self> {
        let shares = Arc::new(Mutex::new(Shares::load(store)?));
        Ok(Self { store: store.clone(), clock, retention, shares, refusals: Arc::default() })
    }

    /// The clock by which rows are dated; what is written beside them is dated by it too.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Does a mutation with `work` and keeps a row of it: together with what the [`Deed`] writes if it succeeds, on its
    /// own if not. A read-only credential may do no mutation.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Denied`] for a read-only credential.
    pub(crate) async fn perform<T, F>(
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
            // A mutation that changes nothing in the store, such as a test of a connection, has written no row yet.
            Ok(_) if !deed.is_written() => match deed.write(|_| Ok(())).await {
                // The trouble itself calls for this mutation, so it is done all the same; its row is written later.
                Err(why @ Error::Unavailable(_)) if UNKEPT.contains(&action) => {
                    deed.keep_later(None, &why).await;
                }
                written => written?,
            },
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

    /// Keeps a row of an event that is no caller's mutation: an attempt to sign in, a sign-out. `email` is the account
    /// that was named, whether it exists or not.
    pub(crate) fn note(
        &self,
        writer: &mut Writer,
        email: &str,
        user: Option<UserId>,
        address: Option<IpAddr>,
        action: &str,
        result: &Result<()>,
    ) -> Result<()> {
        let entry = self.blank(user, email, "password", address, action, email);
        self.noted(writer, entry, result.as_ref().err())
    }

    /// Keeps a row of an attempt to make the first super-admin through the server's link.
    pub(crate) fn set_up(
        &self,
        writer: &mut Writer,
        email: &str,
        user: Option<UserId>,
        address: Option<IpAddr>,
        result: &Result<()>,
    ) -> Result<()> {
        let entry = self.blank(user, email, "set-up link", address, "set_up", email);
        self.noted(writer, entry, result.as_ref().err())
    }

    /// Keeps a row of an agent that joined, within the transaction that lets it in.
    pub(crate) fn joined(
        &self,
        writer: &mut Writer,
        agent: &str,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<()> {
        let credential = format!("join token {token}");
        self.noted(writer, self.blank(None, "", &credential, address, "join_agent", agent), None)
    }

    /// The newest rows that match the search, at most `limit`, and whether there may be more. For super-admins.
    pub(crate) async fn search(
        &self,
        caller: &Caller,
        search: Search,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool)> {
        caller.require_superadmin("audit_log")?;
        let limit = limit.clamp(1, MAX_PAGE);
        // The result must include the latest refusals. Where nothing can be written, the rows can still be read.
        if let Err(why) = self.save().await {
            tracing::debug!(%why, "the audit log is read without those who were refused just now");
        }
        self.store
            .read(move |r| {
                let mut found = Vec::new();
                let from = search.before.map(|number| number.saturating_sub(1).to_be_bytes());
                if search.before == Some(0) {
                    return Ok((found, false));
                }
                r.scan_back(&ENTRIES, from.as_ref().map(<[u8; 8]>::as_slice), |entry: Entry| {
                    if search.is_past(&entry) {
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

    /// Writes the refusals that are only counted so far, again and again, until shutdown.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let mut came = self.refusals.came.follow();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = came.changed() => {}
            }
            pause(EVERY, &shutdown).await;
            self.refusals.next_second();
            if let Err(why) = self.save().await {
                tracing::warn!(%why, "the audit log could not take what was refused; it is tried again");
                pause(AGAIN, &shutdown).await;
                self.refusals.came.raise();
            }
        }
    }

    /// Writes the refusals that are only counted so far.
    pub(crate) async fn save(&self) -> Result<()> {
        let _turn = self.refusals.turn.lock().await;
        let now = self.clock.steady();
        let waiting = self.refusals.take(now);
        if waiting.is_empty() {
            return Ok(());
        }
        let (audit, counted) = (self.clone(), waiting.clone());
        let saved = self.store.write(move |w| {
            let mut rows = Vec::with_capacity(counted.len());
            let mut fresh = Vec::new();
            for Waiting { like, row, more } in counted {
                match row {
                    Some(number) if Self::count_in(w, number, &more)? => rows.push((like, number)),
                    _ => fresh.push((like, more)),
                }
            }
            let (likes, entries): (Vec<_>, Vec<_>) = fresh.into_iter().unzip();
            rows.extend(likes.into_iter().zip(audit.append(w, entries)?));
            w.on_commit(move || audit.refusals.written(rows, now));
            Ok(())
        });
        let saved = saved.await;
        if saved.is_err() {
            self.refusals.give_back(waiting, now);
        }
        saved
    }

    fn entry(&self, caller: &Caller, action: &str, target: &str) -> Entry {
        let origin = &caller.origin;
        let credential = origin.credential.to_string();
        let entry = self.blank(Some(caller.user), "", &credential, origin.address, action, target);
        Entry { email: caller.email.clone(), ..entry }
    }

    fn blank(
        &self,
        user: Option<UserId>,
        email: &str,
        credential: &str,
        address: Option<IpAddr>,
        action: &str,
        target: &str,
    ) -> Entry {
        Entry {
            number: 0,
            at: self.clock.stamp(),
            user,
            email: shown(email),
            credential: credential.into(),
            address,
            action: action.into(),
            target: shown(target),
            outcome: Outcome::Done,
            reason: None,
            count: 1,
            last: None,
            other_targets: false,
        }
    }

    /// Adds a row in the transaction of the event it records; counts a refusal in the row for its kind, if there is
    /// one.
    fn noted(&self, writer: &mut Writer, entry: Entry, error: Option<&Error>) -> Result<()> {
        let entry = entry.ended(error);
        let Some(error) = error else { return self.append(writer, vec![entry]).map(drop) };
        let (like, now) = (Likeness::of(&entry, error), self.clock.steady());
        if let Some(number) = self.refusals.row_of(&like, now)
            && Self::count_in(writer, number, &entry)?
        {
            return Ok(());
        }
        let rows = self.append(writer, vec![entry])?;
        let refusals = Arc::clone(&self.refusals);
        writer.on_commit(move || {
            refusals.written(rows.into_iter().map(|row| (like.clone(), row)).collect(), now);
        });
        Ok(())
    }

    /// Counts a refusal in the row of this number, if that row still exists.
    fn count_in(writer: &mut Writer, number: u64, more: &Entry) -> Result<bool> {
        let Some(row) = writer.find(&ENTRIES, number.to_be_bytes())? else { return Ok(false) };
        writer.put(&ENTRIES, number.to_be_bytes(), &Entry::and(row, more))?;
        Ok(true)
    }

    /// Adds rows, removes rows that are too old or too many, and returns the new rows' numbers.
    fn append(&self, writer: &mut Writer, entries: Vec<Entry>) -> Result<Vec<u64>> {
        let mut shares = self.shares.lock();
        shares.settle(writer)?;
        let mut numbers = Vec::with_capacity(entries.len());
        for entry in entries {
            let last = writer.last::<Entry>(&ENTRIES)?.map_or(0, |entry| entry.number);
            let entry = Entry { number: last + 1, ..entry };
            writer.put(&ENTRIES, entry.number.to_be_bytes(), &entry)?;
            shares.add(writer, Share::of(&entry), entry.number)?;
            self.trim(writer, &mut shares, &entry)?;
            numbers.push(entry.number);
        }
        let shares = Arc::clone(&self.shares);
        writer.on_commit(move || shares.lock().committed());
        Ok(numbers)
    }

    /// Removes rows that are too old, and as many as exceed the limit since this row was added.
    fn trim(&self, writer: &mut Writer, shares: &mut Shares, added: &Entry) -> Result<()> {
        // While the clock is not believed, no row is removed by age.
        let today = self.clock.calendar();
        let too_old = today.and_then(|today| today.checked_sub(self.retention.age).ok());
        let by = Share::of(added);
        for _ in 0..MAX_TRIMMED {
            let Some(first) = writer.first::<Entry>(&ENTRIES)? else { break };
            let is_old = match (today, too_old) {
                (Some(today), Some(too_old)) => Self::written_at(writer, &first, today)? < too_old,
                _ => false,
            };
            let (share, number) = if is_old {
                (Share::of(&first), first.number)
            } else if shares.count() > self.retention.count {
                let is_flood = self.is_flood(writer, shares, &by, added.at)?;
                let Some(oldest) = shares.oldest(is_flood.then_some(&by)) else { break };
                oldest
            } else {
                break;
            };
            if number == added.number {
                break;
            }
            writer.remove(&ENTRIES, number.to_be_bytes())?;
            shares.remove(writer, &share, number)?;
        }
        Ok(())
    }

    /// When this row was written. If its own clock was ahead, the rows after it tell.
    fn written_at(writer: &Writer, row: &Entry, today: Timestamp) -> Result<Timestamp> {
        let is_ahead = |at: Timestamp| at.duration_since(today) > A_DAY;
        if is_ahead(row.at) {
            for number in (row.number..).take(LOOKED_BEHIND).skip(1) {
                let next: Option<Entry> = writer.find(&ENTRIES, number.to_be_bytes())?;
                if let Some(next) = next.filter(|next| !is_ahead(next.at)) {
                    return Ok(next.at);
                }
            }
            // All of these were ahead: the last row of the log tells whether the clock has been right since.
            let last: Option<Entry> = writer.last(&ENTRIES)?;
            if let Some(last) = last.filter(|last| !is_ahead(last.at)) {
                return Ok(last.at);
            }
        }
        Ok(row.at)
    }

    /// Whether this share has added very many rows within a day.
    fn is_flood(&self, writer: &Writer, shares: &Shares, by: &Share, now: Timestamp) -> Result<bool> {
        let most = usize::try_from(self.retention.count / MOST_A_DAY).unwrap_or(usize::MAX).max(1);
        let Some(number) = shares.back(by, most) else { return Ok(false) };
        let row: Option<Entry> = writer.find(&ENTRIES, number.to_be_bytes())?;
        Ok(row.is_some_and(|row| now.duration_since(row.at) < A_DAY))
    }
}

async fn pause(time: std::time::Duration, shutdown: &CancellationToken) {
    let _ = tokio::time::timeout(time, shutdown.cancelled()).await;
}

/// A mutation in progress, and the row it will leave.
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

    /// Runs `work` and writes the row in one transaction: when this returns, both are kept or neither.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T>
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
                    deed.audit.append(w, vec![deed.entry.as_ref().clone()])?;
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

    /// Keeps a row of a mutation that changed nothing, or counts it in an existing row. If that can't be written
    /// either, as on a full disk, the caller is still told the first error.
    async fn failed(&self, error: &Error) {
        // If the commit reported a failure but was kept all the same, the row exists already.
        if !self.is_written() {
            self.keep_later(Some(error), error).await;
        }
    }

    /// Keeps a row of a mutation that ended like this, as soon as one can be written; rows of one kind are counted in
    /// one.
    async fn keep_later(&self, end: Option<&Error>, error: &Error) {
        let entry = self.entry.as_ref().clone().ended(end);
        let (action, like) = (entry.action.clone(), Likeness::of(&entry, error));
        let audit = &self.audit;
        if audit.refusals.count(like, entry, audit.clock.steady())
            && let Err(why) = audit.save().await
        {
            tracing::error!(action, %error, %why, "the audit log can't take a row yet");
        }
    }
}
