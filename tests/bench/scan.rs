//! The first scan of a registry, compared with a bare client that makes the same requests; and the requests of a
//! repeat.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};

use super::report::{check, heading, median, milliseconds, note};
use super::support::app::App;
use super::support::image::Image;
use super::support::proxy::{CountingProxy, Exchange};
use super::support::registry::RealRegistry;

const REPOSITORIES: usize = 50;
const TAGS: usize = 20;
/// How many requests wharf has in flight at one registry.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 11;

pub async fn measure() {
    heading("scan: 50 repositories of 20 tags on a local registry");
    let Some(registry) = RealRegistry::open().await else { return };
    registry.stock((0..REPOSITORIES * TAGS).map(|number| {
        let repository = format!("stable/python-{:02}", number / TAGS);
        let image = Image::new(&repository, &format!("3.{}-ubuntu20.04", number % TAGS));
        (0..19).fold(image, |image, label| image.label(&format!("ai.backend.label-{label}"), "a value"))
    }));
    let log = watched(&registry).await;
    let bodies: usize = log.iter().map(|exchange| exchange.body_bytes).sum();
    note("requests of a first scan", &log.len().to_string());
    note("their bodies", &format!("{} kB", bodies / 1000));

    let (mut bare, mut wharf) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each client goes first equally often, since the first one may change the state that the second one meets.
        if round % 2 == 0 {
            bare.push(replay(&registry, &log, bodies).await);
            wharf.push(scan(&registry).await);
        } else {
            wharf.push(scan(&registry).await);
            bare.push(replay(&registry, &log, bodies).await);
        }
    }
    note("bare client, the same requests, 8 at once: median", &milliseconds(median(&bare)));
    note("wharf, from the mutation to the event of its end: median", &milliseconds(median(&wharf)));
    note("ratio of these medians", &format!("{:.2}", median(&wharf).div_duration_f64(median(&bare))));
    // The two scans of a round follow each other, so a slow phase of the machine affects both.
    let mut ratios: Vec<f64> =
        wharf.iter().zip(&bare).map(|(wharf, bare)| wharf.div_duration_f64(*bare)).collect();
    let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    note("ratio of each round", &shown.join(" "));
    ratios.sort_by(f64::total_cmp);
    check("ratio, median of the rounds", ratios[ROUNDS / 2], 1.3, "");
}

/// Scans twice through a proxy, checks that the repeat makes only the needed requests, and returns the first scan's
/// requests.
async fn watched(registry: &RealRegistry) -> Vec<Exchange> {
    let (app, proxy) = (App::start().await, CountingProxy::start(&registry.url()).await);
    let admin = app.admin();
    admin.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    admin.scan(&proxy.host()).await;
    let first = proxy.take_log();
    admin.scan(&proxy.host()).await;
    let repeat = proxy.take_log();
    // A page holds 1,000 names: one page of repositories, one page of tags for each, and one manifest request for each
    // tag.
    let least = 1 + REPOSITORIES + REPOSITORIES * TAGS;
    let content = repeat.iter().filter(|exchange| exchange.is_manifest() || exchange.is_blob());
    let bytes: usize = content.map(|exchange| exchange.body_bytes).sum();
    assert_eq!((repeat.len(), bytes), (least, 0), "requests of a repeat, and bytes of content in them");
    note("requests of a repeat, which is the least there can be", &repeat.len().to_string());
    note("bytes of manifests and configs in them", &bytes.to_string());
    first
}

/// The time of a new server's first scan.
async fn scan(registry: &RealRegistry) -> Duration {
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(registry).await;
    let started = Instant::now();
    let task = admin.rescan(registry.host()).await;
    let event = admin.finish(&task).await;
    let taken = started.elapsed();
    assert!(event.name.ends_with("done"), "{event:?}");
    assert_eq!(admin.images().await.len(), REPOSITORIES * TAGS);
    taken
}

/// Makes only the requests, in the order of the scan; no request waits for an earlier answer.
async fn replay(registry: &RealRegistry, log: &[Exchange], bodies: usize) -> Duration {
    let client = reqwest::Client::builder().no_proxy().http1_only().pool_max_idle_per_host(AT_ONCE);
    let client = client.build().expect("an HTTP client");
    let started = Instant::now();
    let ask = |exchange: &Exchange| {
        let request = client.get(format!("{}{}", registry.url(), exchange.target));
        let accept = exchange.accept.as_deref().unwrap_or("*/*");
        let answer = request.header("accept", accept).header("accept-encoding", "identity").send();
        async { answer.await.expect("an answer").bytes().await.expect("its body").len() }
    };
    let received: usize = stream::iter(log.iter().map(ask))
        .buffer_unordered(AT_ONCE)
        .fold(0, async |sum, size| sum + size)
        .await;
    let taken = started.elapsed();
    assert_eq!(received, bodies);
    taken
}
