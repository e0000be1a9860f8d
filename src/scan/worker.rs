//! Does the items of a rescan.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::reference;
use crate::catalog::service::Catalog;
use crate::registry::client::{Client, Names};
use crate::registry::error::{Error as RegistryError, Reason};
use crate::scan::content::{Trouble, is_pause};
use crate::scan::repository::Reading;
use crate::scan::session::{Session, Sessions};
use crate::scan::sweep;
use crate::scan::work::Work;
use crate::tasks::task::{Item, ItemState, Ledger, State, TaskKind};
use crate::tasks::totals::Tally;
use crate::tasks::worker::{ItemFailure, Outcome, Worker, Workplace};

/// How many repositories of one task are read at once.
const REPOSITORIES_AT_ONCE: usize = 4;

/// How often to check whether the registry answers, and how long a wait must be to be reported.
const LOOK: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(5);

/// The worker of rescans.
pub(crate) struct ScanWorker {
    catalog: Catalog,
    sessions: Arc<Sessions>,
    clock: Clock,
}

impl ScanWorker {
    /// Makes a worker for this catalog.
    pub(crate) fn new(catalog: Catalog, sessions: Arc<Sessions>, clock: Clock) -> Self {
        Self { catalog, sessions, clock }
    }

    async fn attempt(&self, work: Work, place: &Workplace) -> Result<Outcome, Trouble> {
        match work {
            Work::List { registry, project, confirm_removals } => {
                let session = self.sessions.join(place.task(), &registry)?;
                self.list(&session, project.as_deref(), confirm_removals).await
            }
            Work::Repository { registry, name } => {
                let session = self.sessions.join(place.task(), &registry)?;
                if session.is_given_up() {
                    return Err(Trouble::Store(crate::base::Error::Unreachable(
                        "not read, because the registry could not be reached several times in a row".into(),
                    )));
                }
                let reading = self.reading(&session, &name, place);
                let outcome = reading.all(place.task(), self.clock.now()).await;
                session.note(match &outcome {
                    Err(Trouble::Registry(error)) => Some(error),
                    _ => None,
                });
                outcome
            }
            Work::Tag { registry, name, tag } => {
                let session = self.sessions.join(place.task(), &registry)?;
                let reading = self.reading(&session, &name, place);
                reading.one(&tag).await
            }
            Work::Sweep { registry, confirm_removals } => {
                let session = self.sessions.join(place.task(), &registry)?;
                self.catalog.learn_manners(&registry, session.client.manners()).await?;
                Ok(sweep::sweep(&self.catalog, place.task(), &session.registry, confirm_removals).await?)
            }
        }
    }

    /// Reports it when the registry does not answer; this never ends.
    async fn tell_of_silence(&self, host: &str, place: &Workplace) -> Infallible {
        let mut is_told = false;
        loop {
            tokio::time::sleep(LOOK).await;
            // The session exists as long as the attempt does; this lookup does not prolong it.
            let silence = self.sessions.find(place.task(), host).and_then(|session| session.client.silence());
            match silence.filter(|silence| silence.lasting >= LONG) {
                Some(silence) => {
                    place.waits(Some(format!("{host}: {silence}")));
                    is_told = true;
                }
                None if is_told => {
                    place.waits(None);
                    is_told = false;
                }
                None => {}
            }
        }
    }

    fn reading<'a>(&'a self, session: &'a Session, name: &'a str, place: &'a Workplace) -> Reading<'a> {
        Reading { catalog: &self.catalog, session, name, place, meanwhile: &self.sessions.meanwhile }
    }

