//! What changed in the catalog: new images, moved tags, images that are gone; to whom it is told.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

const CHANGES: &str = "query($since: String, $until: String, $registry: String, $limit: Int) {
    image_changes(since: $since, until: $until, registry: $registry, limit: $limit) {
      items { at kind registry name tag architecture before after } is_cut } }";
const TIMES: &str = "query($r: String!) { image(reference: $r) {
    created_at first_seen_at changed_at target_digest } }";

/// The changes, each as kind, repository and tag, newest first.
async fn told(api: &Api, wanted: Value) -> (Vec<String>, bool) {
    let data = api.ask(CHANGES, wanted).await["image_changes"].clone();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = data["items"].as_array().unwrap().iter();
    let rows = rows.map(|row| format!("{} {}:{}", text(row, "kind"), text(row, "name"), text(row, "tag")));
    (rows.collect(), data["is_cut"].as_bool().unwrap())
}

async fn times(api: &Api, reference: &str) -> Value {
    api.ask(TIMES, json!({"r": reference})).await["image"].clone()
}

#[tokio::test]
async fn what_is_new_moved_and_gone_is_told_to_those_who_may_see_it() {
    let made = "2024-05-06T07:08:09Z";
    let registry = Shelf::start([Image::new("lab/py", "1").created(made), Image::new("lab/r", "1")]).await;
    let other = Shelf::start([Image::new("secret/x", "1")]).await;
    let mut app = App::start().await;
    let admin = app.admin();
    for shelf in [&registry, &other] {
        admin.add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
    }
    admin.scan(&registry.host()).await;
    let name = format!("{}/lab/py:1", registry.host());
    let first = times(&admin, &name).await;
    assert_eq!(first["created_at"], made);
    assert_eq!(first["first_seen_at"], first["changed_at"]);
    assert!(first["first_seen_at"].as_str().is_some_and(|at| at > made), "{first}");
    let (rows, is_cut) = told(&admin, json!({})).await;
    assert_eq!((rows.len(), is_cut), (2, false), "{rows:?}");
    assert!(rows.iter().all(|row| row.starts_with("new lab/")), "{rows:?}");

    // Nothing changed, so nothing is told.
    admin.scan(&registry.host()).await;
    assert_eq!(told(&admin, json!({})).await.0.len(), 2);
    assert_eq!(times(&admin, &name).await, first);

    registry.put(&Image::new("lab/py", "1").content("another"));
    admin.scan(&registry.host()).await;
    let moved = times(&admin, &name).await;
    assert_eq!(moved["first_seen_at"], first["first_seen_at"]);
    assert_ne!(moved["target_digest"], first["target_digest"]);
    let data = admin.ask(CHANGES, json!({"limit": 1})).await["image_changes"].clone();
    assert_eq!(data["items"][0]["kind"], "moved");
    assert_eq!(data["items"][0]["before"], first["target_digest"]);
    assert_eq!(data["items"][0]["after"], moved["target_digest"]);
    assert_eq!(data["is_cut"], true);

    let (ok, why) =
        admin.mutate("forget_image", &format!("reference: \"{}/lab/r:1\"", registry.host())).await;
    assert!(ok, "{why}");
    admin.scan(&other.host()).await;
    let all = ["new secret/x:1", "removed lab/r:1", "moved lab/py:1"];
    assert_eq!(told(&admin, json!({"limit": 3})).await.0, all);
    assert_eq!(told(&admin, json!({"registry": other.host()})).await.0, ["new secret/x:1"]);
    assert_eq!(told(&admin, json!({"since": "2999-01-01T00:00:00Z"})).await.0.len(), 0);
    let whole = told(&admin, json!({"since": "-009999-01-02T12:00:00Z", "limit": 3})).await;
    assert_eq!(whole.0, all, "there is no moment a day before");
    assert_eq!(told(&admin, json!({"until": "2024-01-01T00:00:00Z"})).await.0.len(), 0);
    for wrong in [json!({"since": "yesterday"}), json!({"limit": -1})] {
        let refused = admin.refused(CHANGES, wrong).await;
        assert!(refused.contains("since") || refused.contains("limit"), "{refused}");
    }

    // A user sees the changes of the images that the domain may use, also of one that is gone.
    admin.does("create_domain", r#"name: "lab", props: {}"#).await;
    admin.allow_registries("lab", &[&registry.host()]).await;
    let ann = app.person("ann@lab", "user", "lab").await;
    let (rows, _) = told(&ann.api, json!({})).await;
    assert_eq!(rows[..2], ["removed lab/r:1", "moved lab/py:1"], "{rows:?}");
    assert_eq!(rows.len(), 4, "{rows:?}");

    // All of it outlives a restart.
    app.terminate().await;
    app.restart().await;
    assert_eq!(told(&app.admin(), json!({"limit": 3})).await.0, all);
    assert_eq!(times(&app.admin(), &name).await, moved);
    let shown = app.wharf(&["image", "changes", "--since", "1d"]).await;
    let lines: Vec<&str> = shown.stdout.lines().filter(|line| line.contains(" moved ")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("lab/py:1") && lines[0].contains("sha256:"),
        "{}",
        shown.stdout
    );
}
