//! GraphQL as its specification defines it, and over HTTP as its draft does: which documents run, which are refused,
//! and in which words.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::app::App;
use crate::support::missing;
use crate::support::visitor::Visitor;

const GRAPHQL: &str = "application/graphql-response+json";
/// A mutation that is done only on request.
const DRY: &str = "mutation($dry: Boolean! = true) { x: delete_domain(name: \"d\") @skip(if: $dry) { ok } }";

async fn domains(api: &Api) -> Vec<String> {
    let data = api.ask("{ domains { name } }", json!({})).await;
    let domains = data["domains"].as_array().unwrap().iter();
    domains.map(|domain| domain["name"].as_str().unwrap().to_owned()).collect()
}

async fn send(api: &Api, query: &str, accept: &str) -> Reply {
    let call = api.call("POST", "/admin/gql").json(&json!({"query": query}));
    call.header("Accept", accept).send().await
}

#[tokio::test]
async fn a_default_keeps_a_mutation_from_being_done() {
    let app = App::start().await;
    let admin = app.admin();
    admin.does("create_domain", "name: \"d\", props: {}").await;
    assert_eq!(admin.graphql(DRY, json!({})).await, json!({"data": {}}));
    assert_eq!(domains(&admin).await, ["d", "default"]);
    let answer = admin.graphql(DRY, json!({"dry": false})).await;
    assert_eq!(answer, json!({"data": {"x": {"ok": true}}}));
    // Without a required variable, nothing of a request is done.
    let two = "mutation($n: String!) { create_domain(name: \"e\", props: {}) { ok } delete_domain(name: $n) { ok } }";
    let answer = admin.graphql(two, json!({})).await;
    assert!(
        answer["data"].is_null() && answer["errors"][0]["message"].as_str().unwrap().contains("required")
    );
    assert_eq!(domains(&admin).await, ["d", "default"]);
}

