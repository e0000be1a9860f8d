//! Repositories of the catalog's registries, for engines that fetch through us.

use std::fmt;

use async_trait::async_trait;

use crate::base::digest::Digest;
use crate::catalog::clients::Clients;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{self, Document, Flow, Origin, Source};
use crate::supply::repository::Repository;

/// One repository. Its registry is looked up when it is asked for the first time: other engines never do.
pub(in crate::transfer) struct Catalogued {
    clients: Clients,
    registry: String,
    name: String,
    /// Who may have it nearer, for somebody elsewhere.
    peers: Vec<source::Peer>,
}

impl Catalogued {
    pub(in crate::transfer) fn new(clients: &Clients, registry: &str, name: &str) -> Self {
        Self { clients: clients.clone(), registry: registry.into(), name: name.into(), peers: Vec::new() }
    }

    /// The same, and these have it nearer.
    pub(in crate::transfer) fn with_peers(self, peers: Vec<source::Peer>) -> Self {
        Self { peers, ..self }
    }

    fn open(&self) -> Result<Repository, Fault> {
        let client = self.clients.find(&self.registry).map_err(|error| inside(&error))?;
        Ok(Repository::new(client, &self.name))
    }
}

fn inside(error: &crate::base::Error) -> Fault {
    Fault::new(Class::Other, error.to_string())
}

impl fmt::Debug for Catalogued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
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
        let registry = self.clients.described(&self.registry).map_err(|error| inside(&error))?;
        Ok(Some(Origin { registry, peers: self.peers.clone() }))
    }
}
