//! Registries that take requests and answer none: that is told while it lasts, can be ended, and comes to an end by
//! itself.

use serde_json::Value;

use super::healthy;
use crate::support::api::Api;
use crate::support::app::App;
use crate::support::clock::Clocks;
use crate::support::http1::Answer;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

struct Scene {
    app: App,
    clocks: Clocks,
    registry: Shelf,
}

impl Scene {
    async fn set() -> Self {
        let clocks = Clocks::real();
        let app = App::start_with(clocks.shown_to()).await;
        let registry = Shelf::start(healthy()).await;
        app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        app.admin().scan(&registry.host()).await;
        registry.take_log();
        Self { app, clocks, registry }
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    /// Waits until an item says that it waits for an answer to this, and the task's message says so, too.
    async fn waits_for(&self, task: &str, what: &str) {
        let words = format!("{what}: no answer for ");
        until(&words, PATIENCE, async || {
            let task = self.api().task(task).await;
            let says = |text: &Value| text.as_str().is_some_and(|text| text.contains(&words));
            let item = task["items"].as_array()?.iter().any(|item| says(&item["reason"]));
            (task["state"] == "started" && item && says(&task["message"])).then_some(())
        })
        .await;
    }

    /// Lets time pass until the task has ended; returns it, and how many seconds that took.
    async fn end(&mut self, task: &str) -> (Value, i64) {
        let mut passed = 0;
        loop {
            self.clocks.pass(5);
            self.clocks.set_right();
            passed += 5;
            let now = self.api().task(task).await;
            if now["state"] != "started" {
                return (now, passed);
            }
            assert!(passed < 600, "it does not end: {now:#}");
            // What was due has its moment.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_is_waited_for_visibly_and_for_three_minutes_at_most() {
    let mut scene = Scene::set().await;
    scene.registry.turn(|_| Some(Answer::Stall));
    let task = scene.api().rescan(&scene.registry.host()).await;
    scene.waits_for(&task, "catalog").await;
    let (ended, passed) = scene.end(&task).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(ended["message"].as_str().unwrap().contains("no response headers"), "{ended:#}");
    assert!((120..=200).contains(&passed), "{passed} s");
    assert_eq!(scene.registry.take_log().len(), 3, "requests");
    assert_eq!(scene.api().images().await.len(), 14, "what was there stays");
}

#[tokio::test]
async fn a_repository_that_never_answers_is_told_failed_and_the_others_are_read() {
    let mut scene = Scene::set().await;
    scene.registry.turn(|request| request.path().ends_with("/r/a/tags/list").then_some(Answer::Stall));
    let task = scene.api().rescan(&scene.registry.host()).await;
    scene.waits_for(&task, "tags of r/a").await;
    let (ended, passed) = scene.end(&task).await;
    assert_eq!((&ended["state"], &ended["ledger"]["unchanged"]), (&"done".into(), &10.into()), "{ended:#}");
    assert!(ended["ledger"]["failed"].to_string().contains("no response headers"), "{ended:#}");
    assert!(passed <= 120, "{passed} s");
}

#[tokio::test]
async fn a_scan_of_a_registry_that_never_answers_can_be_cancelled() {
    let scene = Scene::set().await;
    scene.registry.turn(|_| Some(Answer::Stall));
    let task = scene.api().rescan(&scene.registry.host()).await;
    scene.waits_for(&task, "catalog").await;
    assert!(scene.api().mutate("cancel_task", &format!("id: {task:?}")).await.0);
    assert!(scene.api().finish(&task).await.name.ends_with("cancelled"));
}
