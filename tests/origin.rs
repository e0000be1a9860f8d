//! Credentials given for one registry's address go to no other.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::http1::{Request, Response, Server};
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n";

/// The ways to change a registry's address.
const DOORS: [&str; 4] = ["graphql", "patch", "config", "shell"];

/// Returns a server that asks for a password and records what it gets.
async fn greedy() -> (Server, Arc<Mutex<Vec<String>>>) {
    let given = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&given);
    let server = Server::start(move |request: Request| {
        kept.lock().extend(request.header("authorization").map(str::to_owned));
        async { Response::new(401).header("www-authenticate", "Basic realm=\"greedy\"") }
    })
    .await;
    (server, given)
}

/// Changes only a registry's address; returns the answer's note.
async fn moved(app: &App, door: &str, host: &str, url: &str) -> String {
    let admin = app.admin();
    match door {
        "graphql" => {
            modified(app, host, json!({"url": url})).await["msg"].as_str().unwrap_or_default().into()
        }
        "patch" => {
            let filter = json!({"filter": {"registry_name": {"equals": host}}});
            let call = admin.call("POST", "/v2/container-registries/search").json(&filter);
            let id = call.send().await.json()["items"][0]["id"].take();
            let change = json!({"id": id, "url": url});
            let answer = admin.call("PATCH", "/v2/container-registries").json(&change).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()["msg"].as_str().unwrap_or_default().into()
        }
        "config" => {
            let setting = json!({"key": format!("config/docker/registry/{host}"), "value": url});
            let answer = admin.call("POST", "/config/set").json(&setting).send().await;
            assert_eq!(answer.json()["result"], "ok", "{}", answer.text());
            answer.json()["msg"].as_str().unwrap_or_default().into()
        }
        _ => {
            let outcome = app.wharf(&["registry", "change", host, "--url", url]).await;
            assert_eq!(outcome.code, 0, "{}", outcome.text());
            outcome.stdout
        }
    }
}

async fn modified(app: &App, host: &str, props: Value) -> Value {
    let query = "mutation($h: String!, $p: ModifyContainerRegistryInput!) { modify_container_registry(hostname: $h, props: $p) {
        container_registry { config { url username password ca_pem trusted_hosts } } msg } }";
    app.admin().ask(query, json!({"h": host, "p": props})).await["modify_container_registry"].take()
}

/// Whether the registry accepts the credentials.
async fn is_let_in(app: &App, host: &str) -> bool {
    app.admin().mutate("test_container_registry", &format!("hostname: {host:?}")).await.0
}

#[tokio::test]
async fn a_password_stays_with_the_address_it_was_given_for() {
    let registry = Shelf::start([Image::new("r/a", "1")]).await;
    let (elsewhere, given) = greedy().await;
    let app = App::start().await;
    for door in DOORS {
        let host = format!("{door}.lab.example");
        app.admin().add_registry_at(&host, &registry.url(), Some((USER, PASSWORD))).await;
        app.admin().scan(&host).await;
        let said = moved(&app, door, &host, &format!("{}/", registry.url())).await;
        assert!(
            !said.contains("password") && is_let_in(&app, &host).await,
            "{door}: the same address: {said}"
        );

        let said = moved(&app, door, &host, &elsewhere.url()).await;
        assert!(said.contains("password") && said.contains(&host), "{door}: {said}");
        assert!(!is_let_in(&app, &host).await);
        let task = app.admin().rescan(&host).await;
        app.admin().finish(&task).await;
        assert_eq!(*given.lock(), [""; 0], "{door}");

        // Moving there and back is no way around it either.
        moved(&app, door, &host, &registry.url()).await;
        assert!(!is_let_in(&app, &host).await, "{door}: the password came back");
        let anew = modified(&app, &host, json!({"password": PASSWORD})).await;
        assert_eq!((&anew["msg"], is_let_in(&app, &host).await), (&Value::Null, true), "{door}: {anew}");
    }
}

#[tokio::test]
async fn trust_in_one_address_is_none_in_another_unless_it_comes_along() {
    let (elsewhere, given) = greedy().await;
    let app = App::start().await;
    let host = "cr.lab.example";
    app.admin().add_registry_at(host, "https://cr.lab.example", Some((USER, PASSWORD))).await;
    let trust = json!({"ca_pem": CERTIFICATE, "trusted_hosts": ["auth.lab.example"]});
    assert_eq!(modified(&app, host, trust.clone()).await["msg"], Value::Null);
    for url in ["http://cr.lab.example", "https://cr.lab.example:8443", "https://cr.lab.example.evil.example"]
    {
        let mut anew = trust.clone();
        anew["url"] = "https://cr.lab.example".into();
        anew["password"] = PASSWORD.into();
        modified(&app, host, anew.clone()).await;
        let changed = modified(&app, host, json!({"url": url, "username": "robot"})).await;
        let config = &changed["container_registry"]["config"];
        assert_eq!(
            config,
            &json!({"url": url, "username": "robot", "password": null, "ca_pem": null, "trusted_hosts": []})
        );
        let said = changed["msg"].as_str().unwrap();
        for what in ["password", "certificate authorities", "trusted hosts"] {
            assert!(said.contains(what), "{said}");
        }
        // The placeholder that clients write back is no password.
        modified(&app, host, anew.clone()).await;
        let shown = modified(&app, host, json!({"url": url, "password": "*****"})).await;
        assert_eq!(shown["container_registry"]["config"]["password"], Value::Null, "{shown}");
        anew["url"] = elsewhere.url().into();
        let all = modified(&app, host, anew).await;
        assert_eq!(
            (&all["msg"], &all["container_registry"]["config"]["password"]),
            (&Value::Null, &json!("*****"))
        );
    }
    assert_eq!(*given.lock(), [""; 0], "nobody asked");
}
