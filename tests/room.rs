//! Room on the disks of agents: what may go, retention, preloads that make room, and images that nobody ordered; with
//! real engines and a real registry.

mod full;
mod shell;
mod week;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::clock::Clocks;
use crate::support::dockerd::RealDocker;
use crate::support::image::Image;
use crate::support::process::{Outcome, run};
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// Rounds come every minute, and at once when a rule changes.
const LONG: std::time::Duration = PATIENCE.saturating_mul(4);

const PLAN: &str = "folded count frees_bytes most problem unknown
    agents { agent has note frees_bytes images { names digest frees_bytes known usage { unused_since } } }";

/// A Docker that has images which somebody pulled without wharf, and a server that knows the registry.
struct Scene {
    app: App,
    docker: RealDocker,
    registry: RealRegistry,
    agent: String,
    clocks: Clocks,
}

/// So long after an agent was first seen, what was there by then is not new any more.
const LATER: i64 = 2 * 60 * 60;

/// An image of that many bytes, none of which it shares.
fn image(repository: &str, tag: &str, bytes: usize) -> Image {
    Image::new(repository, tag).real_layers(1, bytes)
}

impl Scene {
    /// Pulls these images onto a Docker, and starts a server for it, which has watched it for two hours.
    async fn set(docker: RealDocker, images: &[Image]) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        registry.push_all(images.to_vec()).await;
        for image in images {
            docker
                .docker_ok(&["pull", &format!("{}/{}:{}", registry.host(), image.repository, image.tag)])
                .await;
        }
        let clocks = Clocks::real();
        let (url, shown) = (docker.url(), clocks.shown_to());
        let app = App::start_with(move |command| {
            shown(command);
            command.args(["--engine", &url]);
        })
        .await;
        app.admin().add_registry(&registry).await;
        app.admin().scan(registry.host()).await;
        let agent = app.admin().agents_alive(1).await.remove(0);
        let mut scene = Self { app, docker, registry, agent, clocks };
        let first = scene.images_by(&scene.app.admin()).await;
        let is_fresh = first.iter().all(|image| image["stays"] == "fresh");
        assert!(!first.is_empty() && is_fresh, "it may have just come: {first:#?}");
        scene.clocks.pass(LATER);
        Some(scene)
    }

    fn api(&self) -> Api {
        self.app.admin().ahead(LATER)
    }

    /// Runs a `wharf` command to its end, by the server's clocks.
    async fn wharf(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.app.command(arguments);
        self.clocks.shown_to()(&mut command);
        run(&mut command, self.app.launch().root(), PATIENCE).await
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.host())
    }

    /// The names that Docker has by its own words, without the registry's.
    async fn listed(&self) -> Vec<String> {
        let text = self.docker.docker_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await;
        let host = format!("{}/", self.registry.host());
        let mut names: Vec<String> =
            text.lines().map(|line| line.strip_prefix(&host).unwrap_or(line).to_owned()).collect();
        names.sort();
        names
    }

    /// The images on the agent by wharf's words, by name.
    async fn images(&self) -> Vec<Value> {
        self.images_by(&self.api()).await
    }

    async fn images_by(&self, api: &Api) -> Vec<Value> {
        let query = "query($a: String!) { agent_images(agent_id: $a) {
            names known stays wanted_by pinned size_bytes usage { in_use last_used_at unused_since came_at } } }";
        let data = api.ask(query, json!({"a": self.agent})).await;
        data["agent_images"].as_array().unwrap().clone()
    }

    /// Waits until an image has such a reason to stay, or none.
    async fn stays(&self, image: &str, why: Value) {
        let name = self.name(image);
        until(&format!("{image} to stay because of {why}"), LONG, async || {
            let images = self.images().await;
            let row = images.iter().find(|row| row["names"].as_array().unwrap().contains(&json!(name)));
            row.is_some_and(|row| row["stays"] == why).then_some(())
        })
        .await;
    }

    async fn add(&self, name: &str, props: Value) -> Value {
        let query = "mutation($n: String!, $p: CreateRetentionRuleInput!) {
            create_retention_rule(name: $n, props: $p) { ok msg code retention_rule { state } } }";
        self.api().ask(query, json!({"n": name, "p": props})).await["create_retention_rule"].take()
    }

    async fn preview(&self, props: Value) -> Value {
        let query =
            format!("query($p: CreateRetentionRuleInput!) {{ retention_preview(props: $p) {{ {PLAN} }} }}");
        self.api().ask(&query, json!({"p": props})).await["retention_preview"].take()
    }

    /// Waits for the tasks of a retention rule to be as many and to have ended; returns them, the last one last.
    async fn tasks(&self, rule: &str, count: usize) -> Vec<Value> {
        until("the rule's tasks to end", LONG, async || {
            let query = "{ background_tasks { kind subject retention state message
                items { name state reason } ledger { removed unchanged } } }";
            let data = self.api().ask(query, json!({})).await;
            let tasks = data["background_tasks"].as_array().unwrap().iter().rev();
            let tasks: Vec<Value> = tasks.filter(|task| task["retention"] == rule).cloned().collect();
            (tasks.len() >= count && tasks.iter().all(|task| task["state"] != "started")).then_some(tasks)
        })
        .await
    }
}

