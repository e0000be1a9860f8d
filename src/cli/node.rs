//! `wharf agent --manager URL`: makes this machine's engine an agent of a manager elsewhere.

use std::{collections::BTreeMap, fs, io::Read as _, net::SocketAddr, path::PathBuf};

use clap::{ArgMatches, Args, parser::ValueSource};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    agent::{
        dial::Manager,
        run::{Peers, Settings, run},
    },
    base::secret::Secret,
    cli::{
        daemon::{self, Logging},
        failure::{Failure, Result},
    },
    engine::{self, address::EngineUrl},
    registry::outbound::Outbound,
    sources::cache::{Cache, CachePlace},
};

/// The default directory for an agent's identity.
const STATE_DIR: &str = "./wharf-agent";
/// Largest token or certificate file that is read, in bytes; a bundle of every public root is 250 KiB.
const MAX_FILE: u64 = 4 << 20;

/// The flags of agent mode.
#[derive(Args)]
#[command(next_help_heading = "Agent mode")]
pub(crate) struct Node {
    /// URL of the manager that this machine becomes an agent of; without it, a command below is needed
    #[arg(long, value_name = "URL")]
    manager: Option<Url>,
    /// Token to join with the first time, from wharf agent token create; better in WHARF_TOKEN or a file, as ps shows
    /// flags
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Id to join with [default: the token's, or one made from the host's name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Scaling group to join, unless the token says which [default: default]
    #[arg(long, value_name = "GROUP")]
    scaling_group: Option<String>,
    /// Label to join with; may be repeated. An admin can change it later: wharf agent label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Container engine: unix:///path or tcp://host:port for Docker, podman+unix:///path, cri:///path for containerd,
    /// or oci:DIR for a directory that the agent fills itself [default: what DOCKER_HOST names, else
    /// unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// Directory for the credential that the token is exchanged for; made if missing
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Address and port at which this agent serves images to agents that the manager sends: those of --cache to the
    /// agents of its site, and those of --engine oci:DIR with wharf serve --seed-first
    #[arg(long, value_name = "ADDRESS")]
    peer_listen: Option<SocketAddr>,
    /// URL at which other agents reach --peer-listen [default: the address with which this machine reaches the manager]
    #[arg(long, value_name = "URL", requires = "peer_listen")]
    peer_url: Option<Url>,
    /// Directory in which to keep what is fetched from registries: DIR, or DIR?max=200GiB for at most so many bytes
    /// (default 100GiB). With --peer-listen it serves all agents with the same label site
    #[arg(long, value_name = "DIR", value_parser = CachePlace::parse)]
    cache: Option<CachePlace>,
    /// Have Docker, Podman or containerd always fetch from the registry itself, and never through this agent from a
    /// cache or a peer
    #[arg(long)]
    no_relay: bool,
    /// PEM file of more certificate authorities to trust for the manager, besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    logging: Logging,
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    pair.map(|(key, value)| (key.into(), value.into())).ok_or("expected KEY=VALUE")
}

impl Node {
    /// An agent mode flag that was typed together with a subcommand, if there is one.
    pub(crate) fn misplaced(matches: &ArgMatches) -> Option<&'static str> {
        let agent = matches.subcommand_matches("agent")?;
        let typed = |id: &str| agent.value_source(id) == Some(ValueSource::CommandLine);
        ["manager", "token", "token_file"].into_iter().find(|id| typed(id))
    }

    pub(crate) fn run(&self) -> Result<()> {
        let Some(url) = &self.manager else {
            return Err(Failure::usage("no command given").remedy(
                "see wharf agent --help; to make this machine an agent: wharf agent --manager URL --token TOKEN",
            ));
        };
        let mut settings = self.settings(url)?;
        self.logging.start()?;
        Outbound::of_environment().map_err(Failure::usage)?;
        daemon::keep_memory_private()?;
        daemon::block_on("agent", async {
            settings.peers = self.peers().await?;
            let shutdown = CancellationToken::new();
            daemon::stop_on_signal(shutdown.clone())?;
            run(settings, shutdown).await.map_err(|why| Failure::failed("agent", why.to_string()))
        })
    }

    async fn peers(&self) -> Result<Option<Peers>> {
        let Some(address) = self.peer_listen else { return Ok(None) };
        let listener = TcpListener::bind(address).await.map_err(|why| {
            Failure::failed(address.to_string(), format!("can't listen there: {why}"))
                .remedy("choose another address with --peer-listen, or stop what uses it")
        })?;
        Ok(Some(Peers { listener, url: self.peer_url.clone() }))
    }

    fn settings(&self, url: &Url) -> Result<Settings> {
        let ca = self.ca_file.as_deref().map(read).transpose()?;
        let manager = Manager::new(url, ca.as_deref())
            .map_err(|why| Failure::usage(format!("--manager {url}: {why}")))?;
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) if !token.is_empty() => Some(token.clone()),
            (_, Some(file)) => Some(read(file)?.trim().to_owned()),
            _ => None,
        };
        let environment = daemon::environment();
        let certificates = environment.certificates.as_deref().filter(|_| environment.tls);
        let address = match &self.engine {
            Some(url) => EngineUrl::parse(url, certificates),
            None => EngineUrl::from_environment(&environment),
        };
        let address = address.map_err(|why| Failure::usage(format!("--engine: {why}")))?;
        if self.peer_listen.is_some() && self.cache.is_none() && !address.kind.hands_out() {
            return Err(Failure::usage(format!(
                "--peer-listen: {address} hands out nothing to other agents"
            ))
            .remedy("only a directory does, --engine oci:DIR, or a cache, --cache DIR"));
        }
        let engine = engine::connect(&address)
            .map_err(|fault| Failure::failed(address.to_string(), fault.to_string()))?;
        let cache = self.cache.as_ref().map(|place| Cache::open(&place.path, place.max)).transpose();
        let cache = cache.map_err(|fault| Failure::failed("--cache", fault.to_string()))?;
        if self.cache.as_ref().is_some_and(|place| !place.site.is_empty()) {
            return Err(Failure::usage("--cache: an agent's site is its label: --label site=NAME"));
        }
        Ok(Settings {
            manager,
            token: token.map(Secret::new),
            id: self.id.clone(),
            scaling_group: self.scaling_group.clone(),
            labels: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
            hostname: hostname(),
            state_dir: self.state_dir.clone(),
            engine: (address, engine),
            cache,
            relay: !self.no_relay,
            peers: None,
        })
    }
}

fn read(path: impl AsRef<std::path::Path>) -> Result<String> {
    let path = path.as_ref();
    let failed = |why: std::io::Error| Failure::failed(path.display().to_string(), why.to_string());
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}

/// The machine's name, from the kernel.
fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use crate::cli::node::label;

    #[test]
    fn a_label_has_a_key_and_a_value() {
        assert_eq!(label("zone=a=b"), Ok(("zone".into(), "a=b".into())));
        for text in ["zone", "zone=", "=a", ""] {
            assert!(label(text).is_err(), "{text}");
        }
    }
}
