//! Registries as configuration keys, which is how all but the last releases edit them.

use serde_json::{Value, json};

use crate::clients::rows::REGISTRIES;
use crate::clients::trial::Trial;

const ROOT: &str = "config/docker/registry";

async fn day(mut trial: Trial) {
    const SET: &str = "admin etcd set KEY VALUE";
    const TREE: &str = "admin etcd set KEY JSON";
    const GET: &str = "admin etcd get KEY";
    const PREFIX: &str = "admin etcd get --prefix KEY";
    const DELETE: &str = "admin etcd delete KEY";
    const BELOW: &str = "admin etcd delete --prefix KEY";
    const LIST: &str = "admin resource docker-registries";
    const ALL: &str = "{ container_registries { hostname config { url type project username password } } }";

    let own = format!("{ROOT}/cr.example.org%3A5000");
    let set = ["Successfully set key/value."];
    trial.works(SET, &["admin", "etcd", "set", &own, "http://cr.example.org:5000"], &set).await;
    for (name, value) in
        [("type", "harbor2"), ("username", "robot"), ("password", "12345"), ("project", "stable,ml")]
    {
        trial.works(SET, &["admin", "etcd", "set", &format!("{own}/{name}"), value], &set).await;
    }
    let tree = r#"{"": "https://registry-1.docker.io", "username": "lablup"}"#;
    trial.works(TREE, &["admin", "etcd", "set", &format!("{ROOT}/index.docker.io"), tree], &set).await;
    let all = trial.ask(SET, ALL).await;
    let expected = json!({"container_registries": [
        {"hostname": "cr.example.org:5000", "config": {
            "url": "http://cr.example.org:5000", "type": "harbor2", "project": ["ml", "stable"],
            "username": "robot", "password": "*****"}},
        // Docker Hub has one name here, whichever is given.
        {"hostname": "docker.io", "config": {
            "url": "https://registry-1.docker.io", "type": "docker", "project": [],
            "username": "lablup", "password": null}},
    ]});
    trial.check(SET, all == expected, &format!("{all:#}"));
    let refused = trial.run(&["admin", "etcd", "set", "volumes/_mount", "/mnt"]).await;
    let is_told = refused.code != 0 && refused.text().contains("config/docker/registry/<name>");
    trial.check(SET, is_told, &refused.text());

    trial.works(GET, &["admin", "etcd", "get", &own], &["\"http://cr.example.org:5000\""]).await;
    let password = trial.works(GET, &["admin", "etcd", "get", &format!("{own}/password")], &["*****"]).await;
    trial.check(GET, !password.contains("12345"), &password);
    trial.works(GET, &["admin", "etcd", "get", "config/docker/registry/nothing"], &["null"]).await;
    let tree = trial.works(PREFIX, &["admin", "etcd", "get", "--prefix", ROOT], &[]).await;
    // The oldest ones may put a mark before what they print.
    let tree = tree.find('{').map_or(Value::Null, |at| serde_json::from_str(&tree[at..]).unwrap_or_default());
    let expected = json!({
        "cr.example.org:5000": {"": "http://cr.example.org:5000", "type": "harbor2", "username": "robot",
                                "password": "*****", "project": "ml,stable"},
        "docker.io": {"": "https://registry-1.docker.io", "type": "docker", "username": "lablup"},
    });
    trial.check(PREFIX, tree == expected, &format!("{tree:#}"));

    let list = match trial.year {
        20 => ["admin", "resources", "docker-registries"],
        _ => ["admin", "resource", "docker-registries"],
    };
    let said: &[&str] = if trial.year < 24 {
        &["cr.example.org:5000", "docker.io"]
    } else {
        &["ml/cr.example.org:5000", "stable/cr.example.org:5000", "docker.io"]
    };
    let printed = trial.works(LIST, &list, said).await;
    trial.check(LIST, printed.lines().count() == said.len(), &printed);

    let deleted = ["Successfully deleted key/value."];
    trial.works(DELETE, &["admin", "etcd", "delete", &format!("{own}/username")], &deleted).await;
    trial.works(DELETE, &["admin", "etcd", "delete", &format!("{ROOT}/index.docker.io")], &deleted).await;
    let left = trial.ask(DELETE, "{ container_registries { hostname config { username } } }").await;
    let expected =
        json!({"container_registries": [{"hostname": "cr.example.org:5000", "config": {"username": null}}]});
    trial.check(DELETE, left == expected, &left.to_string());
    trial.works(BELOW, &["admin", "etcd", "delete", "--prefix", &own], &deleted).await;
    let left = trial.ask(BELOW, "{ container_registries { hostname } }").await;
    trial.check(BELOW, left == json!({"container_registries": []}), &left.to_string());
    trial.finish();
}

for_each_release!(REGISTRIES, day);
