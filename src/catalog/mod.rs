//! What exists: registries, the images read from them, and the other names they go by.

pub(crate) mod changes;
pub(crate) mod clients;
pub(crate) mod collect;
mod contents;
pub(crate) mod describe;
pub(crate) mod history;
pub mod image;
pub(crate) mod index;
pub mod labels;
pub(crate) mod lookup;
pub(crate) mod proxy;
pub mod records;
pub(crate) mod registries;
pub mod registry;
pub(crate) mod secrets;
pub mod service;
mod written;
