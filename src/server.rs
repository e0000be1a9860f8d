//! The whole server, put together in this order: store, services, schema, routes.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::accounts::Accounts;
use crate::access::audit::{self, Audit};
use crate::access::directory::{Directory, Lockout};
use crate::access::first_admin::{Credentials, FirstAdmin};
use crate::access::hasher::Hasher;
use crate::access::joins::Joins;
use crate::access::rates::Rates;
use crate::access::replays::Replays;
use crate::access::sessions::SessionLimits;
use crate::access::set_up::SetUp;
use crate::access::sign_in::SignIn;
use crate::access::tenants::{self, Tenants};
use crate::access::tokens::Tokens;
use crate::base::Error;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::base::walk::Walks;
use crate::catalog::clients::Clients;
use crate::catalog::secrets::OperatorSecrets;
use crate::catalog::service::Catalog;
use crate::engine::address::EngineUrl;
use crate::engine::{self, Engine};
use crate::fleet::links::Links;
use crate::fleet::service::Fleet;
use crate::fleet::watch::watch;
use crate::graphql::schema;
use crate::graphql::spec::Api;
use crate::http::agents::HandOut;
use crate::http::backup::Backups;
use crate::http::caller::Proofs;
use crate::http::connections::Connections;
use crate::http::events::Streams;
use crate::http::guard::Hosts;
use crate::http::peer::Proxies;
use crate::http::routes::{Services, routes};
use crate::retention::service::Retention;
use crate::rules::service::Rules;
use crate::scan::collector::collect;
use crate::scan::service::{self, Scanner};
use crate::scan::worker::ScanWorker;
use crate::sources::cache::{Cache, CachePlace};
use crate::sources::grants::Grants;
use crate::sources::relay::Relay;
use crate::sources::relayed::{Nearby, Relayed};
use crate::store::open::OpenError;
use crate::store::{Store, last_seen};
use crate::tasks::queue::Queue;
use crate::tasks::worker::Worker;
use crate::transfer;
use crate::transfer::peers::{OwnCache, Peers};
use crate::transfer::rooms::Rooms;
use crate::transfer::service::Transfers;

/// How long requests that are being answered may go on after the server was told to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(4);
/// How long running tasks may go on after the server was told to stop.
const LAST_TASKS: Duration = Duration::from_secs(4);
/// How often expired sessions, tokens and noted failures are removed.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// The settings that the operator chose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory that holds all data.
    pub data_dir: PathBuf,
    /// Host names of the server, besides loopback ones.
    pub hosts: Vec<String>,
    /// The addresses of the container engines that the server reaches itself, on this machine and others.
    pub engines: Vec<EngineUrl>,
    /// How long users stay signed in.
    pub sessions: SessionLimits,
    /// Proxies that are trusted to say where a request comes from.
    pub proxies: Proxies,
    /// How long an agent on another machine may be silent before it is lost.
    pub agent_silence: Duration,
    /// How long preloads and unloads wait for an agent that is away.
    pub agent_wait: Duration,
    /// Whether one agent of a site fetches an image from the registry for all of them.
    pub seed_first: bool,
    /// The cache of this machine, if it has one.
    pub cache: Option<CachePlace>,
    /// Whether engines of this machine that fetch by themselves are made to take images from nearer.
    pub relay: bool,
    /// The directory with the credentials that registries may name, if there is one.
    pub credentials_dir: Option<PathBuf>,
    /// How long the audit log keeps its rows.
    pub audit: audit::Retention,
    /// The super-admin to create if there is no account yet; without it, a holder of [`Server::set_up_token`] creates
    /// it.
    pub first_admin: Option<FirstAdmin>,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its content, or a setting of the operator, can't be used.
    #[error(transparent)]
    Inside(#[from] Error),
}

/// A server that is ready to run.
pub struct Server {
    services: Services,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    first_admin: Option<Credentials>,
    set_up_token: Option<Secret>,
    fleet: Fleet,
    engines: Engines,
    rules: Rules,
    retention: Retention,
    audit: Audit,
}

