//! Container engines: what a node holds, and how images are pulled and removed there.
//!
//! [`Engine`] is the interface that the rest of wharf uses. [`docker`] speaks to Docker Engine and Podman, [`cri`] to
//! containerd; [`oci`] keeps images in a directory itself, from a [`source`] that higher modules provide; [`address`]
//! parses the address of an engine. An engine is asked, never assumed: a pull succeeded if the engine shows the image
//! afterwards.

pub mod address;
pub mod cri;
pub mod docker;
pub(crate) mod export;
#[cfg(test)]
pub(crate) mod fake;
pub mod fault;
pub(crate) mod follow;
pub mod image;
pub(crate) mod kind;
pub(crate) mod name;
pub(crate) mod oci;
pub mod pull;
pub(crate) mod room;
pub(crate) mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::engine::{
    address::{EngineLocation, EngineUrl},
    cri::Cri,
    docker::Docker,
    export::{Export, Reach, SiteCache},
    fault::{Class, Fault},
    image::{Held, Removal, Uses},
    oci::Oci,
    pull::{Progress, Pull, Pulled},
};

pub use crate::engine::kind::EngineKind;

/// A container engine on a node.
///
/// Every call but [`pull`](Self::pull) and the stream of [`events`](Self::events) ends within a bounded time, with
/// [`Class::EngineGone`](fault::Class::EngineGone) if need be. A future that is dropped leaves nothing running.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What the engine is. Also the way to find out whether it is there at all.
    async fn about(&self) -> Result<About, Fault>;

    /// All images that it has, including those without a name.
    async fn images(&self) -> Result<Vec<Held>, Fault>;

    /// The image of this name (`registry/name:tag`) or ID (`sha256:…`), if it is there.
    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault>;

    /// Pulls an image, follows the pull to its end, and returns once the engine itself shows the expected image under
    /// the expected name.
    ///
    /// `progress` is called whenever something changed; its numbers never go back. It is called from the task that runs
    /// the pull and must not block. There is no deadline: an engine that answers may take hours. An engine that stops
    /// answering is noticed.
    ///
    /// # Errors
    /// [`Class::Stopped`](fault::Class::Stopped) soon after `stop` is cancelled; the engine is made to give up too.
    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault>;

    /// Removes this name (`registry/name:tag`), and the image with its last name, so that nothing is left of it by digest
    /// alone; or, by its ID, an image without a name. Never by force: an image that a container uses stays.
    ///
    /// # Errors
    /// An engine that can't remove one name of several refuses, and leaves everything as it is.
    async fn remove(&self, reference: &str) -> Result<Removal, Fault>;

    /// Which of these images, which are all that it has, its containers use; `None` if it can't tell.
    async fn uses(&self, _held: &[Held]) -> Result<Option<Uses>, Fault> {
        Ok(None)
    }

    /// A stream of hints that images or containers came, went or changed their names, whoever did it: after each, read
    /// what it names again. Subscribe first and then read [`images`](Self::images), so that no change is missed in
    /// between.
    ///
    /// The stream ends with an error when the engine goes away.
    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault>;

    /// The room on the disk that its images are on.
    async fn disk(&self) -> Result<Disk, Fault>;

    /// How its peers can take images from it; `None` if they can't.
    fn export(&self) -> Option<Export> {
        None
    }

    /// What it can take from nearer than the registry.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// The cache on its machine, if that serves others too.
    fn site_cache(&self) -> Option<Arc<dyn SiteCache>> {
        None
    }
}

/// Connects to the engine at this address. It need not be there yet; a directory is made if needed, and locked.
///
/// # Errors
/// Certificates that can't be read, or a directory that can't be used.
pub fn connect(url: &EngineUrl) -> Result<Arc<dyn Engine>, Fault> {
    Ok(match (url.kind, &url.place) {
        (EngineKind::Docker | EngineKind::Podman, _) => Arc::new(Docker::new(url)?),
        (EngineKind::Containerd, _) => Arc::new(Cri::new(url)?),
        (EngineKind::Oci, EngineLocation::Folder { path, limit }) => Arc::new(Oci::open(path, *limit)?),
        (EngineKind::Oci, EngineLocation::Socket(_) | EngineLocation::Tcp { .. }) => {
            return Err(Fault::new(Class::Other, format!("{url}: an image layout is a directory")));
        }
    })
}

/// The identity of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The kind of engine.
    pub kind: EngineKind,
    /// The engine's own ID that survives restarts, if it has one.
    pub id: Option<String>,
    /// The name of the machine it runs on, or of the directory that stands for one.
    pub hostname: String,
    /// Its version, in its own words (`20.10.24+dfsg1`).
    pub version: String,
    /// The system its containers run on (`linux`).
    pub os: String,
    /// The processor, in the catalog's spelling (`x86_64`).
    pub architecture: String,
    /// The labels that an operator gave it.
    pub labels: BTreeMap<String, String>,
}

/// What has changed on an engine. Of several changes, the largest says what to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Containers: the images are as they were, and others of them may be in use.
    Containers,
    /// Images, and maybe containers too.
    Images,
}

/// The room on a node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes free for images, if we can see that disk: only for an engine on our own machine.
    pub free_bytes: Option<u64>,
    /// The size of the disk in bytes.
    pub total_bytes: Option<u64>,
    /// Bytes that all images take, each shared layer counted once.
    pub images_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::EngineKind;

    #[test]
    fn all_kinds_are_listed_each_by_a_name_of_its_own() {
        // A new kind must get its place here, and with it in the list.
        let place = |kind| match kind {
            EngineKind::Docker => 0,
            EngineKind::Podman => 1,
            EngineKind::Containerd => 2,
            EngineKind::Oci => 3,
        };
        assert_eq!(EngineKind::ALL.map(place), [0, 1, 2, 3]);
        let names: std::collections::BTreeSet<&str> =
            EngineKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EngineKind::ALL.len());
    }
}
