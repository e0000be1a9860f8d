//! One fact, one answer: what a row shows, what filters find by it, and what every other surface says of the same thing.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

/// A server with two agents, one of which drains, and a registry that it has read.
struct Scene {
    app: App,
    shelf: Shelf,
    agents: Vec<String>,
    _engines: TempDir,
}

impl Scene {
    async fn set(images: impl IntoIterator<Item = Image>) -> Self {
        let engines = tempfile::tempdir().expect("a directory");
        let folders = ["one", "two"].map(|name| format!("oci:{}", engines.path().join(name).display()));
        let app = App::start_with(move |command| {
            folders.iter().for_each(|folder| drop(command.args(["--engine", folder])));
        })
        .await;
        let (api, shelf) = (app.admin(), Shelf::start(images).await);
        api.add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
        api.scan(&shelf.host()).await;
        let agents = api.agents_alive(2).await;
        api.does("modify_agent", &format!("id: {:?}, props: {{schedulable: false}}", agents[0])).await;
        Self { app, shelf, agents, _engines: engines }
    }

    fn api(&self) -> Api {
        self.app.admin()
    }
}

/// The ids of the agents that a filter finds.
async fn agents(api: &Api, filter: &str) -> Vec<Value> {
    let document = "query($f: String) { agent_list(limit: 100, offset: 0, filter: $f) { items { id } } }";
    let data = api.ask(document, json!({"f": filter})).await;
    let items = data["agent_list"]["items"].as_array().expect("a list");
    items.iter().map(|item| item["id"].clone()).collect()
}

#[tokio::test]
async fn a_draining_agent_is_found_among_those_that_take_no_new_images() {
    let scene = Scene::set([]).await;
    assert_eq!(agents(&scene.api(), "schedulable == false").await, [scene.agents[0].as_str()]);
    assert_eq!(agents(&scene.api(), "schedulable == true").await, [scene.agents[1].as_str()]);
}
