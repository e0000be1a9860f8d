//! Standing preloads: rules that say which images belong on which agents, and when they may be loaded there.
//!
//! All rules are checked again whenever something changed: an agent came, a tag moved, a window opened. A round works
//! out what the agents lack (`survey`, `diff`) and chooses what can begin now (`schedule`), both without I/O, and
//! makes ordinary preload tasks of it (`reconcile`). A rule never removes anything from an agent, and what has begun
//! continues when its window closes.

pub(crate) mod backoff;
pub(crate) mod book;
mod claims;
pub(crate) mod diff;
mod memory;
mod next;
pub(crate) mod pattern;
mod reconcile;
pub(crate) mod rule;
pub(crate) mod schedule;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod survey;
mod watched;
pub(crate) mod window;
mod wishes;

#[cfg(test)]
mod tests;
