//! What the items of one scan of one registry share: the client, the content read so far, and the count of failures.

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

/// After this many unreachable repositories in a row, the rest of the registry is given up: each try costs its full
/// timeouts, and a registry that is down stays down for thousands of them.
const PATIENCE: u32 = 3;

/// The state of one scan of one registry.
pub(crate) struct Session {
    /// The registry as it was when the session began.
    pub(crate) registry: Arc<Registry>,
    /// The client of the registry.
    pub(crate) client: Client,
    /// The content that was fetched, each digest once.
    pub(crate) content: Content,
    failures: AtomicU32,
}

impl Session {
    /// Whether the registry has failed so often in a row that it is not asked any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Notes the result of an item. A registry that asks for a pause does answer, and will again when the pause is
    /// over.
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

/// The open sessions. Clients outlive scans, so that tokens and what was learned about the registry are there for the
/// next scan; a session ends with the last item that holds it.
pub(crate) struct Sessions {
    catalog: Catalog,
    /// The clients of the registries.
    pub(crate) clients: Clients,
    /// The repositories that are being read.
    pub(crate) meanwhile: ConcurrentReads,
    open: Mutex<HashMap<(TaskId, String), Weak<Session>>>,
}

impl Sessions {
    /// Starts without sessions.
    pub(crate) fn new(catalog: Catalog, clients: Clients) -> Self {
        Self { catalog, clients, meanwhile: ConcurrentReads::default(), open: Mutex::default() }
    }

    /// The session of this task with this registry, if one is open.
    pub(crate) fn find(&self, task: TaskId, host: &str) -> Option<Arc<Session>> {
        self.open.lock().get(&(task, host.to_owned())).and_then(Weak::upgrade)
    }

    /// Returns the session of this task with this registry, and opens it if necessary.
    ///
    /// # Errors
    /// When the registry is unknown, or no client can be made from its description.
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
