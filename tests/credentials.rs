//! Credentials that registries have from the operator's files and variables: read at each use, and never shown.

use std::fs;
use std::os::unix::fs::symlink;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

const ADD: &str = "mutation($host: String!, $props: CreateContainerRegistryInput!) {
    create_container_registry(hostname: $host, props: $props) { container_registry { hostname } } }";
const CHANGE: &str = "mutation($host: String!, $props: ModifyContainerRegistryInput!) {
    modify_container_registry(hostname: $host, props: $props) { msg } }";
const VARIABLE: &str = "WHARF_REGISTRY_LAB";

async fn config(admin: &Api) -> Value {
    let query =
        "{ container_registries { config { username password password_file password_env auth_file } } }";
    admin.ask(query, json!({})).await["container_registries"][0]["config"].clone()
}

async fn change(admin: &Api, host: &str, props: Value) -> Value {
    admin.ask(CHANGE, json!({"host": host, "props": props})).await["modify_container_registry"]["msg"].clone()
}

fn auth_file(host: &str, password: &str) -> String {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    json!({"auths": {host: {"auth": auth}}}).to_string()
}

#[tokio::test]
async fn credentials_are_read_from_where_the_operator_keeps_them_and_followed_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("credentials");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("harbor"), format!("{PASSWORD}\n")).unwrap();
    let registry = Shelf::start([Image::new("lab/py", "1")]).await;
    let (host, url) = (registry.host(), registry.url());
    fs::write(place.join("config.json"), auth_file(&host, PASSWORD)).unwrap();
    let given = place.clone();
    let app = App::start_with(move |serve| {
        serve.arg("--credentials-dir").arg(&given).env(VARIABLE, PASSWORD);
    })
    .await;
    let admin = app.admin();
    let props = json!({"type": "docker", "url": url, "username": USER, "password_file": "harbor"});
    admin.ask(ADD, json!({"host": host, "props": props})).await;
    let task = admin.scan(&host).await;
    assert_eq!(counts(&task), [1, 0, 0, 0, 0, 0], "{task:#}");
    for (props, shown) in [
        (json!({"password_env": VARIABLE}), json!([null, VARIABLE, null])),
        (json!({"auth_file": "config.json"}), json!([null, null, "config.json"])),
        (json!({"password_file": "harbor"}), json!(["harbor", null, null])),
    ] {
        change(&admin, &host, props).await;
        let config = config(&admin).await;
        assert_eq!(config["password"], Value::Null);
        assert_eq!(json!([config["password_file"], config["password_env"], config["auth_file"]]), shown);
        let task = admin.scan(&host).await;
        assert_eq!(counts(&task), [0, 0, 1, 0, 0, 0], "{task:#}");
    }

    // The operator rotates the password, and the registry takes the new one only.
    for (file, text, fails) in [
        ("harbor", "planted-wrong-password".to_owned(), true),
        ("harbor", PASSWORD.to_owned(), false),
        ("harbor", "planted-one-line\nplanted-another".to_owned(), true),
        ("harbor", PASSWORD.to_owned(), false),
    ] {
        fs::write(place.join(file), text).unwrap();
        let id = admin.rescan(&host).await;
        let is_done = admin.finish(&id).await.name.ends_with("done");
        let task = admin.task(&id).await;
        assert_eq!(is_done && counts(&task)[5] == 0, !fails, "{task:#}");
        assert!(!task.to_string().contains("planted"), "{task:#}");
        assert_eq!(admin.images().await.len(), 1);
    }
    // A password of its own takes its place, and an empty name takes it away.
    change(&admin, &host, json!({"password": PASSWORD})).await;
    assert_eq!(config(&admin).await["password"], "*****");
    change(&admin, &host, json!({"password_env": VARIABLE})).await;
    change(&admin, &host, json!({"password_file": ""})).await;
    assert_eq!(config(&admin).await["password_env"], VARIABLE, "another source stays");
    change(&admin, &host, json!({"password_env": ""})).await;
    assert_eq!(config(&admin).await["password_env"], Value::Null);
    // It belongs to the address.
    change(&admin, &host, json!({"password_file": "harbor"})).await;
    let told = change(&admin, &host, json!({"url": "http://127.0.0.1:1"})).await;
    assert!(told.as_str().unwrap().contains("password"), "{told}");
    assert_eq!(config(&admin).await["password_file"], Value::Null);
    assert!(!app.logs().contains("planted") && !app.logs().contains(PASSWORD));
}

#[tokio::test]
async fn nothing_but_what_the_operator_offers_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("credentials");
    fs::create_dir(&place).unwrap();
    fs::write(directory.path().join("outside"), "planted-secret").unwrap();
    symlink(directory.path().join("outside"), place.join("link")).unwrap();
    fs::write(place.join("broken.json"), "planted-secret").unwrap();
    let registry = Shelf::start([Image::new("lab/py", "1")]).await;
    let with = App::start_with(move |serve| {
        serve.arg("--credentials-dir").arg(&place).env("OTHER_SECRET", "planted-secret");
    })
    .await;
    let without = App::start().await;
    for (app, props, why) in [
        (&with, json!({"username": USER, "password_file": "../outside"}), "not below"),
        (&with, json!({"username": USER, "password_file": "/etc/passwd"}), "not below"),
        (&with, json!({"username": USER, "password_file": "link"}), "not below"),
        (&with, json!({"username": USER, "password_file": "missing"}), "can't be read"),
        (&with, json!({"username": USER, "password_env": "OTHER_SECRET"}), "must begin with WHARF_REGISTRY_"),
        (&with, json!({"password_env": "WHARF_REGISTRY_NONE", "username": USER}), "not set"),
        (&with, json!({"auth_file": "broken.json"}), "no auth file"),
        (&with, json!({"auth_file": "a", "password_file": "b"}), "give one of"),
        (&with, json!({"auth_file": "a", "password": "b"}), "give one of"),
        (&without, json!({"username": USER, "password_file": "harbor"}), "--credentials-dir"),
    ] {
        let mut props = props;
        (props["type"], props["url"]) = ("docker".into(), registry.url().into());
        let refused = app.admin().refused(ADD, json!({"host": registry.host(), "props": props})).await;
        assert!(refused.contains(why) && !refused.contains("planted"), "{props}: {refused}");
    }
    assert_eq!(registry.take_log().len(), 0, "nothing was sent anywhere");
    assert!(!with.logs().contains("planted"));
}
