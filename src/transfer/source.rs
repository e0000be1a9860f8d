//! Repositories of the catalog's registries, as sources for engines that fetch through wharf.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::digest::Digest;
use crate::catalog::clients::Clients;
use crate::catalog::registry::Registry;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{self, Document, Flow, Origin, Source};
use crate::sources::repository::Repository;

/// One repository. The client of its registry is looked up only when the engine asks: engines that fetch themselves
/// never do.
#[derive(Clone)]
pub(in crate::transfer) struct Catalogued {
    clients: Clients,
    /// The registry as it was when its credentials were read: they are for that address and no other.
    registry: Arc<Registry>,
    name: String,
    /// The peers that may have the image nearer, for an agent on another machine.
    peers: Vec<source::Peer>,
}

impl Catalogued {
    pub(in crate::transfer) fn new(clients: &Clients, registry: Arc<Registry>, name: &str) -> Self {
        Self { clients: clients.clone(), registry, name: name.into(), peers: Vec::new() }
    }

    /// The same repository, with these peers that may have the image nearer.
    pub(in crate::transfer) fn with_peers(self, peers: Vec<source::Peer>) -> Self {
        Self { peers, ..self }
    }

    fn open(&self) -> Result<Repository, Fault> {
        let client = self.clients.find(&self.registry.host).map_err(|error| inside(&error))?;
        Ok(Repository::new(client, &self.name))
    }
}

fn inside(error: &crate::base::Error) -> Fault {
    Fault::new(Class::Other, error.to_string())
}

impl fmt::Debug for Catalogued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry.host, self.name)
    }
}

#[async_trait]
impl Source for Catalogued {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        self.open()?.manifest(reference).await
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        self.open()?.blob(digest, size, from).await
    }

    fn origin(&self) -> Result<Option<Origin>, Fault> {
        let registry = Clients::described(&self.registry);
        Ok(Some(Origin { registry, peers: self.peers.clone() }))
    }
}