#[tokio::test]
async fn what_stands_twice_under_one_name_is_done_once() {
    let app = App::start().await;
    let admin = app.admin();
    let twice = "mutation { create_domain(name: \"d\", props: {}) { ok } ...F }
        fragment F on Mutation { create_domain(name: \"d\", props: {}) { msg } }";
    let data = admin.ask(twice, json!({})).await;
    assert_eq!(data, json!({"create_domain": {"ok": true, "msg": "done"}}));
    assert_eq!(admin.audit_rows(0).await.len(), 1);
}

#[tokio::test]
async fn an_answer_has_what_was_asked_for_in_the_order_it_was_asked_in() {
    let app = App::start().await;
    let admin = app.admin();
    let text = async |query: &str| send(&admin, query, "application/json").await.text();
    let ordered = "{ b: domains { is_active name } i: images { name } a: groups { name } c: __typename }";
    let expected =
        r#"{"data":{"b":[{"is_active":true,"name":"default"}],"i":[],"a":[{"name":"default"}],"c":"Query"}}"#;
    assert_eq!(text(ordered).await, expected);
    assert!(!text("{ domains { name @x } }").await.contains("\"data\""));
    assert_eq!(text("{ domains { name @skip(if: true) } }").await, r#"{"data":{"domains":[{}]}}"#);
    // A nullable field that fails is null.
    let failed = text("{ a: image(reference: \"cr.lab/no:1\") { name } b: domains { name } }").await;
    assert!(
        failed.starts_with(r#"{"data":{"a":null,"b":[{"name":"default"}]},"errors":[{"message":"#),
        "{failed}"
    );
    // A field that can't be null makes its parent null: here, the whole answer.
    let user = app.person("user@test.invalid", "user", "default").await.api;
    let query = "{ domain { name } agent_set(expression: \"*\") { ok } }";
    let answer = user.graphql(query, json!({})).await;
    assert!(answer["data"].is_null() && answer["errors"][0]["path"] == json!(["agent_set"]), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_for_graphqls_own_media_type_is_told_by_the_status() {
    let app = App::start().await;
    let admin = app.admin();
    for (accept, kind, status) in [
        (GRAPHQL, GRAPHQL, 400),
        ("application/graphql-response+json; charset=utf-8, application/json; q=0.9", GRAPHQL, 400),
        ("application/json, application/graphql-response+json", "application/json", 200),
        ("application/graphql-response+json;q=0.5, application/json", "application/json", 200),
        ("application/graphql-response+json;q=0", "application/json", 200),
        ("*/*", "application/json", 200),
        ("text/html", "application/json", 200),
    ] {
        for refused in
            ["{", "{ nothing }", "query($a: Int!) { user_list(limit: $a, offset: 0) { total_count } }"]
        {
            let reply = send(&admin, refused, accept).await;
            assert_eq!(reply.status, status, "{accept} {refused}: {}", reply.text());
            assert_eq!(reply.header("content-type"), Some(format!("{kind}; charset=utf-8").as_str()));
            let answer = reply.json();
            assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["errors"], "{answer}");
            let message = answer["errors"][0]["message"].as_str().unwrap();
            assert!(!message.contains('\n') && message.len() > 10, "{message:?}");
        }
        let reply = send(&admin, "{ image(reference: \"cr.lab/no:1\") { name } }", accept).await;
        assert_eq!((reply.status, &reply.json()["data"]["image"]), (200, &Value::Null), "{}", reply.text());
    }
}

#[tokio::test]
async fn queries_are_answered_by_get_and_mutations_are_not() {
    let app = App::start().await;
    let admin = app.admin();
    let query = "/graphql?query=query%20A(%24r%3AString)%7Bimage(reference%3A%24r)%7Bname%7D%7D";
    let reply =
        admin.call("GET", &format!("{query}&operationName=A&variables=%7B%22r%22%3A%22x%22%7D")).send().await;
    assert_eq!(
        (reply.status, reply.json()["data"].clone()),
        (200, json!({"image": null})),
        "{}",
        reply.text()
    );
    let nested = format!("{query}&variables=%7B%22r%22%3A{}1{}%7D", "%5B".repeat(200), "%5D".repeat(200));
    assert_eq!(admin.call("GET", &nested).send().await.status, 400);
    let mutation = "/admin/gql?query=mutation%7Bcreate_domain(name%3A%22d%22%2Cprops%3A%7B%7D)%7Bok%7D%7D";
    let reply = admin.call("GET", mutation).send().await;
    reply.problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("POST"));
    assert_eq!(domains(&admin).await, ["default"]);
    assert_eq!(app.anonymous().call("GET", "/graphql?query=%7B__typename%7D").send().await.status, 401);
}

#[tokio::test]
async fn no_page_of_another_site_asks_by_get_with_a_cookie() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let ask = || person.call("GET", "/graphql?query=%7B__typename%7D");
    assert_eq!(ask().send().await.status, 200);
    assert_eq!(ask().header("Sec-Fetch-Site", "same-origin").send().await.status, 200);
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
    ] {
        ask().header(name, value).send().await.problem(403, "generic-forbidden");
    }
}

/// The result of one audit.
#[derive(Deserialize)]
struct Audit {
    name: String,
    status: String,
    reason: Option<String>,
}

impl Audit {
    /// Returns why it failed, if it did.
    fn failure(&self) -> Option<String> {
        (self.status != "ok")
            .then(|| format!("{}: {}", self.name, self.reason.as_deref().unwrap_or(&self.status)))
    }
}

/// Runs all audits of the npm package `graphql-http`.
#[tokio::test]
async fn every_audit_of_graphql_over_http_is_passed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = root.join(".tools/audits/node_modules/graphql-http");
    if Command::new("node").arg("--version").output().is_err() || !package.exists() {
        return missing("graphql-http", "run tests/tools/audits.sh, which needs Node");
    }
    let app = App::start().await;
    let create = "mutation { create_api_token(name: \"audits\", scope: \"full\") { token } }";
    let data = app.admin().ask(create, json!({})).await;
    let token = data["create_api_token"]["token"].as_str().unwrap().to_owned();
    let (script, url) = (root.join("tests/tools/audits.mjs"), format!("{}/graphql", app.url()));
    let run = move || Command::new("node").arg(script).arg(package).arg(url).arg(token).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let audits: Vec<Audit> = serde_json::from_str(&said)
        .unwrap_or_else(|why| panic!("{why}: {said}\n{}", String::from_utf8_lossy(&output.stderr)));
    let failed: Vec<_> = audits.iter().filter_map(Audit::failure).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), audits.len());
    assert!(audits.len() >= 61, "only {} audits", audits.len());
}
