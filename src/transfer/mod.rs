//! Loads images onto agents and removes them: plans which agent needs what, makes room, and follows the work to the end.

pub(crate) mod demand;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod leaving;
mod limits;
mod making_room;
pub(crate) mod peers;
pub(crate) mod pins;
pub(crate) mod plan;
mod removal;
pub(crate) mod residents;
pub(crate) mod room;
pub(crate) mod rooms;
mod seeding;
pub(crate) mod service;
mod source;
mod work;
pub(crate) mod worker;
