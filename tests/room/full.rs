//! An agent whose disk is full, and preloads that make room on it.

use serde_json::{Value, json};

use super::{Scene, image};
use crate::support::disk::SmallDisk;
use crate::support::dockerd::RealDocker;

const MEBI: usize = 1 << 20;

#[tokio::test]
async fn a_full_agent_gets_an_image_and_keeps_what_is_used_wanted_and_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk"), 54) else {
        eprintln!("left out: no file system can be mounted here");
        return;
    };
    let place = folder.path().join("disk/data").display().to_string();
    let Some(docker) = RealDocker::start_with(&["--data-root", &place]).await else { return };
    let names = ["wanted", "used", "pinned", "idle", "other"];
    // A container of the image that is used takes as much again, twice.
    let bytes = |name: &str| if name == "used" { MEBI } else { 9 * MEBI };
    let images = names.map(|name| image(&format!("lab/{name}"), "1", bytes(name)));
    let Some(scene) = Scene::set(docker, &images).await else { return };
    let api = scene.api();
    scene.registry.push_all([image("lab/new", "1", 9 * MEBI), image("lab/huge", "1", 40 * MEBI)]).await;
    api.scan(scene.registry.host()).await;
    scene.docker.docker_ok(&["create", "--name", "homework", &scene.name("lab/used:1"), "/file"]).await;
    api.does("pin_image", &format!("reference: {:?}", scene.name("lab/pinned:1"))).await;
    let query =
        "mutation($p: CreatePreloadRuleInput!) { create_preload_rule(name: \"standard\", props: $p) { ok } }";
    let props = json!({"images": scene.name("lab/wanted:*"), "target_agents": "*"});
    api.ask(query, json!({"p": props})).await;
    for (image, why) in [("wanted", "wanted"), ("used", "in-use"), ("pinned", "pinned")] {
        scene.stays(&format!("lab/{image}:1"), json!(why)).await;
    }

    let query = "query($r: String!) { preload_plan(reference: $r, target_agents: \"*\") { agents {
        bytes free_bytes fits problem fits_with_room room { names frees_bytes } } } }";
    let plan = async |image: &str| {
        api.ask(query, json!({"r": scene.name(image)})).await["preload_plan"]["agents"][0].take()
    };
    let told = plan("lab/new:1").await;
    assert_eq!((&told["fits"], &told["fits_with_room"]), (&json!(false), &json!(true)), "{told:#}");
    assert_eq!(told["room"].as_array().unwrap().len(), 1, "no more than needed: {told:#}");
    let going = told["room"][0]["names"][0].as_str().unwrap().to_owned();
    assert!([scene.name("lab/idle:1"), scene.name("lab/other:1")].contains(&going), "{told:#}");

    let document =
        "mutation($r: String!) { preload_image(reference: $r, target_agents: \"*\", make_room: true) {
        ok msg task_id } }";
    let preload = async |image: &str| -> Value {
        let answer = api.ask(document, json!({"r": scene.name(image)})).await;
        let task =
            answer["preload_image"]["task_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        api.finish(&task).await;
        api.task(&task).await
    };
    let task = preload("lab/new:1").await;
    assert_eq!(task["state"], "done", "{task:#}");
    let reason = task["items"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, format!("loaded; to make room, {going} went"), "{task:#}");
    let mut left: Vec<String> = names.map(|name| format!("lab/{name}:1")).into();
    left.retain(|name| scene.name(name) != going);
    left.push("lab/new:1".into());
    left.sort();
    assert_eq!(scene.listed().await, left);

    // What would not fit even then takes nothing.
    let told = plan("lab/huge:1").await;
    assert_eq!((&told["fits_with_room"], &told["room"]), (&json!(false), &json!([])), "{told:#}");
    let task = preload("lab/huge:1").await;
    assert_eq!(task["state"], "failed", "{task:#}");
    let reason = task["items"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("more could be freed"), "{task:#}");
    assert_eq!(scene.listed().await, left);
    let Scene { app, mut docker, .. } = scene;
    drop(app);
    docker.stop().await;
    drop(disk);
}
