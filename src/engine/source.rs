//! Where an engine that has no client of its own gets an image from.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use url::Url;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::fault::Fault;

/// One repository of a registry. It sees to connections, credentials and retries; the engine sees to the digests.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// The manifest of a tag or digest, of a few MiB at most.
    async fn manifest(&self, reference: &str) -> Result<Document, Fault>;

    /// Opens a blob of `size` bytes, preferably at byte `from`.
    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault>;

    /// Hears that the bytes of this blob were not what its digest says. True if there is somebody else to get it from,
    /// who will be asked the next time.
    fn doubt(&self, _digest: &Digest) -> bool {
        false
    }

    /// What somebody on another machine must know to go there themselves; nothing if nobody can.
    fn origin(&self) -> Result<Option<Origin>, Fault> {
        Ok(None)
    }
}

/// Where an image can be had, for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The registry.
    pub(crate) registry: Registry,
    /// Who may have it nearer, in the order in which they are asked.
    pub(crate) peers: Vec<Peer>,
}

/// A registry, as whoever fetches from it must know it. Its credentials are the pull's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registry {
    /// The name that images have of it.
    pub(crate) host: String,
    /// Where it answers.
    pub(crate) url: Url,
    /// Whether its certificate is checked.
    pub(crate) ssl_verify: bool,
    /// Certificates in PEM that may sign for it, besides the system's.
    pub(crate) ca_pem: Option<String>,
    /// Other hosts that its requests may go to.
    pub(crate) trusted_hosts: Vec<String>,
}

/// An agent that holds the image and hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) agent: String,
    /// Where it is; nothing for the manager's own address.
    pub(crate) url: Option<Url>,
    /// What it is to be shown.
    pub(crate) grant: Secret,
}

/// A manifest as it was served.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it says it is, or was said to be.
    pub(crate) media_type: String,
    /// Exactly as served.
    pub(crate) bytes: Vec<u8>,
}

/// A blob on its way.
pub struct Flow {
    /// The place of the first byte in the blob: as asked for, or 0.
    pub(crate) from: u64,
    /// The bytes, in pieces of bounded size. A fault that [may pass](Fault::is_transient) ends this flow; another one
    /// may be opened where it ended.
    pub(crate) pieces: BoxStream<'static, Result<Bytes, Fault>>,
}
