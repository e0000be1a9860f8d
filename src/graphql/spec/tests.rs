//! The result of preparing documents, and which documents are refused. `tests/execution.rs` tests the real server.

use async_graphql::{PathSegment, Request, ServerError, Value, Variables};
use serde_json::{Value as Json, json};

use super::select::Chosen;
use super::shape::shape;
use super::{Api, LIGHT, Prepared, is_heavy};
use crate::base::walk::Walks;
use crate::graphql::schema;

async fn prepared(document: &str, variables: Json) -> Result<Prepared, String> {
    let api = Api::new(schema::empty(), &schema::sdl(), Walks::default()).unwrap();
    let question = Request::new(document).variables(Variables::from_json(variables));
    api.prepare(&question).await.map_err(|errors| errors[0].message.clone())
}

/// Returns what the library is asked for, in GraphQL's short notation.
fn written(chosen: &[Chosen]) -> String {
    let field = |field: &Chosen| {
        let alias = if field.key == field.name { String::new() } else { format!("{}:", field.key) };
        let arguments: Vec<_> =
            field.arguments.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let arguments =
            if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(",")) };
        let inner = if field.is_object { format!("{{{}}}", written(&field.inner)) } else { String::new() };
        format!("{alias}{}{arguments}{inner}", field.name)
    };
    chosen.iter().map(field).collect::<Vec<_>>().join(" ")
}

async fn comes_to(document: &str, variables: Json) -> String {
    prepared(document, variables).await.map_or_else(|why| format!("refused: {why}"), |it| written(&it.chosen))
}

#[test]
fn what_may_keep_a_thread_for_long_is_known_before_it_is_read() {
    let heavy = |document: &str, variables: Json| {
        is_heavy(&Request::new(document).variables(Variables::from_json(variables)))
    };
    let long = "x".repeat(LIGHT + 1);
    assert!(!heavy("query($a: String) { user(email: $a) { email } }", json!({"a": "a@lab.org"})));
    for schema in ["{ __schema { queryType { name } } }", "{ __type (name: \"Query\") { name } }"] {
        assert!(heavy(schema, json!({})), "{schema}");
    }
    assert!(heavy(&format!("{{ user(email: \"{long}\") {{ email }} }}"), json!({})));
    assert!(heavy("query($a: String) { user(email: $a) { email } }", json!({"a": {"b": [long]}})));
}

#[tokio::test]
async fn variables_are_what_is_given_else_their_defaults() {
    let dry = "mutation($dry: Boolean! = true) { x: dealias_image(alias: \"q2\") @skip(if: $dry) { ok } }";
    assert_eq!(comes_to(dry, json!({})).await, "");
    assert_eq!(comes_to(dry, json!({"dry": false})).await, "x:dealias_image(alias:\"q2\"){ok}");
    let include = "query($a: Boolean = false) { domains { name @include(if: $a) is_active } }";
    assert_eq!(comes_to(include, json!({})).await, "domains{is_active}");
    assert_eq!(comes_to(include, json!({"a": true, "other": [1]})).await, "domains{name is_active}");

    let one = "query($r: String, $a: String = \"x86_64\") { image(reference: $r, architecture: $a) { tag } }";
    assert_eq!(comes_to(one, json!({})).await, "image(architecture:\"x86_64\"){tag}");
    assert_eq!(
        comes_to(one, json!({"r": null, "a": "arm"})).await,
        "image(reference:null,architecture:\"arm\"){tag}"
    );
    let list = "query($s: [ImageStatus]) { images(filter_by_statuses: $s) { tag } }";
    assert_eq!(comes_to(list, json!({"s": "ALIVE"})).await, "images(filter_by_statuses:[ALIVE]){tag}");
    let whole = "query($n: Int!) { user_list(limit: $n, offset: 0) { total_count } }";
    assert_eq!(comes_to(whole, json!({"n": 1.0})).await, "user_list(limit:1,offset:0){total_count}");
    let within =
        "mutation($p: String) { create_user(email: \"e\", props: {password: $p, username: \"u\"}) { ok } }";
    assert_eq!(comes_to(within, json!({})).await, "create_user(email:\"e\",props:{username: \"u\"}){ok}");
}

