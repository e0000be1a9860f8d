//! From the catalog to agents and off them: plan who needs what, and follow it to the end.

mod limits;
pub mod peers;
pub mod plan;
mod seeding;
pub mod service;
mod source;
mod work;
pub mod worker;
