//! Similar refusals are counted in one row.
//!
//! The first is written at once. Later ones are counted in memory and written together once a second: they have changed
//! nothing, and a client that causes many must not keep others from writing. `kill -9` loses the count of the refusals
//! of the last second.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::audit::entry::{Entry, Outcome, RUN};
use crate::access::audit::shares::Share;
use crate::base::Error;
use crate::base::signal::Signal;

/// How often the counts are written.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How many new kinds of refusals of one share are written at once; further ones wait for [`EVERY`]. A person causes no
/// more in a second.
const AT_ONCE: u32 = 4;
/// How many kinds of refusals are counted at a time; each takes some hundred bytes.
const MAX_OPEN: usize = 4_096;

/// What similar refusals have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Likeness {
    share: Share,
    email: String,
    credential: String,
    address: Option<std::net::IpAddr>,
    action: String,
    outcome: Outcome,
    kind: (Discriminant<Error>, &'static str),
}

impl Likeness {
    /// The kind of this refusal.
    pub(super) fn of(entry: &Entry, error: &Error) -> Self {
        let about = match error {
            Error::Missing { kind, .. } => kind,
            Error::Invalid { field, .. } => field,
            _ => "",
        };
        Self {
            share: Share::of(entry),
            email: entry.email.to_lowercase(),
            credential: entry.credential.clone(),
            address: entry.address,
            action: entry.action.clone(),
            outcome: entry.outcome,
            kind: (discriminant(error), about),
        }
    }
}

/// A row that further refusals are counted in.
struct Run {
    began: Instant,
    /// The row's number, once it is written.
    row: Option<u64>,
    /// The refusals that are not written yet.
    more: Option<Entry>,
}

impl Run {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= RUN.unsigned_abs()
    }
}

/// A count to be written: into the row of this number, if there is one already.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) like: Likeness,
    pub(super) row: Option<u64>,
    pub(super) more: Entry,
}

/// The refusals that are being counted.
#[derive(Default)]
pub(super) struct Refusals {
    open: Mutex<Open>,
    /// Raised at every refusal.
    pub(super) came: Signal,
    /// Held while counts are written.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Open {
    runs: HashMap<Likeness, Run>,
    /// How many kinds of each share were written at once in the present second.
    at_once: HashMap<Share, u32>,
}

impl Refusals {
    /// Counts a refusal; returns whether it must be written at once.
    pub(super) fn count(&self, like: Likeness, entry: Entry, now: Instant) -> bool {
        self.came.raise();
        let mut open = self.open.lock();
        if let Some(run) = open.runs.get_mut(&like)
            && (run.more.is_some() || !run.is_over(now))
        {
            run.more = Some(match run.more.take() {
                Some(before) => before.and(&entry),
                None => entry,
            });
            return false;
        }
        open.make_room();
        let is_full = open.runs.len() >= MAX_OPEN;
        let at_once = open.at_once.entry(like.share.clone()).or_default();
        *at_once += 1;
        let is_at_once = *at_once <= AT_ONCE || is_full;
        open.runs.insert(like, Run { began: now, row: None, more: Some(entry) });
        is_at_once
    }

    /// The row that refusals of this kind are counted in, if it is written.
    pub(super) fn row_of(&self, like: &Likeness, now: Instant) -> Option<u64> {
        self.open.lock().runs.get(like).filter(|run| !run.is_over(now))?.row
    }

    /// Takes the counts that are to be written now.
    pub(super) fn take(&self, now: Instant) -> Vec<Waiting> {
        let mut open = self.open.lock();
        open.runs.retain(|_, run| run.more.is_some() || !run.is_over(now));
        let waiting = open.runs.iter_mut().filter_map(|(like, run)| {
            run.more.take().map(|more| Waiting { like: like.clone(), row: run.row, more })
        });
        waiting.collect()
    }

    /// Records the rows of the refusals that were written.
    pub(super) fn written(&self, rows: Vec<(Likeness, u64)>, now: Instant) {
        let mut open = self.open.lock();
        for (like, row) in rows {
            open.make_room();
            open.runs.entry(like).or_insert(Run { began: now, row: None, more: None }).row = Some(row);
        }
    }

    /// Takes back counts that could not be written, to try again.
    pub(super) fn give_back(&self, waiting: Vec<Waiting>, now: Instant) {
        let mut open = self.open.lock();
        for Waiting { like, row, more } in waiting {
            let run = open.runs.entry(like).or_insert(Run { began: now, row, more: None });
            run.more = Some(match run.more.take() {
                Some(later) => more.and(&later),
                None => more,
            });
        }
    }

    /// Starts the next second: each share may have some refusals written at once again.
    pub(super) fn next_second(&self) {
        self.open.lock().at_once.clear();
    }
}

impl Open {
    /// If there are too many kinds, stops counting in rows that are written; their next refusals get new rows.
    fn make_room(&mut self) {
        if self.runs.len() >= MAX_OPEN {
            self.runs.retain(|_, run| run.more.is_some());
        }
    }
}
