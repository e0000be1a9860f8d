//! Access: who is asking, and what they may see.

pub mod accounts;
pub mod audit;
pub(crate) mod bucket;
pub mod caller;
pub(crate) mod directory;
pub(crate) mod explain;
pub mod first_admin;
pub(crate) mod generate;
pub mod hasher;
pub(crate) mod joins;
pub(crate) mod names;
pub(crate) mod rates;
pub mod replays;
pub mod sessions;
pub(crate) mod set_up;
pub(crate) mod shares;
pub(crate) mod sign_in;
pub mod signature;
pub mod tenants;
pub(crate) mod throttle;
pub(crate) mod tokens;
pub(crate) mod user;
pub mod visibility;
