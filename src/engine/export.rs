//! How the peers of an engine take images from it, where it keeps them in a form that others can use.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::fault::Fault;

/// The way to what an engine can hand out.
pub enum Export {
    /// It is on this machine.
    Local(Arc<dyn LocalExport>),
    /// It is elsewhere, where its agent hands it out.
    Remote(Arc<dyn RemoteExport>),
}

/// Images that can be read piece by piece.
#[async_trait]
pub trait LocalExport: Send + Sync {
    /// All that the image of this ID is made of, manifest and config included; nothing if it is not whole.
    async fn parts(&self, image: &Digest) -> Result<HashSet<Digest>, Fault>;

    /// Opens one of these, and says how many bytes it has; nothing if it is not there.
    async fn open(&self, part: &Digest) -> Result<Option<(File, u64)>, Fault>;
}

/// An agent that hands out what its engine holds.
#[async_trait]
pub trait RemoteExport: Send + Sync {
    /// Where its peers find it.
    fn url(&self) -> &Url;

    /// Lets whoever has this grant read the parts of this image for so long, from now. Doing so again makes it longer.
    ///
    /// # Errors
    /// An image that is not there, or more grants than are given at once.
    async fn admit(&self, grant: &Secret, image: &Digest, life: Duration) -> Result<(), Fault>;
}
