//! Preloads onto real Docker engines, and unloads from them.

pub mod architectures;
mod why;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::image::{Built, Image};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::verbs::counts;
use crate::support::wait::{PATIENCE, until};

/// A server with engines, and a registry behind a proxy that the server has read.
struct Scene {
    app: App,
    proxy: CountingProxy,
    registry: RealRegistry,
    nodes: Vec<RealDocker>,
    built: Vec<Built>,
    /// The agents' ids, in order.
    agents: Vec<String>,
}

impl Scene {
    async fn set(nodes: usize, images: Vec<Image>) -> Option<Self> {
        Self::set_with(nodes, images, |_| ()).await
    }

    /// Returns a scene with a changed command line of the server.
    async fn set_with(
        nodes: usize,
        images: Vec<Image>,
        change: impl Fn(&mut Command) + Send + Sync + 'static,
    ) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        let mut engines = Vec::new();
        for _ in 0..nodes {
            engines.push(RealDocker::start().await?);
        }
        let mut built = Vec::new();
        for image in &images {
            built.push(registry.push(image).await);
        }
        let proxy = CountingProxy::start(&registry.url()).await;
        let urls: Vec<String> = engines.iter().map(RealDocker::url).collect();
        let app = App::start_with(move |command| {
            for url in &urls {
                command.args(["--engine", url]);
            }
            change(command);
        })
        .await;
        let api = app.admin();
        api.add_registry_at(&proxy.host(), &proxy.url(), None).await;
        api.scan(&proxy.host()).await;
        let mut scene = Self { app, proxy, registry, nodes: engines, built, agents: Vec::new() };
        scene.agents = scene.api().agents_alive(nodes).await;
        Some(scene)
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    /// Returns an image's name, here and on the nodes.
    fn name(&self, image: usize) -> String {
        let built = &self.built[image];
        format!("{}/{}:{}", self.proxy.host(), built.repository, built.tag)
    }

    /// Starts it; returns the task.
    async fn begin(&self, field: &str, image: usize, agents: &str) -> String {
        self.api().transfer(field, &self.name(image), agents).await
    }

    /// Runs it to the end; returns the final event's name and the task.
    async fn end(&self, field: &str, image: usize, agents: &str) -> (String, Value) {
        self.api().transfer_to_end(field, &self.name(image), agents).await
    }

    /// Returns the state of an image on each agent, in order.
    async fn presence(&self, image: usize) -> Vec<String> {
        self.api().presence(&self.name(image)).await
    }

    /// Waits until the image has these states: for less than a minute, after which engines are read even without an
    /// event.
    async fn becomes(&self, image: usize, states: &[&str]) {
        let what = format!("image {image} to be {states:?}");
        until(&what, Duration::from_secs(45), async || (self.presence(image).await == states).then_some(()))
            .await;
    }

