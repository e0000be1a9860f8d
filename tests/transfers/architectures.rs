//! One architecture of an image: what is asked for it touches no agent of another.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::{Built, Image};
use crate::support::machine::{Machine, token};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::simulated::{Pace, Simulated, Watch};
use crate::support::wait::{PATIENCE, until};

const AGENTS: [(&str, &str); 3] = [("arm1", "aarch64"), ("pc1", "x86_64"), ("pc2", "x86_64")];

const PLAN: &str = "query($r: String!, $a: String!, $arch: String) {
    preload_plan(reference: $r, target_agents: $a, architecture: $arch) {
        folded count left_out agents { agent step problem } } }";

/// A server with agents of two architectures, and a registry with an image of both and one of `x86_64` only.
pub struct Scene {
    pub app: App,
    registry: Shelf,
    both: Built,
    watch: Arc<Watch>,
    _agents: JoinSet<()>,
}

fn both() -> Image {
    Image::new("r/both", "1").platforms(&["linux/amd64", "linux/arm64"])
}

impl Scene {
    pub async fn set() -> Self {
        let registry = Shelf::start([both(), Image::new("r/one", "1")]).await;
        let app = App::start().await;
        let api = app.admin();
        api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        api.scan(&registry.host()).await;
        let token = token(&api, json!({"uses": AGENTS.len()})).await;
        let (watch, mut agents) = (Arc::new(Watch::default()), JoinSet::new());
        for (id, architecture) in AGENTS {
            let agent = Simulated { id: id.into(), architecture, held: Vec::new(), pace: Pace::AtOnce };
            let (url, token, watch) = (app.url().to_owned(), token.clone(), Arc::clone(&watch));
            agents.spawn(async move { agent.run(&url, &token, watch).await });
        }
        until("all agents to have reported", PATIENCE, async || {
            (watch.reported.load(Ordering::SeqCst) == AGENTS.len()).then_some(())
        })
        .await;
        Self { app, registry, both: both().build(), watch, _agents: agents }
    }

    pub fn api(&self) -> Api {
        self.app.admin()
    }

    pub fn name(&self, image: &str) -> String {
        format!("{}/r/{image}:1", self.registry.host())
    }

    /// Which agents have the image of their own architecture; no agent has another.
    pub fn holders(&self) -> Vec<String> {
        let loaded = self.watch.loaded().into_iter().map(|(agent, image)| {
            let (_, own) = AGENTS.iter().find(|(id, _)| *id == agent).expect("one of the agents");
            assert_eq!(image, self.both.part(own).config, "{agent} is {own}");
            agent
        });
        loaded.collect()
    }

    /// Runs `preload_image` or `unload_image` to its end and returns the task.
    async fn transfer(&self, field: &str, agents: &str, architecture: Option<&str>) -> Value {
        let api = self.api();
        let answer = ask_for(&api, field, &self.name("both"), agents, architecture).await;
        let id = answer["task_id"].as_str().unwrap_or_else(|| panic!("no task: {answer}")).to_owned();
        let event = api.finish(&id).await;
        assert_eq!(event.name, "bgtask_done", "{:#}", api.task(&id).await);
        let query = "query($id: String!) { background_task(id: $id) {
            subject architecture left_out target_agents target_agents_folded items { name state reason } } }";
        api.ask(query, json!({"id": id})).await["background_task"].take()
    }
}

async fn ask_for(api: &Api, field: &str, image: &str, agents: &str, architecture: Option<&str>) -> Value {
    let document = format!(
        "mutation($r: String!, $a: String!, $arch: String) {{
            {field}(reference: $r, target_agents: $a, architecture: $arch) {{ ok msg task_id }} }}"
    );
    let asked = json!({"r": image, "a": agents, "arch": architecture});
    api.ask(&document, asked).await[field].take()
}

