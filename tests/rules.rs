//! Standing preloads, with the real server, a real registry, and image layouts for agents.

mod architectures;
mod broken;
mod clock;
mod dialled;
mod lost;
mod shell;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, App, Launch};
use crate::support::image::Image;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// A round waits until its signals are quiet, and test machines are busy.
const LONG: Duration = PATIENCE.saturating_mul(4);

const RULE: &str = "query($n: String!) { preload_rule(name: $n) {
    name state images target_agents window time_zone effective_time_zone enabled is_open opens_at closes_at
    created_by modified_by
    status { at images agents folded unknown unknown_count away { agent reason } away_count present missing loading due
             held_back unfit waiting { agent image reason until } begun_at begun task_ids problem } } }";

/// A server with image layouts as agents, and a registry behind a proxy that the server has read.
struct Scene {
    app: App,
    proxy: CountingProxy,
    registry: RealRegistry,
    /// The layouts that the server is started with.
    engines: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    async fn set(engines: &[&str], images: Vec<Image>) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        registry.push_all(images).await;
        let proxy = CountingProxy::start(&registry.url()).await;
        let engines = Arc::new(Mutex::new(engines.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()));
        let named = Arc::clone(&engines);
        let launch = Launch::new(move |command| {
            for name in named.lock().iter() {
                command.args(["--engine", &format!("oci:{name}")]);
            }
        });
        let scene = Self { app: launch.start().await, proxy, registry, engines };
        let api = scene.api();
        api.add_registry_at(&scene.host(), &scene.proxy.url(), None).await;
        api.scan(&scene.host()).await;
        scene.alive().await;
        Some(scene)
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    fn host(&self) -> String {
        self.proxy.host()
    }

    /// Waits for the agents of all its layouts; returns their ids.
    async fn alive(&self) -> Vec<String> {
        let count = self.engines.lock().len();
        self.api().agents_alive(count).await
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host())
    }

    fn folder(&self, engine: &str) -> PathBuf {
        self.app.launch().root().join(engine)
    }

    /// Adds a rule for images below the registry's host.
    async fn add(&self, name: &str, images: &str, agents: &str, more: Value) -> Value {
        self.api().add_rule(name, &self.name(images), agents, more).await
    }

    /// Waits until an image has these states on the agents, in order.
    async fn becomes(&self, image: &str, states: &[&str]) {
        let (api, name) = (self.api(), self.name(image));
        let what = format!("{image} to be {states:?}");
        until(&what, LONG, async || (api.presence(&name).await == states).then_some(())).await;
    }

    /// Triggers a round with a change that has no effect.
    async fn another_round(&self, rule: &str) -> Value {
        let at = self.api().rule(rule).await["status"]["at"].clone();
        let agent = self.alive().await.remove(0);
        let done = self.app.wharf(&["agent", "label", &agent, "looked=at"]).await;
        assert_eq!(done.code, 0, "{}", done.text());
        self.api().rule_until(rule, "another round", |rule| rule["status"]["at"] != at).await
    }
}

impl Api {
    async fn add_rule(&self, name: &str, images: &str, agents: &str, more: Value) -> Value {
        let mut props = json!({"images": images, "target_agents": agents});
        props.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let document = "mutation($n: String!, $p: CreatePreloadRuleInput!) {
            create_preload_rule(name: $n, props: $p) { ok msg unknown preload_rule { name state created_by } } }";
        self.ask(document, json!({"n": name, "p": props})).await["create_preload_rule"].take()
    }

    async fn change_rule(&self, name: &str, props: Value) -> Value {
        let document = "mutation($n: String!, $p: ModifyPreloadRuleInput!) {
            modify_preload_rule(name: $n, props: $p) { ok msg unknown preload_rule { state } } }";
        self.ask(document, json!({"n": name, "p": props})).await["modify_preload_rule"].take()
    }

    async fn rule(&self, name: &str) -> Value {
        self.ask(RULE, json!({"n": name})).await["preload_rule"].take()
    }

    async fn rule_until(&self, name: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(
            LONG,
            until(what, LONG, async || {
                last = self.rule(name).await;
                is_it(&last).then(|| last.clone())
            }),
        )
        .await;
        found.unwrap_or_else(|_| panic!("{name}: waited in vain for {what}\n{last:#}"))
    }

    async fn rule_is(&self, name: &str, state: &str) -> Value {
        self.rule_until(name, &format!("the state {state}"), |rule| rule["state"] == state).await
    }

    /// Returns all tasks that a rule asked for, oldest first, with their items.
    async fn tasks_of(&self, rule: &str) -> Vec<Value> {
        let document = "{ background_tasks(limit: 200) { id kind subject state rule target_agents items { name state reason } } }";
        let data = self.ask(document, json!({})).await;
        let tasks = data["background_tasks"].as_array().unwrap().iter().rev();
        tasks.filter(|task| task["rule"] == rule).cloned().collect()
    }
}

