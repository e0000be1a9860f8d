//! The code of a failure: one word, the same wherever it is reported, for programs that must not read messages.

use async_graphql_parser::parse_schema;
use async_graphql_parser::types::{TypeKind, TypeSystemDefinition};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

#[test]
fn every_payload_that_says_whether_it_was_done_says_what_kind_of_failure_it_was() {
    let schema = parse_schema(include_str!("../src/graphql/schema.graphql")).unwrap();
    let mut payloads = 0;
    for definition in schema.definitions {
        let TypeSystemDefinition::Type(kind) = definition else { continue };
        let TypeKind::Object(object) = &kind.node.kind else { continue };
        let type_of = |name: &str| {
            let field = object.fields.iter().find(|field| field.node.name.node == name)?;
            Some(field.node.ty.node.to_string())
        };
        if type_of("ok").as_deref() == Some("Boolean") && type_of("msg").as_deref() == Some("String") {
            payloads += 1;
            assert_eq!(type_of("code").as_deref(), Some("ErrorCode"), "{}", kind.node.name.node);
        }
    }
    assert!(payloads > 40, "{payloads}");
}

/// Runs a mutation, and returns its payload's `ok` and `code`.
async fn code(api: &Api, field: &str, arguments: &str) -> (bool, Value) {
    let answer = api.ask(&format!("mutation {{ {field}({arguments}) {{ ok msg code }} }}"), json!({})).await;
    let payload = &answer[field];
    (payload["ok"].as_bool().unwrap(), payload["code"].clone())
}

/// Returns the code of the first error of this query.
async fn query_code(api: &Api, query: &str) -> Value {
    api.graphql(query, json!({})).await["errors"][0]["extensions"]["code"].clone()
}

#[tokio::test]
async fn a_refusal_has_the_code_of_its_kind() {
    let (one, other) =
        (Shelf::start([Image::new("r/a", "1")]).await, Shelf::start([Image::new("r/a", "1")]).await);
    let app = App::start().await;
    let admin = app.admin();
    for shelf in [&one, &other] {
        admin.add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
        admin.scan(&shelf.host()).await;
    }
    admin.add_registry_at("nowhere.example:1", "http://127.0.0.1:1", None).await;
    let (host, a1) = (one.host(), format!("{}/r/a:1", one.host()));
    let done = code(&admin, "alias_image", &format!("alias: \"py\", target: \"{a1}\"")).await;
    assert_eq!(done, (true, Value::Null));

    for (field, arguments, expected) in [
        ("forget_image", "reference: \"no/such:1\"".to_owned(), "NOT_FOUND"),
        ("cancel_task", "id: \"6b1f27e4-0c0d-4d0e-9f35-6d5f77686172\"".into(), "NOT_FOUND"),
        ("forget_image", "reference: \"r/a:1\"".into(), "AMBIGUOUS"),
        ("alias_image", format!("alias: \"py\", target: \"{a1}\""), "ALREADY_EXISTS"),
        (
            "create_scaling_group",
            "name: \"default\", props: {driver: \"static\", scheduler: \"fifo\"}".into(),
            "ALREADY_EXISTS",
        ),
        ("alias_image", "alias: \"a b\", target: \"py\"".into(), "INVALID"),
        ("preload_image", format!("reference: \"{a1}\", target_agents: \"gpu[4-1]\""), "INVALID"),
        ("delete_domain", "name: \"default\"".into(), "CONFLICT"),
        ("test_container_registry", "hostname: \"nowhere.example:1\"".into(), "UNREACHABLE"),
    ] {
        assert_eq!(code(&admin, field, &arguments).await, (false, json!(expected)), "{field}({arguments})");
    }

    let user = app.person("user@lab.org", "user", "default").await.api;
    for field in [
        "forget_image(reference: \"py\")",
        "rescan_images(registry: null)",
        "scan_image(reference: \"x.example/y:1\")",
    ] {
        let (name, arguments) = field.trim_end_matches(')').split_once('(').unwrap();
        assert_eq!(code(&user, name, arguments).await, (false, json!("DENIED")), "{field}");
    }

    for (api, query, expected) in [
        (&admin, "{ image(reference: \"no/such:1\") { name } }".to_owned(), "NOT_FOUND"),
        (&admin, "{ image(reference: \"r/a:1\") { name } }".into(), "AMBIGUOUS"),
        (&admin, "{ container_registry(hostname: \"none.example\") { hostname } }".into(), "NOT_FOUND"),
        (
            &admin,
            format!(
                "mutation {{ create_container_registry(hostname: \"{host}\", props: {{url: \"http://{host}\"}}) {{ container_registry {{ hostname }} }} }}"
            ),
            "ALREADY_EXISTS",
        ),
        (&user, "{ container_registries { hostname } }".into(), "DENIED"),
        (&admin, "{ no_such_field }".into(), "INVALID"),
        (&admin, "{ images ".into(), "INVALID"),
        (&admin, "query($a: Boolean!) { images(is_installed: $a) { name } }".into(), "INVALID"),
    ] {
        assert_eq!(query_code(api, &query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_before_it_is_read_has_a_code_too() {
    let app = App::start().await;
    let stale = app
        .admin()
        .call("GET", "/events/background-task?task_id=x")
        .signed(|signature| signature.at("2020-01-01T00:00:00Z".parse().unwrap(), 0));
    assert_eq!(stale.send().await.json()["code"], "CLOCK_SKEW");
    let nobody = app.anonymous().call("GET", "/admin/gql").send().await;
    assert_eq!(
        (nobody.status, &nobody.json()["code"]),
        (401, &json!("UNAUTHENTICATED")),
        "{}",
        nobody.text()
    );
}