fn names(task: &Value) -> Vec<&str> {
    task["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_asked_for_one_architecture_touches_no_agent_of_another() {
    let scene = Scene::set().await;
    let everywhere = scene.transfer("preload_image", "*", None).await;
    assert_eq!(names(&everywhere), ["arm1", "pc1", "pc2"]);
    assert_eq!((&everywhere["architecture"], &everywhere["left_out"]), (&json!(null), &json!(0)));
    assert_eq!(scene.holders(), ["arm1", "pc1", "pc2"]);

    let off = scene.transfer("unload_image", "*", Some("arm64")).await;
    assert_eq!(scene.holders(), ["pc1", "pc2"], "the x86_64 image stays");
    assert_eq!(names(&off), ["arm1"]);
    assert_eq!((&off["architecture"], &off["left_out"]), (&json!("aarch64"), &json!(2)));
    assert_eq!((&off["target_agents"], &off["target_agents_folded"]), (&json!("*"), &json!("arm1")));
    let name = scene.name("both");
    assert_eq!(off["subject"], format!("{name} (aarch64) on arm1"));
    let rows = scene.api().audit_rows(0).await;
    let row = rows.iter().find(|row| row["action"] == "unload_image").expect("a row");
    assert_eq!(row["target"], format!("{name} (aarch64) on *"));

    scene.transfer("unload_image", "*", Some("linux/amd64")).await;
    assert_eq!(scene.holders(), [""; 0]);
    let on = scene.transfer("preload_image", "arm1,pc2", Some("x86_64")).await;
    assert_eq!(scene.holders(), ["pc2"]);
    assert_eq!((names(&on), &on["left_out"]), (vec!["pc2"], &json!(1)));
}

#[tokio::test]
async fn a_plan_for_one_architecture_leaves_out_the_agents_of_others() {
    let scene = Scene::set().await;
    let plan = async |architecture: Option<&str>| {
        let asked = json!({"r": scene.name("both"), "a": "*", "arch": architecture});
        scene.api().ask(PLAN, asked).await["preload_plan"].take()
    };
    let of_all = plan(None).await;
    assert_eq!((&of_all["count"], &of_all["left_out"]), (&json!(3), &json!(0)), "{of_all:#}");
    let of_one = plan(Some("AArch64")).await;
    let step = json!([{"agent": "arm1", "step": "to-fetch", "problem": null}]);
    assert_eq!(of_one, json!({"folded": "arm1", "count": 1, "left_out": 2, "agents": step}));
}

#[tokio::test]
async fn an_architecture_that_an_image_or_every_agent_has_not_is_refused_with_those_there_are() {
    let scene = Scene::set().await;
    let (api, both, one) = (scene.api(), scene.name("both"), scene.name("one"));
    for field in ["preload_image", "unload_image"] {
        for (image, agents, architecture, words) in [
            (&both, "*", "riscv64", format!("{both} has no image for riscv64; it has aarch64, x86_64")),
            (&one, "*", "arm64", format!("{one} has no image for aarch64; it has x86_64")),
            (&both, "pc[1-2]", "arm64", "no agent of pc[1-2] is aarch64; they are x86_64".into()),
            (&both, "*", " ", "it is empty".into()),
        ] {
            let answer = ask_for(&api, field, image, agents, Some(architecture)).await;
            let why = answer["msg"].as_str().unwrap_or_default();
            assert!(answer["ok"] == false && why.contains(&words), "{words}: {answer}");
            assert!(why.contains("architecture: "), "{why}");
            let refused = api.refused(PLAN, json!({"r": image, "a": agents, "arch": architecture})).await;
            assert!(refused.contains(&words), "{words}: {refused}");
        }
    }
    assert_eq!(
        api.ask("{ background_tasks { kind } }", json!({})).await["background_tasks"],
        json!([{"kind": "rescan"}])
    );
}

#[tokio::test]
async fn the_shell_names_the_architecture_and_touches_no_agent_of_another() {
    let scene = Scene::set().await;
    let (app, both) = (&scene.app, scene.name("both"));
    let wharf = async |arguments: &[&str], code: i32| {
        let outcome = app.wharf(arguments).await;
        assert_eq!(outcome.code, code, "{arguments:?}: {}", outcome.text());
        if code == 0 { outcome.stdout } else { outcome.stderr }
    };
    wharf(&["preload", &both, "*"], 0).await;
    assert_eq!(scene.holders(), ["arm1", "pc1", "pc2"]);

    let plan = wharf(&["preload", &both, "*", "--architecture", "arm64", "--plan"], 0).await;
    let total = "1 agent, 0 B to fetch: arm1; left out: 2 agents of other architectures";
    assert!(plan.trim_end().ends_with(total) && !plan.contains("pc1"), "{plan}");

    let off = wharf(&["unload", &both, "*", "--architecture", "arm64"], 0).await;
    let said = format!(
        "unload {both} (aarch64) on arm1 done\nleft out: 2 agents of other architectures\narm1: removed"
    );
    assert_eq!(off.trim_end(), said);
    assert_eq!(scene.holders(), ["pc1", "pc2"], "the x86_64 image stays");
    let tasks = wharf(&["task", "list", "--json"], 0).await;
    let tasks: Value = serde_json::from_str(&tasks).unwrap();
    let page = wharf(&["task", "show", tasks[0]["id"].as_str().unwrap()], 0).await;
    assert!(page.contains("left out  2 agents of other architectures"), "{page}");

    let refused = wharf(&["unload", &both, "*", "--architecture", "riscv64"], 1).await;
    assert!(refused.contains("has no image for riscv64; it has aarch64, x86_64"), "{refused}");
    assert_eq!(scene.holders(), ["pc1", "pc2"]);
}

#[tokio::test]
async fn an_agent_that_was_away_gets_the_image_of_its_own_architecture_or_none() {
    let registry = Shelf::start([both().real_layers(1, 1_000)]).await;
    let mut app = App::start().await;
    let api = app.admin();
    api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    api.scan(&registry.host()).await;
    let folder = tempfile::tempdir().unwrap();
    let engine = format!("oci:{}", folder.path().join("images").display());
    let mut machine = Machine::new(app.url(), &engine).with(&["--id", "gpu01"]);
    machine.start(Some(&token(&api, json!({})).await));
    api.agents_alive(1).await;

    // A server that has started again has not met the agent, and so does not know its architecture.
    let mut wanted = Vec::new();
    app.kill9();
    machine.process().kill9();
    app.restart().await;
    let own = std::env::consts::ARCH;
    let other = if own == "x86_64" { "aarch64" } else { "x86_64" };
    let name = format!("{}/r/both:1", registry.host());
    for architecture in [Some(other), None] {
        let answer = ask_for(&api, "preload_image", &name, "*", architecture).await;
        wanted.push(answer["task_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
    }
    machine.start(None);
    let mut ends = Vec::new();
    for id in &wanted {
        assert_eq!(api.finish(id).await.name, "bgtask_done", "{:#}", api.task(id).await);
        ends.push(api.task(id).await["items"][0]["reason"].as_str().unwrap_or_default().to_owned());
    }
    let left_out = format!("left out: the agent's architecture is {own}, and the task is for {other}");
    assert_eq!(ends, [left_out.as_str(), "loaded"]);
    let has = api.ask("{ agents { id } images { architecture installed } }", json!({})).await;
    let installed: Vec<_> =
        has["images"].as_array().unwrap().iter().filter(|image| image["installed"] == true).collect();
    assert!(installed.len() == 1 && installed[0]["architecture"] == own, "{has:#}");
}

#[tokio::test]
async fn a_name_is_one_row_with_all_its_architectures_if_that_is_asked_for() {
    let scene = Scene::set().await;
    let query = "query($filter: String, $order: String, $first: Int, $offset: Int, $one: Boolean) {
        image_nodes(filter: $filter, order: $order, first: $first, offset: $offset, one_per_name: $one) {
            count edges { node { name architecture } architectures { architecture } } } }";
    let rows = async |asked: Value| {
        let page = scene.api().ask(query, asked).await["image_nodes"].take();
        let row = |edge: &Value| {
            let architectures = edge["architectures"].as_array().unwrap().iter();
            let architectures: Vec<&str> =
                architectures.map(|image| image["architecture"].as_str().unwrap()).collect();
            let node = &edge["node"];
            format!("{} {}: {}", node["name"], node["architecture"], architectures.join(" ")).replace('"', "")
        };
        let rows: Vec<String> = page["edges"].as_array().unwrap().iter().map(row).collect();
        (page["count"].as_u64().unwrap(), rows)
    };
    let both = |own: &str| format!("r/both {own}: aarch64 x86_64");
    let one = "r/one x86_64: x86_64".to_owned();
    let all = (2, vec![both("aarch64"), one.clone()]);
    assert_eq!(rows(json!({"one": true})).await, all);
    let of_pc = json!({"one": true, "filter": "architecture == \"x86_64\""});
    assert_eq!(rows(of_pc).await, (2, vec![both("x86_64"), one.clone()]), "the first that passes the filter");
    let of_arm = json!({"one": true, "filter": "architecture == \"aarch64\""});
    assert_eq!(rows(of_arm).await, (1, vec![both("aarch64")]));
    let second = json!({"one": true, "order": "-name", "first": 1, "offset": 1});
    assert_eq!(rows(second).await, (2, vec![both("aarch64")]));
    let each = ["r/both aarch64: aarch64", "r/both x86_64: x86_64", one.as_str()].map(str::to_owned);
    assert_eq!(rows(json!({})).await, (3, each.to_vec()));
}
