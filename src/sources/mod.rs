//! Where the built-in engine's bytes come from, on the manager and on machines that dial in alike.
//!
//! A [`chain`] asks peers first and the registry last. A [`repository`] is what either has, [`peer`] the way to one.
//! [`grants`] say who may have which image from us, and [`hand_out`] answers them.

pub(crate) mod chain;
pub(crate) mod grants;
pub(crate) mod hand_out;
pub(crate) mod peer;
pub(crate) mod repository;
