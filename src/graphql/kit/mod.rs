//! What all GraphQL files share: faults, lists written straight to JSON, filters, orders, pages, payloads, scalars,
//! and the dialects of older clients.

pub mod answer;
pub(crate) mod dialect;
pub(crate) mod fault;
pub(crate) mod field;
pub(crate) mod filter;
pub(crate) mod like;
pub(crate) mod limit;
pub(crate) mod listing;
pub(crate) mod order;
pub(crate) mod outcome;
pub(crate) mod page;
pub(crate) mod parser;
pub(crate) mod rows;
pub(crate) mod scalar;
pub(crate) mod text;
