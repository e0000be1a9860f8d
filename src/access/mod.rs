//! Who is asking, and what they may see.

pub mod accounts;
pub mod audit;
pub mod caller;
pub mod joins;
pub mod names;
pub mod password;
pub mod signature;
pub mod tenants;
pub mod user;
pub mod visibility;
