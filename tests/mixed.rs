//! A server whose agents have engines of different kinds: the same requests, the same answers, checked with each
//! engine's own command line.

mod near;
mod truth;

use serde_json::{Value, json};
use wharf::engine::EngineKind;

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::node::Node;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// Waits until that many agents are alive and have been read; returns the kind and id of each, by kind.
async fn agents(app: &App, count: usize) -> Vec<(String, String)> {
    until("the agents to be alive", PATIENCE, async || {
        let data = app.admin().ask("{ agents { id status engine images_bytes } }", json!({})).await;
        let agents = data["agents"].as_array().unwrap().clone();
        let is_read = |agent: &&Value| agent["status"] == "ALIVE" && !agent["images_bytes"].is_null();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut alive: Vec<_> =
            agents.iter().filter(is_read).map(|agent| (text(&agent["engine"]), text(&agent["id"]))).collect();
        alive.sort();
        (alive.len() == count).then_some(alive)
    })
    .await
}

/// Runs it on these agents to the end; returns the reason of each item, by agent.
async fn transfer(app: &App, field: &str, name: &str, agents: &str) -> Vec<String> {
    let document = format!(
        "mutation($r: String!, $a: String!) {{ {field}(reference: $r, target_agents: $a) {{ ok msg task_id }} }}"
    );
    let answer = app.admin().ask(&document, json!({"r": name, "a": agents})).await;
    let task = answer[field]["task_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    app.admin().finish(&task).await;
    let task = app.admin().task(&task).await;
    let items = task["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            format!("{} {}", item["state"].as_str().unwrap(), item["reason"].as_str().unwrap_or_default())
        })
        .collect()
}

/// Returns the state of an image on each of these agents.
async fn presence(app: &App, name: &str, agents: &[(String, String)]) -> Vec<String> {
    let query = "query($r: String!) { image_presence(reference: $r) { agent state } }";
    let data = app.admin().ask(query, json!({"r": name})).await;
    let rows = data["image_presence"].as_array().unwrap();
    let state = |id: &str| rows.iter().find(|row| row["agent"] == id).unwrap()["state"].as_str().unwrap();
    agents.iter().map(|(_, id)| state(id).to_owned()).collect()
}

/// Returns how an image is used on each of these agents.
async fn usage(app: &App, name: &str, agents: &[(String, String)]) -> Vec<Value> {
    let query = "query($r: String!) { image_presence(reference: $r) {
        agent usage { in_use last_used_at unused_since came_at } } }";
    let data = app.admin().ask(query, json!({"r": name})).await;
    let rows = data["image_presence"].as_array().unwrap();
    let of = |id: &str| rows.iter().find(|row| row["agent"] == id).unwrap()["usage"].clone();
    agents.iter().map(|(_, id)| of(id)).collect()
}

#[tokio::test]
async fn podman_and_containerd_are_agents_like_any_other() {
    let Some(registry) = RealRegistry::open().await else { return };
    let (Some(containerd), Some(podman)) =
        (Node::start(EngineKind::Containerd).await, Node::start(EngineKind::Podman).await)
    else {
        return;
    };
    let lab = |tag| Image::new("lab/python", tag).real_layers(2, 100_000);
    let (built, moving) = (registry.push(&lab("1")).await, registry.push(&lab("2")).await);
    let proxy = CountingProxy::start(&registry.url()).await;
    let urls = [containerd.url(), podman.url()];
    let app = App::start_with(move |command| {
        for url in &urls {
            command.args(["--engine", url]);
        }
    })
    .await;
    app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
    app.admin().scan(&proxy.host()).await;
    let agents = agents(&app, 2).await;
    let [(first, on_containerd), (second, _)] = agents.as_slice() else { panic!("{agents:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("containerd", "podman"));

    let name = format!("{}/lab/python:1", proxy.host());
    let part = built.part("x86_64");
    let ids = [&part.manifest, &part.config].map(|digest| vec![format!("{name} {digest}")]);
    assert_eq!(presence(&app, &name, &agents).await, ["absent", "absent"]);
    assert_eq!(transfer(&app, "preload_image", &name, "*").await, ["done loaded", "done loaded"]);
    assert_eq!([containerd.listed().await, podman.listed().await], ids);
    assert_eq!(presence(&app, &name, &agents).await, ["present", "present"]);
    let again = transfer(&app, "preload_image", &name, "*").await;
    assert_eq!(again, ["done already there", "done already there"]);

    // Changes made without wharf, with each engine's own command line.
    let becomes = async |states: [&str; 2]| {
        let shown = async || (presence(&app, &name, &agents).await == states).then_some(());
        until(&format!("it to be {states:?}"), PATIENCE * 2, shown).await;
    };
    containerd.untag(&name).await;
    becomes(["absent", "present"]).await;
    podman.untag(&name).await;
    becomes(["absent", "absent"]).await;
    containerd.pull(&name).await;
    podman.pull(&name).await;
    becomes(["present", "present"]).await;

    // An image that a container uses is in use.
    podman.hold("holder", &name).await;
    let used = until("the container to be heard of", PATIENCE * 2, async || {
        let usage = usage(&app, &name, &agents).await;
        (usage[1]["in_use"] == true).then_some(usage)
    })
    .await;
    assert_eq!((&used[0]["in_use"], &used[0]["last_used_at"]), (&json!(false), &Value::Null), "{used:?}");
    let reasons = transfer(&app, "unload_image", &name, "*").await;
    assert!(reasons.contains(&"done removed".to_owned()), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("in use: by 1 container: holder")), "{reasons:?}");
    becomes(["absent", "present"]).await;
    podman.let_go("holder").await;
    let left = until("the container to be gone", PATIENCE * 2, async || {
        let usage = usage(&app, &name, &agents).await.remove(1);
        (usage["in_use"] == false).then_some(usage)
    })
    .await;
    assert!(left["last_used_at"].is_string() && left["unused_since"] == left["last_used_at"], "{left:#}");
    assert_eq!(transfer(&app, "unload_image", &name, &agents[1].1).await, ["done removed"]);
    assert_eq!([containerd.listed().await, podman.listed().await], [[""; 0], [""; 0]]);

    // A tag that moved since the scan: containerd can pull by tag only, so it reports that it got another image.
    let name = format!("{}/lab/python:2", proxy.host());
    let newer = registry.push(&lab("2").content("rebuilt")).await;
    assert_ne!(newer.part("x86_64").config, moving.part("x86_64").config);
    let reasons = transfer(&app, "preload_image", &name, on_containerd).await;
    assert!(reasons[0].starts_with("failed") && reasons[0].contains("has the tag moved"), "{reasons:?}");
    assert_eq!(presence(&app, &name, &agents).await, ["stale", "absent"]);
    assert_eq!(transfer(&app, "preload_image", &name, &agents[1].1).await, ["done loaded"]);
    assert_eq!(presence(&app, &name, &agents).await, ["stale", "present"]);
}
