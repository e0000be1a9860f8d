//! One fact, one answer: a row's values, the filters that find it, and every other surface agree.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::Api;
use crate::support::app::{ADMIN_ACCESS_KEY, App};
use crate::support::image::Image;
use crate::support::machine::{Speaker, hello, token};
use crate::support::people;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

/// A server with two agents, one of which drains, and a registry that the server has read.
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
            command.args(folders.iter().flat_map(|folder| ["--engine", folder]));
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

/// The types of the server's schema, by introspection.
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

    /// Returns the fields of a type; none for a type without fields.
    fn fields(&self, name: &str) -> Vec<&Value> {
        let found =
            self.0.iter().find(|kind| kind["name"] == name).unwrap_or_else(|| panic!("no type {name}"));
        found["fields"].as_array().into_iter().flatten().collect()
    }

    /// Returns a selection of all fields of a type that need no arguments, and of their fields.
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

/// Returns the name and the kind of a type, without lists and non-null.
fn named(mut of: &Value) -> (&str, &str) {
    while !of["ofType"].is_null() {
        of = &of["ofType"];
    }
    (text(&of["name"]), text(&of["kind"]))
}

/// A list that can be filtered: the field that asks for it, and the type of its rows.
struct List {
    field: String,
    row: String,
    /// The selection on a row.
    selection: String,
    /// Whether it has Relay's pages.
    is_connection: bool,
}

impl List {
    /// Returns all lists that can be filtered.
    fn all(schema: &Schema) -> Vec<Self> {
        let has_filter = |field: &&Value| {
            field["args"]
                .as_array()
                .is_some_and(|arguments| arguments.iter().any(|one| one["name"] == "filter"))
        };
        let found = schema.fields("Query").into_iter().filter(has_filter).map(|field| {
            let page = named(&field["type"]).0;
            let inner = |of: &str, wanted: &str| {
                let fields = schema.fields(of);
                let found = fields.into_iter().find(|field| field["name"] == wanted)?;
                Some(named(&found["type"]).0.to_owned())
            };
            let node = inner(page, "edges").and_then(|edge| inner(&edge, "node"));
            let is_connection = node.is_some();
            let row = node
                .or_else(|| inner(page, "items"))
                .unwrap_or_else(|| panic!("what are the rows of {page}?"));
            let selection = schema.selection(&row);
            Self { field: text(&field["name"]).to_owned(), row, selection, is_connection }
        });
        found.collect()
    }

    fn query(&self, filter: &str, order: &str) -> (String, Value) {
        let (count, rows, end) = if self.is_connection {
            ("first: 1000", "rows: edges { node", "}")
        } else {
            ("limit: 1000, offset: 0", "rows: items", "")
        };
        let query = format!(
            "query($f: String, $o: String) {{ {}({count}, filter: $f, order: $o) {{ {rows} {{ {} }} {end} }} }}",
            self.field, self.selection
        );
        (query, json!({"f": filter, "o": order}))
    }

    /// Returns the rows, in this order.
    async fn rows(&self, api: &Api, filter: &str, order: &str) -> Vec<Value> {
        let (query, variables) = self.query(filter, order);
        let data = api.ask(&query, variables).await;
        let rows = data[&self.field]["rows"].as_array().expect("a list").clone();
        let node = |row: Value| if self.is_connection { row["node"].clone() } else { row };
        rows.into_iter().map(node).filter(|row| row["access_key"] != ADMIN_ACCESS_KEY).collect()
    }

    /// Returns the fields that filters or orders may name, as the server's error for an unknown field lists them.
    async fn fields(&self, api: &Api, filter: &str, order: &str) -> Vec<String> {
        let (query, variables) = self.query(filter, order);
        let why = api.refused(&query, variables).await;
        let known = ["; there are ", ", but by "].iter().find_map(|words| why.split(words).nth(1));
        let names: Vec<String> =
            known.unwrap_or_else(|| panic!("{why}")).split(", ").map(str::to_owned).collect();
        assert!((5..40).contains(&names.len()), "the server names no more than 40: {why}");
        names
    }
}

/// Fields by which rows can be found but which no row shows.
const UNSEEN: [(&str, &str); 4] = [
    // A row shows which agents have the image.
    ("ImageNode", "stale"),
    // A row shows the labels that decide it.
    ("ImageNode", "is_operation"),
    ("ImageNode", "is_customized"),
    // A row shows the user.
    ("KeyPair", "domain_name"),
];

