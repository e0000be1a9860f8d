//! Requests made to do harm: each is refused with a reason, and the server goes on.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::App;

/// Documents that ask for too much, each in its own way.
fn documents() -> Vec<(&'static str, String)> {
    let repeat = |count: usize, part: &dyn Fn(usize) -> String| {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = write!(text, "{} ", part(n));
            text
        })
    };
    let deep = |depth: usize| {
        format!(
            "{{ {} __typename {} }}",
            "__type(name: \"Image\") { fields { type { ofType { ".repeat(depth),
            "} } } }".repeat(depth)
        )
    };
    vec![
        (
            "deep",
            format!("{{ __schema {{ types {{ {} name {} }} }} }}", "ofType { ".repeat(25), "} ".repeat(25)),
        ),
        ("deeper than any parser should follow", deep(5000)),
        ("brackets without end", "{a".repeat(10_000)),
        (
            "lists without end",
            format!("{{ images(group: {}1{}) {{ name }} }}", "[".repeat(10_000), "]".repeat(10_000)),
        ),
        ("many aliases", format!("{{ {} }}", repeat(1000, &|n| format!("a{n}: images {{ name }}")))),
        ("many cheap aliases", format!("{{ {} }}", repeat(10_000, &|n| format!("a{n}: __typename")))),
        ("many directives", format!("{{ images {{ name {} }} }}", "@include(if: true) ".repeat(500))),
        (
            "fragments in a circle",
            "{ images { ...A } } fragment A on Image { ...B } fragment B on Image { ...A }".to_owned(),
        ),
        (
            "fragments that double",
            format!(
                "{{ images {{ ...F0 }} }} {} fragment F25 on Image {{ name }}",
                repeat(25, &|n| format!("fragment F{n} on Image {{ ...F{m} ...F{m} }}", m = n + 1))
            ),
        ),
        (
            "many operations at once",
            repeat(200, &|n| format!("mutation m{n} {{ dealias_image(alias: \"x\") {{ ok }} }}")),
        ),
    ]
}

#[tokio::test]
async fn a_document_that_asks_for_too_much_is_refused_at_once() {
    let app = App::start().await;
    for (name, document) in documents() {
        let started = Instant::now();
        let call = app.admin().call("POST", "/admin/gql").json(&json!({"query": document, "variables": {}}));
        let reply = call.send().await;
        let body = reply.json();
        let refused = reply.status >= 400 || body["errors"].is_array();
        assert!(refused && reply.status < 500, "{name}: {} {}", reply.status, reply.text());
        assert!(started.elapsed() < Duration::from_secs(20), "{name} took {:?}", started.elapsed());
        assert!(reply.body.len() < 65_536, "{name}: an answer of {} bytes", reply.body.len());
    }
    let data = app.admin().ask("{ images { name } }", json!({})).await;
    assert_eq!(data, json!({"images": []}));
}

#[tokio::test]
async fn a_request_changes_twenty_things_at_most_and_else_nothing() {
    let app = App::start().await;
    let admin = app.admin();
    let changes = |from: usize, to: usize| {
        (from..to).fold(String::new(), |mut text, n| {
            let _ = write!(text, "c{n}: create_domain(name: \"d{n}\", props: {{}}) {{ ok }} ");
            text
        })
    };
    for document in [
        format!("mutation {{ {} }}", changes(0, 21)),
        format!("mutation {{ ...A {} }} fragment A on Mutation {{ {} }}", changes(0, 11), changes(11, 21)),
        format!("mutation {{ ... @include(if: true) {{ {} }} }}", changes(0, 300)),
    ] {
        let why = admin.refused(&document, json!({})).await;
        assert!(why.contains("20 are taken at once; nothing was done"), "{why}");
    }
    let names =
        async || admin.ask("{ domains { name } }", json!({})).await["domains"].as_array().unwrap().len();
    assert_eq!(names().await, 1);
    assert!(admin.audit_rows(0).await.is_empty());
    let data = admin.ask(&format!("mutation {{ {} }}", changes(0, 20)), json!({})).await;
    assert!(data.as_object().unwrap().values().all(|done| done["ok"] == true), "{data}");
    assert_eq!(names().await, 21);
}

#[tokio::test]
async fn a_batch_is_not_a_way_around_the_limits() {
    let app = App::start().await;
    let batch: Vec<Value> = (0..1000).map(|_| json!({"query": "{ images { name } }"})).collect();
    let reply = app.admin().call("POST", "/admin/gql").json(&Value::Array(batch)).send().await;
    assert!((400..500).contains(&reply.status), "{} {}", reply.status, reply.text());
    assert!(reply.json()["title"].is_string());
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let app = App::start().await;
    let query = format!("{{ images {{ name }} }} # {}", "x".repeat(300 * 1024));
    let reply = app.admin().call("POST", "/admin/gql").json(&json!({"query": query})).send().await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.json()["title"].is_string());
}

#[tokio::test]
async fn what_clients_really_send_is_within_the_limits() {
    let app = App::start().await;
    let admin = app.admin();
    let data = admin.ask(
        "query($is_operation: Boolean) { images(is_operation: $is_operation) {
            name humanized_name registry architecture tag digest size_bytes aliases labels { key value }
            resource_limits { key min max } supported_accelerators installed installed_agents } }",
        json!({"is_operation": false}),
    );
    assert_eq!(data.await, json!({"images": []}));
}
