//! The registries from which an agent fetches itself: one client for each, so that all pulls share tokens,
//! connections and the pauses a registry asks for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use url::Url;

use crate::base::clock::Clock;
use crate::engine::fault::{Class, Fault, one_line};
use crate::engine::pull::{self, Pull};
use crate::engine::source::{self, Origin, Source};
use crate::registry::client::{Client, Credentials, Remote};
use crate::registry::manners::Manners;
use crate::registry::outbound::Outbound;
use crate::sources::chain::{Chain, Peer};
use crate::sources::peer::over_http;
use crate::sources::repository::Repository;

/// Most clients kept. Any others are made again when they are needed.
const MAX_CLIENTS: usize = 32;

/// The manager, as a peer that hands out images of its own engines.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    /// The manager's URL.
    pub(crate) url: Url,
    /// Certificates in PEM that may sign for it, besides the system's.
    pub(crate) ca_pem: Option<String>,
}

/// The clients in use, and the pulls in progress.
pub(crate) struct Registries {
    manager: Manager,
    clock: Clock,
    /// The clients with the descriptions they were made from; the one used last is at the end.
    known: Mutex<Vec<(Described, Client)>>,
    /// The chain of each pull, by the pull's id.
    chains: Mutex<HashMap<String, Weak<Chain>>>,
}

type Described = (source::Registry, Option<Credentials>);

impl Registries {
    /// Starts without clients, for an agent of this manager.
    pub(crate) fn new(manager: Manager, clock: Clock) -> Self {
        Self { manager, clock, known: Mutex::default(), chains: Mutex::default() }
    }

    /// The source of a pull's image, according to its description.
    ///
    /// # Errors
    /// A description from which no client can be made, or of a registry other than the image's.
    pub(crate) fn source(&self, id: &str, pull: &Pull, origin: Origin) -> Result<Arc<dyn Source>, Fault> {
        let chain = self.chain(pull, origin)?;
        let mut chains = self.chains.lock();
        chains.retain(|_, chain| chain.strong_count() > 0);
        chains.insert(id.into(), Arc::downgrade(&chain));
        Ok(chain)
    }

    /// The sources that a description names, for an image that no pull of this agent is of.
    ///
    /// # Errors
    /// Those of [`Registries::source`].
    pub(crate) fn chain(&self, pull: &Pull, origin: Origin) -> Result<Arc<Chain>, Fault> {
        let Origin { registry, peers } = origin;
        let name = name_in(pull, &registry)?;
        let peers = self.peers(&name, &peers);
        let client = self.client((registry, pull.credentials.as_ref().map(account)))?;
        Ok(Arc::new(Chain::new(peers, Arc::new(Repository::new(client, &name)))))
    }

    /// Makes a running pull ask the peers that are named now: the grants of those named before may have ended.
    pub(crate) fn renew(&self, id: &str, pull: &Pull, origin: &Origin) {
        let chain = self.chains.lock().get(id).and_then(Weak::upgrade);
        if let (Some(chain), Ok(name)) = (chain, name_in(pull, &origin.registry)) {
            chain.renew(self.peers(&name, &origin.peers));
        }
    }

    /// The clients of peers; a peer whose address is not valid is left out.
    fn peers(&self, name: &str, peers: &[source::Peer]) -> Vec<Peer> {
        let of_manager = self.manager.url.join("agents/").ok();
        let way = |peer: &source::Peer| {
            let agent = one_line(&peer.agent);
            let (url, ca) = match &peer.url {
                Some(url) => (url, None),
                None => (of_manager.as_ref()?, self.manager.ca_pem.as_deref()),
            };
            match over_http(&agent, url, ca, &peer.grant, name) {
                Ok(source) => Some(Peer { name: agent, source, is_cache: peer.is_cache }),
                Err(fault) => {
                    tracing::warn!(peer = agent, %fault, "a peer can't be asked");
                    None
                }
            }
        };
        peers.iter().filter_map(way).collect()
    }

