//! The integration tests: the real `wharf` binary, beside real registries and the official clients.
//!
//! One binary, so it is linked once. Every test has its own server, directory and ports, so all tests run at once.

// async-graphql nests the future of a schema as deep as it has domains; an optimized build follows it down.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::missing_docs_in_private_items,
    unreachable_pub,
    reason = "a test that meets a surprise should stop there and then; and nothing here is an API"
)]

mod agentset;
mod aliases;
mod api_tokens;
mod architecture;
mod attack;
mod audit;
mod auth;
mod backup;
mod bad_days;
mod browsers;
mod changes;
mod claims;
mod cli;
mod cli_admin;
mod cli_agents;
mod clients;
mod clients_session;
mod clock;
mod codes;
mod contents;
mod crash;
mod credentials;
mod damage;
mod demo;
mod disk;
mod docs;
mod doctor;
mod documents;
mod engine;
mod execution;
mod fleet;
mod followers;
mod guessing;
mod harness;
mod hostile;
mod http_config;
mod limits;
mod links;
mod locks;
mod mistakes;
mod mixed;
mod names;
mod oci;
mod origin;
mod outbound;
mod permissions;
mod proxied;
mod redaction;
mod released;
mod removal;
mod replays;
mod rest;
mod room;
mod rules;
mod scan;
mod seed;
mod serve;
mod sessions;
mod set_up;
mod support;
mod surfaces;
mod tasks;
mod tenants;
mod transfers;
mod ui;
mod users;
mod visibility;
