//! What callers ask about scans.

use std::sync::Arc;

use crate::access::audit::{Audit, Deed};
use crate::access::caller::Caller;
use crate::base::ids::TaskId;
use crate::base::reference::{self, Reference};
use crate::base::{Error, Result};
use crate::catalog::clients::Clients;
use crate::catalog::service::Catalog;
use crate::scan::session::Sessions;
use crate::scan::work::Work;
use crate::scan::worker::has_no_catalog;
use crate::tasks::queue::Queue;
use crate::tasks::task::TaskKind;

/// Starts scans. Clones share the clients of registries.
#[derive(Clone)]
pub(crate) struct Scanner {
    pub(in crate::scan) catalog: Catalog,
    pub(in crate::scan) sessions: Arc<Sessions>,
    queue: Queue,
    pub(in crate::scan) audit: Audit,
}

/// What to rescan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rescan {
    /// The registry's host; `None` for every registry.
    pub(crate) registry: Option<String>,
    /// Only repositories with this name, or below it; `None` for all.
    pub(crate) project: Option<String>,
    /// Remove vanished images even if they are most of the images.
    pub(crate) confirm_removals: bool,
}

/// The sessions that a [`Scanner`] and its worker share.
pub(crate) fn sessions(catalog: &Catalog, clients: &Clients) -> Arc<Sessions> {
    Arc::new(Sessions::new(catalog.clone(), clients.clone()))
}

impl Scanner {
    /// A scanner whose tasks go to this queue.
    pub(crate) fn new(catalog: Catalog, sessions: Arc<Sessions>, queue: Queue, audit: Audit) -> Self {
        Self { catalog, sessions, queue, audit }
    }

    /// Starts a rescan, or joins one with the same subject that is already running.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown registry, [`Error::Conflict`] when there are no registries.
    pub(crate) async fn rescan(&self, caller: &Caller, wanted: Rescan) -> Result<TaskId> {
        let target = wanted.registry.as_deref().unwrap_or("every registry").to_owned();
        self.audit
            .superadmin(caller, "rescan_images", &target, |deed| async move {
                self.start_rescan(&deed, caller, wanted).await
            })
            .await
    }

    async fn start_rescan(&self, deed: &Deed, caller: &Caller, wanted: Rescan) -> Result<TaskId> {
        if let Some(project) = wanted.project.as_deref().filter(|name| !reference::is_repository(name)) {
            let why = format!("{:?} is no repository name, such as stable", reference::shown(project));
            return Err(Error::invalid("project", why));
        }
        let hosts = match &wanted.registry {
            Some(host) => vec![self.catalog.find_registry(host.trim())?.host.clone()],
            None => self.catalog.registry_hosts(),
        };
        if hosts.is_empty() {
            return Err(Error::Conflict(
                "there is no registry to scan; add one with create_container_registry or `wharf registry add`".into(),
            ));
        }
        let subject = subject(&wanted, &hosts);
        if let Some(running) = self.running(&subject) {
            return Ok(running);
        }
        let mut items = Vec::with_capacity(hosts.len());
        for registry in hosts {
            let project = wanted.project.clone();
            items.push(Work::List { registry, project, confirm_removals: wanted.confirm_removals }.item()?);
        }
        self.queue.submit(deed, TaskKind::Rescan, subject, caller.user, items).await
    }

    /// Starts the scan of one image.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a reference that is not `registry/name:tag`, [`Error::Missing`] for an unknown registry.
    pub(crate) async fn scan_image(&self, caller: &Caller, reference: &str) -> Result<TaskId> {
        self.audit
            .superadmin(caller, "scan_image", reference, |deed| async move {
                let work = self.work_for(reference)?;
                let item = work.item()?;
                if let Some(running) = self.running(&item.name) {
                    return Ok(running);
                }
                self.queue.submit(&deed, TaskKind::Rescan, item.name.clone(), caller.user, vec![item]).await
            })
            .await
    }

    fn work_for(&self, text: &str) -> Result<Work> {
        let refuse =
            |why: &str| Err(Error::invalid("reference", format!("{:?} {why}", reference::shown(text))));
        let parsed = Reference::parse(text).map_err(|why| Error::invalid("reference", why.to_string()))?;
        if parsed.digest.is_some() {
            return refuse("has a digest; the catalog is made of tags, so give registry/name:tag");
        }
        let Some((host, name)) = parsed.path.split_once('/') else {
            return refuse("has no registry; give registry/name:tag");
        };
        let full = reference::full_name(&reference::registry_name(host), name);
        let name = full.split_once('/').map_or(name, |(_, name)| name);
        if !reference::is_repository(name) {
            return refuse(
                "has a name that no registry takes; it may have lower-case letters, digits, '.', '_' and '-'",
            );
        }
        let registry = self.catalog.find_registry(host)?.host.clone();
        Ok(Work::Tag { registry, name: name.into(), tag: parsed.tag.unwrap_or_else(|| "latest".into()) })
    }

    /// The running task with this subject, if there is one.
    fn running(&self, subject: &str) -> Option<TaskId> {
        let same = |task: &crate::tasks::task::Task| task.subject == subject && !task.cancel_requested;
        self.queue.running().iter().find(|live| same(&live.task())).map(|live| live.id())
    }

    /// Tests the connection to a registry, and says what the registry can do.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what failed.
    pub(crate) async fn test(&self, caller: &Caller, host: &str) -> Result<String> {
        self.audit
            .superadmin(caller, "test_container_registry", host, |_| async move { self.try_out(host).await })
            .await
    }

    async fn try_out(&self, host: &str) -> Result<String> {
        let registry = self.catalog.find_registry(host.trim())?;
        let client = self.sessions.clients.of(&registry)?;
        let unavailable = |error: crate::registry::error::Error| Error::Unreachable(error.to_string());
        client.ping().await.map_err(unavailable)?;
        let who = registry
            .username
            .as_ref()
            .map_or_else(|| "without credentials".into(), |name| format!("as {name}"));
        match client.repositories().await {
            Ok(listed) => {
                Ok(format!("it answers and lists {} repositories; it is read {who}", listed.good.len()))
            }
            Err(error) if has_no_catalog(&error) => Ok(format!(
                "it answers, is read {who}, and does not list its repositories ({}): name them as projects, or scan \
                 images one by one",
                error.reason
            )),
            Err(error) => Err(unavailable(error)),
        }
    }
}

fn subject(wanted: &Rescan, hosts: &[String]) -> String {
    let mut subject = match (&wanted.registry, hosts) {
        (Some(_), [host]) => host.clone(),
        _ => "every registry".into(),
    };
    if let Some(project) = &wanted.project {
        subject = format!("{subject}/{project}");
    }
    if wanted.confirm_removals {
        subject.push_str(", removals confirmed");
    }
    subject
}
