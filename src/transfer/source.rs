//! Repositories of the catalog's registries, for engines that fetch through us.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::digest::Digest;
use crate::catalog::clients::Clients;
use crate::catalog::registry::Registry;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{self, Document, Flow, Origin, Source};
use crate::sources::repository::Repository;

/// One repository. The way to its registry is looked up when it is asked for: other engines never do.
pub(in crate::transfer) struct Catalogued {
    clients: Clients,
    /// As it was when the credentials that go along were read: they are for that address and no other.
    registry: Arc<Registry>,
    name: String,
    /// Who may have it nearer, for somebody elsewhere.
    peers: Vec<source::Peer>,
}

impl Catalogued {
    pub(in crate::transfer) fn new(clients: &Clients, registry: Arc<Registry>, name: &str) -> Self {
        Self { clients: clients.clone(), registry, name: name.into(), peers: Vec::new() }
    }

    /// The same, and these have it nearer.
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