/// The names of the images that a plan takes, without the registry's, sorted.
fn taken(plan: &Value) -> Vec<String> {
    let agents = plan["agents"].as_array().unwrap().iter();
    let images = agents.flat_map(|agent| agent["images"].as_array().unwrap());
    let name = |image: &Value| image["names"][0].as_str().unwrap().split_once('/').unwrap().1.to_owned();
    let mut names: Vec<String> = images.map(name).collect();
    names.sort();
    names
}

const EVERYTHING: u64 = 1 << 50;

#[tokio::test]
async fn rules_that_disagree_take_nothing_that_is_wanted_used_pinned_or_new() {
    let Some(docker) = RealDocker::start().await else { return };
    let images: Vec<Image> = ["wanted", "used", "pinned", "idle", "other"]
        .map(|name| image(&format!("lab/{name}"), "1", 10_000))
        .into_iter()
        .chain([image("lab/new", "1", 10_000)])
        .collect();
    let Some(scene) = Scene::set(docker, &images[..5]).await else { return };
    scene.registry.push_all(images[5..].to_vec()).await;
    scene.api().scan(scene.registry.host()).await;
    let (event, task) = scene.api().transfer_to_end("preload_image", &scene.name("lab/new:1"), "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    scene.docker.docker_ok(&["create", "--name", "homework", &scene.name("lab/used:1"), "/file"]).await;
    scene.api().does("pin_image", &format!("reference: {:?}", scene.name("lab/pinned:1"))).await;
    let query =
        "mutation($p: CreatePreloadRuleInput!) { create_preload_rule(name: \"standard\", props: $p) { ok } }";
    let props = json!({"images": scene.name("lab/wanted:*"), "target_agents": "*"});
    scene.api().ask(query, json!({"p": props})).await;
    for (image, why) in [("wanted", "wanted"), ("used", "in-use"), ("pinned", "pinned"), ("new", "fresh")] {
        scene.stays(&format!("lab/{image}:1"), json!(why)).await;
    }

    let all = json!({"images": "*", "target_agents": "*", "when_below": EVERYTHING});
    let plan = scene.preview(all.clone()).await;
    assert_eq!(taken(&plan), ["lab/idle:1", "lab/other:1"], "{plan:#}");
    assert_eq!(plan["agents"][0]["note"], "all that may go does not suffice");
    for (name, images) in [("first", "*".to_owned()), ("second", scene.name("lab/*"))] {
        let mut props = all.clone();
        props["images"] = json!(images);
        let added = scene.add(name, props).await;
        assert_eq!(added["ok"], true, "{added:#}");
    }
    let tasks = scene.tasks("first", 1).await;
    assert_eq!(tasks[0]["ledger"], json!({"removed": 2, "unchanged": 0}), "{tasks:#?}");
    assert!(tasks[0]["subject"].as_str().unwrap().ends_with("by retention first"), "{tasks:#?}");
    assert_eq!(scene.listed().await, ["lab/new:1", "lab/pinned:1", "lab/used:1", "lab/wanted:1"]);
    let rows = scene.api().audit_rows(0).await;
    let row = rows.iter().find(|row| row["credential"] == "retention first").expect("a row");
    assert_eq!((&row["action"], &row["outcome"]), (&json!("unload_image"), &json!("DONE")), "{row:#}");

    // Undone by loading again.
    let (event, task) = scene.api().transfer_to_end("preload_image", &scene.name("lab/idle:1"), "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    scene.stays("lab/idle:1", json!("fresh")).await;
    assert!(scene.listed().await.contains(&"lab/idle:1".to_owned()));
}

#[tokio::test]
async fn a_rule_that_takes_most_of_an_agent_needs_a_confirmation() {
    let Some(docker) = RealDocker::start().await else { return };
    let images = ["a", "b", "c"].map(|name| image(&format!("lab/{name}"), "1", 10_000));
    let Some(scene) = Scene::set(docker, &images).await else { return };
    let mut all = json!({"images": "*", "target_agents": "*", "when_below": EVERYTHING});
    let plan = scene.preview(all.clone()).await;
    assert_eq!((&plan["count"], &plan["most"]), (&json!(3), &json!([scene.agent])), "{plan:#}");
    let refused = scene.add("all", all.clone()).await;
    assert_eq!(
        (&refused["ok"], &refused["code"]),
        (&json!(false), &json!("CONFIRMATION_REQUIRED")),
        "{refused}"
    );
    let one = json!({"images": scene.name("lab/a:*"), "target_agents": "*", "when_below": EVERYTHING});
    assert_eq!(scene.add("one", one).await["ok"], true, "one of three");
    scene.tasks("one", 1).await;
    assert_eq!(scene.listed().await, ["lab/b:1", "lab/c:1"]);
    all["confirm"] = json!(true);
    assert_eq!(scene.add("all", all).await["ok"], true);
    scene.tasks("all", 1).await;
    assert_eq!(scene.listed().await, [""; 0]);
}

#[tokio::test]
async fn what_the_catalog_does_not_know_is_listed_and_unloaded_by_name_or_digest() {
    let Some(docker) = RealDocker::start().await else { return };
    let images = ["a", "b", "c"].map(|name| image(&format!("lab/{name}"), "1", 10_000));
    let Some(scene) = Scene::set(docker, &images).await else { return };
    let (api, known) = (scene.api(), scene.name("lab/a:1"));
    let own = scene.name("own/thing:1");
    for name in ["lab/b:1", "own/thing:1"] {
        scene.docker.docker_ok(&["tag", &scene.name("lab/b:1"), &scene.name(name)]).await;
    }
    // The catalog forgets them, and so nobody ordered them.
    for name in ["lab/b:1", "lab/c:1"] {
        api.does("forget_image", &format!("reference: {:?}", scene.name(name))).await;
    }
    let unknown = async |count: usize| {
        until("the unknown images", LONG, async || {
            let query = "{ unknown_images { names digest folded count in_use size_bytes unused_since } }";
            let images = api.ask(query, json!({})).await["unknown_images"].as_array().unwrap().clone();
            let names = images.iter().map(|image| image["names"].as_array().unwrap().len()).sum::<usize>();
            (names == count).then_some(images)
        })
        .await
    };
    let listed = unknown(3).await;
    assert_eq!(listed.len(), 2, "one image with two names: {listed:#?}");
    let tagged = listed.iter().find(|image| image["names"].as_array().unwrap().len() == 2).expect("the one");
    assert_eq!((&tagged["folded"], &tagged["count"]), (&json!(scene.agent), &json!(1)));
    let digest = tagged["digest"].as_str().unwrap().to_owned();
    // Retention and room leave it alone unless they are told otherwise.
    let all = json!({"images": "*", "target_agents": "*", "when_below": EVERYTHING});
    assert_eq!(taken(&scene.preview(all.clone()).await), ["lab/a:1"]);
    let mut also = all.clone();
    also["unknown_images"] = json!(true);
    let plan = scene.preview(also).await;
    assert_eq!(taken(&plan), ["lab/a:1", "lab/c:1"], "b got another name a moment ago: {plan:#}");

    let query = "query($r: String!) { unload_plan(reference: $r, target_agents: \"*\") {
        agent reference step frees_bytes warning } }";
    let plan = async |reference: &str| {
        api.ask(query, json!({"r": reference})).await["unload_plan"][0]["step"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [plan(&own).await, plan(&digest).await, plan(&known).await],
        ["to-untag", "to-remove", "to-remove"]
    );
    let (event, task) = api.transfer_to_end("unload_image", &own, "*").await;
    let reason = task["items"][0]["reason"].as_str().unwrap();
    let also = format!("untagged; it stays, since it is also called {}", scene.name("lab/b:1"));
    assert_eq!((event.as_str(), reason), ("bgtask_done", also.as_str()), "{task:#}");
    assert_eq!(scene.listed().await, ["lab/a:1", "lab/b:1", "lab/c:1"]);
    unknown(2).await;
    let (event, task) = api.transfer_to_end("unload_image", &digest, "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    assert_eq!(scene.listed().await, ["lab/a:1", "lab/c:1"]);
    unknown(1).await;
    let nobody = "mutation($r: String!) { unload_image(reference: $r, target_agents: \"*\") { ok code } }";
    let refused = api.ask(nobody, json!({"r": own})).await;
    assert_eq!(refused["unload_image"]["code"], "NOT_FOUND", "{refused}");
}
