//! One task for a whole lab, while everything that can break does: an agent is killed, one is cut off, the manager is
//! killed. Each engine's own command line is the judge in the end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use wharf::engine::EngineKind;

use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::image::{Built, Image, sha256};
use crate::support::machine::{Machine, becomes, token};
use crate::support::missing;
use crate::support::node::Node;
use crate::support::process::{on_path, run};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// The agents: two that the manager reaches itself, and two on other machines.
const PODMAN: &str = "podman";
const OCI: &str = "oci";
const KILLED: &str = "i-killed";
const CUT_OFF: &str = "i-cut-off";

/// How each kind of client names itself to a registry; wharf fetches for the directory.
const CLIENTS: [&str; 4] = ["docker/", "containerd/", "containers/", "wharf/"];

/// An engine as its own command line shows it.
enum Judge {
    Engine(Node),
    Layout(PathBuf),
}

impl Judge {
    /// Whether it lists this name, with the right image behind it.
    async fn has(&self, name: &str, built: &Built, scratch: &Path) -> bool {
        let part = built.part("x86_64");
        let shown = match self {
            Self::Engine(node) => {
                let listed = node.listed().await;
                let line = listed.iter().find_map(|line| line.strip_prefix(&format!("{name} ")));
                line.map(str::to_owned)
            }
            Self::Layout(folder) => {
                let reference = format!("oci:{}:{name}", folder.display());
                let inspected =
                    run(Command::new("skopeo").args(["inspect", "--raw", &reference]), scratch, PATIENCE)
                        .await;
                let manifest: Option<Value> = serde_json::from_str(&inspected.stdout).ok();
                manifest.and_then(|manifest| Some(manifest["config"]["digest"].as_str()?.to_owned()))
            }
        };
        let Some(shown) = shown else { return false };
        assert!(shown == part.config || shown == part.manifest, "{name}: another image: {shown}");
        true
    }
}

struct Lab {
    app: App,
    proxy: CountingProxy,
    /// The way of the agent that is cut off.
    link: CutProxy,
    killed: Machine,
    _cut_off: Machine,
    _registry: RealRegistry,
    scratch: TempDir,
    built: [Built; 2],
    /// By the agents' ids.
    judges: Vec<(String, Judge)>,
}

impl Lab {
    async fn set() -> Option<Self> {
        if !on_path("skopeo") {
            missing("skopeo", "apt-get install skopeo");
            return None;
        }
        let registry = RealRegistry::open().await?;
        let (docker, podman, containerd) = tokio::join!(
            Node::start(EngineKind::Docker),
            Node::start(EngineKind::Podman),
            Node::start(EngineKind::Containerd)
        );
        let (docker, podman, containerd) = (docker?, podman?, containerd?);
        let image = |name: &str| Image::new(name, "1").content(name).real_layers(2, 300_000);
        let built = [registry.push(&image("lab/python")).await, registry.push(&image("lab/torch")).await];
        let proxy = CountingProxy::start(&registry.url()).await;
        let scratch = tempfile::tempdir().expect("a directory");
        let folder = scratch.path().join("images");
        let engines = [podman.url(), format!("oci:{}", folder.display())];
        let app = App::start_with(move |command| {
            command.args(["--agent-silence", "5", "--engine", &engines[0], "--engine", &engines[1]]);
        })
        .await;
        let api = app.admin();
        api.add_registry_at(&proxy.host(), &proxy.url(), registry.credentials()).await;
        api.scan(&proxy.host()).await;
        let link = CutProxy::start(app.url()).await;
        let mut killed = Machine::new(app.url(), &docker.url()).with(&["--id", KILLED]);
        killed.start(Some(&token(&api, json!({})).await));
        let mut cut_off = Machine::new(&link.url(), &containerd.url()).with(&["--id", CUT_OFF]);
        cut_off.start(Some(&token(&api, json!({})).await));
        api.agents_alive(4).await;
        let agents = api.ask("{ agents { id engine } }", json!({})).await;
        let id_of = |engine: &str| {
            let agents = agents["agents"].as_array().unwrap();
            let agent = agents.iter().find(|agent| agent["engine"] == engine).expect("an agent of this kind");
            agent["id"].as_str().unwrap().to_owned()
        };
        let judges = vec![
            (id_of(PODMAN), Judge::Engine(podman)),
            (id_of(OCI), Judge::Layout(folder)),
            (KILLED.to_owned(), Judge::Engine(docker)),
            (CUT_OFF.to_owned(), Judge::Engine(containerd)),
        ];
        Some(Self {
            app,
            proxy,
            link,
            killed,
            _cut_off: cut_off,
            _registry: registry,
            scratch,
            built,
            judges,
        })
    }

