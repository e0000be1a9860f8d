//! The REST API that Backend.AI's clients since 26.4 have besides GraphQL, as far as it concerns images, their
//! aliases and registries. As in Backend.AI, everything is for super-admins.

pub(crate) mod aliases;
pub(crate) mod filter;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod page;
pub(crate) mod registries;
