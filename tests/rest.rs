//! `/v2/*` over signed requests, including requests that the official client does not send.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

const NO_IMAGE: &str = "00000000-0000-4000-8000-000000000000";

async fn with_images() -> (App, Shelf) {
    let shelf = Shelf::start([
        Image::new("stable/python", "3.9-ubuntu20.04").platforms(&["linux/amd64", "linux/arm64"]),
        Image::new("stable/r", "4.2"),
        Image::new("tool", "1").label("ai.backend.role", "SYSTEM"),
    ])
    .await;
    let app = App::start().await;
    app.admin().add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&shelf.host()).await;
    (app, shelf)
}

async fn ask(api: &Api, path: &str, body: Value) -> Value {
    let reply = api.call("POST", path).json(&body).send().await;
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    reply.json()
}

/// Returns how many images a filter finds.
async fn found(api: &Api, filter: Value) -> u64 {
    let page = ask(api, "/v2/images/search", json!({"filter": filter, "limit": 1})).await;
    page["total_count"].as_u64().unwrap()
}

#[tokio::test]
async fn filters_are_joined_as_they_say() {
    let (app, shelf) = with_images().await;
    let admin = app.admin();
    for (filter, count) in [
        (json!({}), 4),
        (json!({"image": {"starts_with": "stable/"}}), 3),
        (json!({"project": {"equals": "stable"}, "architecture": {"not_equals": "aarch64"}}), 2),
        (json!({"project": {"equals": ""}}), 1),
        (json!({"registry": {"equals": shelf.host()}}), 4),
        (json!({"tag": {"i_contains": "UBUNTU"}}), 2),
        (json!({"type": {"equals": "system"}}), 1),
        (json!({"type": {"not_in": ["system", "compute"]}}), 0),
        (json!({"status": {"in": ["DELETED"]}}), 0),
        (json!({"is_local": true}), 0),
        (json!({"size_bytes": {"greater_than": 0}}), 4),
        (
            json!({"labels": {"some": {"key": {"equals": "ai.backend.role"}, "value": {"equals": "SYSTEM"}}}}),
            1,
        ),
        (json!({"labels": {"none": {"key": {"equals": "ai.backend.role"}}}}), 3),
        (json!({"alias": {"alias": {"equals": "py"}}}), 0),
        (json!({"last_used": {"after": "2020-01-01T00:00:00Z"}}), 0),
        (json!({"id": {"not_equals": NO_IMAGE}}), 4),
        (json!({"OR": [{"tag": {"equals": "1"}}, {"tag": {"equals": "4.2"}}]}), 2),
        (json!({"NOT": [{"tag": {"equals": "1"}}, {"tag": {"equals": "4.2"}}]}), 2),
        (json!({"AND": [{"tag": {"equals": "1"}}, {"tag": {"equals": "4.2"}}]}), 0),
    ] {
        assert_eq!(found(&admin, filter.clone()).await, count, "{filter}");
    }
}

