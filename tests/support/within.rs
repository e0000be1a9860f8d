//! A server in this process, whose clock the test controls.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf::access::audit::Retention;
use wharf::access::first_admin::FirstAdmin;
use wharf::access::sessions::SessionLimits;
use wharf::base::clock::Clock;
use wharf::base::secret::Secret;
use wharf::engine::address::EngineUrl;
use wharf::http::peer::Proxies;
use wharf::server::{Server, Settings};

use super::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY};

/// The server; it runs until it is stopped.
pub struct Within {
    pub url: String,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Within {
    /// Starts it on this data directory, with this engine and the usual first super-admin.
    pub async fn start(data_dir: PathBuf, engine: &str, clock: Clock) -> Self {
        let settings = Settings {
            data_dir,
            hosts: Vec::new(),
            engines: vec![EngineUrl::parse(engine, None).expect("an engine")],
            sessions: SessionLimits::default(),
            proxies: Proxies::default(),
            agent_silence: Duration::from_secs(30),
            agent_wait: Duration::from_hours(24),
            seed_first: false,
            cache: None,
            relay: true,
            credentials_dir: None,
            audit: Retention::default(),
            first_admin: Some(FirstAdmin {
                access_key: Some(ADMIN_ACCESS_KEY.into()),
                secret_key: Some(Secret::new(ADMIN_SECRET_KEY)),
                ..FirstAdmin::default()
            }),
        };
        let shutdown = CancellationToken::new();
        let server = Server::open(settings, clock, shutdown.clone()).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Self { url, shutdown, running: tokio::spawn(server.run(listener)) }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("a clean end");
    }
}