    fn names(&self) -> [String; 2] {
        [0, 1].map(|image| {
            let built: &Built = &self.built[image];
            format!("{}/{}:{}", self.proxy.host(), built.repository, built.tag)
        })
    }

    /// Lets everything through but the second layer of each image.
    fn hold_back(&self) {
        let layers: Vec<String> = self.built.iter().map(|built| sha256(&built.blobs[1])).collect();
        self.proxy.hold_those(move |request| layers.iter().any(|layer| request.target.ends_with(layer)));
    }

    /// Waits until each of these clients has asked for a layer that does not come.
    async fn asked_by(&self, clients: &[&str]) {
        let mut seen = BTreeSet::new();
        until(&format!("layers to be asked for by {clients:?}"), PATIENCE, async || {
            let held = self.proxy.take_held();
            seen.extend(held.iter().filter_map(|request| request.header("user-agent").map(str::to_owned)));
            clients.iter().all(|client| seen.iter().any(|agent| agent.starts_with(client))).then_some(())
        })
        .await;
    }

    /// The state and the reason of each item of the task, with its agent and its image.
    async fn items(&self, task: &str) -> Vec<(String, String, String, String)> {
        let query =
            "query($id: String!) { background_task(id: $id) { items { agent reference state reason } } }";
        let data = self.app.admin().ask(query, json!({"id": task})).await;
        let items = data["background_task"]["items"].as_array().expect("items").clone();
        let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
        items
            .iter()
            .map(|item| {
                (text(item, "agent"), text(item, "reference"), text(item, "state"), text(item, "reason"))
            })
            .collect()
    }

    /// Waits until both items of each of these agents are so.
    async fn stand(&self, task: &str, agents: &[&str], state: &str, words: &str) {
        let what = format!("the items of {agents:?} to be {state} {words:?}");
        until(&what, PATIENCE, async || {
            let items = self.items(task).await;
            let right = items.iter().filter(|(agent, _, now, reason)| {
                agents.contains(&agent.as_str()) && now == state && reason.contains(words)
            });
            (right.count() == 2 * agents.len()).then_some(())
        })
        .await;
    }

