//! Where an engine that has no client of its own gets an image from.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::base::digest::Digest;
use crate::engine::fault::Fault;

/// One repository of a registry. It sees to connections, credentials and retries; the engine sees to the digests.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// The manifest of a tag or digest, of a few MiB at most.
    async fn manifest(&self, reference: &str) -> Result<Document, Fault>;

    /// Opens a blob of `size` bytes, preferably at byte `from`.
    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault>;
}

/// A manifest as it was served.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it says it is, or was said to be.
    pub media_type: String,
    /// Exactly as served.
    pub bytes: Vec<u8>,
}

/// A blob on its way.
pub struct Flow {
    /// The place of the first byte in the blob: as asked for, or 0.
    pub from: u64,
    /// The bytes, in pieces of bounded size. A fault that [may pass](Fault::is_transient) ends this flow; another one
    /// may be opened where it ended.
    pub pieces: BoxStream<'static, Result<Bytes, Fault>>,
}