    fn client(&self, described: Described) -> Result<Client, Fault> {
        let mut known = self.known.lock();
        if let Some(place) = known.iter().position(|(before, _)| *before == described) {
            let used = known.remove(place);
            let client = used.1.clone();
            client.renew_manners(self.clock.now());
            known.push(used);
            return Ok(client);
        }
        let client =
            Client::new(remote(&described)).map_err(|error| Fault::new(Class::Other, error.to_string()))?;
        // An earlier description of the same registry is out of date.
        known.retain(|((registry, _), _)| registry.host != described.0.host);
        if known.len() >= MAX_CLIENTS {
            known.remove(0);
        }
        known.push((described, client.clone()));
        Ok(client)
    }
}

/// The name of the image's repository within its registry.
fn name_in(pull: &Pull, registry: &source::Registry) -> Result<String, Fault> {
    let name = pull.repository.strip_prefix(&registry.host).and_then(|rest| rest.strip_prefix('/'));
    name.map(Into::into).ok_or_else(|| {
        let why = format!("{} is no repository of the registry {}", pull.repository, registry.host);
        Fault::new(Class::Other, why)
    })
}

fn account(credentials: &pull::Credentials) -> Credentials {
    Credentials { username: credentials.username.clone(), password: credentials.password.clone() }
}

fn remote((registry, credentials): &Described) -> Remote {
    Remote {
        host: registry.host.clone(),
        url: registry.url.clone(),
        credentials: credentials.clone(),
        ssl_verify: registry.ssl_verify,
        ca_pem: registry.ca_pem.clone(),
        trusted_hosts: registry.trusted_hosts.clone(),
        concurrency: Remote::concurrency_at(&registry.url),
        // What can't be used is told when the agent starts.
        outbound: Outbound::of_environment().unwrap_or_default().into(),
        manners: Manners::default(),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{MAX_CLIENTS, Manager, Registries};
    use crate::base::clock::Clock;
    use crate::base::digest::Digest;
    use crate::base::secret::Secret;
    use crate::engine::pull::{Credentials, Pull};
    use crate::engine::source::{Origin, Registry};

    fn pull(registry: &str, password: &str) -> Pull {
        Pull {
            repository: format!("{registry}/lab/python"),
            tag: "1".into(),
            manifest: None,
            index: None,
            config: Digest::sha256_of(b"x"),
            architecture: "x86_64".into(),
            platform: None,
            layers: Vec::new(),
            credentials: Some(Credentials { username: "u".into(), password: Secret::new(password) }),
            source: None,
            via: None,
        }
    }

    fn origin(host: &str, url: &str) -> Origin {
        let registry = Registry {
            host: host.into(),
            url: Url::parse(url).unwrap(),
            ssl_verify: true,
            ca_pem: None,
            trusted_hosts: Vec::new(),
        };
        Origin { registry, peers: Vec::new() }
    }

    fn registries() -> Registries {
        Registries::new(
            Manager { url: Url::parse("https://wharf.lab").unwrap(), ca_pem: None },
            Clock::system(),
        )
    }

    #[test]
    fn a_registry_has_one_client_until_something_of_it_changes_and_there_are_never_too_many() {
        let registries = registries();
        let ask = |host: &str, password: &str| {
            let origin = origin(host, &format!("https://{host}"));
            registries.source("pull", &pull(host, password), origin).unwrap()
        };
        for _ in 0..3 {
            ask("a.io", "p");
        }
        assert_eq!(registries.known.lock().len(), 1);
        ask("a.io", "other");
        assert_eq!(registries.known.lock().len(), 1, "the older one is gone");
        for number in 0..2 * MAX_CLIENTS {
            ask(&format!("r{number}.io"), "p");
        }
        assert_eq!(registries.known.lock().len(), MAX_CLIENTS);
    }

    #[test]
    fn an_image_of_another_registry_is_refused() {
        let registries = registries();
        let refused = |host, url| registries.source("pull", &pull("a.io", "p"), origin(host, url)).is_err();
        assert!(refused("a.i", "https://a.i"));
        assert!(refused("a.io", "https://u:p@a.io"));
        assert!(!refused("a.io", "https://a.io"));
    }
}
