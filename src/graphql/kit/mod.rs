//! What every GraphQL file uses: faults, lists written straight to JSON, what filters, orders and pages them, scalars.

pub mod answer;
pub mod fault;
pub mod field;
pub mod filter;
pub mod like;
pub mod limit;
pub mod order;
pub mod page;
pub mod parser;
pub mod rows;
pub mod scalar;
