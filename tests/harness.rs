//! The test harness itself: a wrong tool proves nothing about what it measures.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::api::http_client;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY};
use crate::support::client::Client;
use crate::support::dockerd::{RealDocker, Store};
use crate::support::http1::{Answer, Request, Response, Server};
use crate::support::image::Image;
use crate::support::machine::mode;
use crate::support::process::read;
use crate::support::proxy::CountingProxy;
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::release::Release;
use crate::support::sign::{Keypair, Signature};
use crate::support::sse::Events;

/// A test whose source has one of these words uses a real part that is not ours.
const REAL: &[&str] = &[
    "RealRegistry",
    "support::missing",
    "client::Client",
    "dockerd::",
    "podman::",
    "containerd::",
    "node::",
];

#[test]
fn what_ci_tries_twice_is_what_runs_beside_real_parts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let profile = fs::read_to_string(root.join(".config/nextest.toml")).unwrap();
    let filter = profile.lines().find(|line| line.starts_with("filter = ")).unwrap();
    let listed = filter.split_once("/^(").unwrap().1.split_once(")::/").unwrap().0;
    let mut unused: BTreeSet<&str> = listed.split('|').collect();
    let mut folders = vec![root.join("tests")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let module = path.strip_prefix(root.join("tests")).unwrap().with_extension("");
            let module = module.to_str().unwrap().replace('/', "::");
            if ["support", "bench", "tools", "fixtures"].contains(&module.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = read(&path);
            if path.extension().is_some_and(|end| end == "rs") && REAL.iter().any(|word| text.contains(word))
            {
                let has = |name: &&str| module == **name || module.starts_with(&format!("{name}::"));
                let name = listed.split('|').find(has);
                let name =
                    name.unwrap_or_else(|| panic!("{module} is not on the list in .config/nextest.toml"));
                unused.remove(name);
            }
        }
    }
    assert_eq!(unused, BTreeSet::new(), "nothing real is beside these");
}

#[test]
fn the_signature_is_the_one_python_makes() {
    // Made with Python's hashlib and hmac from the description of the scheme.
    let keypair = Keypair::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI");
    let moment = "2026-11-23T13:24:00.552868Z".parse().unwrap();
    let signature = Signature::new(&keypair, "v9.20250722").at(moment, 0);
    assert_eq!(signature.date, "2026-11-23T13:24:00.552868+00:00");
    let header = signature.authorization("POST", "/admin/gql", "127.0.0.1:8090", "application/json");
    assert_eq!(header, include_str!("support/signature.txt").trim());
}

/// Checks one thing: whether the official client signs as we do.
fn judge(request: &Request) -> Response {
    let header = |name| request.header(name).unwrap_or_default().to_owned();
    if request.path() == "/" {
        return Response::json(200, &json!({"version": "v6.20220315", "manager": "22.3.2"}));
    }
    let keypair = Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY);
    let mut ours = Signature::new(&keypair, &header("x-backendai-version"));
    ours.date = header("date");
    ours.day = ours.date[..10].replace('-', "");
    let ours = ours.authorization(&request.method, &request.target, &header("host"), &header("content-type"));
    let equal = ours == header("authorization");
    let status = if equal { 200 } else { 500 };
    let body = json!({
        "enabled": false, "message": "", "errors": null,
        "data": {"images": [{"name": "equal", "registry": "", "architecture": "", "tag": "", "digest": "",
                             "size_bytes": 0, "aliases": []}]},
    });
    Response::json(status, &body)
}

#[tokio::test]
async fn the_official_clients_sign_as_we_do() {
    let server = Server::start(|request| async move { judge(&request) }).await;
    for version in ["22.3.2", "26.9.6"] {
        let Some(client) = Client::find(version).await else { return };
        let outcome = client.run_at(&server.url(), &["admin", "image", "list"]).await;
        assert!(outcome.code == 0 && outcome.stdout.contains("equal"), "{version}: {}", outcome.text());
    }
}

