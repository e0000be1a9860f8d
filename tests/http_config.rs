//! `/config/*` and the small lists beside it, over signed requests.

use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::app::App;

const ROOT: &str = "config/docker/registry";
const OWN: &str = "config/docker/registry/cr.invalid%3A5000";

async fn post(api: &Api, path: &str, body: Value) -> Reply {
    api.call("POST", path).json(&body).send().await
}

async fn set(api: &Api, key: &str, value: Value) {
    let reply = post(api, "/config/set", json!({"key": key, "value": value})).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"result": "ok"})), "{key}");
}

async fn get(api: &Api, key: &str, prefix: bool) -> Value {
    let reply = post(api, "/config/get", json!({"key": key, "prefix": prefix})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["result"].clone()
}

async fn refused(api: &Api, path: &str, body: Value, slug: &str, words: &str) {
    let reply = post(api, path, body).await;
    let status = match slug {
        "generic-not-found" => 404,
        "generic-forbidden" => 403,
        _ => 400,
    };
    let msg = reply.problem(status, slug);
    assert!(msg.contains(words), "{msg}");
}

#[tokio::test]
async fn a_registry_is_its_keys() {
    let app = App::start().await;
    let admin = app.admin();
    set(&admin, "config/docker/registry/cr.invalid:5000", json!("https://cr.invalid:5000")).await;
    set(&admin, &format!("{OWN}/ssl-verify"), json!(false)).await;
    set(&admin, OWN, json!({"username": "u", "password": "planted-secret", "project": " a , b/c "})).await;
    let expected = json!({"": "https://cr.invalid:5000", "type": "docker", "username": "u", "password": "*****",
                          "project": "a,b/c", "ssl_verify": "false"});
    assert_eq!(get(&admin, OWN, true).await, expected);
    assert_eq!(get(&admin, "config", true).await["docker"]["registry"]["cr.invalid:5000"], expected);
    assert_eq!(get(&admin, "config/docker/image/auto_pull", false).await, "digest");
    assert_eq!(get(&admin, "volumes", true).await, json!({}));
    assert_eq!(get(&admin, "volumes", false).await, Value::Null);

    // The placeholder that was shown is no new password, and an empty text removes the password.
    set(&admin, &format!("{OWN}/password"), json!("*****")).await;
    assert_eq!(get(&admin, &format!("{OWN}/password"), false).await, "*****");
    set(&admin, &format!("{OWN}/password"), json!("")).await;
    assert_eq!(get(&admin, &format!("{OWN}/password"), false).await, Value::Null);
    for property in ["username", "project", "ssl_verify", "type"] {
        let reply = post(&admin, "/config/delete", json!({"key": format!("{OWN}/{property}")})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(get(&admin, OWN, true).await, json!({"": "https://cr.invalid:5000", "type": "docker"}));
    assert!(!app.logs().contains("planted-secret"));
}

#[tokio::test]
async fn a_prefix_reaches_whatever_begins_with_it_and_never_everything() {
    let app = App::start().await;
    let admin = app.admin();
    for host in ["cr.invalid", "cr.invalid.example", "other.invalid"] {
        set(&admin, &format!("{ROOT}/{host}"), json!(format!("https://{host}"))).await;
    }
    for key in [ROOT, "config", "", "config/docker/registry/"] {
        refused(
            &admin,
            "/config/delete",
            json!({"key": key, "prefix": true}),
            "invalid-api-params",
            "<name>",
        )
        .await;
    }
    let nothing = json!({"key": format!("{ROOT}/none"), "prefix": true});
    refused(&admin, "/config/delete", nothing, "generic-not-found", "none").await;
    let reply = post(&admin, "/config/delete", json!({"key": format!("{ROOT}/cr."), "prefix": true})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        get(&admin, ROOT, true).await,
        json!({"other.invalid": {"": "https://other.invalid", "type": "docker"}})
    );
}

#[tokio::test]
async fn what_can_not_be_set_is_refused_with_what_can() {
    let app = App::start().await;
    let admin = app.admin();
    let wrong = "invalid-api-params";
    let set = |key: &str, value: Value| json!({"key": key, "value": value});
    for key in [
        "",
        "a",
        "manager/status",
        ROOT,
        &format!("{OWN}/color"),
        &format!("{OWN}/type/x"),
        "config/docker/image/auto_pull",
    ] {
        refused(&admin, "/config/set", set(key, json!("tag")), wrong, "config/docker/registry/<name>").await;
    }
    refused(
        &admin,
        "/config/set",
        set(&format!("{OWN}/type"), json!("docker")),
        "generic-not-found",
        "URL first",
    )
    .await;
    refused(&admin, "/config/set", set(OWN, json!("no url")), wrong, "url").await;
    refused(&admin, "/config/set", set(OWN, json!(["https://cr.invalid"])), wrong, "value").await;
    refused(&admin, "/config/set", set(OWN, json!(1.5)), wrong, "quotes").await;
    refused(&admin, "/config/set", set(&format!("{ROOT}/a b"), json!("https://a")), wrong, "host").await;
    refused(&admin, "/config/set", json!({"key": OWN}), wrong, "value").await;
    refused(&admin, "/config/get", json!([]), wrong, "body").await;
    let reply = admin.call("POST", "/config/get").content_type("application/json").body("{").send().await;
    assert!(reply.problem(400, wrong).contains("line 1"));
    let reply = admin.call("POST", "/config/get").content_type("text/plain").body("{}").send().await;
    assert_eq!(reply.status, 415);
    assert_eq!(get(&admin, ROOT, true).await, json!({}));
}

#[tokio::test]
async fn only_super_admins_see_and_change_them() {
    let app = App::start().await;
    set(&app.admin(), OWN, json!("https://cr.invalid:5000")).await;
    let user = app.person("ann@lab.example", "user", "default").await;
    let domain_admin = app.person("eve@lab.example", "admin", "default").await;
    for api in [&user.api, &domain_admin.api] {
        for (path, body) in [
            ("/config/get", json!({"key": "config", "prefix": true})),
            ("/config/set", json!({"key": OWN, "value": "https://evil.invalid"})),
            ("/config/delete", json!({"key": OWN})),
        ] {
            refused(api, path, body, "generic-forbidden", "no permission").await;
        }
        for path in ["/config/docker-registries", "/resource/container-registries"] {
            let reply = api.call("GET", path).send().await;
            reply.problem(403, "generic-forbidden");
        }
    }
    let nobody = app.anonymous().call("POST", "/config/get").json(&json!({"key": "config"})).send().await;
    assert_eq!(nobody.status, 401);
    assert_eq!(get(&app.admin(), OWN, false).await, "https://cr.invalid:5000");
    let rows = app.admin().audit_rows(0).await;
    let tried = rows.iter().filter(|row| row["action"] == "set_config" && row["outcome"] == "DENIED");
    assert_eq!(tried.count(), 2, "{rows:?}");
}

#[tokio::test]
async fn registries_are_listed_by_name_and_by_project() {
    let app = App::start().await;
    let admin = app.admin();
    set(&admin, &format!("{ROOT}/a.invalid"), json!("https://a.invalid")).await;
    set(&admin, &format!("{ROOT}/b.invalid"), json!({"": "https://b.invalid", "project": "x,y"})).await;
    let old = admin.call("GET", "/config/docker-registries").send().await.json();
    assert_eq!(old, json!({"a.invalid": "https://a.invalid", "b.invalid": "https://b.invalid"}));
    let new = admin.call("GET", "/resource/container-registries").send().await.json();
    let expected = json!({"a.invalid": "https://a.invalid", "x/b.invalid": "https://b.invalid", "y/b.invalid": "https://b.invalid"});
    assert_eq!(new, expected);
}

#[tokio::test]
async fn scaling_groups_are_those_of_a_group_one_is_in() {
    let app = App::start().await;
    let user = app.person("ann@lab.example", "user", "default").await;
    let asked =
        async |api: &Api, query: &str| api.call("GET", &format!("/scaling-groups{query}")).send().await;
    let expected = json!({"scaling_groups": [{"name": "default"}]});
    assert_eq!(asked(&app.admin(), "?group=default").await.json(), expected);
    let outsider = asked(&user.api, "?group=default").await.problem(404, "generic-not-found");
    let unknown = asked(&user.api, "?group=unheard-of").await.problem(404, "generic-not-found");
    assert_eq!(outsider.replace("default", "unheard-of"), unknown, "one cannot tell which there are");
    asked(&user.api, "").await.problem(400, "invalid-api-params");
}
