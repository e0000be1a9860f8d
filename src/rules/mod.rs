//! Standing preloads: rules that say which images are to be on which agents, and when they may be brought there.
//!
//! A rule is looked at again whenever something changed: an agent came, a tag moved, a window opened. What its agents
//! lack is found (`survey`, `diff`), what of it can begin now is chosen (`schedule`), both without I/O, and ordinary preload tasks are
//! made of it (`round`). A rule takes nothing off an agent, and what has begun goes on when its window closes.

pub(crate) mod backoff;
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

#[cfg(test)]
mod tests;
