//! Texts that nest until their parser has no stack left, for every recursive parser that reads a client's text.

use serde_json::{Value, json};

use super::beside::Beside;
use crate::support::api::{Api, Reply};
use crate::support::app::App;

/// Depths too large for a thread's stack of 2 MiB, but too small for the guard of the parser's own stack to notice: the
/// code that runs after the parser would end the process.
const DEPTHS: [usize; 3] = [100, 1_600, 4_000];

const PATHS: [&str; 4] = ["/graphql", "/admin/gql", "/admin/graphql", "/admin/gql/strawberry"];

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// Documents that nest this deep, in each way in which a document can nest.
fn documents(depth: usize) -> Vec<String> {
    let lists = nested("[", "1", "]", depth);
    let objects = nested("{a: ", "1", "}", depth);
    let both = nested("[{a: ", "1", "}]", depth);
    vec![
        format!("{{ user(email: {lists}) {{ email }} }}"),
        format!("{{ user(email: {objects}) {{ email }} }}"),
        format!("{{ user(email: {both}) {{ email }} }}"),
        format!("query($a: String = {lists}) {{ user(email: $a) {{ email }} }}"),
        format!("query($a: String = {objects}) {{ user(email: $a) {{ email }} }}"),
        format!("query($a: {}) {{ user(email: $a) {{ email }} }}", nested("[", "Int", "]", depth)),
        format!("{{ user @include(if: {lists}) {{ email }} }}"),
        format!("query @x(a: {objects}) {{ user {{ email }} }}"),
        nested("{ user ", "{ email }", " }", depth),
        nested("{ ... ", "{ user { email } }", " }", depth),
        nested("{ ... @include(if: true) ", "{ user { email } }", " }", depth),
        format!("{{ ...A }} fragment A on Query {}", nested("{ ... on Query ", "{ a }", " }", depth)),
        // The brackets in these are never closed, are closed by others, or stand behind a text that does not end.
        format!("{{ user(email: {}", "[".repeat(depth)),
        format!("{{ user(email: {}", "{a: [".repeat(depth)),
        format!("{{ user(email: [\"\"\"x\"{}", "[".repeat(depth)),
    ]
}

async fn send(api: &Api, path: &str, body: &Value) -> Reply {
    api.call("POST", path).json(body).send().await
}

fn is_refused(reply: &Reply) -> bool {
    (400..500).contains(&reply.status) || reply.status == 200 && reply.json()["errors"].is_array()
}

#[tokio::test]
async fn no_document_nests_so_deep_that_it_ends_the_server() {
    let app = App::start().await;
    // Any credential will do, even one that may only read.
    let reader = app.person("reader@test.invalid", "user", "default").await.api;
    let beside = Beside::start(&app).await;
    for (number, path) in PATHS.into_iter().enumerate() {
        for depth in DEPTHS {
            for (kind, query) in documents(depth).into_iter().enumerate() {
                // Each document is sent to one of the paths, and the first document to all.
                if kind > 0 && kind % PATHS.len() != number {
                    continue;
                }
                let shown: String = query.chars().take(60).collect();
                let reply = send(&reader, path, &json!({"query": query})).await;
                assert!(is_refused(&reply), "{path} {depth} {shown}: {} {}", reply.status, reply.text());
                assert!(reply.body.len() < 4_096, "{shown}: an answer of {} bytes", reply.body.len());
            }
        }
    }
    beside.was_served(&app).await;
    let refusal = reader.refused(&documents(1_600)[0], json!({})).await;
    assert_eq!(refusal, "the document nests deeper than 64 brackets; ask for less at once");
    let own = reader.ask("{ user { email } }", json!({})).await;
    assert_eq!(own["user"]["email"], "reader@test.invalid");
    assert!(!app.logs().contains("overflow"));
}

