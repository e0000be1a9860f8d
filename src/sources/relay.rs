//! The relay: a registry on this machine's loopback, from which engines that fetch by themselves take one image each.
//!
//! Docker, Podman and containerd can't be handed bytes from anywhere but a registry. So they are told to pull from this
//! one, which reads from the nearest source; the grant is in the name of the repository and ends with the pull.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::engine::fault::{Class, Fault};
use crate::engine::oci::manifest;
use crate::engine::pull::{Pull, Via};
use crate::engine::source::{Document, Flow, Source};
use crate::sources::grants::{Grants, LIFE, Parts, random};
use crate::sources::server::{Clients, GrantServer};

/// A relay. Clones share it.
#[derive(Clone)]
pub(crate) struct Relay {
    grants: Arc<Grants>,
    at: SocketAddr,
}

impl Relay {
    /// Opens a relay on a free port of the loopback, which serves until shutdown.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn open(tracker: &TaskTracker, shutdown: &CancellationToken) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (listener, at) = (TcpListener::from_std(listener.try_clone()?)?, listener.local_addr()?);
        let grants = Arc::new(Grants::default());
        let server = GrantServer { grants: Arc::clone(&grants), clients: Clients::Engines };
        tracker.spawn(server.serve(listener, tracker.clone(), shutdown.clone()));
        Ok(Self { grants, at })
    }

    /// Offers the image of this pull to an engine, until the offer is dropped.
    ///
    /// # Errors
    /// A manifest that the source does not have, or one that is not of an image.
    pub(crate) async fn offer(&self, pull: &Pull, source: Arc<dyn Source>) -> Result<Offer, Fault> {
        let Some(manifest) = &pull.manifest else {
            return Err(Fault::new(Class::Other, "the digest of its manifest is not known"));
        };
        let parts = parts_of(manifest, &pull.config, source).await?;
        let (taken, total_bytes) = (Arc::clone(&parts.taken), parts.blob_bytes(manifest));
        let grant = random()?;
        self.grants.admit(&grant, parts, LIFE, Instant::now())?;
        let via = Via { repository: format!("{}/{}", self.at, grant.expose()), total_bytes, taken };
        Ok(Offer { via, grant, image: pull.config.clone(), grants: Arc::clone(&self.grants) })
    }
}

/// The parts of the image with this manifest and config, read from this source.
///
/// # Errors
/// A manifest that the source does not have, or one that is not of this image.
pub(crate) async fn parts_of(
    manifest: &Digest,
    config: &Digest,
    source: Arc<dyn Source>,
) -> Result<Parts, Fault> {
    let document = source.manifest(manifest.as_str()).await?;
    if !manifest.matches(&document.bytes) {
        return Err(Fault::new(Class::Other, format!("what came as the manifest {manifest} is another one")));
    }
    let read = manifest::read(&document.bytes)?;
    if read.config.digest != *config {
        return Err(Fault::new(
            Class::Other,
            format!("the manifest {manifest} is not of the image {config}"),
        ));
    }
    let size = u64::try_from(document.bytes.len()).unwrap_or(u64::MAX);
    let blobs = read.blobs().into_iter().map(|blob| (blob.digest.clone(), blob.size));
    let sizes = blobs.chain([(manifest.clone(), size)]).collect();
    let source = Arc::new(Known { manifest: manifest.clone(), document, source });
    Ok(Parts { image: config.clone(), sizes, source, taken: Arc::default() })
}

/// What an engine may take.
pub(crate) struct Offer {
    /// Where the engine finds it.
    pub(crate) via: Via,
    grant: Secret,
    image: Digest,
    grants: Arc<Grants>,
}

impl Offer {
    /// Keeps the offer valid for as long as this is polled.
    pub(crate) async fn keep<T>(&self) -> T {
        loop {
            tokio::time::sleep(LIFE / 3).await;
            self.grants.extend(&self.grant, &self.image, LIFE, Instant::now());
        }
    }

    /// What an engine says, with the image's own name: engines repeat the one at the relay, with the grant.
    pub(crate) fn named(&self, said: &str, repository: &str) -> String {
        said.replace(&self.via.repository, repository).replace(self.grant.expose(), repository)
    }

    /// A fault without the grant, which engines repeat in their messages.
    pub(crate) fn hidden_in(&self, fault: &Fault) -> Fault {
        Fault { class: fault.class, message: self.grant.hidden_in(&fault.message) }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.grants.end(&self.grant);
    }
}

/// A source whose manifest was read already: engines ask for it several times.
#[derive(Debug)]
struct Known {
    manifest: Digest,
    document: Document,
    source: Arc<dyn Source>,
}

#[async_trait]
impl Source for Known {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        if reference == self.manifest.as_str() {
            return Ok(self.document.clone());
        }
        self.source.manifest(reference).await
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        self.source.blob(digest, size, from).await
    }

    async fn doubt(&self, digest: &Digest) -> bool {
        self.source.doubt(digest).await
    }
}
