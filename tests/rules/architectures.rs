//! Rules for one architecture.

use serde_json::json;

use crate::support::wait::until;
use crate::transfers::architectures::Scene;

use super::LONG;

#[tokio::test]
async fn a_rule_for_one_architecture_loads_its_images_onto_agents_of_it_only() {
    let scene = Scene::set().await;
    let (api, both) = (scene.api(), scene.name("both"));
    let reached = async |expected: &[&str]| {
        until(&format!("{expected:?} to have it"), LONG, async || {
            (scene.holders() == expected).then_some(())
        })
        .await;
    };
    let asked = json!({"images": both, "agents": "*", "arch": "linux/arm64"});
    let query = "query($images: String!, $agents: String!, $arch: String) {
        preload_rule_preview(images: $images, target_agents: $agents, architecture: $arch) {
            ok problems { field } images agents folded left_out missing } }";
    let expected = json!({"ok": true, "problems": [], "images": 1, "agents": 1, "folded": "arm1", "left_out": 2,
        "missing": 1});
    // What an agent has reported is not known at once.
    until("the preview", LONG, async || {
        let preview = api.ask(query, asked.clone()).await["preload_rule_preview"].take();
        (preview == expected).then_some(())
    })
    .await;

    let made = api.add_rule("arm", &both, "*", json!({"architecture": "arm64"})).await;
    assert_eq!(made["ok"], true, "{made}");
    reached(&["arm1"]).await;
    let rule = api.rule_is("arm", "filled").await;
    let status = &rule["status"];
    assert_eq!(
        (&status["folded"], &status["agents"], &status["present"]),
        (&json!("arm1"), &json!(1), &json!(1))
    );
    let tasks = api.tasks_of("arm").await;
    assert_eq!(tasks.len(), 1, "{tasks:#?}");
    assert_eq!(tasks[0]["subject"], format!("{both} (aarch64) on arm1 by rule arm"));

    let wharf = async |arguments: &[&str]| {
        let outcome = scene.app.wharf(arguments).await;
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.text());
        outcome.stdout
    };
    let list = wharf(&["rule", "list"]).await;
    assert!(list.contains(&format!("{both} (aarch64)")), "{list}");
    let page = wharf(&["rule", "show", "arm"]).await;
    for line in ["architecture  aarch64", "left out      2 agents of other architectures"] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let plan = ["rule", "add", "pc", &both, "*", "--architecture", "amd64", "--plan"];
    assert!(wharf(&plan).await.contains("left out  1 agent of another architecture"), "{plan:?}");
    let refused = scene.app.wharf(&["rule", "change", "arm", "--architecture", "a b"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("architecture: "), "{}", refused.text());

    // Each agent's own from now on; and one again, which removes nothing.
    wharf(&["rule", "change", "arm", "--architecture", ""]).await;
    reached(&["arm1", "pc1", "pc2"]).await;
    wharf(&["rule", "change", "arm", "--architecture", "x86-64"]).await;
    let rule = api.rule_until("arm", "a look", |rule| rule["status"]["folded"] == "pc[1-2]").await;
    assert_eq!(rule["status"]["present"], 2, "{rule:#}");
    assert_eq!(scene.holders(), ["arm1", "pc1", "pc2"]);
}
