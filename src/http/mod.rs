//! The HTTP surface: who is asking, what a path means, how an answer travels.

pub mod agents;
pub mod backup;
pub mod body;
pub mod browser;
pub mod caller;
pub mod config;
pub mod connections;
pub mod events;
pub mod finish;
pub mod func;
pub mod graphql;
pub mod guard;
pub mod health;
pub mod hello;
pub mod json;
pub mod keys;
pub mod peer;
pub mod problem;
pub mod refusals;
pub mod resources;
pub mod routes;
pub mod sessions;
pub mod set_up;
pub mod ui;
pub mod v2;
