//! The commands of 26.9.6 that speak its own REST API instead of GraphQL.

use serde_json::{Value, json};

use crate::clients::rows::{AREAS, REST};
use crate::clients::trial::Trial;
use crate::support::image::Image;
use crate::support::registry::RealRegistry;

async fn day(mut trial: Trial) {
    if trial.year < 26 {
        for row in AREAS.iter().find(|area| area.name == REST).expect("the area").rows {
            let arguments: Vec<&str> = row.split_whitespace().collect();
            trial.lacks(row, &arguments).await;
        }
        return trial.finish();
    }
    let Some(registry) = RealRegistry::open().await else { return };
    registry
        .push_all([
            Image::new("stable/python", "3.9-ubuntu20.04").platforms(&["linux/amd64", "linux/arm64"]),
            Image::new("stable/r", "4.2").label("ai.backend.role", "INFERENCE"),
        ])
        .await;
    let id = registries(&mut trial, &registry).await;
    trial.admin.scan(registry.host()).await;
    images(&mut trial).await;
    queries(&mut trial).await;
    trial
        .works(
            "v2 admin container-registry delete ID",
            &["v2", "admin", "container-registry", "delete", &id],
            &[&id],
        )
        .await;
    let left = trial.admin.images().await;
    trial.check("v2 admin container-registry delete ID", left.is_empty(), &format!("{left:?}"));
    trial.finish();
}

async fn json_of(trial: &mut Trial, row: &'static str, arguments: &[&str]) -> Value {
    let printed = trial.works(row, arguments, &[]).await;
    serde_json::from_str(&printed).unwrap_or(Value::String(printed))
}

async fn registries(trial: &mut Trial, registry: &RealRegistry) -> String {
    const CREATE: &str = "v2 admin container-registry create JSON";
    const SEARCH: &str = "v2 admin container-registry search";
    const UPDATE: &str = "v2 admin container-registry update JSON";
    let command = |verb| ["v2", "admin", "container-registry", verb];
    let body = json!({"url": registry.url(), "registry_name": registry.host(), "type": "docker", "username": "robot",
                      "password": "p"});
    let made = json_of(trial, CREATE, &[&command("create")[..], &[&body.to_string()]].concat()).await;
    let id = made["registry"]["id"].as_str().unwrap_or_default().to_owned();
    trial.check(CREATE, made["registry"]["username"] == "robot" && !id.is_empty(), &made.to_string());

    let change = json!({"id": id, "username": "", "password": "", "project": "stable", "is_global": false});
    let changed = json_of(trial, UPDATE, &[&command("update")[..], &[&change.to_string()]].concat()).await;
    let now = &changed["registry"];
    let is_changed = now["username"].is_null() && now["project"] == "stable" && now["is_global"] == false;
    trial.check(UPDATE, is_changed, &changed.to_string());

    for (options, count) in [
        (vec![], 1),
        (vec!["--registry-name", registry.host(), "--type", "docker", "--no-is-global"], 1),
        (vec!["--type", "harbor2"], 0),
        (vec!["--order-by", "registry_name:desc", "--limit", "1", "--offset", "1"], 0),
    ] {
        let found = json_of(trial, SEARCH, &[&command("search")[..], &options].concat()).await;
        let items = found["items"].as_array().map(Vec::len);
        trial.check(SEARCH, items == Some(count), &format!("{options:?}: {found}"));
    }
    id
}

async fn images(trial: &mut Trial) {
    const SEARCH: &str = "v2 admin image search";
    const ALIAS: &str = "v2 admin image alias create ID ALIAS";
    const ALIASES: &str = "v2 admin image alias search";
    const DEALIAS: &str = "v2 admin image alias remove ALIAS";
    const UPDATE: &str = "v2 admin image update JSON";
    const FORGET: &str = "v2 admin image forget ID";
    const PURGE: &str = "v2 admin image purge ID";
    let command = |verb| ["v2", "admin", "image", verb];
    for (options, count) in [
        (vec![], 3),
        (vec!["--name-contains", "python", "--status", "ALIVE", "--architecture", "aarch"], 1),
        (vec!["--status", "DELETED"], 0),
        (vec!["--label", "ai.backend.role=INFERENCE"], 1),
        (vec!["--order-by", "size_bytes:desc", "--order-by", "name", "--limit", "2"], 2),
    ] {
        let found = json_of(trial, SEARCH, &[&command("search")[..], &options].concat()).await;
        let items = found["items"].as_array().map(Vec::len);
        trial.check(SEARCH, items == Some(count), &format!("{options:?}: {found}"));
    }
    let found =
        json_of(trial, SEARCH, &[&command("search")[..], &["--order-by", "architecture:asc"]].concat()).await;
    let first = found["items"][0].clone();
    trial.check(
        SEARCH,
        first["architecture"] == "aarch64" && first["tags"][0]["key"] == "ubuntu",
        &first.to_string(),
    );
    let id = first["id"].as_str().unwrap_or_default().to_owned();

    let made = json_of(trial, ALIAS, &["v2", "admin", "image", "alias", "create", &id, "py"]).await;
    trial.check(ALIAS, made["image_id"] == id.as_str() && made["alias"] == "py", &made.to_string());
    let options =
        ["v2", "admin", "image", "alias", "search", "--alias-contains", "p", "--order-by", "alias:desc"];
    let found = json_of(trial, ALIASES, &options).await;
    trial.check(ALIASES, found["items"][0]["alias"] == "py" && found["total_count"] == 1, &found.to_string());
    let gone = json_of(trial, DEALIAS, &["v2", "admin", "image", "alias", "remove", "py"]).await;
    trial.check(
        DEALIAS,
        gone["alias_id"] == made["alias_id"] && gone["image_id"] == made["image_id"],
        &gone.to_string(),
    );

    let same = json!({"image_id": id, "architecture": "aarch64"}).to_string();
    json_of(trial, UPDATE, &[&command("update")[..], &[&same]].concat()).await;
    let other = json!({"image_id": id, "architecture": "x86_64"}).to_string();
    let refused = trial.run(&[&command("update")[..], &[&other]].concat()).await;
    let is_told = refused.code != 0 && refused.text().contains("what its registry says");
    trial.check(UPDATE, is_told, &refused.text());

    let forgotten = json_of(trial, FORGET, &[&command("forget")[..], &[&id]].concat()).await;
    trial.check(FORGET, forgotten["item"]["id"] == id.as_str(), &forgotten.to_string());
    let found =
        json_of(trial, SEARCH, &[&command("search")[..], &["--name-contains", "python"]].concat()).await;
    trial.check(FORGET, found["total_count"] == 1, &found.to_string());
    let id = found["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    json_of(trial, PURGE, &[&command("purge")[..], &[&id]].concat()).await;
    let left = trial.admin.images().await.len();
    trial.check(PURGE, left == 1, &format!("{left} images are left"));
}

async fn queries(trial: &mut Trial) {
    const LEGACY: &str = "v2 gql QUERY";
    const STRAWBERRY: &str = "v2 gql --v2 QUERY";
    let query = "query($r: String!) { image(reference: $r) { name } images { name } }";
    let found = json_of(trial, LEGACY, &["v2", "gql", query, "--var", "r=stable/r:4.2"]).await;
    trial.check(LEGACY, found["data"]["image"]["name"] == "stable/r", &found.to_string());
    let found = json_of(trial, STRAWBERRY, &["v2", "gql", "--v2", "{ images { name } }"]).await;
    trial.check(STRAWBERRY, found["data"]["images"][0]["name"] == "stable/r", &found.to_string());
}

for_each_release!(REST, day);
