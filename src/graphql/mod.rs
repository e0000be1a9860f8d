//! The GraphQL API: Backend.AI's names and shapes over the services.
//!
//! Each file holds one domain: its types, queries and mutations. Resolvers parse, ask a service, and wrap the answer;
//! who may do what is the services' business.

pub mod agents;
pub mod associations;
pub mod audit;
pub mod domains;
pub mod explain;
pub mod groups;
pub mod health;
pub mod image_fields;
pub mod image_nodes;
pub mod images;
pub mod joins;
pub mod keypairs;
pub mod kit;
pub mod policies;
pub mod presence;
pub mod registries;
pub mod rules;
pub mod scaling_groups;
pub mod schema;
pub mod sessions;
pub mod spec;
pub mod tasks;
pub mod tokens;
pub mod transfers;
pub mod users;