    /// Finds the repositories to read: those that the registry lists, those in the catalog, and the projects that may
    /// be repositories themselves. What can't be had of the list is in the ledger.
    async fn list(
        &self,
        session: &Session,
        project: Option<&str>,
        confirm_removals: bool,
    ) -> Result<Outcome, Trouble> {
        let registry = &session.registry;
        let host = registry.host.as_str();
        let wanted = |name: &String| {
            registry.wants(name) && project.is_none_or(|project| reference::is_within(name, project))
        };
        let mut names: BTreeSet<String> =
            self.catalog.repositories(host).into_iter().filter(wanted).collect();
        let mut ledger = Ledger::default();
        let listed = match session.client.repositories().await {
            Ok(listed) => {
                note_refused(host, &listed, &mut ledger);
                names.extend(listed.good.into_iter().filter(wanted));
                Ok(())
            }
            Err(error) if concerns_all(&session.client, &error).await => return Err(error.into()),
            Err(error) => Err(error),
        };
        // Many registries list nothing to those who are not administrators.
        let unlisted = |project: &&String| {
            listed.is_err() || !names.iter().any(|name| reference::is_within(name, project))
        };
        let unlisted: Vec<String> =
            registry.projects.iter().filter(unlisted).filter(|name| wanted(name)).cloned().collect();
        names.extend(unlisted);
        if let Err(error) = listed {
            let lists_none = has_no_catalog(&error);
            if names.is_empty() && lists_none {
                let remedy = "name its repositories as projects, or scan its images one by one";
                let why = format!("{error}; the registry does not list its repositories: {remedy}");
                return Err(Trouble::Store(crate::base::Error::Unreachable(why)));
            }
            if names.is_empty() {
                return Err(error.into());
            }
            let why = format!("{error}; read were the repositories that are known or named as projects");
            let list = if lists_none { &mut ledger.skipped } else { &mut ledger.failed };
            list.push(format!("{host}: list of repositories"), why);
        }
        let mut more = Vec::with_capacity(names.len() + 1);
        for name in names {
            more.push(Work::Repository { registry: host.into(), name }.item()?);
        }
        more.push(Work::Sweep { registry: host.into(), confirm_removals }.item()?);
        Ok(Outcome { more, ..Outcome::new(ledger) })
    }
}

/// Whether the registry answered but does not list its repositories for us.
pub(crate) fn has_no_catalog(error: &RegistryError) -> bool {
    match error.reason {
        Reason::NotFound | Reason::Forbidden | Reason::Unauthorized(_) => true,
        Reason::Status { status, .. } => matches!(status, 400 | 404 | 405 | 410 | 422 | 501),
        _ => false,
    }
}

/// Whether every other request would fail for the same reason, or has to wait as long.
async fn concerns_all(client: &Client, error: &RegistryError) -> bool {
    match error.reason {
        Reason::Unreachable(_) | Reason::Timeout(_) => !client.answers().await,
        Reason::Tls(_) | Reason::Misconfigured(_) => true,
        _ => is_pause(error),
    }
}

fn note_refused(host: &str, listed: &Names, ledger: &mut Ledger) {
    for (name, why) in &listed.refused {
        ledger.skipped.push(format!("{host}/{}", reference::shown(name)), *why);
    }
    ledger.skipped.add_unnamed(listed.refused_unnamed());
}

#[async_trait]
impl Worker for ScanWorker {
    fn kind(&self) -> TaskKind {
        TaskKind::Rescan
    }

    fn parallel(&self) -> usize {
        REPOSITORIES_AT_ONCE
    }

    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure> {
        let work = Work::of(&item.work).map_err(|error| ItemFailure::giving_up(error.to_string()))?;
        let host = work.registry().to_owned();
        tokio::select! {
            outcome = self.attempt(work, place) => outcome.map_err(setback),
            never = self.tell_of_silence(&host, place) => match never {},
            // Nothing is left half done: what was read so far is dropped unwritten, with the future.
            () = place.stop.cancelled() => Err(ItemFailure::giving_up("stopped")),
        }
    }

    fn folded_as(&self, item: &Item) -> Option<&'static str> {
        (item.phase == 1).then_some("repositories")
    }

    /// A scan has failed if it could read nothing of what it set out to read.
    fn verdict(&self, items: &Tally) -> State {
        let none_read = items.of_phase(1, ItemState::Done) == 0;
        if none_read && items.of(ItemState::Failed) > 0 { State::Failed } else { State::Done }
    }
}

fn setback(trouble: Trouble) -> ItemFailure {
    match trouble {
        Trouble::Registry(error) => {
            let wait = match &error.reason {
                Reason::RateLimited { until } => Some(until.left()),
                _ => None,
            };
            ItemFailure { reason: error.to_string(), again: wait.into() }
        }
        Trouble::Store(error) => {
            if let crate::base::Error::Internal(cause) = &error {
                tracing::error!(?cause, "a scan failed inside");
            }
            ItemFailure::giving_up(error.to_string())
        }
    }
}
