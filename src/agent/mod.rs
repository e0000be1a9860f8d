//! A machine that dials in to its manager: it tells what its engine holds, and does what it is asked.
//!
//! [`run`] dials, again and again; [`session`] is one link; [`holdings`] follows the engine and [`pulls`] lets images be
//! fetched, both whether there is a link or not. An engine that has no client of its own goes to [`registries`] or peers, and
//! [`peer_server`] lets peers in.

pub(crate) mod dial;
pub(crate) mod holdings;
pub(crate) mod peer_server;
pub(crate) mod pulls;
pub(crate) mod registries;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod state;
