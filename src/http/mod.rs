//! The HTTP surface: who sends a request, what a path means, how an answer travels.

pub(crate) mod agents;
pub(crate) mod backup;
pub(crate) mod body;
pub(crate) mod browser;
pub(crate) mod caller;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod events;
pub(crate) mod finish;
pub(crate) mod func;
pub(crate) mod graphql;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod hello;
pub(crate) mod json;
pub(crate) mod keys;
pub mod peer;
pub(crate) mod problem;
pub(crate) mod refusals;
pub(crate) mod resources;
pub(crate) mod routes;
pub(crate) mod sessions;
pub(crate) mod set_up;
pub(crate) mod ui;
pub(crate) mod v2;