fn lab(name: &str, tag: &str) -> Image {
    Image::new(&format!("lab/{name}"), tag).real_layers(1, 20_000)
}

/// Adds a rule for one image, whose task has started and waits for the registry; returns the image's name.
async fn held_at_work(api: &Api, proxy: &CountingProxy) -> String {
    proxy.take_log();
    proxy.hold();
    let name = format!("{}/lab/python:3", proxy.host());
    api.add_rule("standard", &name, "*", json!({})).await;
    api.rule_until("standard", "a task", |rule| rule["status"]["loading"] == 1).await;
    proxy.reached(1).await;
    name
}

#[tokio::test]
async fn agents_are_filled_as_they_come_and_again_when_they_come_back_empty() {
    let images = vec![lab("python", "3"), lab("python", "2"), lab("other", "1")];
    let Some(mut scene) = Scene::set(&["one"], images).await else { return };
    let api = scene.api();
    let made = scene.add("standard", "lab/python:*", "*", json!({})).await;
    assert_eq!((&made["ok"], &made["unknown"]), (&json!(true), &json!([])), "{made}");
    assert_eq!(made["preload_rule"]["created_by"], ADMIN_EMAIL);
    scene.becomes("lab/python:3", &["present"]).await;
    scene.becomes("lab/python:2", &["present"]).await;
    let rule = api.rule_is("standard", "filled").await;
    assert_eq!((&rule["status"]["present"], &rule["status"]["missing"]), (&json!(2), &json!(0)), "{rule}");
    assert_eq!(api.presence(&scene.name("lab/other:1")).await, ["absent"], "nobody asked for it");

    // Each task says why it exists, and the log says on whose authority.
    let tasks = api.tasks_of("standard").await;
    assert_eq!(tasks.len(), 2, "one for each image: {tasks:#?}");
    let subject = tasks[0]["subject"].as_str().unwrap();
    assert!(subject.ends_with(" by rule standard") && tasks[0]["target_agents"] == "*", "{subject}");
    let rows = api.audit_rows(0).await;
    let by_rule: Vec<_> = rows.iter().filter(|row| row["credential"] == "rule standard").collect();
    assert_eq!(by_rule.len(), 2, "{rows:#?}");
    assert_eq!((&by_rule[0]["action"], &by_rule[0]["email"]), (&json!("preload_image"), &json!(ADMIN_EMAIL)));
    assert_eq!(rows.iter().filter(|row| row["action"] == "create_preload_rule").count(), 1);

    // A second agent joins.
    scene.engines.lock().push("two".into());
    scene.app.restart().await;
    scene.alive().await;
    scene.becomes("lab/python:3", &["present", "present"]).await;
    scene.becomes("lab/python:2", &["present", "present"]).await;
    api.rule_is("standard", "filled").await;
    let tasks = api.tasks_of("standard").await;
    assert_eq!(tasks.len(), 4, "the one that was filled is left alone: {tasks:#?}");
    assert!(tasks[2..].iter().all(|task| task["items"].as_array().unwrap().len() == 1), "{tasks:#?}");

    // The first agent is reinstalled.
    scene.app.kill9();
    fs::remove_dir_all(scene.folder("one")).unwrap();
    scene.app.restart().await;
    scene.alive().await;
    scene.becomes("lab/python:3", &["present", "present"]).await;
    scene.becomes("lab/python:2", &["present", "present"]).await;
}

#[tokio::test]
async fn a_tag_that_moves_or_comes_is_followed_and_nothing_is_taken_away() {
    let Some(scene) = Scene::set(&["one", "two"], vec![lab("python", "3")]).await else { return };
    let api = scene.api();
    scene.add("standard", "lab/*", "*", json!({})).await;
    scene.becomes("lab/python:3", &["present", "present"]).await;
    let image = api.image("lab/python", "3", "x86_64").await;

    scene.registry.push_all([lab("python", "3").label("moved", "yes"), lab("torch", "1")]).await;
    api.scan(&scene.host()).await;
    assert_ne!(api.image("lab/python", "3", "x86_64").await["digest"], image["digest"], "the tag has moved");
    scene.becomes("lab/python:3", &["present", "present"]).await;
    scene.becomes("lab/torch:1", &["present", "present"]).await;
    api.rule_is("standard", "filled").await;
    let tasks = api.tasks_of("standard").await;
    assert_eq!(tasks.len(), 3, "{tasks:#?}");
    assert!(tasks.iter().all(|task| task["items"].as_array().unwrap().len() == 2), "one for both agents");

    // Forgetting an image and removing a rule leave the agents unchanged.
    let held = fs::read_to_string(scene.folder("one").join("index.json")).unwrap();
    api.does("delete_preload_rule", "name: \"standard\"").await;
    api.does("forget_image", &format!("reference: {:?}", scene.name("lab/torch:1"))).await;
    assert_eq!(fs::read_to_string(scene.folder("one").join("index.json")).unwrap(), held);
    assert!(api.refused(RULE, json!({"n": "standard"})).await.contains("no such preload rule: standard"));
}

