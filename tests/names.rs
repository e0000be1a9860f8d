//! One thing has one name, however it is spelt or pasted: registries, Docker Hub, and images with aliases beside them.

use serde_json::json;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

const ADD: &str = "mutation($host: String!, $url: String) {
    create_container_registry(hostname: $host, props: {type: \"docker\", url: $url, username: \"scanner\",
        password: \"planted-password-of-the-registry\"}) { container_registry { hostname config { url } } } }";

async fn registries(admin: &Api) -> Vec<(String, String)> {
    let data = admin.ask("{ container_registries { hostname config { url } } }", json!({})).await;
    let rows = data["container_registries"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["hostname"]), text(&row["config"]["url"]))).collect()
}

async fn tag_of(admin: &Api, reference: &str) -> String {
    let query = "query($r: String!) { image(reference: $r) { name tag } }";
    let data = admin.ask(query, json!({"r": reference})).await;
    format!("{}:{}", data["image"]["name"].as_str().unwrap(), data["image"]["tag"].as_str().unwrap())
}

#[tokio::test]
async fn docker_hub_is_one_registry_by_whichever_name() {
    let app = App::start().await;
    let admin = app.admin();
    let names = ["docker.io", "index.docker.io", "Registry-1.Docker.io", "https://index.docker.io/v1/"];
    for name in names {
        admin.ask(ADD, json!({"host": name})).await;
        let hub = ("docker.io".to_owned(), "https://registry-1.docker.io".to_owned());
        assert_eq!(registries(&admin).await, [hub], "{name}");
        for other in names {
            let refused = admin.refused(ADD, json!({"host": other})).await;
            assert!(refused.contains("docker.io already"), "{other}: {refused}");
        }
        let remove = "mutation($host: String!) { delete_container_registry(hostname: $host) { container_registry { hostname } } }";
        admin.ask(remove, json!({"host": "index.docker.io"})).await;
    }
}

#[tokio::test]
async fn images_of_docker_hub_are_found_by_every_name_that_engines_give_them() {
    let hub = Shelf::start([Image::new("library/alpine", "3.20"), Image::new("lablup/python", "3.9")]).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.ask(ADD, json!({"host": "registry-1.docker.io", "url": format!("{}/v2/", hub.url())})).await;
    assert_eq!(registries(&admin).await, [("docker.io".to_owned(), hub.url())]);
    admin.scan("index.docker.io").await;
    for name in [
        "alpine:3.20",
        "library/alpine:3.20",
        "docker.io/alpine:3.20",
        "docker.io/library/alpine:3.20",
        "index.docker.io/library/alpine:3.20",
        "INDEX.docker.io/alpine:3.20",
    ] {
        assert_eq!(tag_of(&admin, name).await, "library/alpine:3.20", "{name}");
    }
    assert_eq!(tag_of(&admin, "registry-1.docker.io/lablup/python:3.9").await, "lablup/python:3.9");
    // One image alone, by a name that leaves `library` out.
    let task = admin.scan_image("index.docker.io/alpine:3.20").await;
    assert!(admin.finish(&task).await.name.ends_with("done"));
    assert_eq!(admin.images().await.len(), 2);
}

#[tokio::test]
async fn an_images_own_name_wins_over_an_alias() {
    let registry = Shelf::start([Image::new("stable/python", "3.9"), Image::new("lab/other", "1")]).await;
    let app = App::start().await;
    let admin = app.admin();
    let host = registry.host();
    admin.add_registry_at(&host, &registry.url(), Some((USER, PASSWORD))).await;
    admin.scan(&host).await;
    let alias = async |name: &str| {
        admin.mutate("alias_image", &format!("alias: \"{name}\", target: \"{host}/stable/python:3.9\"")).await
    };
    for name in ["lab/other:1".to_owned(), format!("{host}/lab/other:1")] {
        let (ok, why) = alias(&name).await;
        assert!(!ok && why.contains("own name"), "{name}: {why}");
    }
    // There are no such images yet.
    for name in [format!("{host}/lab/new:1"), "lab/new:1".to_owned(), "lab/app".to_owned()] {
        assert!(alias(&name).await.0, "{name}");
        assert_eq!(tag_of(&admin, &name).await, "stable/python:3.9");
    }
    registry.put(&Image::new("lab/new", "1"));
    registry.put(&Image::new("lab/app", "latest"));
    admin.scan(&host).await;
    for (name, image) in [
        (format!("{host}/lab/new:1"), "lab/new:1"),
        ("lab/new:1".to_owned(), "lab/new:1"),
        ("lab/app".to_owned(), "lab/app:latest"),
        ("lab/other:1".to_owned(), "lab/other:1"),
    ] {
        assert_eq!(tag_of(&admin, &name).await, image, "{name}");
    }
    assert!(app.logs().contains("an alias is an image's own name now"), "{}", app.logs());
    let (ok, why) = admin.mutate("forget_image", &format!("reference: \"{host}/lab/new:1\"")).await;
    assert!(ok, "{why}");
    let left: Vec<String> = admin.images().await.iter().map(|image| image["name"].to_string()).collect();
    assert!(left.len() == 3 && !left.contains(&"\"lab/new\"".to_owned()), "{left:?}");
}
