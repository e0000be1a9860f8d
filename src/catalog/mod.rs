//! What exists: registries, the images read from them, and the other names they go by.

pub mod clients;
pub mod collect;
pub mod describe;
pub mod image;
pub mod index;
pub mod labels;
pub mod lookup;
pub mod records;
pub mod registries;
pub mod registry;
pub mod service;
mod written;