#[tokio::test]
async fn what_two_rules_want_is_fetched_once_and_a_disabled_one_does_nothing() {
    let Some(scene) = Scene::set(&["one"], vec![lab("python", "3"), lab("torch", "1")]).await else { return };
    let api = scene.api();
    scene.add("off", "lab/*", "*", json!({"enabled": false})).await;
    assert_eq!(api.rule("off").await["state"], "disabled");
    scene.add("a", "lab/python:*", "*", json!({})).await;
    scene.add("b", "*/python:3", "*", json!({})).await;
    scene.becomes("lab/python:3", &["present"]).await;
    api.rule_is("a", "filled").await;
    api.rule_is("b", "filled").await;
    let mut tasks = api.tasks_of("a").await;
    tasks.extend(api.tasks_of("b").await);
    assert_eq!(tasks.len(), 1, "{tasks:#?}");
    assert_eq!(api.presence(&scene.name("lab/torch:1")).await, ["absent"]);
    assert!(api.tasks_of("off").await.is_empty());
    assert_eq!(api.rule("off").await["status"], Value::Null);

    assert_eq!(api.change_rule("off", json!({"enabled": true})).await["ok"], true);
    scene.becomes("lab/torch:1", &["present"]).await;
}

#[tokio::test]
async fn names_that_are_nobodys_yet_are_told_of_and_count_once_they_are_there() {
    let Some(mut scene) = Scene::set(&["one"], vec![lab("python", "3")]).await else { return };
    let api = scene.api();
    let here = scene.alive().await.remove(0);
    let later = "i-two";
    let agents = format!("{here},{later},gpu[01-02],@later");
    let made = scene.add("standard", "lab/*", &agents, json!({})).await;
    assert_eq!(made["unknown"], json!([later, "gpu01", "gpu02", "@later"]), "{made}");
    scene.becomes("lab/python:3", &["present"]).await;
    let rule = api.rule_is("standard", "filled").await;
    assert_eq!(rule["status"]["unknown"], json!([later, "gpu01", "gpu02", "@later"]), "{rule:#}");
    assert_eq!((&rule["status"]["agents"], &rule["status"]["folded"]), (&json!(1), &json!(here)));

    scene.engines.lock().push("two".into());
    scene.app.restart().await;
    assert_eq!(scene.alive().await, [here.as_str(), later]);
    scene.becomes("lab/python:3", &["present", "present"]).await;
    let rule = api.rule_until("standard", "the names", |rule| rule["status"]["unknown_count"] == 3).await;
    assert_eq!(rule["status"]["unknown"], json!(["gpu01", "gpu02", "@later"]), "{rule:#}");

    // A group that is created, and one that its agent leaves.
    assert_eq!(
        scene.app.wharf(&["scaling-group", "add", "later"]).await.code,
        0,
        "a group without agents is nobody's"
    );
    let moved = format!("id: {later:?}, props: {{scaling_group: \"later\"}}");
    api.does("modify_agent", &moved).await;
    let rule = api.rule_until("standard", "the group", |rule| rule["status"]["unknown_count"] == 2).await;
    assert_eq!(rule["status"]["agents"], 2, "{rule:#}");
}

#[tokio::test]
async fn a_draining_agent_is_left_until_it_takes_images_again() {
    let Some(scene) = Scene::set(&["one"], vec![lab("python", "3")]).await else { return };
    let api = scene.api();
    let agent = scene.alive().await.remove(0);
    assert_eq!(scene.app.wharf(&["agent", "drain", &agent]).await.code, 0);
    scene.add("standard", "lab/*", "*", json!({})).await;
    let rule = api.rule_is("standard", "waiting").await;
    assert_eq!(rule["status"]["away"], json!([{"agent": agent, "reason": "draining"}]), "{rule:#}");
    assert!(api.tasks_of("standard").await.is_empty());
    assert_eq!(scene.app.wharf(&["agent", "drain", &agent, "--undo"]).await.code, 0);
    scene.becomes("lab/python:3", &["present"]).await;
}

