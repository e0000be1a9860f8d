//! What `wharf demo` shows: a registry in memory that speaks the real protocol, with images that a lab would have,
//! some of them deliberately broken.

pub(crate) mod content;
pub(crate) mod images;
pub(crate) mod node;
pub(crate) mod registry;
