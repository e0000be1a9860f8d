//! Requests that have been sent and have no answer yet, so that users can see what a task waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::registry::ask::Ask;

/// A request that waits for the head of its answer. It prints as one line for people.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    /// What the request is for, for instance `tags of lab/python`.
    pub(crate) doing: String,
    /// How long it has waited.
    pub(crate) lasting: Duration,
    /// How long it may wait.
    pub(crate) deadline: Duration,
    /// How many times it is tried before it fails.
    pub(crate) tries: u32,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lasting, deadline) = (self.lasting.as_secs(), self.deadline.as_secs());
        let Self { doing, tries, .. } = self;
        write!(f, "{doing}: no answer for {lasting} s; it is waited for {deadline} s, {tries} times at most")
    }
}

/// The waiting requests, the earliest first.
#[derive(Default)]
pub(crate) struct Waits(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, (String, Instant, Duration)>,
}

/// A waiting request; it stops waiting when this is dropped.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Waits {
    /// Notes that a request is sent.
    pub(crate) fn begin(&self, ask: &Ask) -> Waiting<'_> {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, (ask.doing.clone(), Instant::now(), ask.header_deadline));
        Waiting { waits: self, number }
    }

    /// The request that has waited longest.
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