#[tokio::test]
async fn many_tags_make_a_bounded_number_of_tasks_at_once_and_all_of_them_in_the_end() {
    let images = (0..24).map(|tag| lab("many", &tag.to_string())).collect();
    let Some(scene) = Scene::set(&["one"], images).await else { return };
    let api = scene.api();
    scene.proxy.hold();
    scene.add("standard", "lab/many:*", "*", json!({})).await;
    let rule = api.rule_until("standard", "its tasks", |rule| rule["status"]["loading"] == 16).await;
    assert_eq!((&rule["status"]["due"], &rule["status"]["missing"]), (&json!(8), &json!(24)), "{rule:#}");
    assert_eq!(api.tasks_of("standard").await.len(), 16, "so many at once");
    scene.proxy.release();
    let rule = api.rule_is("standard", "filled").await;
    assert_eq!(rule["status"]["present"], 24, "{rule:#}");
    let tasks = api.tasks_of("standard").await;
    assert_eq!(tasks.len(), 24, "one for each image");
    assert!(tasks.iter().all(|task| task["state"] == "done"), "{tasks:#?}");
}

#[tokio::test]
async fn rules_are_kept_over_a_restart_and_there_are_so_many_at_most() {
    let mut app = App::start().await;
    let api = app.admin();
    for number in 0..100 {
        let made =
            api.add_rule(&format!("rule-{number}"), "cr.invalid/*", "*", json!({"enabled": false})).await;
        assert_eq!(made["ok"], true, "{made}");
    }
    let refused = api.add_rule("one-more", "cr.invalid/*", "*", json!({})).await;
    assert_eq!(refused["ok"], false);
    assert!(refused["msg"].as_str().unwrap().starts_with("there are 100 preload rules"), "{refused}");
    let window = json!({"window": "22:00-06:00", "time_zone": "Asia/Seoul"});
    assert_eq!(api.change_rule("rule-7", window).await["ok"], true);
    app.restart().await;
    assert_eq!(api.list("preload_rules", "name").await.len(), 100);
    let rule = api.rule("rule-7").await;
    assert_eq!(
        (&rule["window"], &rule["time_zone"]),
        (&json!("22:00-06:00"), &json!("Asia/Seoul")),
        "{rule}"
    );
    api.does("delete_preload_rule", "name: \"rule-7\"").await;
    assert_eq!(api.add_rule("one-more", "cr.invalid/*", "*", json!({})).await["ok"], true);
}

#[tokio::test]
async fn what_can_not_be_read_is_refused_with_the_field_and_the_remedy() {
    let app = App::start().await;
    let api = app.admin();
    for (name, images, agents, more, words) in [
        ("two words", "*", "*", json!({}), ["name: ", "choose one word"]),
        ("", "*", "*", json!({}), ["name: ", "empty"]),
        ("a", "python:3", "*", json!({}), ["images: ", "write */python:3 for any"]),
        ("a", "cr.lab/gpu[1-2]:1", "*", json!({}), ["images: ", "no ranges"]),
        ("a", "*", "", json!({}), ["target_agents: EMPTY at 0", "write `*`"]),
        ("a", "*", "gpu[4-1]", json!({}), ["target_agents: RANGE_REVERSED at 3", "\ngpu[4-1]\n   ^"]),
        ("a", "*", "*", json!({"window": "10-12"}), ["window: ", "write HH:MM-HH:MM"]),
        ("a", "*", "*", json!({"window": "10:00-10:00"}), ["window: ", "leave the window out"]),
        (
            "a",
            "*",
            "*",
            json!({"window": "10:00-12:00", "time_zone": "Seoul"}),
            ["time_zone: ", "Asia/Seoul"],
        ),
        ("a", "*", "*", json!({"time_zone": "UTC"}), ["time_zone: ", "give a window too"]),
    ] {
        let refused = api.add_rule(name, images, agents, more).await;
        assert_eq!(refused["ok"], false, "{refused}");
        let msg = refused["msg"].as_str().unwrap();
        assert!(msg.starts_with(words[0]) && msg.contains(words[1]), "{words:?}: {msg}");
    }
    assert_eq!(api.add_rule("a", "*", "*", json!({})).await["ok"], true);
    let twice = api.add_rule("a", "*", "*", json!({})).await;
    assert!(twice["msg"].as_str().unwrap().contains("there is a preload rule a already"), "{twice}");
    let unknown = api.change_rule("b", json!({"enabled": false})).await;
    assert_eq!(unknown["msg"], "no such preload rule: b");

    let preview = "{ preload_rule_preview(images: \"python\", target_agents: \"gpu[4-1]\", window: \"x\") {
        ok problems { field message } } }";
    let preview = api.ask(preview, json!({})).await["preload_rule_preview"].take();
    let problems: Vec<_> =
        preview["problems"].as_array().unwrap().iter().map(|problem| problem["field"].clone()).collect();
    assert_eq!(problems, ["window", "images", "target_agents"], "{preview}");
}
