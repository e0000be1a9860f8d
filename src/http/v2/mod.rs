//! The REST API that Backend.AI's clients since 26.4 have besides GraphQL, as far as it is about images, their aliases and
//! registries. Everything is for super-admins, as it is there.

pub mod aliases;
pub mod filter;
pub mod image;
pub mod images;
pub mod page;
pub mod registries;
