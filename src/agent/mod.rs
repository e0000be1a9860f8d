//! A machine that dials in to its manager: it tells what its engine holds, and does what it is asked.
//!
//! [`run`] dials, again and again; [`session`] is one link; [`holdings`] follows the engine and [`pulls`] lets images be
//! fetched, both whether there is a link or not. An engine that has no client of its own goes to [`registries`] or peers, and
//! [`peer_server`] lets peers in.

pub mod dial;
pub mod holdings;
pub mod peer_server;
pub mod pulls;
pub mod registries;
pub mod run;
pub mod session;
pub mod state;