    /// Returns `docker images` of a node.
    async fn listed(&self, node: usize) -> Vec<String> {
        let format = ["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
        self.nodes[node].docker_ok(&format).await.lines().map(str::to_owned).collect()
    }
}

async fn ask_for(api: &Api, field: &str, reference: &str, agents: &str) -> Value {
    let document = format!(
        "mutation($r: String!, $a: String!) {{ {field}(reference: $r, target_agents: $a) {{ ok msg task_id }} }}"
    );
    api.ask(&document, json!({"r": reference, "a": agents})).await[field].take()
}

/// Makes this command respect the permissions of files, even if root runs the tests.
fn heed_permissions(command: &mut Command) {
    let mut bound = Command::new("setpriv");
    bound
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(command.get_program())
        .args(command.get_args());
    bound.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bound.current_dir(command.get_current_dir().expect("a directory"));
    *command = bound;
}

fn reasons(task: &Value) -> Vec<(&str, u64, &str)> {
    let items = task["items"].as_array().unwrap();
    let text = |item: &Value, field: &str| item[field].as_str().is_some();
    items
        .iter()
        .map(|item| {
            assert!(text(item, "state"), "{item}");
            (
                item["state"].as_str().unwrap(),
                item["attempts"].as_u64().unwrap(),
                item["reason"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

fn lab(tag: &str) -> Image {
    Image::new("lab/python", tag).real_layers(2, 100_000)
}

#[tokio::test]
async fn an_image_is_loaded_onto_every_agent_an_expression_names() {
    let Some(scene) = Scene::set(2, vec![lab("1"), lab("2")]).await else { return };
    let task = scene.begin("preload_image", 0, "*").await;
    let events = scene.api().events(&task).await.rest().await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names[names.len() - 2..], ["bgtask_done", "server_close"], "{names:?}");
    let ended = scene.api().task(&task).await;
    assert_eq!(reasons(&ended), [("done", 1, "loaded"), ("done", 1, "loaded")], "{ended:#}");
    assert_eq!(counts(&ended), [2, 0, 0, 0, 0, 0]);
    let line = format!("{} {}", scene.name(0), scene.built[0].part("x86_64").config);
    for node in 0..2 {
        assert_eq!(scene.listed(node).await, [line.as_str()]);
    }
    assert_eq!(scene.presence(0).await, ["present", "present"]);
    assert_eq!(scene.presence(1).await, ["absent", "absent"]);
    let image = scene.api().image("lab/python", "1", "x86_64").await;
    assert_eq!((&image["installed"], &image["installed_agents"]), (&json!(true), &json!(scene.agents)));

    let (name, again) = scene.end("preload_image", 0, &scene.agents.join(",")).await;
    assert_eq!(name, "bgtask_done", "{again:#}");
    assert_eq!(reasons(&again), [("done", 1, "already there"), ("done", 1, "already there")]);
    assert_eq!(counts(&again), [0, 0, 2, 0, 0, 0]);

    let (_, one) = scene.end("preload_image", 1, &scene.agents[1]).await;
    assert_eq!(reasons(&one), [("done", 1, "loaded")]);
    assert_eq!(scene.presence(1).await, ["absent", "present"]);
}

#[tokio::test]
async fn what_is_done_behind_our_back_shows_within_seconds() {
    let images = vec![lab("1"), lab("2")];
    let Some(scene) = Scene::set(1, images).await else { return };
    let node = &scene.nodes[0];
    scene.becomes(0, &["absent"]).await;
    node.docker_ok(&["pull", &scene.name(0)]).await;
    scene.becomes(0, &["present"]).await;
    node.docker_ok(&["tag", &scene.name(0), &scene.name(1)]).await;
    scene.becomes(1, &["stale"]).await;
    node.docker_ok(&["rmi", &scene.name(1)]).await;
    scene.becomes(1, &["absent"]).await;
    assert_eq!(scene.presence(0).await, ["present"]);
    node.docker_ok(&["rmi", &scene.name(0)]).await;
    scene.becomes(0, &["absent"]).await;
    assert_eq!(scene.listed(0).await, [""; 0]);
}

#[tokio::test]
async fn an_unload_says_what_became_of_the_image() {
    let Some(scene) = Scene::set(1, vec![lab("1")]).await else { return };
    let node = &scene.nodes[0];
    let (name, ended) = scene.end("unload_image", 0, "*").await;
    assert_eq!((name.as_str(), reasons(&ended)), ("bgtask_done", vec![("done", 1, "not there")]));

    scene.end("preload_image", 0, "*").await;
    node.docker_ok(&["create", "--name", "holder", &scene.name(0), "/file"]).await;
    let (name, ended) = scene.end("unload_image", 0, "*").await;
    let (state, attempts, reason) = reasons(&ended)[0];
    assert_eq!((name.as_str(), state, attempts), ("bgtask_failed", "failed", 1), "{ended:#}");
    assert!(reason.contains("in use") && reason.contains("1 container: holder"), "{reason}");
    assert_eq!(scene.presence(0).await, ["present"]);
    node.docker_ok(&["rm", "holder"]).await;

    node.docker_ok(&["tag", &scene.name(0), "elsewhere:1"]).await;
    let (_, ended) = scene.end("unload_image", 0, "*").await;
    assert!(reasons(&ended)[0].2.starts_with("untagged"), "{ended:#}");
    node.docker_ok(&["rmi", "elsewhere:1"]).await;

    scene.end("preload_image", 0, "*").await;
    let (_, ended) = scene.end("unload_image", 0, "*").await;
    assert_eq!(reasons(&ended), [("done", 1, "removed")]);
    assert_eq!(counts(&ended), [0, 0, 0, 1, 0, 0]);
    assert_eq!(scene.presence(0).await, ["absent"]);
    assert_eq!(scene.listed(0).await, [""; 0]);
}

#[tokio::test]
async fn an_image_whose_name_another_gets_goes_unless_that_would_lose_it() {
    let Some(scene) = Scene::set(1, vec![lab("1")]).await else { return };
    let (node, name) = (&scene.nodes[0], scene.name(0));
    scene.end("preload_image", 0, "*").await;
    let replace = async |content: &str| {
        let built = scene.registry.push(&lab("1").content(content)).await;
        scene.api().scan(&scene.proxy.host()).await;
        let (_, ended) = scene.end("preload_image", 0, "*").await;
        (built, reasons(&ended)[0].2.to_owned())
    };
    let line = |built: &Built| format!("{name} {}", built.part("x86_64").config);
    let (second, fate) = replace("second").await;
    assert_eq!(fate, "loaded; the image that had the name before is gone");
    assert_eq!(scene.listed(0).await, [line(&second)]);

    node.docker_ok(&["create", "--name", "holder", &name, "/file"]).await;
    let (third, fate) = replace("third").await;
    assert!(fate.starts_with("loaded; the image that had the name before stays"), "{fate}");
    assert!(fate.contains("1 container: holder"), "{fate}");
    assert_eq!(scene.listed(0).await.len(), 2);
    node.docker_ok(&["rm", "holder"]).await;
    node.docker_ok(&["rmi", &second.part("x86_64").config]).await;

    // The only copy there is, now that the registry has lost it.
    scene.registry.delete_manifest(&third.repository, &third.part("x86_64").manifest).await;
    let (fourth, fate) = replace("fourth").await;
    assert_eq!(
        fate,
        "loaded; the image that had the name before stays: its registry does not have it any more"
    );
    let listed = scene.listed(0).await;
    let kept = &third.part("x86_64").config;
    assert!(listed.len() == 2 && listed.contains(&line(&fourth)), "{listed:?}");
    assert!(listed.iter().any(|line| line.ends_with(kept.as_str())), "{listed:?}");
}

#[tokio::test]
async fn a_cancelled_preload_leaves_no_pull_in_the_engine() {
    let large = Image::new("lab/large", "1").real_layers(3, 5_000_000);
    let Some(scene) = Scene::set(1, vec![large]).await else { return };
    scene.proxy.take_log();
    // The manifest arrives, the layers don't.
    let gate = scene.proxy.gate();
    scene.proxy.answer(move |request| {
        if request.method == "GET" && request.target.contains("/manifests/") {
            gate.send_replace(false);
        }
        None
    });
    let task = scene.begin("preload_image", 0, "*").await;
    until("the layers to be asked for", PATIENCE, async || {
        let got = |e: &crate::support::proxy::Exchange| e.is_manifest() && e.method == "GET";
        let answered = scene.proxy.log().len();
        (scene.proxy.log().iter().any(got) && scene.proxy.arrived() > answered).then_some(())
    })
    .await;
    let document = "mutation($id: String!) { cancel_task(id: $id) { ok msg } }";
    let answer = scene.api().ask(document, json!({"id": task})).await;
    assert_eq!(answer["cancel_task"]["ok"], true, "{answer}");
    assert_eq!(scene.api().finish(&task).await.name, "bgtask_cancelled");
    let ended = scene.api().task(&task).await;
    assert_eq!(ended["items"][0]["state"], "cancelled", "{ended:#}");
    // Docker notices only once what it waits for has come.
    scene.proxy.behave();
    let node = &scene.nodes[0];
    until("dockerd to give up", PATIENCE, async || node.log().contains("context canceled").then_some(()))
        .await;
    assert_eq!(scene.listed(0).await, [""; 0]);
    assert_eq!(scene.presence(0).await, ["absent"]);
    // A pull that was given up does not prevent another try.
    assert_eq!(scene.end("preload_image", 0, "*").await.0, "bgtask_done");
}

#[tokio::test]
async fn a_preload_goes_on_under_its_id_after_the_server_was_killed() {
    let Some(mut scene) = Scene::set(2, vec![lab("1")]).await else { return };
    scene.proxy.take_log();
    scene.proxy.hold();
    let task = scene.begin("preload_image", 0, "*").await;
    scene.proxy.reached(1).await;
    scene.app.kill9();
    scene.proxy.release();
    scene.app.restart().await;
    let event = scene.api().finish(&task).await;
    let ended = scene.api().task(&task).await;
    assert_eq!(event.name, "bgtask_done", "{ended:#}");
    assert!(reasons(&ended).iter().all(|(state, ..)| *state == "done"), "{ended:#}");
    scene.becomes(0, &["present", "present"]).await;
}

#[tokio::test]
async fn a_preload_waits_for_an_engine_that_was_killed() {
    let Some(mut scene) = Scene::set(2, vec![lab("1")]).await else { return };
    scene.proxy.take_log();
    scene.proxy.hold();
    let task = scene.begin("preload_image", 0, "*").await;
    scene.proxy.reached(2).await;
    scene.nodes[1].kill9();
    scene.proxy.release();
    until("the item to wait for its engine", PATIENCE, async || {
        let task = scene.app.admin().task(&task).await;
        let items = task["items"].as_array().unwrap();
        items.iter().any(|i| i["state"] == "waiting" && i["reason"].is_string()).then_some(())
    })
    .await;
    scene.nodes[1].restart().await;
    let event = scene.api().finish(&task).await;
    let ended = scene.api().task(&task).await;
    assert_eq!(event.name, "bgtask_done", "{ended:#}");
    let states = reasons(&ended);
    assert!(states.iter().all(|(state, ..)| *state == "done"), "{ended:#}");
    // Waiting for an engine that is known to be gone counts no attempt; an attempt before that was known counts.
    assert!(states.iter().all(|(_, attempts, _)| (1..=2).contains(attempts)), "{ended:#}");
    scene.becomes(0, &["present", "present"]).await;
}

#[tokio::test]
async fn an_engine_that_may_not_be_used_is_said_to_be_so_and_the_others_go_on() {
    let Some(scene) = Scene::set_with(2, vec![lab("1")], heed_permissions).await else { return };
    let socket = scene.nodes[1].socket();
    let allow = |mode| fs::set_permissions(&socket, Permissions::from_mode(mode)).expect("the socket's mode");
    allow(0o000);
    let task = scene.begin("preload_image", 0, "*").await;
    let waiting = until("one item to be done and one to wait", PATIENCE, async || {
        let task = scene.api().task(&task).await;
        let mut states: Vec<&str> = reasons(&task).into_iter().map(|(state, ..)| state).collect();
        states.sort_unstable();
        (states == ["done", "waiting"]).then_some(task)
    })
    .await;
    let said: Vec<&str> = reasons(&waiting).into_iter().map(|(.., reason)| reason).collect();
    // The waiting item is tried again now and then, so it may be running.
    for (is_final, expected) in [("true", &["done"][..]), ("false", &["waiting", "running"])] {
        let query =
            format!("{{ background_task(id: {task:?}) {{ items(is_final: {is_final}) {{ state }} }} }}");
        let answer = scene.api().ask(&query, json!({})).await;
        let items = answer["background_task"]["items"].as_array().unwrap();
        let is_expected = |item: &Value| expected.contains(&item["state"].as_str().unwrap());
        assert!(items.len() == 1 && items.iter().all(is_expected), "{is_final}: {items:?}");
    }
    let remedy = "must be allowed to use the engine's socket";
    assert!(said.iter().any(|reason| reason.contains(remedy)), "{waiting:#}");
    allow(0o660);
    let event = scene.api().finish(&task).await;
    assert_eq!(event.name, "bgtask_done", "{event:?}");
    scene.becomes(0, &["present", "present"]).await;
}

#[tokio::test]
async fn a_wrong_expression_is_pointed_at_and_starts_nothing() {
    let Some(scene) = Scene::set(1, vec![lab("1")]).await else { return };
    let api = scene.api();
    let tasks = async || api.ask("{ background_tasks { id } }", json!({})).await["background_tasks"].take();
    let before = tasks().await;
    for expression in ["i-[1-", "i-nobody", "@nobody", "", "*,,"] {
        for field in ["preload_image", "unload_image"] {
            let answer = ask_for(&api, field, &scene.name(0), expression).await;
            assert_eq!((&answer["ok"], &answer["task_id"]), (&json!(false), &json!(null)), "{expression:?}");
            let msg = answer["msg"].as_str().unwrap();
            assert!(msg.lines().last().unwrap().trim() == "^", "{expression:?}: {msg}");
            let set = api
                .ask(
                    "query($e: String!) { agent_set(expression: $e) {
                       ok folded count error { code position caret message } } }",
                    json!({"e": expression}),
                )
                .await;
            let set = &set["agent_set"];
            assert_eq!((&set["ok"], &set["count"]), (&json!(false), &json!(0)), "{set}");
            let (code, at) = (set["error"]["code"].as_str().unwrap(), &set["error"]["position"]);
            assert!(msg.contains(&format!("{code} at {at}")), "{msg}");
        }
    }
    assert_eq!(tasks().await, before);
    let right = api.ask("{ agent_set(expression: \"*\") { ok folded count names } }", json!({})).await;
    let [agent] = scene.agents.as_slice() else { panic!("{:?}", scene.agents) };
    assert_eq!(right["agent_set"], json!({"ok": true, "folded": agent, "count": 1, "names": [agent]}));
}

#[tokio::test]
async fn without_any_agent_a_preload_says_so() {
    let Some(scene) = Scene::set(0, vec![lab("1")]).await else { return };
    for field in ["preload_image", "unload_image"] {
        let answer = ask_for(&scene.api(), field, &scene.name(0), "*").await;
        assert_eq!((&answer["ok"], &answer["task_id"]), (&json!(false), &json!(null)));
        assert!(answer["msg"].as_str().unwrap().contains("no agent"), "{answer}");
    }
}

#[tokio::test]
async fn a_plan_says_what_a_preload_would_do() {
    let base = |tag, layers| Image::new("lab/python", tag).content("base").real_layers(layers, 100_000);
    let images = vec![base("1", 2), base("2", 3), Image::new("lab/arm", "1").platform("linux/arm64")];
    let Some(scene) = Scene::set(1, images).await else { return };
    let plan = async |image: usize| {
        let query = "query($r: String!) { preload_plan(reference: $r, target_agents: \"*\") {
            count bytes agents { agent step bytes fits problem } } }";
        let mut data = scene.api().ask(query, json!({"r": scene.name(image)})).await;
        data["preload_plan"]["agents"][0].take()
    };
    let fetched = plan(0).await;
    assert_eq!((&fetched["step"], &fetched["fits"]), (&json!("to-fetch"), &json!(true)), "{fetched}");
    assert!(fetched["bytes"].as_u64().is_some_and(|bytes| bytes >= 200_000), "{fetched}");
    scene.end("preload_image", 0, "*").await;
    let there = plan(0).await;
    assert_eq!((&there["step"], &there["bytes"]), (&json!("already-there"), &json!(0)), "{there}");
    let above = plan(1).await;
    let bytes = above["bytes"].as_u64().unwrap();
    assert_eq!(above["step"], "to-fetch");
    assert!((100_000..200_000).contains(&bytes), "only the layer above the common ones: {above}");
    let wrong = plan(2).await;
    assert_eq!(wrong["step"], "wrong-architecture", "{wrong}");
    assert_eq!(wrong["problem"], "wrong architecture");
}

#[tokio::test]
async fn agents_are_filtered_ordered_and_counted() {
    let Some(scene) = Scene::set(2, vec![]).await else { return };
    let api = scene.api();
    let (first, last) = (&scene.agents[0], &scene.agents[1]);
    let given = "mutation($id: String!) { modify_agent(id: $id, props: {labels: [{key: \"zone\", value: \"a\"}]}) { ok } }";
    api.ask(given, json!({"id": last})).await;
    let document = "query($f: String, $o: String, $n: Int!) {
        agent_list(limit: $n, offset: 0, filter: $f, order: $o) { items { id } total_count } }";
    for (filter, order, limit, ids, count) in [
        (json!(null), json!(null), 20, vec![first, last], 2),
        (json!(""), json!("-id"), 1, vec![last], 2),
        (json!("status == \"ALIVE\" & free_bytes > 1"), json!("scaling_group,-id"), 20, vec![last, first], 2),
        (json!("labels.zone == \"a\""), json!(null), 20, vec![last], 1),
        (json!("labels.zone is null"), json!(null), 20, vec![first], 1),
        (json!("schedulable == false"), json!(null), 20, vec![], 0),
    ] {
        let asked = json!({"f": filter, "o": order, "n": limit});
        let data = api.ask(document, asked.clone()).await;
        let items = data["agent_list"]["items"].as_array().unwrap();
        assert_eq!(items.iter().map(|item| &item["id"]).collect::<Vec<_>>(), ids, "{asked}");
        assert_eq!(data["agent_list"]["total_count"], count, "{asked}");
    }
    let refused = api.refused(document, json!({"f": "zone == \"a\"", "n": 20})).await;
    assert!(
        refused.contains("at character 1: there is no field \"zone\"; there are id, status"),
        "{refused}"
    );
}

