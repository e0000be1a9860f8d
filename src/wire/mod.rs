//! The protocol between manager and agent: versioned, small, bounded. `docs/agent-protocol.md` is the specification.
//!
//! Messages are JSON in WebSocket text frames, one message per frame: any tool can show them, and each side ignores
//! fields it does not know. The agent dials; after [`message::Hello`] and [`message::Welcome`] either side sends a
//! message when it has something to say. WebSocket pings are the heartbeat.

pub(crate) mod convert;
pub mod image;
pub mod message;
pub mod socket;

/// The versions of the protocol this program speaks.
pub(crate) const VERSIONS: [u32; 1] = [1];

/// The path of the link on the manager's HTTP server.
pub const PATH: &str = "/agents/link";

/// Largest first message, in bytes: its sender has proved nothing yet.
pub(crate) const MAX_HELLO: usize = 16 * 1024;
/// Largest message, in bytes. A report is split into several messages.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// A part of a report ends when it has this many bytes, by estimate.
pub(crate) const PART: usize = 256 * 1024;
/// Most images an agent reports; Docker becomes slow long before that.
pub(crate) const MAX_IMAGES: usize = 20_000;
/// Most names, and most manifests, of one image.
pub const MAX_NAMES: usize = 128;
/// Most platforms of an index that an agent may say it has.
pub(crate) const MAX_PARTS: usize = 32;
/// Longest name, label or id, in bytes: a reference has at most 255 + 128, plus the registry's host.
pub(crate) const MAX_TEXT: usize = 1024;
/// Largest bundle of certificates sent with a pull, in bytes; one certificate has about two thousand.
pub(crate) const MAX_CA: usize = 256 * 1024;
/// Most layers named with a pull (Docker takes 127 in an image).
pub(crate) const MAX_LAYERS: usize = 1_000;
/// Most peers named with a pull.
pub(crate) const MAX_PEERS: usize = 8;
/// Most requests an agent works on at once, and most pulls it keeps track of.
pub(crate) const MAX_AT_ONCE: usize = 64;
