//! Windows, tested with the server's own clock where possible, and with a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use wharf::base::clock::Clock;

use super::{LONG, Scene, lab};
use crate::support::api::Api;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY};
use crate::support::registry::RealRegistry;
use crate::support::sign::Keypair;
use crate::support::wait::until;
use crate::support::within::Within;

/// A window that opens `from` minutes after now and closes `to` minutes after now, in UTC.
fn window(from: i64, to: i64) -> String {
    let time =
        |minutes| (Timestamp::now() + SignedDuration::from_mins(minutes)).strftime("%H:%M").to_string();
    format!("{}-{}", time(from), time(to))
}

#[tokio::test]
async fn outside_its_window_a_rule_begins_nothing() {
    let Some(scene) = Scene::set(&["one"], vec![lab("python", "3")]).await else { return };
    let api = scene.api();
    scene.add("standard", "lab/*", "*", json!({"window": window(120, 180), "time_zone": "UTC"})).await;
    let rule = api.rule_is("standard", "closed").await;
    assert_eq!((&rule["status"]["due"], &rule["is_open"]), (&json!(1), &json!(false)), "{rule:#}");
    let opens: Timestamp = rule["opens_at"].as_str().unwrap().parse().unwrap();
    let wait = opens.duration_since(Timestamp::now());
    assert!(wait > SignedDuration::from_mins(110) && wait <= SignedDuration::from_mins(120), "{rule:#}");
    assert_eq!((&rule["closes_at"], &rule["effective_time_zone"]), (&json!(null), &json!("UTC")));
    scene.another_round("standard").await;
    assert!(api.tasks_of("standard").await.is_empty());

    let changed = api.change_rule("standard", json!({"window": window(-60, 60)})).await;
    assert_eq!(changed["ok"], true, "{changed}");
    scene.becomes("lab/python:3", &["present"]).await;
    let rule = api.rule_is("standard", "filled").await;
    assert!(
        rule["closes_at"].is_string() && rule["opens_at"].is_null() && rule["time_zone"] == "UTC",
        "{rule:#}"
    );
    let always = api.change_rule("standard", json!({"window": ""})).await;
    assert_eq!(always["ok"], true, "{always}");
    assert_eq!(api.rule("standard").await["window"], json!(null));
}

/// A clock that runs like the real one, and can be put ahead.
fn clock() -> (Clock, Arc<AtomicI64>) {
    let ahead = Arc::new(AtomicI64::new(0));
    let seconds = Arc::clone(&ahead);
    let now = move || Timestamp::now() + SignedDuration::from_secs(seconds.load(Ordering::SeqCst));
    (Clock::new(now), ahead)
}

#[tokio::test]
async fn a_rule_begins_when_its_window_opens_and_what_it_began_goes_on_when_it_closes() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all([lab("python", "3")]).await;
    let folder = tempfile::tempdir().unwrap();
    let engine = format!("oci:{}", folder.path().join("images").display());
    let (clock, ahead) = clock();
    let server = Within::start(folder.path().join("data"), &engine, clock).await;
    let api = Api::new(&server.url, Some(Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY)));
    api.add_registry(&registry).await;
    api.scan(registry.host()).await;
    api.agents_alive(1).await;

    // Requests carry the real clock's date, and the server accepts a difference of a quarter of an hour.
    let images = format!("{}/lab/*", registry.host());
    api.add_rule("standard", &images, "*", json!({"window": window(3, 6), "time_zone": "UTC"})).await;
    api.rule_is("standard", "closed").await;
    assert!(api.tasks_of("standard").await.is_empty());
    ahead.store(200, Ordering::SeqCst);
    let name = format!("{}/lab/python:3", registry.host());
    let is_there = async || (api.presence(&name).await == ["present"]).then_some(());
    until("the window to open and the image to come", LONG, is_there).await;

    ahead.store(400, Ordering::SeqCst);
    registry.push_all([lab("python", "3").label("moved", "yes")]).await;
    api.scan(registry.host()).await;
    let rule = api.rule_is("standard", "closed").await;
    assert_eq!(rule["status"]["due"], 1, "{rule:#}");
    assert_eq!(api.tasks_of("standard").await.len(), 1);
    server.stop().await;
}
