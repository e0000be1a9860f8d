//! What manager and agent say to each other: versioned, small, bounded. `docs/agent-protocol.md` is the specification.
//!
//! Messages are JSON in WebSocket text frames, one message a frame: any tool can show them, and a field that one side
//! does not know is passed over. The agent dials; after [`message::Hello`] and [`message::Welcome`] both sides speak
//! when they have something to say. WebSocket pings are the heartbeat.

pub(crate) mod convert;
pub mod image;
pub mod message;
pub mod socket;

/// The versions of the protocol this program speaks.
pub(crate) const VERSIONS: [u32; 1] = [1];

/// The path of the link on the manager.
pub const PATH: &str = "/agents/link";

/// Largest first message, in bytes: it comes from somebody who has proved nothing yet.
pub(crate) const MAX_HELLO: usize = 16 * 1024;
/// Largest message, in bytes. A report is split into several.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// A part of a report is closed when it has so many bytes, by estimate.
pub(crate) const PART: usize = 256 * 1024;
/// Most images an agent tells of; Docker slows down long before.
pub(crate) const MAX_IMAGES: usize = 20_000;
/// Most names of one image, and most manifests.
pub const MAX_NAMES: usize = 128;
/// Longest name, label or id, in bytes: a reference has 255 + 128 at most, and a registry's host.
pub(crate) const MAX_TEXT: usize = 1024;
/// Largest bundle of certificates sent with a pull, in bytes; one certificate has two thousand.
pub(crate) const MAX_CA: usize = 256 * 1024;
/// Most layers named with a pull (Docker takes 127 in an image).
pub(crate) const MAX_LAYERS: usize = 1_000;
/// Most peers named with a pull.
pub(crate) const MAX_PEERS: usize = 8;
/// Requests an agent works on at once, and pulls it knows of.
pub(crate) const MAX_AT_ONCE: usize = 64;
