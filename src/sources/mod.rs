//! Where the built-in engine takes an image's bytes from, both on the manager and on machines that dial in.
//!
//! A [`chain`] asks peers first and the registry last. A [`repository`] reads from either, and [`peer`] connects to a
//! peer. [`grants`] decide which peer may have which image from us, and [`hand_out`] answers peers.

pub(crate) mod chain;
pub(crate) mod grants;
pub(crate) mod hand_out;
pub(crate) mod peer;
pub(crate) mod repository;
