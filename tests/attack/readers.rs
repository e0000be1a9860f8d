//! Clients that list a large catalog all the time, during a rescan.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

/// How many clients list, and how many images the catalog has.
const READERS: usize = 32;
const IMAGES: usize = 10_000;
/// Longest time for a rescan during the listing: ten times the goal.
const SLOWEST: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rescan_has_its_turn_beside_those_who_list_everything_all_the_time() {
    let app = App::start().await;
    let large = Shelf::start(
        (0..IMAGES).map(|n| Image::new(&format!("r/{}", n % 20), &n.to_string()).content("the same")),
    )
    .await;
    let small = Shelf::start((0..50).map(|n| Image::new(&format!("s/{}", n % 5), &n.to_string()))).await;
    let admin = app.admin();
    for registry in [&large, &small] {
        admin.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        admin.scan(&registry.host()).await;
    }
    let rescan = async || {
        let begun = Instant::now();
        let task = admin.scan(&small.host()).await;
        assert_eq!(task["ledger"]["unchanged"], 50, "{task:#}");
        begun.elapsed()
    };
    let alone = rescan().await;
    let stop = CancellationToken::new();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (admin, stop) = (app.admin(), stop.clone());
        readers.spawn(async move {
            let mut lists = 0;
            while !stop.is_cancelled() {
                let query = json!({"query": "{ images { name tag registry digest labels { key value } } }"});
                let reply = admin.call("POST", "/admin/gql").json(&query).send().await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                assert!(reply.body.len() > IMAGES * 100, "{} bytes", reply.body.len());
                lists += 1;
            }
            lists
        });
    }
    let mut beside = Duration::ZERO;
    for _ in 0..3 {
        beside = beside.max(rescan().await);
    }
    stop.cancel();
    let lists: usize = readers.join_all().await.into_iter().sum();
    assert!(lists >= READERS, "{lists} lists");
    println!("alone {alone:?}, beside {lists} lists {beside:?}");
    assert!(beside < SLOWEST, "a rescan took {beside:?}");
}