#[tokio::test]
async fn events_are_read_as_they_come() {
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
        : hello\r\n\r\nid: 1\r\nevent: bgtask_updated\r\nretry: 5\r\ndata: {\"n\":\r\ndata: 2}\r\n\r\n\
        event: server_close\ndata: {}\n\n";
    let server = Server::start(move |_| async move { Answer::Raw(text.into()) }).await;
    let response = http_client().get(server.url()).send().await.unwrap();
    let events = Events::new(response).rest().await;
    let read: Vec<_> =
        events.iter().map(|e| (e.id.as_deref(), e.name.as_str(), e.retry, e.data.clone())).collect();
    assert_eq!(
        read,
        [(Some("1"), "bgtask_updated", Some(5), json!({"n": 2})), (None, "server_close", None, json!({}))]
    );
}

#[tokio::test]
async fn an_open_registry_serves_what_was_pushed() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push(&Image::new("stable/python", "3.9-ubuntu20.04")).await;
    registry.push(&Image::new("stable/many", "1").platforms(&["linux/amd64", "linux/arm64"])).await;
    registry.push(&Image::new("stable/attested", "1").platforms(&["linux/amd64"]).attested()).await;
    registry.push(&Image::new("stable/annotated", "1").annotated()).await;
    registry.push(&Image::helm("charts/lab", "0.1.0")).await;
    registry.push(&Image::artifact("models/tiny", "1", "application/vnd.example.model")).await;
    let image = registry.push(&Image::vanilla("stable/signed", "1").oci()).await;
    registry.push(&Image::cosign("stable/signed", image.digest())).await;
    registry.tag(&image, &["2", "latest"]).await;
    assert_eq!(registry.tags("stable/signed").await.len(), 4);
    registry.delete_tag("stable/signed", "2");
    assert_eq!(registry.tags("stable/signed").await.len(), 3);
    registry.delete_manifest("stable/signed", image.digest()).await;
    assert_eq!(registry.tags("stable/signed").await.len(), 1, "only the signature is left");
    registry.delete_repository("stable/many");
}

#[tokio::test]
async fn a_stocked_registry_serves_what_an_uploaded_one_does() {
    let Some(uploaded) = RealRegistry::open().await else { return };
    let Some(stocked) = RealRegistry::open().await else { return };
    let images = || {
        (0..200).map(|n| {
            let image = Image::new(&format!("bulk/r{}", n % 5), &format!("t{n}"));
            if n % 2 == 0 { image.platforms(&["linux/amd64", "linux/arm64"]) } else { image }
        })
    };
    assert_eq!(uploaded.push_all(images()).await.len(), 200);
    for built in stocked.stock(images()) {
        for (kind, reference) in [("manifests", &built.tag), ("blobs", &built.parts[0].config)] {
            let path = format!("{}/{kind}/{reference}", built.repository);
            let read = async |registry: &RealRegistry| {
                let get = registry.request(reqwest::Method::GET, &built.repository, &path);
                let get = get.header("accept", &built.manifests.last().unwrap().media_type);
                let reply = get.send().await.unwrap();
                let header = |name| reply.headers().get(name).cloned();
                let kept =
                    (reply.status(), header("content-type"), header("docker-content-digest"), header("etag"));
                (kept, reply.bytes().await.unwrap())
            };
            let (one, other) = (read(&uploaded).await, read(&stocked).await);
            assert_eq!(one.0.0, 200, "{path}");
            assert_eq!(one, other, "{path}");
        }
    }
    for repository in ["bulk/r0", "bulk/r4"] {
        assert_eq!(uploaded.tags(repository).await, stocked.tags(repository).await);
    }
}

