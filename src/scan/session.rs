//! What the items of one scan of one registry share: the connection, the content in flight, the patience.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::Result;
use crate::base::ids::TaskId;
use crate::catalog::clients::Clients;
use crate::catalog::registry::Registry;
use crate::catalog::service::Catalog;
use crate::registry::client::Client;
use crate::registry::error::Error as RegistryError;
use crate::scan::concurrent_reads::ConcurrentReads;
use crate::scan::content::{Content, is_pause};

/// After so many repositories in a row that could not be reached, the rest of the registry is given up: each try
/// costs its full timeouts, and a registry that is down stays down for thousands of them.
const PATIENCE: u32 = 3;

/// The state of one scan of one registry.
pub(crate) struct Session {
    /// The registry as it was when the session began.
    pub(crate) registry: Arc<Registry>,
    /// The way to it.
    pub(crate) client: Client,
    /// What was fetched, each digest once.
    pub(crate) content: Content,
    failures: AtomicU32,
}

impl Session {
    /// Whether the registry has failed so often in a row that it is not worth asking.
    pub(crate) fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Remembers how an item fared. A registry that asks for a pause is there, and will be when it is over.
    pub(crate) fn note(&self, failure: Option<&RegistryError>) {
        match failure {
            Some(error) if is_pause(error) => {}
            Some(error) if error.is_transient() => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.failures.store(0, Ordering::Relaxed),
        }
    }
}

/// The sessions that are open. A client outlives its scan, so that tokens and what the registry taught are there for
/// the next; a session ends with the last item that holds it.
pub(crate) struct Sessions {
    catalog: Catalog,
    /// The ways to the registries.
    pub(crate) clients: Clients,
    /// The repositories that are being read.
    pub(crate) meanwhile: ConcurrentReads,
    open: Mutex<HashMap<(TaskId, String), Weak<Session>>>,
}

impl Sessions {
    /// No session yet.
    pub(crate) fn new(catalog: Catalog, clients: Clients) -> Self {
        Self { catalog, clients, meanwhile: ConcurrentReads::default(), open: Mutex::default() }
    }

    /// The session of this task with this registry, if one is open.
    pub(crate) fn find(&self, task: TaskId, host: &str) -> Option<Arc<Session>> {
        self.open.lock().get(&(task, host.to_owned())).and_then(Weak::upgrade)
    }

    /// The session of this task with this registry.
    ///
    /// # Errors
    /// When the registry is unknown, or its description makes no client.
    pub(crate) fn join(&self, task: TaskId, host: &str) -> Result<Arc<Session>> {
        let mut open = self.open.lock();
        if let Some(session) = open.get(&(task, host.to_owned())).and_then(Weak::upgrade) {
            return Ok(session);
        }
        open.retain(|_, session| session.strong_count() > 0);
        let registry = self.catalog.find_registry(host)?;
        let client = self.clients.of(&registry)?;
        let content = Content::new(self.catalog.clone(), &registry.host);
        let session = Arc::new(Session { registry, client, content, failures: AtomicU32::new(0) });
        open.insert((task, host.to_owned()), Arc::downgrade(&session));
        Ok(session)
    }
}
