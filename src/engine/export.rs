//! Exports: how the peers of an engine take images from it, if it keeps them in a form that others can use.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::fault::Fault;

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
    /// The digests of all parts of the image with this ID, including manifest and config; empty if it is not whole.
    async fn parts(&self, image: &Digest) -> Result<HashSet<Digest>, Fault>;

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
