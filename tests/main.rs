//! The integration tests: the real `wharf` binary, beside real registries and the official clients.
//!
//! One binary, so it links once. Every test has its own server, directory and ports, so all of them run at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test that meets a surprise should stop there and then; and nothing here is an API"
)]

mod agentset;
mod architecture;
mod audit;
mod auth;
mod cli;
mod cli_agents;
mod clients;
mod crash;
mod disk;
mod engine;
mod followers;
mod harness;
mod hostile;
mod limits;
mod links;
mod mistakes;
mod scan;
mod seed;
mod serve;
mod support;
mod tasks;
mod transfers;
