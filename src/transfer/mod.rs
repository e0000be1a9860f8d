//! From the catalog to agents and off them: plan who needs what, and follow it to the end.

mod limits;
pub(crate) mod peers;
pub(crate) mod plan;
mod seeding;
pub(crate) mod service;
mod source;
mod work;
pub(crate) mod worker;
