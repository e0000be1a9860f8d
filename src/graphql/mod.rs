//! The GraphQL API: Backend.AI's names and shapes over the services.
//!
//! Each file holds one domain: its types, queries and mutations. Resolvers parse, ask a service, and wrap the answer;
//! who may do what is the services' business.

pub mod agents;
pub mod audit;
pub mod images;
pub mod joins;
pub mod kit;
pub mod registries;
pub mod schema;
pub mod tasks;
pub mod transfers;
