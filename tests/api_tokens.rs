//! Personal API tokens.

use serde_json::{Value, json};

use crate::support::api::{Api, Call};
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::visitor::Visitor;

const CREATE: &str = "mutation($name: String!, $scope: String!, $days: Int, $at: String) {
    create_api_token(name: $name, scope: $scope, expires_in_days: $days, expires_at: $at) {
        ok msg token api_token { id name scope created_at expires_at last_used } } }";
const LIST: &str = "query($user: String) { api_tokens(user: $user) { id name scope last_used } }";
const REVOKE: &str = "mutation($id: String!) { revoke_api_token(id: $id) { ok msg } }";

pub async fn create(api: &Api, name: &str, scope: &str) -> Value {
    api.ask(CREATE, json!({"name": name, "scope": scope})).await["create_api_token"].clone()
}

fn asking(app: &App, token: &str, query: &str) -> Call {
    let call = app.anonymous().call("POST", "/graphql").json(&json!({ "query": query }));
    call.header("Authorization", &format!("Bearer {token}"))
}

async fn is_taken(app: &App, token: &str) -> bool {
    let reply = asking(app, token, "{ __typename }").send().await;
    if reply.status != 200 {
        reply.problem(401, "auth-failed");
    }
    reply.status == 200
}

#[tokio::test]
async fn a_token_stands_for_its_owner_until_it_is_revoked() {
    let mut app = App::start().await;
    let made = create(&app.admin(), "ci", "full").await;
    assert_eq!((&made["ok"], &made["msg"]), (&json!(true), &json!("done")));
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("wharf_") && token.len() == 66, "{token}");
    assert!(is_taken(&app, &token).await);
    let follow = app.anonymous().call("GET", "/events/background-task?task_id=0");
    follow.header("Authorization", &format!("Bearer {token}")).send().await.problem(404, "generic-not-found");

    app.kill9();
    app.restart().await;
    assert!(is_taken(&app, &token).await, "after a crash");
    let listed = app.admin().ask(LIST, json!({})).await;
    assert_eq!(listed["api_tokens"][0]["name"], "ci");
    assert!(listed["api_tokens"][0]["last_used"].is_string(), "{listed}");
    assert!(!listed.to_string().contains(&token), "it is shown once");

    let id = made["api_token"]["id"].clone();
    let revoked = app.admin().ask(REVOKE, json!({"id": id})).await;
    assert_eq!(revoked["revoke_api_token"], json!({"ok": true, "msg": "done"}));
    assert!(!is_taken(&app, &token).await);
    let again = app.admin().ask(REVOKE, json!({"id": id})).await;
    assert_eq!(again["revoke_api_token"]["ok"], false, "{again}");
}

#[tokio::test]
async fn a_token_for_reading_changes_nothing() {
    let app = App::start().await;
    let made = create(&app.admin(), "dashboard", "read").await;
    let token = made["token"].as_str().unwrap();
    let reply = asking(&app, token, "{ images { name } sessions { current } }").send().await;
    assert_eq!(reply.json(), json!({"data": {"images": [], "sessions": []}}));
    for mutation in [
        "sign_out_everywhere { ok msg }",
        "alias_image(alias: \"a\", target: \"b\") { ok msg }",
        "rescan_images { ok msg }",
    ] {
        let reply = asking(&app, token, &format!("mutation {{ done: {mutation} }}")).send().await;
        let done = reply.json()["data"]["done"].clone();
        assert_eq!(done["ok"], false, "{mutation}: {}", reply.text());
        assert!(done["msg"].as_str().unwrap().contains("read-only"), "{mutation}: {done}");
    }
}

#[tokio::test]
async fn whoever_finds_a_token_can_not_make_it_last() {
    let app = App::start().await;
    for scope in ["read", "full"] {
        let made = create(&app.admin(), scope, scope).await;
        let token = made["token"].as_str().unwrap();
        let mutation = "mutation { create_api_token(name: \"x\", scope: \"full\") { ok msg token } }";
        let reply = asking(&app, token, mutation).send().await;
        let tried = &reply.json()["data"]["create_api_token"];
        assert_eq!((&tried["ok"], &tried["token"]), (&json!(false), &Value::Null), "{tried}");
        let mut answers = Vec::new();
        for old in [ADMIN_PASSWORD, "a wrong password"] {
            let change = json!({"old_password": old, "new_password": "another one of mine",
                "new_password2": "another one of mine"});
            let call = app.anonymous().call("POST", "/auth/update-password").json(&change);
            let reply = call.header("Authorization", &format!("Bearer {token}")).send().await;
            reply.problem(403, "generic-forbidden");
            answers.push(reply.text());
        }
        assert_eq!(answers[0], answers[1], "it does not learn either whether that is the password");
    }
}

