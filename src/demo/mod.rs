//! What `wharf demo` shows wharf with: a registry in memory that speaks the real protocol, with images that a lab
//! would have, some of them broken on purpose.

pub mod content;
pub mod images;
pub mod node;
pub mod registry;
