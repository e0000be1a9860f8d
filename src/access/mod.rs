//! Who is asking, and what they may see.

pub mod accounts;
pub mod caller;
pub mod password;
pub mod tenants;
pub mod visibility;
