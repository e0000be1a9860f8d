//! What every GraphQL file uses: faults, lists written straight to JSON, what filters, orders and pages them, payloads,
//! scalars, and what clients of different ages need.

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
