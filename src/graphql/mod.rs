//! The GraphQL API: Backend.AI's names and shapes over the services.
//!
//! Each file holds one subject: its types, queries and mutations. Resolvers parse arguments, call a service, and wrap
//! its result; the services decide who may do what.

#![expect(clippy::unused_async, reason = "async-graphql takes resolvers that are async, and no others")]

pub(crate) mod agents;
pub(crate) mod associations;
pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod domains;
pub(crate) mod explain;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod image_fields;
pub(crate) mod image_nodes;
pub(crate) mod images;
pub(crate) mod joins;
pub(crate) mod keypairs;
pub mod kit;
pub(crate) mod policies;
pub(crate) mod presence;
pub(crate) mod registries;
pub(crate) mod retention;
pub(crate) mod room;
pub(crate) mod rules;
pub(crate) mod scaling_groups;
pub(crate) mod schema;
pub(crate) mod sessions;
pub mod spec;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod transfers;
pub(crate) mod users;
