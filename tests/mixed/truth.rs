//! What an agent is said to have is what its engine's own command line says, on engines of every kind and release at
//! once.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{agents, transfer};
use crate::support::app::App;
use crate::support::dockerd::Store;
use crate::support::image::Image;
use crate::support::node::{Flavour, Node};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::release::Release::{Own, Trixie};
use crate::support::wait::{PATIENCE, until};

pub(super) const FLAVOURS: [Flavour; 7] = [
    Flavour::Docker(Own, Store::Docker),
    Flavour::Docker(Trixie, Store::Docker),
    Flavour::Docker(Trixie, Store::Containerd),
    Flavour::Podman(Own),
    Flavour::Podman(Trixie),
    Flavour::Containerd(Own),
    Flavour::Containerd(Trixie),
];

/// A server with engines of every kind, a directory of its own, and a registry that it reads.
pub(super) struct Scene {
    pub(super) app: App,
    pub(super) proxy: CountingProxy,
    registry: RealRegistry,
    pub(super) nodes: Vec<Node>,
    /// The agent whose images wharf keeps itself. Nothing happens there behind its back.
    built_in: String,
    _layout: TempDir,
}

impl Scene {
    async fn set() -> Option<Self> {
        Self::set_with(&[]).await
    }

    /// A scene whose server has these further arguments.
    pub(super) async fn set_with(arguments: &[String]) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        let mut nodes = Vec::new();
        for flavour in FLAVOURS {
            nodes.push(Node::start_of(flavour).await?);
        }
        let layout = tempfile::tempdir().unwrap();
        let proxy = CountingProxy::start(&registry.url()).await;
        let mut urls: Vec<String> = nodes.iter().map(Node::url).collect();
        urls.push(format!("oci:{}", layout.path().display()));
        let arguments = arguments.to_vec();
        let app = App::start_with(move |command| {
            command.args(&arguments);
            for url in &urls {
                command.args(["--engine", url]);
            }
        })
        .await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
        let agents = agents(&app, nodes.len() + 1).await;
        let built_in = agents.into_iter().find(|(kind, _)| kind == "oci").unwrap().1;
        Some(Self { app, proxy, registry, nodes, built_in, _layout: layout })
    }

    /// Pushes the image under these tags and has the server read them; returns the names.
    pub(super) async fn publish(&self, image: &Image, tags: &[&str]) -> Vec<String> {
        let built = self.registry.push(image).await;
        self.registry.tag(&built, tags).await;
        self.app.admin().scan(&self.proxy.host()).await;
        tags.iter().map(|tag| format!("{}/{}:{tag}", self.proxy.host(), built.repository)).collect()
    }

    pub(super) async fn all(&self, field: &str, name: &str) -> Vec<String> {
        transfer(&self.app, field, name, "*").await
    }

    /// Waits until the image of this machine's architecture has this state on every agent.
    pub(super) async fn becomes(&self, name: &str, state: &str) {
        self.become_on(name, state, |_| true).await;
    }

    /// Waits until it has this state on every agent whose engine people use by hand.
    async fn becomes_by_hand(&self, name: &str, state: &str) {
        self.become_on(name, state, |agent| *agent != self.built_in).await;
    }

    async fn become_on(&self, name: &str, state: &str, counts: impl Fn(&Value) -> bool) {
        let query = "query($r: String!) { image_presence(reference: $r) { agent architecture state } }";
        until(&format!("{name} to be {state}"), PATIENCE, async || {
            let data = self.app.admin().ask(query, json!({"r": name})).await;
            let rows = data["image_presence"].as_array().unwrap();
            let own = rows.iter().filter(|row| row["architecture"] == std::env::consts::ARCH);
            own.filter(|row| counts(&row["agent"])).all(|row| row["state"] == state).then_some(())
        })
        .await;
    }

    /// The steps that a plan of this image has for the agents.
    async fn plan(&self, name: &str) -> Vec<Value> {
        let query =
            "query($r: String!) { preload_plan(reference: $r, target_agents: \"*\") { agents { step } } }";
        let plan = self.app.admin().ask(query, json!({"r": name})).await;
        plan["preload_plan"]["agents"].as_array().unwrap().iter().map(|agent| agent["step"].clone()).collect()
    }

    /// Checks that nothing is left on any engine, under whatever name or none.
    pub(super) async fn is_empty(&self) {
        for node in &self.nodes {
            let left = node.engine().images().await.unwrap();
            assert_eq!(left, [], "{}", node.url());
            assert_eq!(node.listed().await, [""; 0], "{}", node.url());
        }
    }
}

