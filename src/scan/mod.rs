//! From registries to the catalog: list, compare, write.
//!
//! A rescan is a background task. Its first item lists the registry's repositories; then each repository is a
//! separate item, read and committed as a whole; the last item removes what is gone.

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
