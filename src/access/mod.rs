//! Who is asking, and what they may see.

pub mod accounts;
pub mod audit;
pub mod bucket;
pub mod caller;
pub mod directory;
pub mod explain;
pub mod first_admin;
pub mod generate;
pub mod hasher;
pub mod joins;
pub mod names;
pub mod rates;
pub mod replays;
pub mod sessions;
pub mod set_up;
pub mod shares;
pub mod sign_in;
pub mod signature;
pub mod tenants;
pub mod throttle;
pub mod tokens;
pub mod user;
pub mod visibility;