#[tokio::test]
async fn variables_that_are_not_of_their_types_refuse_the_whole_request() {
    let ask = |ty: &str| format!("query($v: {ty}) {{ domains {{ name }} image(reference: $v) {{ tag }} }}");
    for (document, given, why) in [
        (ask("String!"), json!({}), "Variable \"$v\" of type \"String!\" is required, and not given"),
        (ask("String!"), json!({"v": null}), "null is no \"String!\""),
        (ask("String"), json!({"v": 1}), "1 is no \"String\""),
        (ask("String"), json!({"v": ["a"]}), "[\"a\"] is no \"String\""),
        (ask("Int"), json!({}), "Variable \"$v\" of type \"Int\" is used where \"String\" is wanted"),
        (ask("Strng"), json!({}), "unknown type \"Strng\""),
        (ask("[Strng] = [1]"), json!({}), "unknown type \"Strng\""),
        (ask("Image"), json!({}), "output type \"Image\""),
        (ask("String = 1"), json!({}), "The default of variable \"$v\" can't be taken: 1 is no \"String\""),
        (ask("[String]"), json!({}), "is used where \"String\" is wanted"),
        (
            "query($n: Int) { user_list(limit: $n, offset: 0) { total_count } }".into(),
            json!({"n": 1}),
            "is used where \"Int!\" is wanted",
        ),
        (
            "query($n: Int = 1) { user_list(limit: $n, offset: 0) { total_count } }".into(),
            json!({"n": null}),
            "is null",
        ),
        (
            "query($n: Int!) { user_list(limit: $n, offset: 0) { total_count } }".into(),
            json!({"n": 4_000_000_000_u64}),
            "4000000000 is no \"Int\"",
        ),
        (
            "query($s: [ImageStatus]) { images(filter_by_statuses: $s) { tag } }".into(),
            json!({"s": ["GONE"]}),
            "is no \"ImageStatus\"",
        ),
        (
            "mutation($p: UserInput!) { create_user(email: \"e\", props: $p) { ok } }".into(),
            json!({"p": {"pasword": "x"}}),
            "\"UserInput\" has no field \"pasword\"",
        ),
        ("query($b: BigInt) { audit_log(before: $b) { next } }".into(), json!({"b": -1}), "whole number"),
    ] {
        let came = comes_to(&document, given).await;
        assert!(came.starts_with("refused: ") && came.contains(why), "{document}: {came}");
    }
}

#[tokio::test]
async fn a_large_variable_is_used_so_often_and_no_more() {
    let large = "x".repeat(200_000);
    let fields = |count: usize| {
        let field = |n| format!("a{n}: user(email: $e) {{ email }} ");
        format!("query($e: String) {{ {} }}", (0..count).map(field).collect::<String>())
    };
    let refused = async |document: &str| {
        let prepared = prepared(document, json!({"e": large})).await;
        prepared.err().is_some_and(|why| why.contains("more than 8 MiB; use large ones less often"))
    };
    assert!(!refused(&fields(40)).await);
    assert!(refused(&fields(50)).await);
    let list = format!(
        "mutation($e: String!) {{ associate_scaling_groups_with_domain(domain: \"d\", scaling_groups: [{}]) {{ ok }} }}",
        "$e ".repeat(50)
    );
    assert!(refused(&list).await);
}

#[tokio::test]
async fn one_response_key_is_one_field_and_fields_come_as_asked() {
    for (document, expected) in [
        (
            "mutation { dealias_image(alias: \"a\") { ok } dealias_image(alias: \"a\") { msg ok } }",
            "dealias_image(alias:\"a\"){ok msg}",
        ),
        (
            "{ b: domains { name } ...F a: domains { name } } fragment F on Query { domains { name } b: domains { is_active } }",
            "b:domains{name is_active} domains{name} a:domains{name}",
        ),
        ("{ ... { domains { name } } ... on Query { domains { name } } }", "domains{name}"),
        (
            "{ domains @skip(if: true) { name } domains { is_active } ... @include(if: false) { image { tag } } }",
            "domains{is_active}",
        ),
        ("{ domains { name @skip(if: true) } }", "domains{}"),
        ("{ __schema { queryType { name } } __typename }", "__schema{queryType{name}} __typename"),
        ("{ __type(name: \"Image\") { fields { name } } }", "__type(name:\"Image\"){fields{name}}"),
    ] {
        assert_eq!(comes_to(document, json!({})).await, expected, "{document}");
    }
}

