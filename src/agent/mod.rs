//! A machine that dials in to its manager: it tells what its engine holds, and does what it is asked.
//!
//! [`run`] dials, again and again; [`session`] is one link; [`holdings`] follows the engine and [`pulls`] lets images be
//! fetched, both whether there is a link or not.

pub mod dial;
pub mod holdings;
pub mod pulls;
pub mod run;
pub mod session;
pub mod state;
