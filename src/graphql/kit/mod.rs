//! What every GraphQL file uses: faults, lists written straight to JSON, what filters, orders and pages them, payloads,
//! scalars, and what clients of different ages need.

pub mod answer;
pub mod dialect;
pub mod fault;
pub mod field;
pub mod filter;
pub mod like;
pub mod limit;
pub mod listing;
pub mod order;
pub mod outcome;
pub mod page;
pub mod parser;
pub mod rows;
pub mod scalar;
pub mod text;
