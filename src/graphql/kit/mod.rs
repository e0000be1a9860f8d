//! What every GraphQL file uses: faults, lists written straight to JSON, scalars.

pub mod answer;
pub mod fault;
pub mod rows;
pub mod scalar;
