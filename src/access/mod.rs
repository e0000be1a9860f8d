//! Who is asking, and what they may see.

pub mod accounts;
pub mod caller;
pub mod explain;
pub mod password;
pub mod signature;
pub mod tenants;
pub mod visibility;