#[tokio::test]
async fn a_registry_with_a_password_refuses_the_anonymous() {
    let Some(mut registry) = RealRegistry::with_password().await else { return };
    registry.push(&Image::new("private/python", "1")).await;
    let (url, host) = (format!("{}/v2/private/python/tags/list", registry.url()), registry.host().to_owned());
    assert_eq!(http_client().get(&url).send().await.unwrap().status(), 401);
    let known = http_client().get(&url).basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
    assert_eq!(known.status(), 200);
    registry.stop();
    assert!(http_client().get(&url).send().await.is_err());
    registry.resume().await;
    assert_eq!(registry.host(), host, "it comes back where it was");
}

#[tokio::test]
async fn a_registry_with_tokens_takes_those_of_its_token_service() {
    let Some(registry) = RealRegistry::with_tokens().await else { return };
    registry.push(&Image::new("private/python", "1")).await;
    let url = format!("{}/v2/private/python/manifests/1", registry.url());
    let refused = http_client().head(&url).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains(&registry.tokens().realm()), "{challenge}");

    let realm = format!(
        "{}?service=wharf-test-registry&scope=repository:private/python:pull",
        registry.tokens().realm()
    );
    let denied = http_client().get(&realm).basic_auth(USER, Some("wrong")).send().await.unwrap();
    assert_eq!(denied.status(), 401);
    let given = http_client().get(&realm).basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
    let given: serde_json::Value = given.json().await.unwrap();
    let token = given["token"].as_str().unwrap();
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    let opened = http_client().head(&url).bearer_auth(token).header("accept", accept).send().await.unwrap();
    assert_eq!(opened.status(), 200);
    assert_eq!(registry.tokens().asked().len(), 2);
}

#[tokio::test]
async fn the_proxy_counts_holds_fails_and_drops() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push(&Image::new("stable/python", "1")).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let url = format!("{}/v2/stable/python/tags/list", proxy.url());
    let get = async |url: &str| http_client().get(url).send().await;

    assert_eq!(
        get(&url).await.unwrap().text().await.unwrap().trim(),
        r#"{"name":"stable/python","tags":["1"]}"#
    );
    let head = http_client().head(format!("{}/v2/stable/python/manifests/1", proxy.url()));
    let head = head.header("accept", "application/vnd.docker.distribution.manifest.v2+json");
    let head = head.send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_ne!(head.headers()["content-length"], "0", "a HEAD announces the length");

    proxy.fail_next(1, 503);
    assert_eq!(get(&url).await.unwrap().status(), 503);
    proxy.drop_next(1);
    assert!(get(&url).await.is_err());
    let log = proxy.take_log();
    let seen: Vec<_> = log.iter().map(|e| (e.method.as_str(), e.status, e.body_bytes > 0)).collect();
    assert_eq!(seen, [("GET", 200, true), ("HEAD", 200, false), ("GET", 503, true)]);

    proxy.hold();
    let waiting = tokio::spawn(async move { http_client().get(url).send().await.unwrap().status() });
    proxy.reached(1).await;
    assert!(proxy.log().is_empty());
    proxy.release();
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn an_engine_of_another_release_keeps_its_images_and_leaves_nothing_behind() {
    let Some(registry) = RealRegistry::open().await else { return };
    let Some(mut node) = RealDocker::start_of(Release::Trixie, Store::Containerd).await else { return };
    let null = mode(Path::new("/dev/null"));
    registry.push(&Image::new("lab/python", "1").real_layers(1, 1000)).await;
    let name = format!("{}/lab/python:1", registry.host());
    node.docker_ok(&["pull", &name]).await;
    node.docker_ok(&["create", &name, "/file0"]).await;
    node.kill9();
    node.restart().await;
    assert_eq!(node.in_containerd().await, [name]);

    let folder = node.socket().parent().unwrap().to_owned();
    drop(node);
    assert!(!folder.exists());
    let folder = folder.to_str().unwrap();
    assert!(!read(Path::new("/proc/mounts")).contains(folder));
    for process in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
        let mounts = read(&process.join("mounts"));
        assert!(!mounts.contains(folder), "{}: {}", process.display(), read(&process.join("cmdline")));
    }
    assert_eq!(mode(Path::new("/dev/null")), null, "an engine changed a device of the machine");
}