#[tokio::test]
async fn a_token_makes_nothing_that_outlives_it() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    let bob = app.person("bob@lab", "admin", "default").await;
    let root = app.person("root@lab", "superadmin", "default").await;
    let [of_admin, of_bob, of_ann] = [
        create(&admin, "ci", "full").await,
        create(&bob.api, "ci", "full").await,
        create(&ann.api, "ci", "full").await,
    ]
    .map(|made| made["token"].as_str().unwrap().to_owned());
    let does = async |token: &str, mutation: &str| {
        let reply =
            asking(&app, token, &format!("mutation {{ done: {mutation} {{ ok msg }} }}")).send().await;
        let done = reply.json()["data"]["done"].clone();
        let why = done["msg"].as_str().unwrap_or_default();
        assert!(done["ok"] == true || why.contains("with a token"), "{mutation}: {}", reply.text());
        done["ok"] == true
    };
    let key = |key: &str| format!("access_key: {key:?}");
    let (own, roots, anns) = (key(ADMIN_ACCESS_KEY), key(&root.access_key), key(&ann.access_key));
    for mutation in [
        format!("rotate_keypair({own})"),
        format!("rotate_keypair({roots})"),
        format!("modify_keypair({own}, props: {{rate_limit: 0}})"),
        format!("create_keypair(user_id: {ADMIN_EMAIL:?}, props: {{}})"),
        "create_keypair(user_id: \"root@lab\", props: {})".to_owned(),
        format!("modify_user(email: {ADMIN_EMAIL:?}, props: {{password: \"another one of mine\"}})"),
        "modify_user(email: \"root@lab\", props: {password: \"another one of mine\"})".to_owned(),
        "modify_user(email: \"ann@lab\", props: {role: \"superadmin\"})".to_owned(),
        "create_user(email: \"x@lab\", props: {password: \"a long password\", role: \"superadmin\"})"
            .to_owned(),
    ] {
        assert!(!does(&of_admin, &mutation).await, "{mutation}");
    }
    assert!(!does(&of_ann, &format!("rotate_keypair({anns})")).await);
    let chief = "create_user(email: \"x@lab\", props: {password: \"a long password\", role: \"admin\"})";
    assert!(!does(&of_bob, chief).await);
    // The token manages the credentials of users with fewer rights.
    for mutation in [
        chief.to_owned(),
        format!("rotate_keypair({anns})"),
        "create_keypair(user_id: \"bob@lab\", props: {})".to_owned(),
        "modify_user(email: \"ann@lab\", props: {password: \"another one of hers\"})".to_owned(),
        format!("modify_user(email: {ADMIN_EMAIL:?}, props: {{full_name: \"The admin\"}})"),
    ] {
        assert!(does(&of_admin, &mutation).await, "{mutation}");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_token_is_none() {
    let app = App::start().await;
    let made = create(&app.admin(), "ci", "full").await;
    let token = made["token"].as_str().unwrap();
    let last = if token.ends_with('a') { "b" } else { "a" };
    for wrong in [
        "",
        "wharf_",
        "abc",
        &token[..65],
        &format!("{}{last}", &token[..65]),
        &token.to_uppercase(),
        &token[6..],
    ] {
        assert!(!is_taken(&app, wrong).await, "{wrong}");
    }
    assert!(is_taken(&app, token).await);
}

#[tokio::test]
async fn a_token_has_a_name_a_scope_and_an_end() {
    let app = App::start().await;
    let admin = app.admin();
    for (name, scope, days, at, why) in [
        ("", "full", None, None, "name"),
        ("a", "everything", None, None, "scope"),
        ("a", "full", Some(0), None, "expires_in_days"),
        ("a", "full", Some(366), None, "expires_in_days"),
        ("a", "full", None, Some("soon"), "expires_at"),
        ("a", "full", None, Some("2001-01-01T00:00:00Z"), "expires_at"),
        ("a", "full", Some(1), Some("2001-01-01T00:00:00Z"), "expires_at"),
    ] {
        let variables = json!({"name": name, "scope": scope, "days": days, "at": at});
        let tried = admin.ask(CREATE, variables).await["create_api_token"].clone();
        assert_eq!((&tried["ok"], &tried["token"]), (&json!(false), &Value::Null), "{tried}");
        assert!(tried["msg"].as_str().unwrap().contains(why), "{tried}");
    }
    create(&admin, "a", "full").await;
    let twice = create(&admin, "a", "read").await;
    assert!(twice["msg"].as_str().unwrap().contains("already"), "{twice}");
    for n in 1..100 {
        assert_eq!(create(&admin, &format!("n{n}"), "read").await["ok"], true);
    }
    let one_more = create(&admin, "one more", "read").await;
    assert!(one_more["msg"].as_str().unwrap().contains("100"), "{one_more}");
}

#[tokio::test]
async fn a_person_in_a_browser_makes_and_lists_tokens_too() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    let made = person.ask(CREATE, json!({"name": "laptop", "scope": "full"})).await;
    assert!(is_taken(&app, made["create_api_token"]["token"].as_str().unwrap()).await);
    let listed = person.ask(LIST, json!({"user": ADMIN_EMAIL})).await;
    assert_eq!(listed["api_tokens"][0]["name"], "laptop");
    let missing = app.admin().refused(LIST, json!({"user": "nobody@test.invalid"})).await;
    assert!(missing.contains("nobody@test.invalid"), "{missing}");
}