#[tokio::test]
async fn several_images_are_one_task() {
    let Some(scene) = Scene::set(2, vec![lab("1"), lab("2"), lab("3")]).await else { return };
    let api = scene.api();
    let names = [0, 1, 2].map(|image| scene.name(image));
    let document = "mutation($r: String!, $a: String!, $more: [String]) {
        preload_image(reference: $r, target_agents: $a, references: $more) { ok msg task_id } }";
    let start = async |first: &str, more: Value| {
        let asked = json!({"r": first, "a": "*", "more": more});
        api.ask(document, asked).await["preload_image"].take()
    };
    // All or nothing.
    let refused = start(&names[0], json!([names[1], "lab/nothing:1"])).await;
    assert!(
        refused["ok"] == false && refused["msg"].as_str().unwrap().contains("lab/nothing:1"),
        "{refused}"
    );
    let refused = start(&names[0], json!(vec![names[0].clone(); 100])).await;
    assert!(
        refused["ok"] == false && refused["msg"].as_str().unwrap().contains("100 images at most"),
        "{refused}"
    );
    assert_eq!(
        api.ask("{ background_tasks { kind } }", json!({})).await["background_tasks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let plan = "query($r: String!, $more: [String]) {
        preload_plan(reference: $r, target_agents: \"*\", references: $more) {
            count agents { agent reference step } } }";
    let plan = api.ask(plan, json!({"r": names[0], "more": [names[1]]})).await["preload_plan"].take();
    let planned: Vec<_> =
        plan["agents"].as_array().unwrap().iter().map(|row| (&row["reference"], &row["agent"])).collect();
    let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
        .map(|(image, agent)| (json!(names[image]), json!(scene.agents[agent])));
    assert_eq!(planned, pairs.iter().map(|(image, agent)| (image, agent)).collect::<Vec<_>>(), "{plan}");
    assert_eq!(plan["count"], 2, "{plan}");

    // An image named twice is loaded once, and one image is begun on all agents before the next on any.
    let begun = start(&names[0], json!([names[1], null, names[0]])).await;
    let task = begun["task_id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    assert_eq!(api.finish(&task).await.name, "bgtask_done");
    let ended = api.task(&task).await;
    assert_eq!(counts(&ended), [4, 0, 0, 0, 0, 0], "{ended:#}");
    let items: Vec<_> =
        ended["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1)]
        .map(|(image, agent)| format!("{}: {}", scene.agents[agent], names[image]));
    assert_eq!(items, expected);
    assert_eq!(scene.presence(1).await, ["present", "present"]);
    assert_eq!(scene.presence(2).await, ["absent", "absent"]);
    let subject = api.ask("{ background_tasks { subject } }", json!({})).await;
    let subject = subject["background_tasks"][0]["subject"].as_str().unwrap().to_owned();
    assert!(subject.starts_with(&format!("{} and 1 more on ", names[0])), "{subject}");

    let off = scene.app.wharf(&["unload", &names[0], &names[1], "*"]).await;
    assert_eq!(off.code, 0, "{}", off.text());
    assert_eq!(scene.presence(0).await, ["absent", "absent"]);
    assert_eq!(scene.listed(1).await, [""; 0]);
}
