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

/// The types of the server's schema, as it tells them.
struct Schema(Vec<Value>);

impl Schema {
    async fn of(api: &Api) -> Self {
        let kind = "kind name ofType { kind name ofType { kind name ofType { kind name } } }";
        let query = format!(
            "{{ __schema {{ types {{ name kind fields {{ name args {{ name type {{ {kind} }} }} type {{ {kind} }} }} }} }} }}"
        );
        let mut data = api.ask(&query, json!({})).await;
        let Value::Array(types) = data["__schema"]["types"].take() else { panic!("no types: {data}") };
        Self(types)
    }

    /// The fields of a type; none of one that has none.
    fn fields(&self, name: &str) -> Vec<&Value> {
        let found =
            self.0.iter().find(|kind| kind["name"] == name).unwrap_or_else(|| panic!("no type {name}"));
        found["fields"].as_array().into_iter().flatten().collect()
    }

    /// What is selected of a type: all fields that need no arguments, and all of theirs.
    fn selection(&self, name: &str) -> String {
        let plain = self.fields(name).into_iter().filter(|field| field["args"] == json!([]));
        let selected = plain.map(|field| {
            let (of, kind) = named(&field["type"]);
            let field = text(&field["name"]);
            if kind == "OBJECT" { format!("{field} {{ {} }}", self.selection(of)) } else { field.to_owned() }
        });
        selected.collect::<Vec<_>>().join(" ")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The name and the kind of a type, without lists and what may not be null.
fn named(mut of: &Value) -> (&str, &str) {
    while !of["ofType"].is_null() {
        of = &of["ofType"];
    }
    (text(&of["name"]), text(&of["kind"]))
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

/// The arguments by which a list is told how many rows it has and leaves out.
const COUNTS: [&str; 4] = ["limit", "offset", "first", "last"];

#[tokio::test]
async fn no_list_takes_less_than_no_rows() {
    let scene = Scene::set([Image::new("lab/made", "1")]).await;
    let (api, mut asked) = (scene.api(), 0);
    let schema = Schema::of(&api).await;
    for kind in schema.0.iter().map(|kind| text(&kind["name"])).filter(|name| !name.starts_with("__")) {
        for field in schema.fields(kind) {
            let arguments = field["args"].as_array().expect("a list");
            let counts =
                arguments.iter().map(|argument| text(&argument["name"])).filter(|name| COUNTS.contains(name));
            for count in counts {
                let needed = arguments
                    .iter()
                    .filter(|other| other["type"]["kind"] == "NON_NULL" && other["name"] != count);
                let given: String = needed.map(|other| format!("{}: 1, ", text(&other["name"]))).collect();
                let selection = schema.selection(named(&field["type"]).0);
                let list = format!("{}({given}{count}: -1) {{ {selection} }}", text(&field["name"]));
                let query = match kind {
                    "Query" => format!("{{ {list} }}"),
                    "BackgroundTask" => format!("{{ background_tasks(limit: 1) {{ {list} }} }}"),
                    other => panic!("this test can't ask a {other} for its list {list}"),
                };
                let why = api.refused(&query, json!({})).await;
                assert_eq!(why, format!("{count}: -1 is less than 0; give 0 or more"), "{query}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 16, "{asked}");
}
