//! `wharf serve`: the server.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, value_parser};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{
        audit::Retention,
        first_admin::{Credentials, FirstAdmin},
        sessions::SessionLimits,
    },
    base::{clock::Clock, secret::Secret},
    cli::{
        connection::LISTEN,
        credentials::{Made, near},
        daemon::{self, Logging},
        duration,
        failure::{Failure, Result},
    },
    engine::address::{EngineUrl, InvalidAddress},
    http::peer::{Network, Proxies},
    registry::outbound::Outbound,
    server::{Server, Settings},
    sources::cache::CachePlace,
};

/// The default data directory.
pub(crate) const DATA_DIR: &str = "./wharf-data";

/// Run the server
#[derive(Debug, Args)]
#[command(
    after_help = "The first start makes a super-admin. Its e-mail is WHARF_ADMIN_EMAIL (default admin@localhost); \
    its password and keypair come from WHARF_ADMIN_PASSWORD, WHARF_ADMIN_ACCESS_KEY and WHARF_ADMIN_SECRET_KEY, and \
    what is not given is generated and shown once, on the terminal only. Where there is no terminal and none of the \
    three is given, or with --setup-page, it is made in a browser instead, by a link that the server logs and that \
    is good once."
)]
pub(crate) struct Serve {
    /// Directory for everything the server keeps; made if missing
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    pub(crate) listen: SocketAddr,
    /// Name at which browsers and clients reach this server, besides loopback names; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// Container engine to load images on: unix:///path or tcp://host:port for Docker, podman+unix:///path for Podman,
    /// cri:///path for containerd, or oci:DIR for a directory that wharf fills itself (oci:DIR?limit=10MiB for at most
    /// so many bytes a second); may be repeated, or none for none [default: what DOCKER_HOST names, else
    /// unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) engine: Vec<String>,
    /// How long a user stays signed in without a request, such as 30m or 12h
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = duration::parse)]
    pub(crate) session_idle: Duration,
    /// How long a user stays signed in at most
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse)]
    pub(crate) session_lifetime: Duration,
    /// Proxy that may say in X-Forwarded-For and X-Forwarded-Proto where a request comes from: an address or a range
    /// such as 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<Network>,
    /// How many days the audit log keeps a row
    #[arg(long, value_name = "DAYS", default_value_t = Retention::DAYS)]
    pub(crate) audit_days: u32,
    /// How many rows the audit log keeps at most
    #[arg(long, value_name = "ROWS", default_value_t = Retention::ROWS, value_parser = value_parser!(u64).range(1..))]
    pub(crate) audit_rows: u64,
    /// Number of seconds without a sign of life after which an agent on another machine counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=300))]
    pub(crate) agent_silence: u64,
    /// How long preloads and unloads wait for an agent that is away before they give up
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub(crate) agent_wait: Duration,
    /// While there is no account: print a link, valid once, to a page that makes the first super-admin
    #[arg(long)]
    pub(crate) setup_page: bool,
    /// Let one agent of a site fetch an image from the registry, and the other agents of the site take it from that
    /// one. A site is all agents with the same value of the label site; works for agents that keep images in a
    /// directory (oci:DIR)
    #[arg(long)]
    pub(crate) seed_first: bool,
    /// Directory in which to keep what is fetched from registries, so that a site fetches each image once: DIR, or
    /// DIR?max=200GiB for at most so many bytes (default 100GiB), or DIR?max=200GiB&site=NAME. It serves the engines of
    /// this server, and the agents of that site, or without it the agents whose label site is not set
    #[arg(long, value_name = "DIR", value_parser = CachePlace::parse)]
    pub(crate) cache: Option<CachePlace>,
    /// Have Docker, Podman and containerd always fetch from the registry themselves, and never through this server from
    /// a cache or a peer
    #[arg(long)]
    pub(crate) no_relay: bool,
    /// Directory with files that registries may name as their credentials (wharf registry add --password-file); without
    /// it, they may name none
    #[arg(long, value_name = "DIR")]
    pub(crate) credentials_dir: Option<PathBuf>,
    #[command(flatten)]
    logging: Logging,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        self.logging.start()?;
        Outbound::of_environment().map_err(Failure::usage)?;
        daemon::keep_memory_private()?;
        daemon::block_on("serve", self.serve())
    }

    async fn serve(&self) -> Result<()> {
        let address = self.listen.to_string();
        // The address is bound before the data directory is made: a port in use must not leave a directory behind.
        let listener = TcpListener::bind(self.listen).await.map_err(|why| {
            Failure::failed(address.clone(), format!("can't listen there: {why}"))
                .remedy("choose another address with --listen, or stop what uses it")
        })?;
        let shutdown = CancellationToken::new();
        let given = first_admin();
        let is_by_page = given.has_nothing() && (self.setup_page || !io::stdout().is_terminal());
        let settings = Settings {
            data_dir: self.data_dir.clone(),
            hosts: self.host.clone(),
            engines: self.engines()?,
            sessions: SessionLimits { idle: self.session_idle, lifetime: self.session_lifetime },
            proxies: Proxies::new(self.trusted_proxy.clone()),
            agent_silence: Duration::from_secs(self.agent_silence),
            agent_wait: self.agent_wait,
            seed_first: self.seed_first,
            cache: self.cache.clone(),
            relay: !self.no_relay,
            credentials_dir: self.credentials_dir.clone(),
            audit: Retention::new(self.audit_days, self.audit_rows),
            first_admin: (!is_by_page).then(|| given.clone()),
        };
        let opened = Server::open(settings, Clock::system(), shutdown.clone());
        let mut server = opened.map_err(|why| Failure::failed("serve", why.to_string()))?;
        let bound = listener.local_addr().map_err(|why| Failure::failed(address, why.to_string()))?;
        if let Some(credentials) = server.first_admin() {
            show(&generated(&given, &credentials, bound));
        }
        if let Some(token) = server.set_up_token() {
            invite(&self.set_up_link(bound, &token, given.email.as_deref()));
        }
        // A line for people and scripts; if stdout is gone, the server still runs.
        let _ = writeln!(io::stdout(), "listening on http://{bound}");
        daemon::stop_on_signal(shutdown)?;
        server.run(listener).await;
        Ok(())
    }

    /// The link to the page that makes the first super-admin. The token stands behind `#`, so that no browser sends it
    /// anywhere by itself.
    fn set_up_link(&self, bound: SocketAddr, token: &Secret, email: Option<&str>) -> String {
        let at = match self.host.first() {
            Some(name) if bound.ip().is_unspecified() => format!("{name}:{}", bound.port()),
            _ => near(bound),
        };
        let mut given = url::form_urlencoded::Serializer::new(String::new());
        given.append_pair("token", token.expose());
        if let Some(email) = email {
            given.append_pair("email", email);
        }
        format!("http://{at}/setup#{}", given.finish())
    }

    /// The engines to follow; the server waits for an engine that is not there yet.
    fn engines(&self) -> Result<Vec<EngineUrl>> {
        let environment = daemon::environment();
        let usage = |why: InvalidAddress| Failure::usage(format!("--engine: {why}"));
        match self.engine.as_slice() {
            [] => Ok(vec![EngineUrl::from_environment(&environment).map_err(usage)?]),
            [none] if none == "none" => Ok(Vec::new()),
            urls => {
                let certificates = environment.certificates.as_deref().filter(|_| environment.tls);
                urls.iter().map(|url| EngineUrl::parse(url, certificates).map_err(usage)).collect()
            }
        }
    }
}

