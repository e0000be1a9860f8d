//! Pulls that ended while nobody could be told: whoever asks for the image later is told what is so by then.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::machine::{Machine, agent, becomes, token};
use crate::support::proxy::CountingProxy;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

const NODE: &str = "gpu01";

/// A manager, an agent with a directory behind a link that can be cut, and a registry that can be held up.
struct Scene {
    app: App,
    link: CutProxy,
    machine: Machine,
    images: TempDir,
    registry: Shelf,
    way: CountingProxy,
}

impl Scene {
    async fn set() -> Self {
        let registry = Shelf::start([Image::new("r/a", "1").real_layers(1, 1_000)]).await;
        let way = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&way.host(), &way.url(), Some((USER, PASSWORD))).await;
        app.admin().scan(&way.host()).await;
        let images = tempfile::tempdir().unwrap();
        let link = CutProxy::start(app.url()).await;
        let engine = format!("oci:{}", images.path().display());
        let mut machine = Machine::new(&link.url(), &engine).with(&["--id", NODE]);
        machine.start(Some(&token(&app.admin(), json!({})).await));
        becomes(&app.admin(), NODE, "ALIVE").await;
        Self { app, link, machine, images, registry, way }
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    async fn preload(&self) -> String {
        self.api().transfer("preload_image", &format!("{}/r/a:1", self.way.host()), NODE).await
    }

    async fn item(&self, task: &str) -> Value {
        self.api().task(task).await["items"][0].clone()
    }

    /// Begins a pull, cuts the link, has the pull end with these words, and nobody asks for it any more.
    async fn ends_untold(&self, words: &str) {
        self.way.take_log();
        self.way.hold();
        let task = self.preload().await;
        until("the agent to ask the registry", PATIENCE, async || {
            (self.way.arrived() > self.way.log().len()).then_some(())
        })
        .await;
        self.link.cut();
        until("the item to wait", PATIENCE, async || {
            (self.item(&task).await["state"] == "waiting").then_some(())
        })
        .await;
        self.way.release();
        self.machine.logs(words).await;
        assert!(self.api().mutate("cancel_task", &format!("id: {task:?}")).await.0);
        self.api().finish(&task).await;
    }

    async fn mend(&self) {
        self.link.mend();
        let is_back = async || agent(&self.api(), NODE).await["status_reason"].is_null().then_some(());
        until("the agent to be back", PATIENCE, is_back).await;
    }

    /// A new preload is done at its first try.
    async fn is_loaded(&self) {
        let task = self.preload().await;
        self.api().finish(&task).await;
        let item = self.item(&task).await;
        let told = [&item["state"], &item["attempts"], &item["reason"]];
        assert_eq!(told, [&json!("done"), &json!(1), &json!("loaded")], "{item:#}");
        let index = fs::read_to_string(self.images.path().join("index.json")).unwrap();
        assert!(index.contains("r/a:1"), "{index}");
    }
}

#[tokio::test]
async fn an_image_that_was_removed_after_its_pull_ended_untold_is_pulled_anew() {
    let scene = Scene::set().await;
    scene.ends_untold("\"pulled\"").await;
    fs::write(scene.images.path().join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    scene.mend().await;
    scene.is_loaded().await;
}

#[tokio::test]
async fn a_pull_that_failed_untold_is_no_answer_to_who_asks_once_the_registry_is_well() {
    let scene = Scene::set().await;
    scene.registry.turn(|request| request.path().contains("/blobs/").then(|| Response::new(404).into()));
    scene.ends_untold("\"not pulled\"").await;
    scene.registry.turn(|_| None);
    scene.mend().await;
    scene.is_loaded().await;
}
