//! Standing preloads: rules that say which images are to be on which agents, and when they may be brought there.
//!
//! A rule is looked at again whenever something changed: an agent came, a tag moved, a window opened. What its agents
//! lack is found (`survey`, `diff`), what of it can begin now is chosen (`schedule`), both without I/O, and ordinary preload tasks are
//! made of it (`round`). A rule takes nothing off an agent, and what has begun goes on when its window closes.

pub mod backoff;
pub mod diff;
mod memory;
mod next;
pub mod pattern;
mod reconcile;
pub mod rule;
pub mod schedule;
pub mod service;
pub mod status;
pub mod survey;
mod watched;
pub mod window;

#[cfg(test)]
mod tests;
