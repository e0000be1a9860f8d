//! From registries to the catalog: list, compare, write.
//!
//! A rescan is a background task. Its first item lists the registry's repositories, then each repository is an item of
//! its own, read and committed whole, and the last one removes what is gone.

pub(crate) mod collector;
mod concurrent_reads;
mod content;
mod removal;
mod repository;
pub(crate) mod service;
mod session;
mod sweep;
mod work;
pub(crate) mod worker;
