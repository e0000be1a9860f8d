//! The HTTP surface: who is asking, what a path means, how an answer travels.

pub mod agents;
pub mod caller;
pub mod events;
pub mod graphql;
pub mod guard;
pub mod health;
pub mod hello;
pub mod problem;
pub mod routes;
pub mod ui;
