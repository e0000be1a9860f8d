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

#[tokio::test]
async fn an_image_is_of_one_type_and_of_one_moment_whoever_is_asked() {
    let roles = ["COMPUTE", "INFERENCE", "service", "system", "toy"];
    let image = |role: &&str| {
        let image = Image::new("lab/made", &role.to_lowercase()).label("ai.backend.role", role);
        image.created("2024-02-03T04:05:06.123456789Z")
    };
    let scene = Scene::set(roles.iter().map(image)).await;
    let document =
        "{ image_nodes(first: 100, order: \"tag\") { edges { node { row_id type created_at } } } }";
    let nodes = scene.api().ask(document, json!({})).await["image_nodes"]["edges"].take();
    let search = json!({"order": [{"field": "tag"}], "limit": 100});
    let found = scene.api().call("POST", "/v2/images/search").json(&search).send().await.json();
    let nodes = nodes.as_array().expect("a list").iter().map(|edge| edge["node"].clone());
    let items = found["items"].as_array().expect("a list").iter();
    let items = items
        .map(|item| json!({"row_id": item["id"], "type": item["type"], "created_at": item["created_at"]}));
    let (nodes, items): (Vec<Value>, Vec<Value>) = (nodes.collect(), items.collect());
    assert_eq!(nodes, items);
    let types: Vec<&str> = nodes.iter().filter_map(|node| node["type"].as_str()).collect();
    assert_eq!(types, ["compute", "service", "service", "system", "compute"]);
}
