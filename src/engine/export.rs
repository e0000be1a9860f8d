//! Exports: how the peers of an engine take images from it, if it keeps them in a form that others can use; and what an
//! engine can take from others.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::{fault::Fault, pull::Pull};

/// The way to the images that an engine can hand on.
pub enum Export {
    /// The engine is on this machine.
    Local(Arc<dyn LocalExport>),
    /// The engine is on another machine, whose agent serves its images.
    Remote(Arc<dyn RemoteExport>),
}

/// An export of this machine: images that can be read piece by piece.
#[async_trait]
pub trait LocalExport: Send + Sync {
    /// All parts of the image with this ID with their sizes in bytes, including its manifests and the config; empty if
    /// it is not whole.
    async fn parts(&self, image: &Digest) -> Result<HashMap<Digest, u64>, Fault>;

    /// Opens one of these parts, and returns its size in bytes; `None` if it is not there.
    async fn open(&self, part: &Digest) -> Result<Option<(File, u64)>, Fault>;
}

/// An export of another machine: an agent that serves the images of its engine.
#[async_trait]
pub trait RemoteExport: Send + Sync {
    /// The URL where its peers find it.
    fn url(&self) -> &Url;

    /// Allows clients with this grant to read the parts of this image for so long, from now. A repeated call extends
    /// it.
    ///
    /// # Errors
    /// An image that is not there, or too many grants at once.
    async fn admit(&self, grant: &Secret, image: &Digest, life: Duration) -> Result<(), Fault>;
}

/// What an engine can take from nearer than the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether it takes images from [`Pull::source`], and so from peers and caches.
    pub takes_sources: bool,
    /// Whether its machine has a cache, which is asked before all others.
    pub has_cache: bool,
}

/// A cache on another machine that serves its site: it has an image, or fetches it.
#[async_trait]
pub trait SiteCache: Send + Sync {
    /// The URL where clients find it.
    fn url(&self) -> &Url;

    /// Allows clients with this grant to read the parts of this pull's image for so long, from now. A repeated call
    /// extends it.
    ///
    /// # Errors
    /// An image that is not to be had, or too many grants at once.
    async fn admit(&self, grant: &Secret, pull: &Pull, life: Duration) -> Result<(), Fault>;
}
