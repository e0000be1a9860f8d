//! Peers as sources: a peer on this machine is read from its directory, others over HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use url::Url;

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::engine::export::LocalExport;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{Document, Flow, Source};
use crate::registry::client::{Client, Credentials, Remote};
use crate::registry::limits::ClientLimits;
use crate::registry::manners::{Manners, ProbeMode};
use crate::sources::file::pieces;
use crate::sources::grants::Parts;
use crate::sources::hand_out::USER;
use crate::sources::repository::Repository;

/// Requests in flight at one peer: as many as a pull makes.
const AT_ONCE: usize = 4;
/// A peer is near: it connects within this time, or something is wrong with it.
const CONNECT: Duration = Duration::from_secs(4);
const HEADERS: Duration = Duration::from_secs(8);
/// Longest manifest read from a directory; registries take no larger ones.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// The repository with this name at the peer with this URL, which hands it out to a holder of this grant.
///
/// # Errors
/// A URL that is not valid, or certificates that can't be read.
pub(crate) fn over_http(
    peer: &str,
    url: &Url,
    ca_pem: Option<&str>,
    grant: &Secret,
    name: &str,
) -> Result<Arc<dyn Source>, Fault> {
    let remote = Remote {
        host: peer.into(),
        url: url.clone(),
        credentials: Some(Credentials { username: USER.into(), password: grant.clone() }),
        ssl_verify: true,
        ca_pem: ca_pem.map(Into::into),
        trusted_hosts: Vec::new(),
        concurrency: AT_ONCE,
        // Peers are of one site.
        outbound: Arc::default(),
        manners: Manners { probe: ProbeMode::Get, ..Manners::default() },
    };
    // No redirects: a peer that redirects could send us anywhere.
    let limits = ClientLimits {
        connect: CONNECT,
        headers: HEADERS,
        attempts: 1,
        redirects: 0,
        ..ClientLimits::default()
    };
    let client =
        Client::of_peer(remote, limits).map_err(|error| Fault::new(Class::Other, error.to_string()))?;
    Ok(Arc::new(Repository::new(client, name)))
}

/// The parts of an image that an engine on this machine holds.
///
/// # Errors
/// Those of the export.
pub(crate) async fn held_parts(place: Arc<dyn LocalExport>, image: &Digest) -> Result<Parts, Fault> {
    let sizes = place.parts(image).await?;
    Ok(Parts { image: image.clone(), sizes, source: Arc::new(Beside(place)), taken: Arc::default() })
}

/// The export of an engine on this machine, as a source.
pub(crate) struct Beside(pub(crate) Arc<dyn LocalExport>);

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a directory")
    }
}

#[async_trait]
impl Source for Beside {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        let missing = || Fault::new(Class::NotFound, format!("{reference} is not there"));
        let digest: Digest = reference.parse().map_err(|_| missing())?;
        let (file, size) = self.0.open(&digest).await?.ok_or_else(missing)?;
        if size > MAX_MANIFEST {
            return Err(Fault::new(Class::Other, format!("{reference} is too large for a manifest")));
        }
        let (mut pieces, mut bytes) = (pieces(file, 0, size), Vec::new());
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| Fault::new(Class::Other, error.to_string()))?);
        }
        Ok(Document::of(bytes))
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        let opened = self.0.open(digest).await?.filter(|(_, there)| *there == size && from <= size);
        let missing = || Fault::new(Class::NotFound, format!("{digest} is not there"));
        let (file, _) = opened.ok_or_else(missing)?;
        let pieces = pieces(file, from, size.saturating_sub(from));
        let pieces = pieces.map(|piece| piece.map_err(|error| Fault::new(Class::Other, error.to_string())));
        Ok(Flow { from, is_verified: false, pieces: pieces.boxed() })
    }
}
