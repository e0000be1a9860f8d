//! The ways to the registries of the catalog: one client for each, shared by whoever asks it.
//!
//! Shared, so that a token is fetched once, and a pause one of them is asked for is kept by all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::{Error, Result};
use crate::catalog::registry::{Probing, Registry};
use crate::catalog::service::Catalog;
use crate::engine::source;
use crate::registry::client::{Client, Credentials, ProbeMode, Remote};

/// The clients in use. Clones share them.
#[derive(Clone)]
pub(crate) struct Clients {
    catalog: Catalog,
    /// Each with the description it was made from.
    known: Arc<Mutex<HashMap<String, (Registry, Client)>>>,
}

impl Clients {
    /// No client yet.
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, known: Arc::default() }
    }

    /// The client of this registry: the one in use as long as nothing it depends on has changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when its description makes no client.
    pub(crate) fn of(&self, registry: &Registry) -> Result<Client> {
        let described = Registry { probe: Probing::Unknown, ..registry.clone() };
        let mut known = self.known.lock();
        if let Some((before, client)) = known.get(&registry.host)
            && *before == described
        {
            return Ok(client.clone());
        }
        let client =
            Client::new(self.remote(registry)?).map_err(|error| Error::Unreachable(error.to_string()))?;
        known.insert(registry.host.clone(), (described, client.clone()));
        Ok(client)
    }

    /// The same by the registry's host.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown registry, and those of [`Clients::of`].
    pub(crate) fn find(&self, host: &str) -> Result<Client> {
        self.of(&*self.catalog.find_registry(host)?)
    }

    /// What somebody else must know to be a client of this registry, but for its credentials.
    pub(crate) fn described(registry: &Registry) -> source::Registry {
        source::Registry {
            host: registry.host.clone(),
            url: registry.url.clone(),
            ssl_verify: registry.ssl_verify,
            ca_pem: registry.ca_pem.clone(),
            trusted_hosts: registry.trusted_hosts.clone(),
        }
    }

    fn remote(&self, registry: &Registry) -> Result<Remote> {
        let password = self.catalog.registry_password(registry)?;
        let credentials = registry
            .username
            .clone()
            .zip(password)
            .map(|(username, password)| Credentials { username, password });
        Ok(Remote {
            host: registry.host.clone(),
            url: registry.url.clone(),
            credentials,
            ssl_verify: registry.ssl_verify,
            ca_pem: registry.ca_pem.clone(),
            trusted_hosts: registry.trusted_hosts.clone(),
            concurrency: Remote::concurrency_at(&registry.url),
            probe: probe_mode(registry.probe),
        })
    }
}

fn probe_mode(probing: Probing) -> ProbeMode {
    match probing {
        Probing::Unknown => ProbeMode::Unknown,
        Probing::Conditional => ProbeMode::Conditional,
        Probing::Head => ProbeMode::Head,
        Probing::Get => ProbeMode::Get,
    }
}

/// What the catalog keeps of what a client learned.
pub(crate) fn probing(mode: ProbeMode) -> Probing {
    match mode {
        ProbeMode::Unknown => Probing::Unknown,
        ProbeMode::Conditional => Probing::Conditional,
        ProbeMode::Head => Probing::Head,
        ProbeMode::Get => Probing::Get,
    }
}