/// Returns what a row shows of a field that filters name, under this name or elsewhere; `None` if it shows nothing of
/// it.
fn shown(list: &List, row: &Value, field: &str) -> Option<Value> {
    let canonical = || format!("{}/{}:{}", text(&row["registry"]), text(&row["name"]), text(&row["tag"]));
    Some(match (list.row.as_str(), field) {
        pair if UNSEEN.contains(&pair) => return None,
        ("ImageNode", "image") => row["name"].clone(),
        ("ImageNode", "canonical") => canonical().into(),
        ("ImageNode", "is_installed") => row["installed"].clone(),
        ("ImageNode", "accelerators") => row["supported_accelerators"].clone(),
        ("KeyPair", "full_name") => row["user_info"]["full_name"].clone(),
        (kind, field) => match row.get(field.trim_end_matches(".KEY")) {
            Some(value) => value.clone(),
            None => panic!("no {kind} shows {field}; say where it does, or why not"),
        },
    })
}

/// Returns the comparisons that must hold for a field with this value.
fn comparisons(field: &str, value: &Value) -> Vec<String> {
    let is = |constant: String| vec![format!("{field} == {constant}")];
    match value {
        Value::Null => vec![format!("{field} is null")],
        Value::Array(values) if values.is_empty() && !is_keyed(field) => {
            vec![format!("{field} is null")]
        }
        Value::Array(values) => values.iter().flat_map(|value| comparisons(field, value)).collect(),
        Value::Object(pair) => {
            let key = text(&pair["key"]);
            let is_plain =
                key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
            let key = if is_plain { key.to_owned() } else { quoted(key) };
            comparisons(&field.replace("KEY", &key), &pair["value"])
        }
        Value::String(text) => is(quoted(text)),
        Value::Bool(_) | Value::Number(_) => is(value.to_string()),
    }
}

/// Whether a field has keys, as labels do.
fn is_keyed(field: &str) -> bool {
    field.strip_suffix("KEY").is_some()
}

/// Returns a text as filters write it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// Returns the order of two values of a field; null comes last.
fn compare(a: &Value, b: &Value) -> Ordering {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_u64().cmp(&b.as_u64()),
        (Value::String(one), Value::String(other)) => match (time(a), time(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => one.cmp(other),
        },
        _ => a.is_null().cmp(&b.is_null()),
    }
}

/// Returns a scene with something of everything that filters can name.
async fn full() -> (Scene, Speaker) {
    let scene = Scene::set([
        Image::new("lab/deep/python", "3.9-ubuntu20.04")
            .platforms(&["linux/amd64", "linux/arm64"])
            .real_layers(1, 1_000)
            .created("2024-02-03T04:05:06.123456789Z")
            .label("odd key, \"quoted\"", "x")
            .label("lab.example/kind-1", "say \"hi\" \\ once\\"),
        Image::vanilla("tool", "1")
            .label("ai.backend.role", "SERVICE")
            .label("ai.backend.accelerators", "cuda,rocm"),
        Image::new("lab/r", "4.2").label("ai.backend.features", "operation").created("2024-02-03T04:05:06Z"),
    ])
    .await;
    let (api, host) = (scene.api(), scene.shelf.host());
    api.does("alias_image", &format!("alias: \"py\", target: \"{host}/lab/deep/python:3.9-ubuntu20.04\""))
        .await;
    let (first, second) = (&scene.agents[0], &scene.agents[1]);
    let labels = r#"{key: "zone", value: "a"}, {key: "lab.example/rack", value: "7"}"#;
    api.does("modify_agent", &format!("id: {first:?}, props: {{labels: [{labels}]}}")).await;
    let (end, task) = api
        .transfer_to_end("preload_image", &format!("{host}/lab/deep/python:3.9-ubuntu20.04"), second)
        .await;
    assert_eq!(end, "bgtask_done", "{task}");
    // An agent that has reported nothing but its id.
    let told = token(&api, json!({})).await;
    let (speaker, _) = Speaker::join(&scene.app, hello(Some(&told), "speaksnothing")).await.expect("in");
    let props = json!({"password": people::PASSWORD, "full_name": "Ann \"the \\ first\\", "username": "ann"});
    let ann = scene.app.person_with("ann@lab.example", props).await;
    ann.api.ask("{ images { id } }", json!({})).await;
    let props =
        json!({"password": people::PASSWORD, "role": "admin", "description": "no one", "is_active": false});
    let bob = scene.app.person_with("bob@lab.example", props).await;
    api.does("modify_user", &format!("email: {:?}, props: {{need_password_change: true}}", ann.email)).await;
    api.does("modify_keypair", &format!("access_key: {:?}, props: {{rate_limit: 7}}", bob.access_key)).await;
    (scene, speaker)
}

