//! Loads images onto agents and removes them: plans which agent needs what, and follows the work to the end.

pub(crate) mod explain;
pub(crate) mod history;
mod limits;
pub(crate) mod peers;
pub(crate) mod plan;
mod removal;
mod seeding;
pub(crate) mod service;
mod source;
mod work;
pub(crate) mod worker;
