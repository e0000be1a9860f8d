//! Sources: where an engine that has no client of its own gets an image from.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use url::Url;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::fault::Fault;

/// A source of one repository. It handles connections, credentials and retries; the engine checks the digests.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// The manifest of a tag or digest, of a few MiB at most.
    async fn manifest(&self, reference: &str) -> Result<Document, Fault>;

    /// Opens a blob of `size` bytes, preferably at byte `from`.
    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault>;

    /// Reports that the bytes of this blob did not match its digest. Returns whether another source of the blob is
    /// left, which will be asked the next time.
    async fn doubt(&self, _digest: &Digest) -> bool {
        false
    }

    /// Whether some of it may come from nearer than the registry.
    fn is_near(&self) -> bool {
        false
    }

    /// What went wrong with those sources that others made good, for people.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// The facts by which another machine can fetch the image itself; `None` if no other machine can.
    fn origin(&self) -> Result<Option<Origin>, Fault> {
        Ok(None)
    }
}

/// Where another machine can get an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The registry.
    pub(crate) registry: Registry,
    /// The peers that may have it nearer, in the order in which to ask them.
    pub(crate) peers: Vec<Peer>,
}

/// A registry as a machine that fetches from it must know it. The credentials are in the pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registry {
    /// The registry's name in the names of images.
    pub(crate) host: String,
    /// The URL where it answers.
    pub(crate) url: Url,
    /// Whether its certificate is checked.
    pub(crate) ssl_verify: bool,
    /// Certificates in PEM that may sign for it, besides the system's.
    pub(crate) ca_pem: Option<String>,
    /// Other hosts that its requests may go to.
    pub(crate) trusted_hosts: Vec<String>,
}

/// An agent that has the image and serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The agent's id.
    pub(crate) agent: String,
    /// The agent's URL; `None` for the manager's own address.
    pub(crate) url: Option<Url>,
    /// The grant to present to the agent.
    pub(crate) grant: Secret,
    /// Whether it is a cache, which may have to fetch the image first.
    pub(crate) is_cache: bool,
}

/// A manifest as the registry served it.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its media type, as it says itself or as the server said.
    pub(crate) media_type: String,
    /// Its bytes, exactly as served.
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    /// A manifest of which only the bytes are known. Docker's always say their type, which OCI's need not.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: String,
        }
        let typed = serde_json::from_slice::<Typed>(&bytes);
        Self { media_type: typed.map(|typed| typed.media_type).unwrap_or_default(), bytes }
    }
}

/// A blob while it is transferred.
pub struct Flow {
    /// The position of the first byte in the blob: the requested one, or 0.
    pub(crate) from: u64,
    /// Whether a whole blob comes to its end only if its digest is right.
    pub(crate) is_verified: bool,
    /// The bytes, in pieces of bounded size. A fault ends this flow; after one that [may pass](Fault::is_transient),
    /// another flow may be opened where this one ended.
    pub(crate) pieces: BoxStream<'static, Result<Bytes, Fault>>,
}
