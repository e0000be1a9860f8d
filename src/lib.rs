//! wharf keeps a catalog of container images read from registries, decides which users may see which images, and loads
//! and unloads images on the nodes of a lab.
//!
//! The modules stand on floors; each imports only from lower floors, by full path (`tests/architecture.rs` checks this):
//!
//! ```text
//! main
//! cli
//! server  demo
//! http
//! graphql
//! retention
//! rules
//! scan  transfer
//! tasks  catalog  fleet
//! access  agent
//! wire  sources
//! store  registry  engine  config
//! base
//! ```

// async-graphql nests the future of a schema one level for each domain; an optimized build follows all levels.
#![recursion_limit = "256"]

pub mod access;
pub(crate) mod agent;
pub mod base;
pub mod catalog;
pub mod cli;
pub(crate) mod config;
pub(crate) mod demo;
pub mod engine;
pub mod fleet;
pub mod graphql;
pub mod http;
pub(crate) mod registry;
pub(crate) mod retention;
pub(crate) mod rules;
pub(crate) mod scan;
pub mod server;
pub(crate) mod sources;
pub mod store;
pub mod tasks;
pub(crate) mod transfer;
pub mod wire;