/// One tag for two architectures, as most images of today are.
fn app(content: &str) -> Image {
    Image::new("lab/app", "latest")
        .platforms(&["linux/amd64", "linux/arm64"])
        .oci()
        .real_layers(2, 20_000)
        .content(content)
}

#[tokio::test]
async fn presence_follows_names_and_their_contents_on_every_engine() {
    let Some(scene) = Scene::set().await else { return };
    let names = scene.publish(&app("first"), &["latest"]).await;
    let latest = names[0].as_str();
    let done = |items: &[String]| items.iter().all(|item| item.starts_with("done loaded"));
    let loaded = scene.all("preload_image", latest).await;
    assert!(done(&loaded), "{loaded:#?}");
    scene.becomes(latest, "present").await;
    let again = scene.all("preload_image", latest).await;
    assert!(again.iter().all(|item| item == "done already there"), "{again:#?}");
    let image = scene.app.admin().image("lab/app", "latest", "x86_64").await;
    assert_eq!(image["installed"], true, "{image}");

    // What people do on a node by hand: the image goes, and comes by its tag, which leads to an index.
    for node in &scene.nodes {
        node.untag(latest).await;
    }
    scene.becomes_by_hand(latest, "absent").await;
    for node in &scene.nodes {
        node.pull(latest).await;
    }
    scene.becomes(latest, "present").await;
    assert!(scene.plan(latest).await.iter().all(|step| step == "already-there"));

    // The tag moves, and the new image is loaded under another name: this one still starts the old.
    let names = scene.publish(&app("second"), &["latest", "2.0"]).await;
    scene.becomes(latest, "stale").await;
    let image = scene.app.admin().image("lab/app", "latest", "x86_64").await;
    assert_eq!((&image["installed"], &image["installed_agents"]), (&json!(false), &json!([])), "{image}");
    let loaded = scene.all("preload_image", &names[1]).await;
    assert!(done(&loaded), "{loaded:#?}");
    scene.becomes(&names[1], "present").await;
    scene.becomes(latest, "stale").await;
    assert!(scene.plan(latest).await.iter().all(|step| step == "stale"));

    let rule =
        "mutation($p: CreatePreloadRuleInput!) { create_preload_rule(name: \"all\", props: $p) { ok msg } }";
    let props = json!({"images": format!("{}/lab/*", scene.proxy.host()), "target_agents": "*"});
    let made = scene.app.admin().ask(rule, json!({"p": props})).await;
    assert_eq!(made["create_preload_rule"]["ok"], true, "{made}");
    scene.becomes(latest, "present").await;
    let image = scene.app.admin().image("lab/app", "latest", "x86_64").await;
    assert_eq!(image["installed"], true, "{image}");
    assert_eq!(image["installed_agents"].as_array().unwrap().len(), FLAVOURS.len() + 1, "{image}");
    for node in &scene.nodes {
        // Behind both names is one image, and the one before is gone.
        let listed = node.listed().await;
        let ids: Vec<&str> = listed.iter().map(|line| line.rsplit_once(' ').unwrap().1).collect();
        assert!(listed.len() == 2, "{}: {listed:?}", node.url());
        assert!(
            ids[0] == ids[1] || matches!(node, Node::Docker(_)),
            "{}: one index and one manifest of it may be two: {listed:?}",
            node.url()
        );
    }
    let gone =
        scene.app.admin().ask("mutation { delete_preload_rule(name: \"all\") { ok } }", json!({})).await;
    assert_eq!(gone["delete_preload_rule"]["ok"], true, "{gone}");

    for name in &names {
        let removed = scene.all("unload_image", name).await;
        assert!(
            removed.iter().all(|item| item.starts_with("done ") && !item.contains("not there")),
            "{removed:#?}"
        );
        scene.becomes(name, "absent").await;
    }
    scene.is_empty().await;
}

#[tokio::test]
async fn one_task_onto_every_engine_goes_on_after_the_server_was_killed() {
    let Some(mut scene) = Scene::set().await else { return };
    let names = scene.publish(&app("first"), &["latest"]).await;
    scene.proxy.take_log();
    scene.proxy.hold();
    let task = scene.app.admin().transfer("preload_image", &names[0], "*").await;
    scene.proxy.reached(FLAVOURS.len() + 1).await;
    scene.app.kill9();
    scene.proxy.release();
    scene.app.restart().await;
    let event = scene.app.admin().finish(&task).await;
    assert_eq!(event.name, "bgtask_done", "{:#}", scene.app.admin().task(&task).await);
    scene.becomes(&names[0], "present").await;
    let removed = scene.all("unload_image", &names[0]).await;
    assert!(removed.iter().all(|item| item == "done removed"), "{removed:#?}");
    scene.is_empty().await;
}