#[tokio::test]
async fn every_list_is_filtered_and_ordered_by_what_its_rows_show() {
    let (scene, _speaker) = full().await;
    let (api, mut seen) = (scene.api(), BTreeSet::new());
    let lists = List::all(&Schema::of(&api).await);
    assert!(lists.len() >= 4, "{}", lists.len());
    for list in &lists {
        let place = |field: &str| format!("{} by {field}", list.field);
        for field in list.fields(&api, "no_such_field == 1", "").await {
            let rows = list.rows(&api, "", "").await;
            assert!(rows.len() > 1, "{}", list.field);
            let compared = |row: &Value| shown(list, row, &field).map(|value| comparisons(&field, &value));
            let all: BTreeSet<String> = rows.iter().filter_map(compared).flatten().collect();
            seen.extend((!all.is_empty()).then(|| place(&field)));
            for filter in all {
                settled(&place(&filter), async || {
                    let rows = list.rows(&api, "", "").await;
                    let shows = |row: &&Value| compared(row).is_some_and(|all| all.contains(&filter));
                    let expected: Vec<Value> = rows.iter().filter(shows).cloned().collect();
                    (list.rows(&api, &filter, "").await, expected)
                })
                .await;
            }
        }
        for field in list.fields(&api, "", "no_such_field").await {
            // Relay's ids are sorted by what they encode.
            let shown_as =
                if (list.row.as_str(), field.as_str()) == ("ImageNode", "id") { "row_id" } else { &field };
            let by = |a: &Value, b: &Value| match (shown(list, a, shown_as), shown(list, b, shown_as)) {
                (Some(a), Some(b)) => compare(&a, &b),
                _ => Ordering::Equal,
            };
            settled(&place(&format!("order {field}")), async || {
                let found = list.rows(&api, "", &field).await;
                let mut expected = found.clone();
                expected.sort_by(by);
                (found, expected)
            })
            .await;
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
}

/// Waits until both are equal: a row may change while it is read, as free room on a disk does.
async fn settled(what: &str, both: impl AsyncFn() -> (Vec<Value>, Vec<Value>)) {
    for _ in 0..5 {
        let (found, expected) = both().await;
        if found == expected {
            return;
        }
    }
    let (found, expected) = both().await;
    assert_eq!(found, expected, "{what}");
}

/// Returns the ids of the agents that a filter finds.
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

/// The arguments that say how many rows a list returns and skips.
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
                let given: Vec<String> =
                    needed.map(|other| format!("{}: 1, ", text(&other["name"]))).collect();
                let given = given.concat();
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

/// A name in `/v2` that differs from GraphQL's, and how to read the value from a GraphQL row.
type Renamed = (&'static str, fn(&Value) -> Value);

/// Compares an item of `/v2` with a row of GraphQL: values that both have must be equal. Names in `only` have no
/// counterpart.
fn alike(item: &Value, row: &Value, renamed: &[Renamed], only: &[&str]) {
    for (name, value) in item.as_object().expect("an object") {
        let counterpart = renamed.iter().find(|(of, _)| of == name).map(|(_, read)| read(row));
        let counterpart = counterpart.or_else(|| row.get(name).cloned());
        match counterpart {
            Some(counterpart) => assert_eq!(*value, counterpart, "{name} of {item}\n{row}"),
            None => {
                assert!(only.contains(&name.as_str()), "GraphQL has no {name}; say what it is called there");
            }
        }
    }
}

fn joined(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn the_newest_clients_are_told_of_images_and_registries_what_graphql_tells() {
    let (scene, _speaker) = full().await;
    let api = scene.api();
    let changed = json!({"hostname": scene.shelf.host(), "props": {"project": ["lab", "tool"], "is_global": false, "ssl_verify": false}});
    let change = "mutation($hostname: String!, $props: ModifyContainerRegistryInput!) {
        modify_container_registry(hostname: $hostname, props: $props) { msg } }";
    api.ask(change, changed).await;
    let schema = Schema::of(&api).await;
    let search = async |of: &str| {
        let reply = api.call("POST", &format!("/v2/{of}/search")).json(&json!({"limit": 1000})).send().await;
        let items = reply.json()["items"].as_array().expect("items").clone();
        assert!(!items.is_empty(), "{of}");
        items
    };

    let lists = List::all(&schema);
    let images = lists.iter().find(|list| list.row == "ImageNode").expect("a list of images");
    let rows = images.rows(&api, "", "").await;
    let registries = search("container-registries").await;
    let renamed: [Renamed; 7] = [
        ("id", |row| row["row_id"].clone()),
        ("entity_id", |row| row["row_id"].clone()),
        ("name", |row| {
            format!("{}/{}:{}", text(&row["registry"]), text(&row["name"]), text(&row["tag"])).into()
        }),
        ("image", |row| row["name"].clone()),
        ("config_digest", |row| row["digest"].clone()),
        ("accelerators", |row| joined(&row["supported_accelerators"]).into()),
        ("type", |row| row["type"].clone()),
    ];
    let found = search("images").await;
    assert_eq!(found.len(), rows.len());
    for item in found {
        let row = rows.iter().find(|row| row["row_id"] == item["id"]).expect("GraphQL has it, too");
        alike(&item, row, &renamed, &["registry_id", "tags", "last_used_at"]);
        assert!(registries.iter().any(|registry| registry["id"] == item["registry_id"]), "{item}");
    }

    let selection = schema.selection("ContainerRegistry");
    let data = api.ask(&format!("{{ container_registries {{ {selection} }} }}"), json!({})).await;
    let rows = data["container_registries"].as_array().expect("a list");
    let renamed: [Renamed; 1] = [("project", |config| joined(&config["project"]).into())];
    let found = search("container-registries").await;
    assert_eq!(found.len(), rows.len());
    for item in found {
        let row =
            rows.iter().find(|row| row["hostname"] == item["registry_name"]).expect("GraphQL has it, too");
        alike(&item, &row["config"], &renamed, &["id", "entity_id", "registry_name", "extra"]);
        // Clients before 24.9 read the same facts as configuration keys.
        let key =
            json!({"key": format!("config/docker/registry/{}", text(&row["hostname"])), "prefix": true});
        let keys = api.call("POST", "/config/get").json(&key).send().await.json()["result"].clone();
        let renamed: [Renamed; 4] = [
            ("", |config| config["url"].clone()),
            ("project", |config| joined(&config["project"]).into()),
            ("ssl_verify", |config| config["ssl_verify"].to_string().into()),
            ("ssl-verify", |config| config["ssl_verify"].to_string().into()),
        ];
        alike(&keys, &row["config"], &renamed, &[]);
    }
}

/// Things that several queries return: their type, the queries for all, the query for one, and its argument.
const TOLD: [(&str, &[&str], &str, &str); 5] = [
    ("Agent", &["agents"], "agent(agent_id: KEY)", "id"),
    ("User", &["users"], "user(email: KEY)", "email"),
    ("KeyPair", &["keypairs"], "keypair(access_key: KEY)", "access_key"),
    ("ImageNode", &[], "image_node(id: KEY)", "id"),
    ("Image", &["images"], "image(id: KEY)", "id"),
];

#[tokio::test]
async fn whichever_query_tells_of_a_thing_says_the_same() {
    let (scene, _speaker) = full().await;
    let api = scene.api();
    let schema = Schema::of(&api).await;
    let lists = List::all(&schema);
    let known = |list: &List| TOLD.iter().any(|(kind, ..)| *kind == list.row);
    assert!(lists.iter().all(known), "every list is held against the query of one");
    for (kind, all, one, key) in TOLD {
        let selection = schema.selection(kind);
        let told = async || {
            let mut told: Vec<Vec<Value>> = Vec::new();
            for query in all {
                let data = api.ask(&format!("{{ {query} {{ {selection} }} }}"), json!({})).await;
                told.push(data[*query].as_array().expect("a list").clone());
            }
            for list in lists.iter().filter(|list| list.row == kind) {
                told.push(list.rows(&api, "", "").await);
            }
            let mut single = Vec::new();
            for row in told.first().expect("at least one list") {
                let query = one.replace("KEY", &row[key].to_string());
                let data = api.ask(&format!("{{ one: {query} {{ {selection} }} }}"), json!({})).await;
                single.push(data["one"].clone());
            }
            told.push(single);
            let others = |row: &Value| row["access_key"] != ADMIN_ACCESS_KEY;
            told.into_iter()
                .map(|rows| {
                    let mut rows: Vec<Value> = rows.into_iter().filter(others).collect();
                    rows.sort_by_key(|row| row[key].to_string());
                    rows
                })
                .collect::<Vec<_>>()
        };
        for of in 0..told().await.len() {
            settled(&format!("{kind} by the query number {of}"), async || {
                let told = told().await;
                (told[of].clone(), told[0].clone())
            })
            .await;
        }
    }
    // Fields that both types of images have are equal in both.
    let data = api.ask(&format!("{{ images {{ {} }} }}", schema.selection("Image")), json!({})).await;
    let nodes =
        lists.iter().find(|list| list.row == "ImageNode").expect("a list of nodes").rows(&api, "", "").await;
    for image in data["images"].as_array().expect("a list") {
        let node = nodes.iter().find(|node| node["row_id"] == image["id"]).expect("a node");
        alike(image, node, &[("id", |node| node["row_id"].clone())], &[]);
    }
}
