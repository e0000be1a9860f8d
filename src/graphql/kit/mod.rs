//! What every GraphQL file uses: faults, lists, pages and payloads, scalars, and what clients of different ages need.

pub mod answer;
pub mod dialect;
pub mod fault;
pub mod limit;
pub mod listing;
pub mod outcome;
pub mod rows;
pub mod scalar;
