//! The agent on another machine: it dials in to its manager, reports what its engine holds, and does what it is
//! asked.
//!
//! [`run`] dials again and again; [`session`] is one link; [`holdings`] follows the engine and [`pulls`] fetches
//! images, both with or without a link. An engine without its own registry client fetches through [`registries`] or
//! from peers, and [`peer_server`] serves peers.

pub(crate) mod dial;
pub(crate) mod holdings;
pub(crate) mod peer_server;
pub(crate) mod pulls;
pub(crate) mod registries;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod state;