    /// The letters of the presence matrix: per image, in the order of the judges.
    async fn matrix(&self) -> [String; 2] {
        let query =
            "query($r: [String!]!) { presence_matrix(references: $r) { agents rows { reference states } } }";
        let data = self.app.admin().ask(query, json!({"r": self.names()})).await;
        let matrix = &data["presence_matrix"];
        let agents: Vec<&str> =
            matrix["agents"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(agents.len(), 4, "{matrix}");
        self.names().map(|name| {
            let rows = matrix["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["reference"] == name).expect("a row");
            let letters: Vec<char> = row["states"].as_str().unwrap().chars().collect();
            let place = |id: &String| agents.iter().position(|agent| agent == id).expect("its column");
            self.judges.iter().map(|(id, _)| letters[place(id)]).collect()
        })
    }

    /// The same as the engines themselves say.
    async fn truth(&self) -> [String; 2] {
        let mut rows = Vec::new();
        for (name, built) in self.names().iter().zip(&self.built) {
            let mut row = String::new();
            for (_, judge) in &self.judges {
                let has = judge.has(name, built, self.scratch.path()).await;
                row.push(if has { 'p' } else { 'a' });
            }
            rows.push(row);
        }
        rows.try_into().expect("two images")
    }

    async fn shows(&self, wanted: [&str; 2]) {
        let what = format!("the matrix to be {wanted:?}");
        until(&what, PATIENCE, async || (self.matrix().await == wanted).then_some(())).await;
    }
}

#[tokio::test]
async fn one_task_loads_two_images_onto_all_kinds_of_agents_whatever_breaks_meanwhile() {
    let Some(mut lab) = Lab::set().await else { return };
    let [python, torch] = lab.names();
    let (podman, oci) = (lab.judges[0].0.clone(), lab.judges[1].0.clone());
    let reached = [podman.as_str(), oci.as_str()];
    assert_eq!(lab.truth().await, ["aaaa", "aaaa"]);
    lab.shows(["aaaa", "aaaa"]).await;

    lab.hold_back();
    let begun = lab.app.wharf(&["preload", &python, &torch, "*", "--no-follow", "--json"]).await;
    assert_eq!(begun.code, 0, "{}", begun.text());
    let begun: Value = serde_json::from_str(&begun.stdout).expect("JSON");
    let task = begun["task_id"].as_str().expect("a task").to_owned();
    lab.asked_by(&CLIENTS).await;

    lab.killed.process().kill9();
    lab.link.freeze();
    lab.stand(&task, &[KILLED, CUT_OFF], "waiting", "waiting for the agent").await;
    lab.shows(["aauu", "aauu"]).await;
    lab.stand(&task, &reached, "running", "").await;

    lab.proxy.take_held();
    lab.app.kill9();
    lab.app.restart().await;
    let api = lab.app.admin();
    assert_eq!(api.task(&task).await["state"], "started");
    lab.stand(&task, &[KILLED, CUT_OFF], "waiting", "not reached since the server started").await;
    lab.asked_by(&["wharf/"]).await;
    lab.stand(&task, &reached, "running", "").await;

    lab.killed.start(None);
    lab.link.mend();
    becomes(&api, KILLED, "ALIVE").await;
    becomes(&api, CUT_OFF, "ALIVE").await;
    // Docker waits on for what it asked for before; a second time it does not ask.
    lab.stand(&task, &[KILLED, CUT_OFF], "running", "").await;
    lab.proxy.release();

    let event = api.finish(&task).await;
    let ended = api.task(&task).await;
    assert_eq!((event.name.as_str(), &ended["state"]), ("bgtask_done", &json!("done")), "{ended:#}");
    let items = lab.items(&task).await;
    let pairs: BTreeSet<_> = items.iter().map(|(agent, image, ..)| (agent.clone(), image.clone())).collect();
    assert_eq!((items.len(), pairs.len()), (8, 8), "one for each image and agent: {items:?}");
    for (agent, image, state, reason) in &items {
        let is_well = ["loaded", "already there", "was there under another name"].contains(&reason.as_str());
        assert!(state == "done" && is_well, "{image} on {agent}: {state}: {reason}");
    }
    let sum = ["added", "unchanged", "failed_count"].map(|field| ended["ledger"][field].as_u64().unwrap());
    assert_eq!((sum[0] + sum[1], sum[2]), (8, 0), "{ended:#}");
    let tasks = api.ask("{ background_tasks { id kind } }", json!({})).await;
    let preloads =
        tasks["background_tasks"].as_array().unwrap().iter().filter(|task| task["kind"] == "preload");
    assert_eq!(preloads.count(), 1, "{tasks}");

    lab.shows(["pppp", "pppp"]).await;
    assert_eq!(lab.truth().await, ["pppp", "pppp"]);
    // And the way back, for one of them on all and for one on some.
    let some = format!("{podman},{KILLED}");
    let off = lab.app.wharf(&["unload", &python, &torch, &some]).await;
    assert_eq!(off.code, 0, "{}", off.text());
    let off = lab.app.wharf(&["unload", &torch, "*"]).await;
    assert_eq!(off.code, 0, "{}", off.text());
    lab.shows(["apap", "aaaa"]).await;
    assert_eq!(lab.truth().await, ["apap", "aaaa"]);
}