#[tokio::test]
async fn pages_and_orders_are_kept_to() {
    let (app, _shelf) = with_images().await;
    let admin = app.admin();
    let names = async |body: Value| {
        let page = ask(&admin, "/v2/images/search", body).await;
        let names =
            page["items"].as_array().unwrap().iter().map(|item| item["image"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["has_previous_page"].clone(), page["has_next_page"].clone())
    };
    let by_tag = json!([{"field": "tag", "direction": "DESC"}, {"field": "architecture"}]);
    let page = names(json!({"order": by_tag, "limit": 2, "offset": 0})).await;
    assert_eq!(page, (vec!["stable/r".into(), "stable/python".into()], json!(false), json!(true)));
    let page = names(json!({"order": by_tag, "limit": 2, "offset": 2})).await;
    assert_eq!(page, (vec!["stable/python".into(), "tool".into()], json!(true), json!(false)));
}

#[tokio::test]
async fn an_alias_comes_and_goes_by_ids() {
    let (app, _shelf) = with_images().await;
    let admin = app.admin();
    let page = ask(&admin, "/v2/images/search", json!({"filter": {"tag": {"equals": "4.2"}}})).await;
    let id = page["items"][0]["id"].as_str().unwrap().to_owned();
    let made = ask(&admin, "/v2/images/alias", json!({"image_id": id, "alias": "r"})).await;
    assert_eq!((&made["alias"], &made["image_id"]), (&json!("r"), &json!(id)));
    let filter = json!({"image_id": {"equals": id}, "alias": {"starts_with": "r"}});
    let page = ask(&admin, "/v2/images/aliases/search", json!({"filter": filter})).await;
    assert_eq!(page["items"][0], json!({"id": made["alias_id"], "field_id": made["alias_id"], "alias": "r"}));
    let again =
        admin.call("POST", "/v2/images/alias").json(&json!({"image_id": id, "alias": "r"})).send().await;
    assert!(again.problem(400, "invalid-api-params").contains("dealias it first"));
    assert_eq!(ask(&admin, "/v2/images/dealias", json!({"alias": "r"})).await, made);
    let gone = admin.call("POST", "/v2/images/dealias").json(&json!({"alias": "r"})).send().await;
    gone.problem(404, "generic-not-found");
    for path in ["forget", "purge", "alias"] {
        let body = if path == "alias" {
            json!({"image_id": NO_IMAGE, "alias": "x"})
        } else {
            json!({"image_id": NO_IMAGE})
        };
        let unknown = admin.call("POST", &format!("/v2/images/{path}")).json(&body).send().await;
        unknown.problem(404, "generic-not-found");
    }
}

#[tokio::test]
async fn registries_are_kept_by_id_and_their_passwords_kept_back() {
    let app = App::start().await;
    let admin = app.admin();
    let path = "/v2/container-registries";
    let body = json!({"url": "https://cr.invalid", "registry_name": "cr.invalid", "type": "harbor2",
                      "project": "stable", "username": "u", "password": "planted-secret"});
    let made = ask(&admin, path, body.clone()).await;
    let id = made["registry"]["id"].as_str().unwrap().to_owned();
    assert!(!made.to_string().contains("planted-secret"), "{made}");
    let again = admin.call("POST", path).json(&body).send().await;
    assert!(again.problem(400, "invalid-api-params").contains("already"));

    let change = async |body: Value| admin.call("PATCH", path).json(&body).send().await;
    let changed =
        change(json!({"id": id, "url": "http://cr.invalid:80", "registry_name": "cr.invalid"})).await.json();
    assert_eq!(changed["registry"]["username"], "u", "what is not given stays: {changed}");
    for (body, words) in [
        (json!({"url": "https://x"}), "id is missing"),
        (json!({"id": id, "registry_name": "other.invalid"}), "another registry"),
        (json!({"id": id, "type": "local"}), "type"),
        (json!({"id": id, "extra": {"region": "x"}}), "extra"),
        (json!({"id": id, "allowed_groups": {"add": ["g"]}}), "allowed_docker_registries"),
        (json!({"id": id, "color": "red"}), "color"),
        (json!({"id": "no uuid"}), "UUID"),
    ] {
        let msg = change(body).await.problem(400, "invalid-api-params");
        assert!(msg.contains(words), "{msg}");
    }
    change(json!({"id": NO_IMAGE, "url": "https://x"})).await.problem(404, "generic-not-found");
    for filter in [json!({"type": {"equals": "docker"}}), json!({"NOT": [{"is_global": true}]})] {
        let page = ask(&admin, &format!("{path}/search"), json!({"filter": filter})).await;
        assert_eq!(page["total_count"], 0, "{filter}");
    }
    assert_eq!(ask(&admin, &format!("{path}/delete"), json!({"id": id})).await, json!({"id": id}));
    assert_eq!(ask(&admin, &format!("{path}/search"), json!({})).await["items"], json!([]));
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem_in_json() {
    let app = App::start().await;
    let admin = app.admin();
    let nested =
        |levels| (0..levels).fold(json!({"tag": {"equals": "1"}}), |inner, _| json!({"NOT": [inner]}));
    let wide = json!({"OR": vec![json!({"tag": {"equals": "1"}}); 500]});
    for (body, words) in [
        (json!({"limit": 0}), "limit"),
        (json!({"limit": 1_000_000}), "limit"),
        (json!({"offset": -1}), "offset"),
        (json!({"limit": "many"}), "body"),
        (json!({"after": "x"}), "after"),
        (json!({"filter": {"color": {"equals": "red"}}}), "color"),
        (json!({"filter": {"tag": {"like": "%"}}}), "like"),
        (json!({"filter": {"id": {"equals": "no uuid"}}}), "UUID"),
        (json!({"filter": {"created_at": {"before": "yesterday"}}}), "body"),
        (json!({"filter": wide}), "100 filters"),
        (json!({"filter": nested(50)}), "nests deeper"),
        (json!({"filter": nested(200)}), "recursion"),
        (json!({"order": [{"field": "color"}]}), "color"),
        (json!({"order": [{"field": "tag", "direction": "UP"}]}), "UP"),
        (json!({"order": vec![json!({"field": "tag"}); 50]}), "order"),
        (json!([]), "body"),
    ] {
        let reply = admin.call("POST", "/v2/images/search").json(&body).send().await;
        let msg = reply.problem(400, "invalid-api-params");
        assert!(msg.contains(words), "{words}: {msg}");
    }
    let call = |method: &str, path: &str| admin.call(method, path).content_type("application/json");
    call("POST", "/v2/images/search").body("{").send().await.problem(400, "invalid-api-params");
    call("POST", "/v2/images/search")
        .body("x".repeat(300_000))
        .send()
        .await
        .problem(413, "content-too-large");
    call("GET", "/v2/images/search").send().await.problem(405, "method-not-allowed");
    call("POST", "/v2/sessions/search").body("{}").send().await.problem(404, "generic-not-found");
    let text = admin.call("POST", "/v2/images/search").content_type("text/plain").body("{}").send().await;
    text.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn all_of_it_is_for_super_admins() {
    let app = App::start().await;
    let user = app.person("ann@lab.example", "user", "default").await;
    let domain_admin = app.person("eve@lab.example", "admin", "default").await;
    let image = json!({"image_id": NO_IMAGE});
    for (method, path, body) in [
        ("POST", "/v2/images/search", json!({})),
        ("POST", "/v2/images/aliases/search", json!({})),
        ("POST", "/v2/images/alias", json!({"image_id": NO_IMAGE, "alias": "x"})),
        ("POST", "/v2/images/dealias", json!({"alias": "x"})),
        ("POST", "/v2/images/forget", image.clone()),
        ("POST", "/v2/images/purge", image.clone()),
        ("PATCH", "/v2/images", image.clone()),
        ("POST", "/v2/container-registries/search", json!({})),
        (
            "POST",
            "/v2/container-registries",
            json!({"url": "https://a", "registry_name": "a", "type": "docker"}),
        ),
        ("PATCH", "/v2/container-registries", json!({"id": NO_IMAGE})),
        ("POST", "/v2/container-registries/delete", json!({"id": NO_IMAGE})),
    ] {
        for api in [&user.api, &domain_admin.api] {
            let reply = api.call(method, path).json(&body).send().await;
            let msg = reply.problem(403, "generic-forbidden");
            assert!(msg.starts_with("no permission to execute "), "{path}: {msg}");
        }
        let nobody = app.anonymous().call(method, path).json(&body).send().await;
        nobody.problem(401, "auth-failed");
    }
    let rows = app.admin().audit_rows(0).await;
    let tried = |action: &str| {
        let denied = rows.iter().filter(|row| row["action"] == action && row["outcome"] == "DENIED");
        denied.filter_map(|row| row["count"].as_u64()).sum::<u64>()
    };
    for (action, times) in [
        ("alias_image", 2),
        ("dealias_image", 2),
        ("forget_image_by_id", 4),
        ("create_container_registry", 2),
        ("modify_container_registry", 2),
        ("delete_container_registry", 2),
    ] {
        assert_eq!(tried(action), times, "{action} in the audit log: {rows:?}");
    }
}
