//! Work that outlives the request that asked for it: kept in the store item by item, followed live, resumed after a
//! crash under the same id.

pub(crate) mod feed;
mod items;
pub mod live;
pub mod queue;
pub mod task;
pub(crate) mod totals;
pub mod worker;