#[tokio::test]
async fn no_variable_nests_so_deep_that_it_ends_the_server() {
    let app = App::start().await;
    let admin = app.admin();
    for depth in [20, 60, 120, 2_000, 50_000] {
        for (open, close) in [("[", "]"), ("{\"a\": ", "}"), ("[{\"a\": ", "}]")] {
            let value = nested(open, "1", close, depth);
            for (kind, query) in [
                ("String", "query($a: String) { user(email: $a) { email } }"),
                (
                    "CreateKeyPairResourcePolicyInput!",
                    "mutation($a: CreateKeyPairResourcePolicyInput!) {
                    create_keypair_resource_policy(name: \"x\", props: $a) { ok } }",
                ),
                (
                    "CreatePreloadRuleInput!",
                    "mutation($a: CreatePreloadRuleInput!) {
                    create_preload_rule(name: \"x\", props: $a) { ok } }",
                ),
            ] {
                for body in [
                    format!("{{\"query\": {}, \"variables\": {{\"a\": {value}}}}}", json!(query)),
                    format!("{{\"query\": {}, \"extensions\": {{\"a\": {value}}}}}", json!(query)),
                ] {
                    let call = admin.call("POST", "/admin/gql").content_type("application/json").body(body);
                    let reply = call.send().await;
                    assert!(reply.status < 500, "{kind} {depth}: {} {}", reply.status, reply.text());
                    let is_taken = reply.status == 200 && reply.json()["errors"].is_null();
                    assert!(depth < 60 || !is_taken, "{kind} {depth}: {}", reply.text());
                }
            }
        }
    }
    admin.ask("{ user { email } }", json!({})).await;
}

#[tokio::test]
async fn nothing_else_that_is_read_nests_so_deep_that_it_ends_the_server() {
    let app = App::start().await;
    let admin = app.admin();
    for depth in [100, 1_000, 20_000] {
        for filter in [
            nested("(", "name == \"a\"", ")", depth),
            format!("{}name == \"a\"", "!".repeat(depth)),
            nested("!(", "name == \"a\"", ")", depth),
            format!("name in {}", nested("[", "1", "]", depth)),
        ] {
            let query = "query($f: String) { image_nodes(filter: $f) { count } }";
            let why = admin.refused(query, json!({"f": filter})).await;
            assert!(why.starts_with("filter: "), "{why}");
        }
        for expression in [
            nested("(", "*", ")", depth),
            nested("*!(", "*", ")", depth),
            nested("*&(a,", "*", ")", depth),
            nested("{", "a", "}", depth),
            nested("a[", "1", "]", depth),
        ] {
            let query = "query($e: String!) { agent_set(expression: $e) { folded } }";
            let answer = admin.graphql(query, json!({"e": expression})).await;
            assert!(answer["errors"].is_array() || answer["data"].is_object(), "{answer}");
        }
        let pattern = format!("cr.lab/{}:1", nested("[", "*", "]", depth));
        let query = "mutation($p: CreatePreloadRuleInput!) { create_preload_rule(name: \"x\", props: $p) { ok msg } }";
        let answer = admin.graphql(query, json!({"p": {"images": pattern, "target_agents": "*"}})).await;
        assert!(
            answer["errors"].is_array() || answer["data"]["create_preload_rule"]["ok"] == false,
            "{answer}"
        );
        let filter = nested("{\"AND\": [", "{}", "]}", depth);
        for (path, body) in [
            ("/v2/images/search", format!("{{\"filter\": {filter}}}")),
            ("/v2/container-registries/search", format!("{{\"filter\": {filter}}}")),
            ("/v2/images/aliases/search", format!("{{\"filter\": {filter}}}")),
            ("/config/set", format!("{{\"key\": \"config/x\", \"value\": {filter}}}")),
            ("/server/login", filter),
        ] {
            let call = admin.call("POST", path).content_type("application/json").body(body);
            let reply = call.send().await;
            assert!((400..500).contains(&reply.status), "{path}: {} {}", reply.status, reply.text());
        }
    }
    admin.ask("{ user { email } }", json!({})).await;
    assert!(!app.logs().contains("overflow"));
}
