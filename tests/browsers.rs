//! Requests that pages of other sites can make a browser send: none of them takes effect.

use serde_json::json;

use crate::support::api::Call;
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::visitor::Visitor;

const MUTATION: &str = "mutation { sign_out_everywhere { ok msg } }";
const STREAM: &str = "/events/background-task?task_id=0";

fn own_page(app: &App, call: Call) -> Call {
    call.header("Origin", app.url()).header("Sec-Fetch-Site", "same-origin")
}

#[tokio::test]
async fn a_page_of_the_servers_own_may_do_what_its_reader_may() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let reply = own_page(&app, person.asking("{ __typename }", &json!({}))).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    own_page(&app, person.call("GET", STREAM)).send().await.problem(404, "generic-not-found");
    let reply = own_page(&app, person.signing_in(ADMIN_EMAIL, ADMIN_PASSWORD)).send().await;
    assert_eq!(reply.json()["authenticated"], true);
}

#[tokio::test]
async fn a_form_and_a_text_that_looks_like_json_are_not_taken() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let body = json!({ "query": MUTATION }).to_string();
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""] {
        for path in ["/graphql", "/admin/gql", "/admin/graphql", "/func/admin/gql", "/auth/update-password"] {
            let call = person.call("POST", path).content_type(kind).body(body.clone());
            call.send().await.problem(415, "unsupported-media-type");
        }
        let login = json!({ "username": ADMIN_EMAIL, "password": ADMIN_PASSWORD }).to_string();
        let call = Visitor::of(&app).call("POST", "/server/login").content_type(kind).body(login);
        call.send().await.problem(415, "unsupported-media-type");
    }
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn nothing_is_changed_by_a_get() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let query = "query=mutation%7Bsign_out_everywhere%7Bok%7D%7D";
    for path in ["/graphql", "/admin/gql", "/admin/graphql", "/func/graphql"] {
        let reply = person.call("GET", &format!("{path}?{query}")).send().await;
        reply.problem(405, "method-not-allowed");
    }
    for path in ["/server/logout", "/server/login", "/server/login-check", "/auth/update-password"] {
        person.call("GET", path).send().await.problem(405, "method-not-allowed");
    }
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn what_another_site_sends_is_refused_with_the_right_cookie_too() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let elsewhere = [
        ("Origin", "https://evil.example".to_owned()),
        ("Origin", "null".to_owned()),
        // Another server on the same machine.
        ("Origin", "http://127.0.0.1:1".to_owned()),
        ("Origin", app.url().replace("http://", "http://evil.")),
        ("Sec-Fetch-Site", "cross-site".to_owned()),
        ("Sec-Fetch-Site", "same-site".to_owned()),
    ];
    for (name, value) in &elsewhere {
        let refused = async |call: Call| {
            let msg = call.header(name, value).send().await.problem(403, "generic-forbidden");
            assert!(msg.contains("another site"), "{msg}");
        };
        refused(person.asking(MUTATION, &json!({}))).await;
        refused(person.asking("{ __typename }", &json!({}))).await;
        refused(person.call("GET", STREAM).no_content_type()).await;
        refused(person.call("POST", "/server/logout")).await;
        // No page can sign its reader in to another account either.
        refused(Visitor::of(&app).signing_in(ADMIN_EMAIL, ADMIN_PASSWORD)).await;
        let check = person.call("POST", "/server/login-check").header(name, value).send().await;
        assert_eq!(check.json(), json!({ "authenticated": false, "data": null }));
    }
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_not_ours() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let rebound = person.asking("{ __typename }", &json!({})).header("Host", "evil.example");
    rebound.header("Origin", "http://evil.example").send().await.problem(421, "misdirected-request");
}

#[tokio::test]
async fn what_no_browser_adds_by_itself_may_come_from_anywhere() {
    let app = App::start().await;
    let query = "mutation { create_api_token(name: \"a\", scope: \"full\") { token } }";
    let made = app.admin().ask(query, json!({})).await;
    let token = made["create_api_token"]["token"].as_str().unwrap();
    let far =
        |call: Call| call.header("Origin", "https://evil.example").header("Sec-Fetch-Site", "cross-site");
    let document = json!({ "query": "{ __typename }" });
    let call = app.anonymous().call("POST", "/graphql").json(&document);
    let reply = far(call.header("Authorization", &format!("Bearer {token}"))).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(far(app.admin().call("POST", "/graphql").json(&document)).send().await.status, 200);
    // An additional cookie changes nothing.
    let person = Visitor::admin(&app).await;
    let call = person.asking("{ __typename }", &json!({})).header("Authorization", "Bearer wharf_wrong");
    call.send().await.problem(401, "auth-failed");
}