#[tokio::test]
async fn a_document_that_the_specification_refuses_is_not_run() {
    for (document, why) in [
        ("{", "Syntax error: expected"),
        ("{ domains { name }", "Syntax error: expected"),
        ("{ nothing }", "nothing"),
        ("{ domains }", "selection"),
        ("{ domains { name { x } } }", "selection"),
        ("{ __typename(a: 1) }", "takes no arguments"),
        ("{ image(reference: \"a\", reference: \"b\") { tag } }", "reference"),
        ("{ image(colour: \"a\") { tag } }", "colour"),
        ("{ user_list(limit: 1) { total_count } }", "offset"),
        ("{ user_list(limit: \"1\", offset: 0) { total_count } }", "\"1\" is no \"Int\""),
        ("{ images(filter_by_statuses: [\"ALIVE\"]) { tag } }", "is no \"ImageStatus\""),
        ("mutation { create_user(email: \"e\", props: \"x\") { ok } }", "is no \"UserInput\""),
        ("mutation { create_user(email: \"e\", props: {a: 1}) { ok } }", "has no field \"a\""),
        (
            "mutation { create_user(email: \"e\", props: {password: \"a\", password: \"b\"}) { ok } }",
            "\"password\" twice",
        ),
        ("{ a: domains { name } a: groups { name } }", "conflict under the name \"a\""),
        ("{ a: domains { name } a: groups @skip(if: true) { name } }", "conflict under the name \"a\""),
        ("{ a: image(reference: \"a\") { tag } a: image { tag } }", "their arguments differ"),
        ("{ domains { a: name } domains { a: is_active } }", "conflict under the name \"a\""),
        ("{ ...F } fragment F on Query { domains { ...F } }", "spreads itself"),
        ("{ ...F }", "F"),
        ("{ domains { name } } fragment F on Query { domains { name } }", "F"),
        ("{ ... on Image { tag } }", "Image"),
        ("{ ... on Nobody { tag } }", "Nobody"),
        ("query($a: String) { domains { name } }", "not used"),
        ("{ image(reference: $a) { tag } }", "\"$a\" is not defined"),
        ("{ domains @include(if: $a) { name } }", "\"$a\" is not defined"),
        ("query($a: Boolean) { domains @include(if: $a) { name } }", "where \"Boolean!\" is wanted"),
        ("query($a: String!) { domains @include(if: $a) { name } }", "where \"Boolean!\" is wanted"),
        ("query($a: Boolean!, $a: Boolean!) { domains @skip(if: $a) { name } }", "$a"),
        ("{ domains @skip { name } }", "takes the argument \"if\""),
        ("{ domains @skip(if: \"yes\") { name } }", "is no \"Boolean\""),
        ("{ domains @skip(if: true) @skip(if: true) { name } }", "twice"),
        ("{ domains @nothing { name } }", "\"@nothing\" is unknown"),
        ("query @skip(if: true) { domains { name } }", "can't stand here"),
        ("query($a: Int @skip(if: true)) { domains { name } }", "can't stand here"),
        ("{ ...F } fragment F on Query @skip(if: true) { domains { name } }", "can't stand here"),
        ("query A { domains { name } } query B { domains { name } }", "say which in operationName"),
        ("subscription { domains { name } }", "ubscription"),
    ] {
        let came = comes_to(document, json!({})).await;
        assert!(came.starts_with("refused: ") && came.contains(why), "{document}: {came}");
        assert_eq!(came.lines().count(), 1, "{came}");
    }
}

#[tokio::test]
async fn an_answer_has_the_shape_that_was_asked_for() {
    let document =
        "{ agent_set(expression: \"*\") { ok names } b: domains { name is_active } image { tag } }";
    let chosen = prepared(document, json!({})).await.unwrap().chosen;
    let shaped = |data: Json, failed: &[&str]| {
        let error = |path: &&str| {
            let path = path.split('.').map(|part| match part.parse() {
                Ok(number) => PathSegment::Index(number),
                Err(_) => PathSegment::Field(part.into()),
            });
            ServerError { path: path.collect(), ..ServerError::new("failed", None) }
        };
        let errors: Vec<_> = failed.iter().map(error).collect();
        shape(Value::from_json(data).unwrap(), &chosen, &errors).to_string()
    };
    let set = json!({"names": [], "ok": true});
    let whole = json!({"image": null, "b": [{"is_active": true, "name": "x"}], "agent_set": set});
    let text = "{agent_set: {ok: true, names: []}, b: [{name: \"x\", is_active: true}], image: null}";
    assert_eq!(shaped(whole, &[]), text);
    // A field that may be null is null, and not left out.
    let text = "{agent_set: {ok: true, names: []}, b: null, image: null}";
    assert_eq!(shaped(json!({"agent_set": set}), &["b", "image"]), text);
    // All fields of an object failed, though the object itself exists.
    let text = "{agent_set: {ok: true, names: []}, b: [{name: null, is_active: null}], image: null}";
    let within = json!({"agent_set": set, "b": [null], "image": null});
    assert_eq!(shaped(within, &["b.0.name", "b.0.is_active"]), text);
    // If a field that can't be null failed, the object it is in becomes null.
    assert_eq!(shaped(json!({"b": [], "image": null}), &["agent_set"]), "null");
    assert_eq!(shaped(json!({"agent_set": {"ok": true}, "b": []}), &["agent_set.names"]), "null");
}
