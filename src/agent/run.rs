//! Dials the manager for as long as the agent runs.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::agent::dial::{Manager, Stream};
use crate::agent::holdings::Holdings;
use crate::agent::peer_server::PeerServer;
use crate::agent::pulls::Pulls;
use crate::agent::registries::Registries;
use crate::agent::session::{Ended, Node, serve};
use crate::agent::state::{Identity, State, random};
use crate::base::backoff::{Backoff, Waits};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::base::{Error, agent_name};
use crate::engine::Engine;
use crate::engine::address::EngineUrl;
use crate::engine::export::Reach;
use crate::engine::fault::one_line;
use crate::sources::cache::Cache;
use crate::sources::relay::Relay;
use crate::sources::relayed::{Nearby, Relayed};
use crate::sources::server::{Clients, GrantServer};
use crate::wire::VERSIONS;
use crate::wire::message::{CACHE, Code, FromAgent, Hello, Refusal, SOURCES, ToAgent, Welcome};
use crate::wire::socket::Socket;

/// The waits before the agent dials again. They are spread at random, so that a thousand agents don't come back at
/// the same moment.
const WAITS: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(30));
/// The shortest wait after a refusal.
const REFUSED: Duration = Duration::from_secs(4);
/// A link that lasted this long was a good one: the waits start from the first again.
const LASTED: Duration = Duration::from_secs(10);
/// How long the manager may take to answer a hello.
const WELCOME: Duration = Duration::from_secs(20);
/// How long pulls may take to stop.
const LAST_WORK: Duration = Duration::from_secs(5);

/// The settings that the operator chose.
pub(crate) struct Settings {
    /// The manager to dial.
    pub(crate) manager: Manager,
    /// The join token, which admits the agent the first time.
    pub(crate) token: Option<Secret>,
    /// The id the agent asks for.
    pub(crate) id: Option<String>,
    /// The scaling group the agent asks for.
    pub(crate) scaling_group: Option<String>,
    /// The labels it has when it joins.
    pub(crate) labels: BTreeMap<String, String>,
    /// The name of the machine.
    pub(crate) hostname: String,
    /// The directory in which it stores its identity.
    pub(crate) state_dir: PathBuf,
    /// The engine it serves, and its address.
    pub(crate) engine: (EngineUrl, Arc<dyn Engine>),
    /// The cache of this machine, if it has one.
    pub(crate) cache: Option<Arc<Cache>>,
    /// Whether engines that fetch by themselves are made to take images from nearer.
    pub(crate) relay: bool,
    /// Where it hands out the engine's images, if it does.
    pub(crate) peers: Option<Peers>,
}

/// Where peers connect.
pub(crate) struct Peers {
    /// The socket it listens on.
    pub(crate) listener: TcpListener,
    /// The URL for peers, if it differs from the listening address.
    pub(crate) url: Option<Url>,
}

/// Why an agent stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// Its state directory can't be used.
    #[error("the state directory: {0}")]
    State(#[from] io::Error),
    /// It has neither a credential nor a token.
    #[error("this agent has not joined yet; give it a token: wharf agent token create")]
    NoToken,
    /// The id it asks for is not valid for an agent.
    #[error(transparent)]
    Id(Error),
    /// The manager refuses it, and would do so again.
    #[error("the manager refuses this agent: {0}")]
    Refused(String),
}

/// Runs an agent until `shutdown` is cancelled.
///
/// # Errors
/// Errors that trying again would not cure.
pub(crate) async fn run(mut settings: Settings, shutdown: CancellationToken) -> Result<(), Stopped> {
    let state = State::open(&settings.state_dir)?;
    let identity = match state.identity()? {
        Some(identity) => identity,
        None if settings.token.is_none() => return Err(Stopped::NoToken),
        None => Identity::random()?,
    };
    if identity.id.is_none()
        && let Some(id) = &settings.id
    {
        agent_name::checked("--id", id).map_err(Stopped::Id)?;
    }
    state.keep(&identity)?;
    if !settings.manager.is_private() {
        tracing::warn!(
            "the way to the manager is not encrypted: this agent's credential and the registries' passwords that it \
             is given can be read on the way; use an https:// URL"
        );
    }
    let tracker = TaskTracker::new();
    let relay = settings.relay.then(|| Relay::open(&tracker, &shutdown)).transpose()?;
    let (address, engine) = &settings.engine;
    let nearby = Nearby { relay, cache: settings.cache.clone() };
    let engine: Arc<dyn Engine> = Arc::new(Relayed::new(address, Arc::clone(engine), nearby));
    let peer_server = match settings.peers.take() {
        None => None,
        Some(Peers { listener, url }) => {
            let peer_server = PeerServer { grants: Arc::default(), url, bound: listener.local_addr()? };
            tracing::info!(listen = %peer_server.bound, "peers that the manager sends may fetch images here");
            let server = GrantServer { grants: Arc::clone(&peer_server.grants), clients: Clients::Peers };
            tracker.spawn(server.serve(listener, tracker.clone(), shutdown.clone()));
            Some(peer_server)
        }
    };
    let node = Arc::new(Node {
        peer_server,
        holdings: Holdings::new(Arc::clone(&engine)),
        pulls: Pulls::new(Arc::clone(&engine), tracker.clone(), shutdown.clone()),
        registries: Registries::new(settings.manager.at().clone(), Clock::system()),
        cache: settings.cache.clone(),
        engine,
        shutdown: shutdown.clone(),
    });
    let followed = Arc::clone(&node);
    tracker.spawn(async move { followed.holdings.follow(followed.shutdown.clone()).await });
    let dialler = Dialler { settings, state, identity, node, instance: random(8)?, links: 0 };
    let ended = dialler.run().await;
    shutdown.cancel();
    tracker.close();
    let _ = timeout(LAST_WORK, tracker.wait()).await;
    ended
}