/// Reads the first super-admin's credentials from the environment alone: `ps` would show flags.
fn first_admin() -> FirstAdmin {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    FirstAdmin {
        email: given("WHARF_ADMIN_EMAIL"),
        password: given("WHARF_ADMIN_PASSWORD").map(Secret::new),
        access_key: given("WHARF_ADMIN_ACCESS_KEY"),
        secret_key: given("WHARF_ADMIN_SECRET_KEY").map(Secret::new),
    }
}

/// The generated credentials, without those that the operator gave.
fn generated<'a>(given: &FirstAdmin, made: &'a Credentials, bound: SocketAddr) -> Made<'a> {
    let has_keys = given.access_key.is_some() && given.secret_key.is_some();
    Made {
        email: &made.email,
        password: given.password.is_none().then_some(&made.password),
        keypair: (!has_keys).then_some((made.access_key.as_str(), &made.secret_key)),
        server: Some(bound),
    }
}

/// Shows the credentials generated for the first super-admin, unless the output could be kept where others can read it.
fn show(made: &Made<'_>) {
    let email = made.email;
    if made.is_nothing() {
        tracing::info!(email, "a super-admin was made, with the credentials that were given");
    } else if io::stdout().is_terminal() {
        let _ = writeln!(
            io::stdout(),
            "\nThis first start made a super-admin. Keep these; they are not shown again.\n\n{made}\n\
             Then add a registry and read it: wharf registry add HOST && wharf image rescan HOST\n"
        );
    } else {
        tracing::warn!(
            email,
            "a super-admin was made; there is no terminal to show its generated credentials on, so they were not \
             shown: stop the server and make new ones with `wharf user reset-password {email} --keypair`"
        );
    }
}

/// Prints the link to the page that makes the first super-admin. The link is valid once, so that it may stand in a log.
fn invite(link: &str) {
    if io::stdout().is_terminal() {
        let _ = writeln!(
            io::stdout(),
            "\nThere is no account yet. Make the first super-admin here; the link is good once, and until the server is \
             started again.\n\n  {link}\n"
        );
    } else {
        tracing::warn!(
            link,
            "there is no account yet: open the link to make the first super-admin; it is good once, and until the \
             server is started again"
        );
    }
}
