//! Agents on other machines: real processes, real engines, a link that can be cut, and agents that misbehave.

mod caches;
mod joining;
mod layouts;
mod manners;
mod partition;
mod seeding;
mod untold;

use std::process::Command;

use serde_json::json;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::dockerd::RealDocker;
use crate::support::image::{Built, Image};
use crate::support::machine::{Machine, becomes, token};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;

/// The id of the agent of a scene.
const NODE: &str = "i-node";

/// A manager that has read a registry, and an agent on "another machine" with an engine of its own. The registry and
/// the link are behind proxies.
struct Scene {
    app: App,
    registry: CountingProxy,
    link: CutProxy,
    machine: Machine,
    node: RealDocker,
    real: RealRegistry,
    built: Built,
}

impl Scene {
    async fn set(change: impl Fn(&mut Command) + Send + Sync + 'static) -> Option<Self> {
        Self::with(RealRegistry::open().await?, change).await
    }

    async fn with(real: RealRegistry, change: impl Fn(&mut Command) + Send + Sync + 'static) -> Option<Self> {
        let node = RealDocker::start().await?;
        let built = real.push(&Image::new("lab/python", "1").real_layers(2, 100_000)).await;
        let registry = CountingProxy::start(&real.url()).await;
        let app = App::start_with(change).await;
        app.admin().add_registry_at(&registry.host(), &registry.url(), real.credentials()).await;
        app.admin().scan(&registry.host()).await;
        let link = CutProxy::start(app.url()).await;
        let mut machine = Machine::new(&link.url(), &node.url()).with(&["--id", NODE]);
        machine.start(Some(&token(&app.admin(), json!({})).await));
        becomes(&app.admin(), NODE, "ALIVE").await;
        registry.take_log();
        Some(Self { app, registry, link, machine, node, real, built })
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    /// Returns the image's name.
    fn name(&self) -> String {
        format!("{}/{}:{}", self.registry.host(), self.built.repository, self.built.tag)
    }

    async fn begin(&self, field: &str) -> String {
        self.api().transfer(field, &self.name(), "*").await
    }

    /// Returns the state, the number of attempts and the reason of a task's only item.
    async fn item(&self, task: &str) -> (String, u64, String) {
        let task = self.api().task(task).await;
        let item = &task["items"][0];
        (
            item["state"].as_str().unwrap_or_default().to_owned(),
            item["attempts"].as_u64().unwrap_or_default(),
            item["reason"].as_str().unwrap_or_default().to_owned(),
        )
    }

    async fn presence(&self) -> String {
        let query = "query($r: String!) { image_presence(reference: $r) { agent state } }";
        let data = self.api().ask(query, json!({"r": self.name()})).await;
        data["image_presence"][0]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns how many times each blob was fetched.
    fn fetched(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for exchange in self.registry.log() {
            if exchange.method == "GET" && exchange.is_blob() && exchange.status == 200 {
                *counts.entry(exchange.target).or_insert(0) += 1;
            }
        }
        counts.into_iter().collect()
    }
}
