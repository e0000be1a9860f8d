//! What the items of one scan of one registry share: the connection, the content in flight, the patience.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::Result;
use crate::base::ids::TaskId;
use crate::catalog::registry::{Probing, Registry};
use crate::catalog::service::Catalog;
use crate::registry::client::{
    Client, Credentials, DEFAULT_CONCURRENCY, DOCKER_HUB_CONCURRENCY, ProbeMode, Remote,
};
use crate::registry::error::Error as RegistryError;
use crate::scan::content::{Content, is_pause};

/// After so many repositories in a row that could not be reached, the rest of the registry is given up: each try
/// costs its full timeouts, and a registry that is down stays down for thousands of them.
const PATIENCE: u32 = 3;

/// The state of one scan of one registry.
pub struct Session {
    /// The registry as it was when the session began.
    pub registry: Arc<Registry>,
    /// The way to it.
    pub client: Client,
    /// What was fetched, each digest once.
    pub content: Content,
    failures: AtomicU32,
}

impl Session {
    /// Whether the registry has failed so often in a row that it is not worth asking.
    pub fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Remembers how an item fared. A registry that asks for a pause is there, and will be when it is over.
    pub fn note(&self, failure: Option<&RegistryError>) {
        match failure {
            Some(error) if is_pause(error) => {}
            Some(error) if error.is_transient() => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.failures.store(0, Ordering::Relaxed),
        }
    }
}

/// The sessions that are open and the clients they use. A client outlives its scan, so that tokens and what the
/// registry taught are there for the next; a session ends with the last item that holds it.
pub struct Sessions {
    catalog: Catalog,
    clients: Mutex<HashMap<String, (Registry, Client)>>,
    open: Mutex<HashMap<(TaskId, String), Weak<Session>>>,
}

impl Sessions {
    /// No session yet.
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog, clients: Mutex::default(), open: Mutex::default() }
    }

    /// The session of this task with this registry.
    ///
    /// # Errors
    /// When the registry is unknown, or its description makes no client.
    pub fn join(&self, task: TaskId, host: &str) -> Result<Arc<Session>> {
        let mut open = self.open.lock();
        if let Some(session) = open.get(&(task, host.to_owned())).and_then(Weak::upgrade) {
            return Ok(session);
        }
        open.retain(|_, session| session.strong_count() > 0);
        let registry = self.catalog.find_registry(host)?;
        let client = self.client(&registry)?;
        let content = Content::new(self.catalog.clone());
        let session = Arc::new(Session { registry, client, content, failures: AtomicU32::new(0) });
        open.insert((task, host.to_owned()), Arc::downgrade(&session));
        Ok(session)
    }

    /// The client of this registry: the one in use as long as nothing it depends on has changed.
    pub fn client(&self, registry: &Registry) -> Result<Client> {
        let described = Registry { probe: Probing::Unknown, ..registry.clone() };
        let mut clients = self.clients.lock();
        if let Some((known, client)) = clients.get(&registry.host)
            && *known == described
        {
            return Ok(client.clone());
        }
        let client = Client::new(self.remote(registry)?)
            .map_err(|error| crate::base::Error::Unavailable(error.to_string()))?;
        clients.insert(registry.host.clone(), (described, client.clone()));
        Ok(client)
    }

    fn remote(&self, registry: &Registry) -> Result<Remote> {
        let password = self.catalog.registry_password(registry)?;
        let credentials = registry
            .username
            .clone()
            .zip(password)
            .map(|(username, password)| Credentials { username, password });
        let is_hub = registry.url.host_str().is_some_and(|host| host.ends_with("docker.io"));
        Ok(Remote {
            host: registry.host.clone(),
            url: registry.url.clone(),
            credentials,
            ssl_verify: registry.ssl_verify,
            ca_pem: registry.ca_pem.clone(),
            trusted_hosts: registry.trusted_hosts.clone(),
            concurrency: if is_hub { DOCKER_HUB_CONCURRENCY } else { DEFAULT_CONCURRENCY },
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
pub fn probing(mode: ProbeMode) -> Probing {
    match mode {
        ProbeMode::Unknown => Probing::Unknown,
        ProbeMode::Conditional => Probing::Conditional,
        ProbeMode::Head => Probing::Head,
        ProbeMode::Get => Probing::Get,
    }
}