/// Engines, each with its address.
type Engines = Vec<(String, Arc<dyn Engine>)>;

impl Server {
    /// Opens the data directory and loads its content. The server stops when `shutdown` is cancelled.
    ///
    /// # Errors
    /// A data directory that can't be used, or first credentials that are not acceptable.
    pub fn open(
        mut settings: Settings,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<Self, ServeError> {
        let (engines, wanted) = (mem::take(&mut settings.engines), settings.first_admin.take());
        let (directory, relay) = (settings.data_dir.clone(), settings.relay);
        let place = settings.cache.take();
        let cache = place.as_ref().map(|place| Cache::open(&place.path, place.max)).transpose();
        let cache = cache.map_err(|fault| Error::invalid("cache", fault.to_string()))?;
        let own = cache.clone().zip(place).map(|(cache, place)| OwnCache { cache, site: place.site });
        let mut server =
            Store::open_and_load(&directory, |store| Self::load(store, settings, own, clock, shutdown))?;
        // Before an account is created: its password would be lost if the start failed here.
        let relay = relay.then(|| Relay::open(&server.tracker, &server.shutdown)).transpose();
        let relay = relay.map_err(|why| Error::internal(format!("the relay for engines: {why}")))?;
        server.engines = connect(&engines, &Nearby { relay, cache })?;
        server.services.backups.tidy();
        let Proofs { accounts, clock, .. } = &server.services.proofs;
        server.first_admin = first_admin(wanted, accounts, clock)?;
        if accounts.is_empty() {
            server.set_up_token = Some(server.services.set_up.open()?);
        }
        Ok(server)
    }

    /// Loads what is in the store and does nothing else, because the store may turn out to be damaged.
    fn load(
        store: &Store,
        settings: Settings,
        cache: Option<OwnCache>,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<Self, ServeError> {
        // First, because the clock must be checked before anything in the store is judged by it.
        last_seen::recall(store, &clock)?;
        let tenants = Tenants::load(store, clock.now())?;
        let accounts = Accounts::load(store)?;
        let audit = Audit::load(store, clock.clone(), settings.audit)?;
        let (log, limits, tracker) = (audit.clone(), settings.sessions, TaskTracker::new());
        let sign_in = SignIn::load(store, &accounts, log.clone(), clock.clone(), limits)?;
        let set_up = SetUp::new(store.clone(), accounts.clone(), log.clone(), sign_in.clone(), clock.clone());
        let tokens = Tokens::load(store, &accounts, log, clock.clone())?;
        let fleet = Fleet::load(store, clock.clone(), audit.clone(), tenants.clone())?;
        let directory = directory(&accounts, &tenants, &audit, &sign_in, &tokens, &fleet, &clock);
        let catalog = Catalog::load(store, tenants.clone(), Arc::new(fleet.clone()), audit.clone())?;
        let catalog = catalog.with_secrets(OperatorSecrets::new(settings.credentials_dir));
        let clients = Clients::new(catalog.clone(), clock.clone());
        let sessions = service::sessions(&catalog, &clients);
        let scans = ScanWorker::new(catalog.clone(), Arc::clone(&sessions), clock.clone());
        let grants = Arc::new(Grants::default());
        let peers = Peers::new(&fleet, settings.seed_first, cache, &grants, &tracker, &shutdown);
        let (wait, rooms) = (settings.agent_wait, Rooms::load(store, &catalog, &fleet, &clock, &audit)?);
        let [preloads, unloads] =
            transfer::worker::workers(&catalog, &fleet, &clients, &clock, &rooms, wait, &peers);
        let workers: Vec<Arc<dyn Worker>> = vec![Arc::new(scans), preloads, unloads];
        let queue = Queue::load(
            store.clone(),
            clock.clone(),
            audit.clone(),
            workers,
            tracker.clone(),
            shutdown.clone(),
        )?;
        let scanner = Scanner::new(catalog.clone(), sessions, queue.clone(), audit.clone());
        let transfers =
            Transfers::new(catalog.clone(), fleet.clone(), queue.clone(), audit.clone(), rooms.clone());
        let rules = Rules::load(store, &clock, &audit, &catalog, &fleet, &queue, &transfers)?;
        rooms.bind(rules.claims(), queue.downgrade());
        let retention = Retention::load(store, &clock, &audit, &fleet, &queue, &transfers)?;
        let joins = Joins::new(store.clone(), clock.clone(), audit.clone(), tenants.clone());
        let links = Links::new(
            store.clone(),
            fleet.clone(),
            joins.clone(),
            audit.clone(),
            settings.agent_silence,
            shutdown.clone(),
        );
        let backups = Backups::new(store.clone(), audit.clone(), clock.clone(), settings.data_dir);
        let services = schema::Services {
            store: store.clone(),
            accounts: accounts.clone(),
            audit: audit.clone(),
            directory,
            sign_in: sign_in.clone(),
            tokens: tokens.clone(),
            catalog: catalog.clone(),
            fleet: fleet.clone(),
            joins,
            links: links.clone(),
            scanner,
            transfers,
            pins: rooms.pins().clone(),
            rules: rules.clone(),
            retention: retention.clone(),
            queue: queue.clone(),
        };
        let walks = Walks::default();
        let api = Api::new(schema::build(services, walks.clone()), &schema::sdl(), walks)?;
        let proofs = Proofs {
            sessions: sign_in.sessions().clone(),
            tokens,
            replays: Replays::load(store, clock.clone())?,
            rates: Rates::default(),
            proxies: settings.proxies,
            accounts,
            clock,
        };
        let services = Services {
            store: store.clone(),
            api,
            proofs,
            sign_in,
            set_up,
            backups,
            catalog,
            queue,
            streams: Streams::new(tracker.clone(), shutdown.clone()),
            links,
            hand_out: HandOut::new(grants),
            hosts: Hosts::new(settings.hosts),
        };
        Ok(Self {
            services,
            tracker,
            shutdown,
            first_admin: None,
            set_up_token: None,
            fleet,
            engines: Vec::new(),
            rules,
            retention,
            audit,
        })
    }

    /// Follows one more engine, which the caller has connected. The address identifies its agent.
    pub(crate) fn add_engine(&mut self, address: String, engine: Arc<dyn Engine>) {
        self.engines.push((address, engine));
    }

    /// The API without HTTP, for benchmarks.
    pub fn api(&self) -> &Api {
        &self.services.api
    }

    /// The credentials of the super-admin that this start created: show them once, to a person.
    pub(crate) fn first_admin(&mut self) -> Option<Credentials> {
        self.first_admin.take()
    }

    /// The token for the page that creates the first super-admin, if there is no account: show it once, to those who
    /// run the server.
    pub(crate) fn set_up_token(&mut self) -> Option<Secret> {
        self.set_up_token.take()
    }

    /// Serves until told to stop, and then until the work in progress has ended or its time is over.
    pub async fn run(self, listener: TcpListener) {
        for (address, engine) in self.engines {
            self.tracker.spawn(watch(self.fleet.clone(), address, engine, self.shutdown.clone()));
        }
        self.tracker.spawn(housekeeping(
            self.services.proofs.clone(),
            self.services.sign_in.clone(),
            self.shutdown.clone(),
        ));
        let (store, stop) = (self.services.store.clone(), self.shutdown.clone());
        self.tracker.spawn(async move { store.keep(stop).await });
        let (store, clock) = (self.services.store.clone(), self.services.proofs.clock.clone());
        self.tracker.spawn(last_seen::keep(store, clock, self.shutdown.clone()));
        self.tracker.spawn(self.fleet.clone().keep_usage(self.shutdown.clone()));
        let (audit, stop) = (self.audit.clone(), self.shutdown.clone());
        self.tracker.spawn(async move { audit.keep(stop).await });
        let (replays, stop) = (self.services.proofs.replays.clone(), self.shutdown.clone());
        let used = replays.clone();
        self.tracker.spawn(async move { used.keep(stop).await });
        self.services.queue.resume();
        let (catalog, queue) = (self.services.catalog.clone(), self.services.queue.clone());
        self.tracker.spawn(collect(catalog, queue, self.shutdown.clone()));
        self.tracker.spawn(self.rules.run(self.shutdown.clone()));
        self.tracker.spawn(self.retention.run(self.shutdown.clone()));
        let proxies = self.services.proofs.proxies.clone();
        let connections = Connections { proxies, last_requests: LAST_REQUESTS };
        connections.serve(listener, routes(self.services), self.shutdown.clone()).await;
        self.tracker.close();
        if tokio::time::timeout(LAST_TASKS, self.tracker.wait()).await.is_err() {
            tracing::warn!("some tasks did not stop in time; they go on at the next start");
        }
        // Last, because until here a caller could still send a request and be refused.
        if let Err(why) = self.audit.save().await.and(replays.save().await) {
            tracing::warn!(%why, "who was refused last, or which signatures were used last, could not be written");
        }
    }
}

/// Removes what has expired and writes what was only noted, until the server stops, and then once more.
async fn housekeeping(proofs: Proofs, sign_in: SignIn, shutdown: CancellationToken) {
    loop {
        let is_last = tokio::time::timeout(HOUSEKEEPING, shutdown.cancelled()).await.is_ok();
        proofs.rates.tidy(proofs.clock.steady());
        let done = async {
            proofs.tokens.tidy().await?;
            proofs.accounts.save_last_used().await?;
            sign_in.tidy(is_last).await
        };
        if let Err(why) = done.await {
            tracing::warn!(?why, "could not tidy up sessions, tokens and failed attempts; it is tried again");
        }
        if is_last {
            return;
        }
    }
}

/// The directory of accounts: when an account ends, it ends in all services.
fn directory(
    accounts: &Accounts,
    tenants: &Tenants,
    audit: &Audit,
    sign_in: &SignIn,
    tokens: &Tokens,
    fleet: &Fleet,
    clock: &Clock,
) -> Directory {
    let hasher = sign_in.hasher().clone();
    let places = Arc::new(fleet.clone());
    Directory::new(accounts.clone(), tenants.clone(), audit.clone(), hasher, clock.clone(), places)
        .on_lockout(end_of_sessions(sign_in))
        .on_revocation(end_of_tokens(tokens))
}

/// Returns what ends a user's sessions.
fn end_of_sessions(sign_in: &SignIn) -> Lockout {
    let sessions = sign_in.sessions().clone();
    Arc::new(move |w, user| sessions.end_all(w, user, None).map(drop))
}

/// Returns what revokes a user's tokens.
fn end_of_tokens(tokens: &Tokens) -> Lockout {
    let tokens = tokens.clone();
    Arc::new(move |w, user| tokens.revoke_all(w, user))
}

/// Creates the super-admin that the operator asks for, if there is no account yet.
fn first_admin(
    wanted: Option<FirstAdmin>,
    accounts: &Accounts,
    clock: &Clock,
) -> Result<Option<Credentials>, ServeError> {
    match wanted {
        Some(wanted) if accounts.is_empty() => {
            let hasher = Hasher::new()?;
            Ok(Some(accounts.create_first_admin(&hasher, wanted, tenants::DEFAULT, clock.now())?))
        }
        _ => Ok(None),
    }
}

/// Connects to each engine; returns the engines with their addresses.
fn connect(urls: &[EngineUrl], nearby: &Nearby) -> Result<Engines, ServeError> {
    let mut engines = Vec::with_capacity(urls.len());
    for url in urls {
        let engine = engine::connect(url).map_err(|fault| Error::invalid("engine", fault.to_string()))?;
        let engine: Arc<dyn Engine> = Arc::new(Relayed::new(url, engine, nearby.clone()));
        engines.push((url.to_string(), engine));
    }
    Ok(engines)
}