#[tokio::test]
async fn the_shell_makes_lists_and_revokes_tokens() {
    let app = App::start().await;
    let made = app.wharf(&["token", "create", "ci", "--scope", "full", "--json"]).await;
    assert_eq!(made.code, 0, "{}", made.text());
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert!(is_taken(&app, made["token"].as_str().unwrap()).await);
    let listed = app.wharf(&["token", "list", "--json"]).await;
    assert_eq!(listed.code, 0, "{}", listed.text());
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let revoked = app.wharf(&["token", "revoke", listed[0]["id"].as_str().unwrap()]).await;
    assert_eq!(revoked.code, 0, "{}", revoked.text());
    assert!(!is_taken(&app, made["token"].as_str().unwrap()).await);
}

#[tokio::test]
async fn the_tokens_of_others_are_for_super_admins_alone() {
    let app = App::start().await;
    let [ann, bob] =
        [app.person("ann@lab", "user", "default").await, app.person("bob@lab", "admin", "default").await];
    let made = create(&ann.api, "ci", "full").await;
    let id = json!({"id": made["api_token"]["id"]});
    let of_ann = json!({"user": "ann@lab"});
    let denied = bob.api.refused(LIST, of_ann.clone()).await;
    assert!(denied.contains("no permission"), "{denied}");
    let unknown = bob.api.ask(REVOKE, json!({"id": "0e9c2b34-0000-4000-8000-000000000001"})).await;
    let foreign = bob.api.ask(REVOKE, id.clone()).await;
    let shape = |answer: &Value| {
        answer["revoke_api_token"]["msg"].as_str().unwrap().split(':').next().unwrap().to_owned()
    };
    assert_eq!(shape(&foreign), shape(&unknown), "a token of somebody else's is none");
    assert!(is_taken(&app, made["token"].as_str().unwrap()).await);
    assert_eq!(app.admin().ask(LIST, of_ann).await["api_tokens"][0]["name"], "ci");
    assert_eq!(app.admin().ask(REVOKE, id).await["revoke_api_token"]["ok"], true);
    assert!(!is_taken(&app, made["token"].as_str().unwrap()).await);
}

#[tokio::test]
async fn a_keypair_makes_as_many_requests_as_it_may() {
    let app = App::start().await;
    let ann = app.person("ann@lab", "user", "default").await;
    let change = format!("access_key: \"{}\", props: {{rate_limit: 5}}", ann.access_key);
    app.admin().does("modify_keypair", &change).await;
    let ask = || ann.api.call("POST", "/admin/gql").json(&json!({"query": "{ __typename }"})).send();
    for left in (0..5).rev() {
        let reply = ask().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = ["limit", "remaining", "window"].map(|name| {
            reply.header(&format!("x-ratelimit-{name}")).and_then(|value| value.parse::<u32>().ok())
        });
        assert_eq!(told, [Some(5), Some(left), Some(900)]);
    }
    let reply = ask().await;
    reply.problem(429, "rate-limit-exceeded");
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
    assert!(reply.header("retry-after").is_some_and(|wait| wait.parse::<u32>().unwrap() > 800));
    let unlimited =
        app.admin().call("POST", "/admin/gql").json(&json!({"query": "{ __typename }"})).send().await;
    assert_eq!(
        (unlimited.status, unlimited.header("x-ratelimit-limit")),
        (200, None),
        "the admin's has none"
    );
    app.admin().does("modify_keypair", &change.replace("5}", "50}")).await;
    assert_eq!(ask().await.status, 200, "a higher limit counts at once");
}
