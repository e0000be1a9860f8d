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

    /// Waits for a request for each of these paths in turn, lets so many seconds pass after each, and waits for the
    /// task's end. The first path is not asked for again.
    async fn end(&mut self, task: &str, requests: &[(&str, i64)]) -> Value {
        for (number, (path, seconds)) in requests.iter().enumerate() {
            let what = format!("request {number}, for {path}");
            until(&what, PATIENCE, async || {
                self.registry.take_log().iter().any(|request| request.path().ends_with(path)).then_some(())
            })
            .await;
            self.clocks.pass(*seconds);
        }
        let path = requests[0].0;
        self.clocks.set_right();
        let ended = until("the task to end", PATIENCE, async || {
            let task = self.api().task(task).await;
            (task["state"] != "started").then_some(task)
        })
        .await;
        let more = self.registry.take_log();
        assert!(!more.iter().any(|request| request.path().ends_with(path)), "{more:?}");
        ended
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_is_waited_for_visibly_and_not_for_ever() {
    let mut scene = Scene::set().await;
    scene.registry.turn(|_| Some(Answer::Stall));
    let task = scene.api().rescan(&scene.registry.host()).await;
    scene.waits_for(&task, "catalog").await;
    let list = ("/_catalog", 60);
    let ended = scene.end(&task, &[list, list, list, ("/v2/", 30)]).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(ended["message"].as_str().unwrap().contains("no response headers"), "{ended:#}");
    assert_eq!(scene.api().images().await.len(), 14, "what was there stays");
}

#[tokio::test]
async fn a_repository_that_never_answers_is_told_failed_and_the_others_are_read() {
    let mut scene = Scene::set().await;
    scene.registry.turn(|request| request.path().ends_with("/r/a/tags/list").then_some(Answer::Stall));
    let task = scene.api().rescan(&scene.registry.host()).await;
    scene.waits_for(&task, "tags of r/a").await;
    let ended = scene.end(&task, &[("/r/a/tags/list", 30); 3]).await;
    assert_eq!((&ended["state"], &ended["ledger"]["unchanged"]), (&"done".into(), &10.into()), "{ended:#}");
    assert!(ended["ledger"]["failed"].to_string().contains("no response headers"), "{ended:#}");
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