struct Dialler {
    settings: Settings,
    state: State,
    identity: Identity,
    node: Arc<Node>,
    instance: String,
    links: u64,
}

impl Dialler {
    async fn run(mut self) -> Result<(), Stopped> {
        let mut waits = Waits::new(WAITS);
        while !self.node.shutdown.is_cancelled() {
            let begun = Instant::now();
            let ended = tokio::select! {
                biased;
                linked = self.link() => match linked {
                    Ok((socket, welcome)) => {
                        self.welcomed(&welcome)?;
                        self.links += 1;
                        serve(&self.node, socket, &welcome, self.links).await
                    }
                    Err(ended) => ended,
                },
                () = self.node.shutdown.cancelled() => return Ok(()),
            };
            if begun.elapsed() >= LASTED {
                waits.reset();
            }
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Broken(why) => tracing::warn!(why, "no link to the manager"),
                Ended::Refused(refusal) => {
                    self.refused(&refusal)?;
                    waits.skip_to(REFUSED);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(waits.longer_spread()) => {}
                () = self.node.shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Dials the manager and says hello.
    async fn link(&self) -> Result<(Socket<Box<dyn Stream>>, Welcome), Ended> {
        let broken = |broken: crate::wire::socket::Broken| Ended::Broken(broken.to_string());
        let (mut socket, local) = self.settings.manager.dial().await.map_err(broken)?;
        socket.send(&FromAgent::Hello(Box::new(self.hello(local)))).await.map_err(broken)?;
        let answer = timeout(WELCOME, socket.receive::<ToAgent>()).await;
        let answer = answer.map_err(|_| Ended::Broken("the manager does not answer".into()))?;
        match answer.map_err(broken)?.message {
            Some(ToAgent::Welcome(welcome)) => Ok((socket, welcome)),
            Some(ToAgent::Refused(refusal)) => Err(Ended::Refused(refusal)),
            _ => Err(Ended::Broken("the manager answers something else than a welcome".into())),
        }
    }

    fn hello(&self, local: Option<IpAddr>) -> Hello {
        let is_new = self.identity.id.is_none();
        let settings = &self.settings;
        Hello {
            protocols: VERSIONS.to_vec(),
            version: env!("CARGO_PKG_VERSION").into(),
            credential: self.identity.credential.clone(),
            token: settings.token.clone().filter(|_| is_new),
            id: settings.id.clone().filter(|_| is_new),
            scaling_group: settings.scaling_group.clone().filter(|_| is_new),
            labels: if is_new { settings.labels.clone() } else { BTreeMap::new() },
            hostname: settings.hostname.clone(),
            instance: self.instance.clone(),
            private: settings.manager.is_private(),
            peer_url: self
                .node
                .peer_server
                .as_ref()
                .and_then(|peer_server| peer_server.url_from(local))
                .map(Into::into),
            features: {
                let Reach { takes_sources, has_cache } = self.node.engine.reach();
                let features = [(takes_sources, SOURCES), (has_cache, CACHE)];
                features.into_iter().filter(|(has, _)| *has).map(|(_, feature)| feature.into()).collect()
            },
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), Stopped> {
        tracing::info!(id = welcome.id, manager = one_line(&welcome.version), "linked to the manager");
        if self.identity.id.as_ref() != Some(&welcome.id) {
            self.identity.id = Some(welcome.id.clone());
            self.state.keep(&self.identity)?;
        }
        Ok(())
    }

    /// Handles a refusal: the agent gives up or tries again later, with a fresh credential if it has a token for
    /// that.
    fn refused(&mut self, refusal: &Refusal) -> Result<(), Stopped> {
        let reason = one_line(&refusal.reason);
        let was_known = self.identity.id.is_some();
        match refusal.code {
            // A revoked secret may be in the wrong hands, so the agent uses its token to join with a new one.
            Code::Credential if was_known && self.settings.token.is_some() => {
                tracing::warn!(reason, "this agent is known no more; joining again with the token");
                self.identity = Identity::random()?;
                self.state.keep(&self.identity)?;
                Ok(())
            }
            Code::Credential | Code::Token | Code::Id => Err(Stopped::Refused(reason)),
            Code::Version | Code::Connected | Code::Misbehaved | Code::Busy | Code::Other => {
                tracing::error!(reason, "the manager refuses this agent; trying again later");
                Ok(())
            }
        }
    }
}
