//! The clients of the catalog's registries: one for each registry, shared by all callers.
//!
//! They are shared so that a token is fetched once, and all callers keep a pause that a registry asks for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::{Error, Result};
use crate::catalog::registry::Registry;
use crate::catalog::service::Catalog;
use crate::engine::source;
use crate::registry::client::{Client, Credentials, Remote};
use crate::registry::manners::Manners;
use crate::registry::outbound::Outbound;

type Described = (Registry, Option<Credentials>);

/// The clients in use. Clones share them.
#[derive(Clone)]
pub(crate) struct Clients {
    catalog: Catalog,
    clock: Clock,
    /// The clients by host, each with the description and the account it was made from.
    known: Arc<Mutex<HashMap<String, (Described, Client)>>>,
}

impl Clients {
    /// Starts without clients.
    pub(crate) fn new(catalog: Catalog, clock: Clock) -> Self {
        Self { catalog, clock, known: Arc::default() }
    }

    /// The client of this registry: the existing one as long as nothing it depends on has changed, the account
    /// included, which may be kept elsewhere.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no client can be made from the description.
    pub(crate) fn of(&self, registry: &Registry) -> Result<Client> {
        let account = self.catalog.registry_account(registry)?;
        let described = (Registry { manners: Manners::default(), ..registry.clone() }, account);
        let mut known = self.known.lock();
        if let Some((before, client)) = known.get(&registry.host)
            && *before == described
        {
            client.renew_manners(self.clock.now());
            return Ok(client.clone());
        }
        let client = Client::new(remote(registry, described.1.clone(), self.catalog.way_to(registry)?))
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        client.renew_manners(self.clock.now());
        known.insert(registry.host.clone(), (described, client.clone()));
        Ok(client)
    }

    /// The client of the registry with this host.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown registry, and those of [`Clients::of`].
    pub(crate) fn find(&self, host: &str) -> Result<Client> {
        self.of(&*self.catalog.find_registry(host)?)
    }

    /// What another program must know to be a client of this registry, except for its credentials.
    pub(crate) fn described(registry: &Registry) -> source::Registry {
        source::Registry {
            host: registry.host.clone(),
            url: registry.url.clone(),
            ssl_verify: registry.ssl_verify,
            ca_pem: registry.ca_pem.clone(),
            trusted_hosts: registry.trusted_hosts.clone(),
        }
    }
}

fn remote(registry: &Registry, credentials: Option<Credentials>, outbound: Outbound) -> Remote {
    Remote {
        host: registry.host.clone(),
        url: registry.url.clone(),
        credentials,
        ssl_verify: registry.ssl_verify,
        ca_pem: registry.ca_pem.clone(),
        trusted_hosts: registry.trusted_hosts.clone(),
        concurrency: Remote::concurrency_at(&registry.url),
        outbound: Arc::new(outbound),
        manners: registry.manners,
    }
}
