//! Requests that were sent and have no answer yet, so that whoever waits can be told for what.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::registry::ask::Ask;

/// A request that waits for the head of its answer. It prints as a line for people.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    /// What was asked, for instance `tags of lab/python`.
    pub(crate) doing: String,
    /// For how long there has been no answer.
    pub(crate) lasting: Duration,
    /// How long it is waited for.
    pub(crate) deadline: Duration,
    /// How often it is asked before it is given up.
    pub(crate) tries: u32,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lasting, deadline) = (self.lasting.as_secs(), self.deadline.as_secs());
        let Self { doing, tries, .. } = self;
        write!(f, "{doing}: no answer for {lasting} s; it is waited for {deadline} s, {tries} times at most")
    }
}

/// Those that wait, the earliest first.
#[derive(Default)]
pub(crate) struct Waits(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, (String, Instant, Duration)>,
}

/// One that waits, until this is dropped.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Waits {
    /// A request is sent.
    pub(crate) fn begin(&self, ask: &Ask) -> Waiting<'_> {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, (ask.doing.clone(), Instant::now(), ask.header_deadline));
        Waiting { waits: self, number }
    }

    /// The one that waits for longest.
    pub(crate) fn longest(&self, tries: u32) -> Option<Silence> {
        let state = self.0.lock();
        let (doing, since, deadline) = state.waiting.values().next()?;
        Some(Silence { doing: doing.clone(), lasting: since.elapsed(), deadline: *deadline, tries })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.0.lock().waiting.remove(&self.number);
    }
}
