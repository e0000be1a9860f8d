//! Where an image's bytes come from, both on the manager and on machines that dial in.
//!
//! A [`chain`] asks peers first and the registry last. A [`repository`] reads from either, and [`peer`] connects to a
//! peer. A [`cache`] keeps what passes. [`grants`] decide who may have which image from us, [`hand_out`] answers them,
//! and [`server`] is where they ask: peers, and by the [`relay`] the engines of this machine. A [`relayed`] engine
//! takes its images from the nearest of all these.

pub(crate) mod cache;
pub(crate) mod chain;
pub(crate) mod file;
pub(crate) mod grants;
pub(crate) mod hand_out;
pub(crate) mod peer;
pub(crate) mod relay;
pub(crate) mod relayed;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod verified;
