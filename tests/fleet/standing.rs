//! Where agents stand: in which scaling group, and with which of an image's architectures.

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::machine::agent;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// A server that keeps images itself, and a registry with an image for two architectures.
async fn scene() -> (App, Shelf, String, tempfile::TempDir) {
    let both = ["linux/amd64", "linux/arm64"];
    let registry = Shelf::start([Image::new("r/a", "1").platforms(&both).real_layers(1, 1_000)]).await;
    let scratch = tempfile::tempdir().expect("a directory");
    let engine = format!("oci:{}", scratch.path().join("images").display());
    let app = App::start_with(move |command| {
        command.args(["--engine", &engine]);
    })
    .await;
    let api = app.admin();
    api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    api.scan(&registry.host()).await;
    let id = api.agents_alive(1).await.remove(0);
    (app, registry, id, scratch)
}

#[tokio::test]
async fn an_agent_moves_only_to_a_scaling_group_that_there_is() {
    let (app, _registry, id, _scratch) = scene().await;
    let api = app.admin();
    let moved =
        format!("id: {id:?}, props: {{scaling_group: \"gpu\", labels: [{{key: \"zone\", value: \"a\"}}]}}");
    let (ok, msg) = api.mutate("modify_agent", &moved).await;
    assert!(!ok && msg.contains("no such scaling group") && msg.contains("gpu"), "{msg}");
    let stays = agent(&api, &id).await;
    assert_eq!(
        (&stays["scaling_group"], &stays["labels"]),
        (&json!("default"), &json!([])),
        "all or nothing"
    );
    assert!(api.mutate("create_scaling_group", "name: \"gpu\", props: {}").await.0);
    assert!(api.mutate("modify_agent", &moved).await.0);
    assert_eq!(agent(&api, &id).await["scaling_group"], "gpu");
    // One whose group was taken away before it knew of that rule keeps it when something else is changed.
    assert!(api.mutate("modify_agent", &format!("id: {id:?}, props: {{schedulable: false}}")).await.0);
}

#[tokio::test]
async fn an_agent_with_one_architecture_of_an_image_is_not_behind_with_the_other() {
    let (app, registry, id, _scratch) = scene().await;
    let api = app.admin();
    let name = format!("{}/r/a:1", registry.host());
    api.transfer_to_end("preload_image", &name, "*").await;
    let by_reference = "query($r: String!) { image_presence(reference: $r) { architecture state } }";
    let by_agent = "query($a: String!) { image_presence(agent: $a) { architecture state } }";
    let matrix = "query($r: [String!]!) { presence_matrix(references: $r) { rows { architecture states } } }";
    // The state of its own architecture, and of the other.
    let states = |rows: &Value, field: &str| {
        let rows = rows.as_array().unwrap();
        let of = |is_own: bool| {
            let row = rows.iter().find(|row| (row["architecture"] == std::env::consts::ARCH) == is_own);
            row.expect("a row")[field].as_str().unwrap().to_owned()
        };
        assert_eq!(rows.len(), 2);
        [of(true), of(false)]
    };
    until("it to be told", PATIENCE, async || {
        let data = api.ask(by_reference, json!({"r": name})).await;
        (states(&data["image_presence"], "state")[0] == "present").then_some(())
    })
    .await;
    let data = api.ask(by_reference, json!({"r": name})).await;
    assert_eq!(states(&data["image_presence"], "state"), ["present", "absent"]);
    let data = api.ask(by_agent, json!({"a": id})).await;
    assert_eq!(states(&data["image_presence"], "state"), ["present", "absent"]);
    let data = api.ask(matrix, json!({"r": [name]})).await;
    assert_eq!(states(&data["presence_matrix"]["rows"], "states"), ["p", "a"]);
}
