//! The good client during an attack.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::app::App;
use crate::support::wait::{PATIENCE, until};

/// The most memory that the server may need during any attack, in bytes.
const MEMORY: u64 = 200 << 20;
/// Longest time for 99 of 100 answers: ten times the goal, for a busy machine.
const SLOWEST: Duration = Duration::from_secs(10);
/// Pause between two requests of the good client.
const EVERY: Duration = Duration::from_millis(20);

/// A client at an address of its own that repeats a request, over a new connection each time.
pub struct Beside {
    stop: CancellationToken,
    asking: JoinHandle<Vec<Duration>>,
}

impl Beside {
    /// The good client's address. Attackers use others.
    pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    /// Starts the client; returns after its first answer.
    pub async fn start(app: &App) -> Self {
        let stop = CancellationToken::new();
        let (stopped, client) = (stop.clone(), app.admin().from(Self::ADDRESS));
        client.ask("{ images { name } }", json!({})).await;
        let asking = tokio::spawn(async move {
            let mut times = Vec::new();
            while tokio::time::timeout(EVERY, stopped.cancelled()).await.is_err() {
                let asked = Instant::now();
                assert_eq!(client.ask("{ images { name } }", json!({})).await, json!({"images": []}));
                times.push(asked.elapsed());
            }
            times
        });
        Self { stop, asking }
    }

    /// Stops the client; checks that it was answered in time to the end, and that the server is small.
    pub async fn was_served(self, app: &App) {
        self.stop.cancel();
        let mut times = self.asking.await.expect("the good client was answered");
        times.sort_unstable();
        let slowest = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        assert!(slowest < SLOWEST, "of {} answers the slowest took {slowest:?}", times.len());
        let memory = app.peak_memory();
        assert!(memory < MEMORY, "the server took {} MiB", memory >> 20);
        println!("{} answers, p99 {slowest:?}; {} MiB at most", times.len(), memory >> 20);
        let well = async || (app.anonymous().call("GET", "/readyz").send().await.status == 200).then_some(());
        until("the server to be ready", PATIENCE, well).await;
    }
}
