//! Users and keypairs: what can be done with them, what is refused and why.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, App};
use crate::support::people::PASSWORD;
use crate::support::sign::Keypair;

async fn user(api: &Api, email: &str) -> Value {
    let query = "query($e: String) { user(email: $e) { uuid username role email full_name description status is_active
        need_password_change domain_name groups { name } main_access_key } }";
    api.ask(query, json!({"e": email})).await["user"].take()
}

/// Returns the status of the smallest signed request.
async fn knock(api: &Api) -> u16 {
    api.call("POST", "/admin/gql").json(&json!({"query": "{ __typename }"})).send().await.status
}

#[tokio::test]
async fn a_new_user_can_sign_at_once_and_its_secret_is_shown_once() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("Ann@Lab", "user", "default").await;
    assert_eq!(knock(&ann.api).await, 200);
    let mut own = ann
        .api
        .ask(
            "{ user { email role } keypair { access_key secret_key is_admin rate_limit projects } }",
            json!({}),
        )
        .await;
    assert_eq!(own["user"].take(), json!({"email": "Ann@Lab", "role": "user"}));
    let keypair = json!({"access_key": ann.access_key, "secret_key": "*****", "is_admin": false, "rate_limit": 5000, "projects": []});
    assert_eq!(own["keypair"].take(), keypair);
    let listed = admin
        .ask("{ keypair_list(limit: 9, offset: 0) { items { secret_key } total_count } }", json!({}))
        .await;
    assert_eq!(
        listed["keypair_list"],
        json!({"items": [{"secret_key": "*****"}, {"secret_key": "*****"}], "total_count": 2})
    );
    assert_eq!(user(&admin, "ann@lab").await["main_access_key"], json!(ann.access_key), "in whatever case");
}

#[tokio::test]
async fn bad_users_are_refused_with_the_reason() {
    let app = App::start().await;
    let admin = app.admin();
    app.person_with("ann@lab", json!({"password": PASSWORD, "username": "ann"})).await;
    let long = "x".repeat(1025);
    let cases = [
        ("no-address", json!({"password": PASSWORD}), "e-mail: \"no-address\" is not name@host"),
        ("ANN@lab", json!({"password": PASSWORD}), "there is a user ann@lab already"),
        ("b@lab", json!({}), "password: give one"),
        ("b@lab", json!({"password": "short"}), "password: it must have 8 to 1024 bytes"),
        ("b@lab", json!({"password": long}), "password: it must have 8 to 1024 bytes"),
        ("b@lab", json!({"password": PASSWORD, "username": "ANN"}), "the username ANN is taken"),
        ("b@lab", json!({"password": PASSWORD, "username": "a\u{0}"}), "username: "),
        ("b@lab", json!({"password": PASSWORD, "role": "god"}), "role: \"god\" is none of superadmin, admin"),
        ("b@lab", json!({"password": PASSWORD, "status": "asleep"}), "status: \"asleep\" is none of active"),
        ("b@lab", json!({"password": PASSWORD, "domain_name": "nowhere"}), "no such domain: nowhere"),
        ("b@lab", json!({"password": PASSWORD, "group_ids": ["x"]}), "group_ids: \"x\" is no id of a group"),
        (
            "b@lab",
            json!({"password": PASSWORD, "group_ids": ["00000000-0000-4000-8000-000000000000"]}),
            "no such group: 00000000-0000-4000-8000-000000000000",
        ),
        ("b@lab", json!({"password": PASSWORD, "allowed_client_ip": ["10.0.0.1"]}), "allowed_client_ip: "),
        ("b@lab", json!({"password": PASSWORD, "totp_activated": true}), "totp_activated: "),
    ];
    for (email, props, why) in cases {
        let answer = admin
            .ask(
                "mutation($e: String!, $p: UserInput!) { create_user(email: $e, props: $p) { ok msg user { uuid } keypair { access_key } } }",
                json!({"e": email, "p": props}),
            )
            .await;
        let made = &answer["create_user"];
        let msg = made["msg"].as_str().unwrap_or_default();
        assert!(made["ok"] == false && msg.starts_with(why), "{email} {props}: {answer}");
        assert!(made["user"].is_null() && made["keypair"].is_null());
    }
    assert_eq!(admin.list("users", "email").await, [ADMIN_EMAIL, "ann@lab"]);
    assert_eq!(admin.fails("modify_user", r#"email: "nobody@x", props: {}"#).await, "no such user: nobody@x");
}

#[tokio::test]
async fn null_leaves_a_user_as_it_is() {
    let app = App::start().await;
    let admin = app.admin();
    let group = admin.group_id("default").await;
    let props = json!({"password": PASSWORD, "username": "ann", "full_name": "Ann", "description": "d", "group_ids": [group]});
    app.person_with("ann@lab", props).await;
    let before = user(&admin, "ann@lab").await;
    assert_eq!(before["groups"], json!([{"name": "default"}]));
    admin
        .does("modify_user", r#"email: "ann@lab", props: {password: null, role: null, group_ids: null}"#)
        .await;
    assert_eq!(user(&admin, "ann@lab").await, before);
    admin.does("modify_user", r#"email: "ann@lab", props: {full_name: "Ann B.", group_ids: []}"#).await;
    let after = user(&admin, "ann@lab").await;
    assert_eq!((&after["full_name"], &after["username"]), (&json!("Ann B."), &json!("ann")));
    assert_eq!(after["groups"], json!([]));
}

#[tokio::test]
async fn a_deleted_user_is_refused_at_once_and_can_be_purged() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    admin.does("delete_user", r#"email: "ann@lab""#).await;
    assert_eq!(knock(&ann.api).await, 401);
    assert_eq!(user(&admin, "ann@lab").await["status"], "deleted");
    let again = admin.fails("create_user", r#"email: "ann@lab", props: {password: "a long password"}"#).await;
    assert!(again.contains("it is deleted: purge it first"), "{again}");
    admin.does("modify_user", r#"email: "ann@lab", props: {status: "active"}"#).await;
    assert_eq!(knock(&ann.api).await, 401, "its keypairs are made active one by one");
    admin
        .does("modify_keypair", &format!("access_key: {:?}, props: {{is_active: true}}", ann.access_key))
        .await;
    assert_eq!(knock(&ann.api).await, 200);
    admin.does("modify_user", r#"email: "ann@lab", props: {is_active: false}"#).await;
    assert_eq!(knock(&ann.api).await, 401);
    admin.does("purge_user", r#"email: "ann@lab", props: {purge_shared_vfolders: true}"#).await;
    assert_eq!(admin.list("keypairs", "access_key").await, [ADMIN_ACCESS_KEY]);
    app.person("ann@lab", "user", "default").await;
}

#[tokio::test]
async fn the_last_super_admin_stays_one() {
    let app = App::start().await;
    let admin = app.admin();
    let me = format!("email: \"{ADMIN_EMAIL}\"");
    let attempts = [
        ("delete_user", me.clone()),
        ("purge_user", me.clone()),
        ("modify_user", format!("{me}, props: {{role: \"user\"}}")),
        ("modify_user", format!("{me}, props: {{status: \"inactive\"}}")),
        ("modify_user", format!("{me}, props: {{is_active: false}}")),
    ];
    for (mutation, arguments) in &attempts {
        let why = admin.fails(mutation, arguments).await;
        assert!(why.contains("is the last active super-admin"), "{mutation}({arguments}): {why}");
    }
    let second = app.person("second@lab", "superadmin", "default").await;
    admin.does("modify_user", "email: \"second@lab\", props: {status: \"inactive\"}").await;
    let why = admin.fails("delete_user", &me).await;
    assert!(why.contains("is the last active super-admin"), "one that is off does not count: {why}");
    admin.does("modify_user", "email: \"second@lab\", props: {status: \"active\"}").await;
    let keypair = format!("access_key: {:?}, props: {{is_active: true}}", second.access_key);
    admin.does("modify_keypair", &keypair).await;
    admin.does("modify_user", &format!("{me}, props: {{role: \"user\"}}")).await;
    second.api.does("delete_user", &me).await;
    assert_eq!(knock(&admin).await, 401);
}

#[tokio::test]
async fn a_keypair_is_made_rotated_switched_off_and_removed() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    let made = admin
        .ask(
            "mutation { create_keypair(user_id: \"ann@lab\", props: {rate_limit: 0}) { ok msg keypair { access_key secret_key rate_limit user_id } } }",
            json!({}),
        )
        .await;
    let key = &made["create_keypair"]["keypair"];
    assert_eq!((&key["rate_limit"], &key["user_id"]), (&json!(0), &json!("ann@lab")));
    let text = |field: &str| key[field].as_str().unwrap().to_owned();
    let (access_key, old) = (text("access_key"), text("secret_key"));
    let api = |secret: &str| Api::new(app.url(), Some(Keypair::new(&access_key, secret)));
    assert_eq!(knock(&api(&old)).await, 200);

    // A keypair's owner can rotate it: with the keypair itself, or with another one.
    let rotate = format!(
        "mutation {{ rotate_keypair(access_key: \"{access_key}\") {{ ok msg keypair {{ access_key secret_key }} }} }}"
    );
    let rotated = ann.api.ask(&rotate, json!({})).await;
    let new = rotated["rotate_keypair"]["keypair"]["secret_key"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert_eq!((knock(&api(&old)).await, knock(&api(&new)).await), (401, 200));
    let own = format!("access_key: \"{ADMIN_ACCESS_KEY}\"");
    let foreign = ann.api.fails("rotate_keypair", &own).await;
    assert_eq!(foreign, format!("no such keypair: {ADMIN_ACCESS_KEY}"));

    let named = format!("access_key: \"{access_key}\"");
    admin.does("modify_keypair", &format!("{named}, props: {{is_active: false}}")).await;
    assert_eq!(knock(&api(&new)).await, 401);
    admin.does("modify_keypair", &format!("{named}, props: {{is_active: true, is_admin: true}}")).await;
    assert_eq!(knock(&api(&new)).await, 200);
    let seen = admin.ask(&format!("{{ keypair({named}) {{ is_admin rate_limit }} }}"), json!({})).await;
    assert_eq!(seen["keypair"], json!({"is_admin": false, "rate_limit": 0}), "it follows the user's role");
    for (props, why) in [
        ("{rate_limit: -1}", "rate_limit: -1 is less than 0"),
        ("{resource_policy: \"gold\"}", "no such keypair resource policy: gold (there is: default)"),
    ] {
        let msg = admin.fails("modify_keypair", &format!("{named}, props: {props}")).await;
        assert!(msg.starts_with(why), "{msg}");
    }
    admin.does("delete_keypair", &named).await;
    assert_eq!(knock(&api(&new)).await, 401);
    assert_eq!(admin.fails("delete_keypair", &named).await, format!("no such keypair: {access_key}"));
    let nobody = admin.fails("create_keypair", "user_id: \"nobody@x\", props: {}").await;
    assert_eq!(nobody, "no such user: nobody@x");
}

#[tokio::test]
async fn users_are_listed_by_page_and_by_what_they_are() {
    let app = App::start().await;
    let admin = app.admin();
    for n in 0..7 {
        app.person(&format!("u{n}@lab"), if n == 3 { "monitor" } else { "user" }, "default").await;
    }
    admin.does("delete_user", r#"email: "u5@lab""#).await;
    let page = "query($l: Int!, $o: Int!, $f: String) { user_list(limit: $l, offset: $o, filter: $f) { items { email } total_count } }";
    let data = admin.ask(page, json!({"l": 3, "o": 2})).await;
    let emails = json!([{"email": "u1@lab"}, {"email": "u2@lab"}, {"email": "u3@lab"}]);
    assert_eq!(data["user_list"], json!({"items": emails, "total_count": 8}));
    assert!(admin.refused(page, json!({"l": -1, "o": 0})).await.starts_with("limit: -1 is less than 0"));
    let filtered =
        admin.ask(page, json!({"l": 9, "o": 0, "f": "role == \"monitor\" & email like \"u%\""})).await;
    assert_eq!(filtered["user_list"], json!({"items": [{"email": "u3@lab"}], "total_count": 1}));
    let ordered = admin
        .ask(
            "{ keypair_list(limit: 2, offset: 0, order: \"-user_id\") { items { user_id } total_count } }",
            json!({}),
        )
        .await;
    let last = json!({"items": [{"user_id": "u6@lab"}, {"user_id": "u5@lab"}], "total_count": 8});
    assert_eq!(ordered["keypair_list"], last);
    assert_eq!(admin.list("users(status: \"deleted\")", "email").await, ["u5@lab"]);
    assert_eq!(admin.list("users(is_active: true)", "email").await.len(), 7);
    assert!(admin.list("users(domain_name: \"nowhere\")", "email").await.is_empty());
}

/// Everything a domain's admin may do, and the limits of that.
#[tokio::test]
async fn a_domains_admin_rules_in_the_domain_and_nowhere_else() {
    let app = App::start().await;
    let root = app.admin();
    for name in ["lab", "other"] {
        root.does("create_domain", &format!("name: \"{name}\", props: {{}}")).await;
        root.does("create_group", &format!("name: \"{name}-group\", props: {{domain_name: \"{name}\"}}"))
            .await;
    }
    let chief = app.person("chief@lab", "admin", "lab").await.api;
    let eve = app.person("eve@other", "user", "other").await;
    app.person("root@lab", "superadmin", "lab").await;

    chief.does("create_user", r#"email: "ann@lab", props: {password: "a long password"}"#).await;
    assert_eq!(user(&chief, "ann@lab").await["domain_name"], "lab", "its own is where it adds users");
    assert_eq!(chief.list("users", "email").await, ["ann@lab", "chief@lab"]);
    chief.does("modify_user", r#"email: "ann@lab", props: {role: "admin", full_name: "Ann"}"#).await;
    chief.does("create_group", r#"name: "vision", props: {}"#).await;
    let (vision, foreign) = (chief.group_id("vision").await, root.group_id("other-group").await);
    let ann = user(&chief, "ann@lab").await;
    let add =
        |id: &str| format!("gid: \"{vision}\", props: {{user_update_mode: \"add\", user_uuids: [\"{id}\"]}}");
    chief.does("modify_group", &add(ann["uuid"].as_str().unwrap())).await;
    chief.does("create_keypair", r#"user_id: "ann@lab", props: {}"#).await;
    assert_eq!(chief.list("groups", "name").await, ["lab-group", "vision"]);

    let is_missing = |msg: String| assert!(msg.starts_with("no such "), "{msg}");
    is_missing(chief.fails("modify_user", r#"email: "eve@other", props: {full_name: "x"}"#).await);
    is_missing(chief.fails("modify_user", r#"email: "root@lab", props: {full_name: "x"}"#).await);
    is_missing(chief.fails("delete_user", r#"email: "eve@other""#).await);
    is_missing(chief.fails("purge_user", r#"email: "root@lab""#).await);
    is_missing(
        chief
            .fails(
                "create_user",
                r#"email: "x@x", props: {password: "a long password", domain_name: "other"}"#,
            )
            .await,
    );
    is_missing(chief.fails("create_group", r#"name: "x", props: {domain_name: "other"}"#).await);
    is_missing(chief.fails("delete_group", &format!("gid: \"{foreign}\"")).await);
    is_missing(chief.fails("modify_group", &add(&eve.id)).await);
    is_missing(chief.fails("create_keypair", r#"user_id: "eve@other", props: {}"#).await);
    is_missing(chief.fails("delete_keypair", &format!("access_key: \"{}\"", eve.access_key)).await);
    for props in [r#"{role: "superadmin"}"#, r#"{domain_name: "other"}"#, r#"{domain_name: "nowhere"}"#] {
        let msg = chief.fails("modify_user", &format!("email: \"ann@lab\", props: {props}")).await;
        assert!(msg.starts_with("no permission to execute modify_user with"), "{props}: {msg}");
    }
    let msg = chief
        .fails("create_user", r#"email: "x@lab", props: {password: "a long password", role: "superadmin"}"#)
        .await;
    assert!(msg.starts_with("no permission to execute create_user with"), "{msg}");
    for (mutation, arguments) in [
        ("create_domain", r#"name: "x", props: {}"#),
        ("modify_domain", r#"name: "lab", props: {allowed_docker_registries: ["cr.io"]}"#),
        ("create_scaling_group", r#"name: "x", props: {}"#),
        ("associate_scaling_group_with_domain", r#"scaling_group: "default", domain: "lab""#),
    ] {
        let msg = chief.fails(mutation, arguments).await;
        assert_eq!(msg, format!("no permission to execute {mutation}"));
    }
}

#[tokio::test]
async fn who_is_made_inactive_has_a_keypair_once_active() {
    let app = App::start().await;
    let props = json!({"password": PASSWORD, "status": "before-verification"});
    let ann = app.person_with("ann@lab", props).await;
    assert_eq!(knock(&ann.api).await, 401);
    app.admin().does("modify_user", r#"email: "ann@lab", props: {status: "active"}"#).await;
    assert_eq!(knock(&ann.api).await, 200);
}

#[tokio::test]
async fn a_domains_admin_raises_no_limit_beyond_what_a_session_has() {
    let app = App::start().await;
    let root = app.admin();
    let chief = app.person("chief@lab", "admin", "default").await.api;
    let ann = app.person("ann@lab", "user", "default").await;
    let set = |limit: i32| format!("access_key: {:?}, props: {{rate_limit: {limit}}}", ann.access_key);
    for (mutation, arguments) in [
        ("modify_keypair", set(0)),
        ("modify_keypair", set(30_001)),
        ("create_keypair", r#"user_id: "ann@lab", props: {rate_limit: 0}"#.to_owned()),
        ("create_keypair", r#"user_id: "ann@lab", props: {rate_limit: 2000000000}"#.to_owned()),
    ] {
        let why = chief.fails(mutation, &arguments).await;
        assert!(
            why.starts_with(&format!("no permission to execute {mutation} with the rate limit")),
            "{why}"
        );
    }
    chief.does("modify_keypair", &set(30_000)).await;
    root.does("modify_keypair", &set(100_000)).await;
    chief.does("modify_keypair", &set(90_000)).await;
    chief.fails("modify_keypair", &set(90_001)).await;
    root.does("modify_keypair", &set(0)).await;
    chief.does("modify_keypair", &set(10)).await;
}

#[tokio::test]
async fn a_domains_admin_does_not_learn_who_is_in_another_domain() {
    let app = App::start().await;
    let root = app.admin();
    root.does("create_domain", r#"name: "other", props: {}"#).await;
    let chief = app.person("chief@lab", "admin", "default").await.api;
    let props = json!({"password": PASSWORD, "domain_name": "other", "username": "eve"});
    app.person_with("eve@other", props).await;
    app.person_with("root@lab", json!({"password": PASSWORD, "role": "superadmin", "username": "root"}))
        .await;
    let add = async |api: &Api, email: &str, username: &str| {
        let props = format!("{{password: {PASSWORD:?}, username: {username:?}}}");
        api.mutate("create_user", &format!("email: {email:?}, props: {props}")).await
    };
    let unfit = "it can't be used here; choose another, or ask a super-admin";
    for email in ["eve@other", "EVE@other", "root@lab"] {
        assert_eq!(add(&chief, email, "").await, (false, format!("e-mail: {unfit}")));
    }
    for username in ["eve", "Root"] {
        assert_eq!(add(&chief, "new@lab", username).await, (false, format!("username: {unfit}")));
    }
    let (_, told) = add(&chief, "CHIEF@lab", "").await;
    assert!(told.starts_with("there is a user chief@lab already"), "what is in sight is told: {told}");
    let (_, told) = add(&root, "eve@other", "").await;
    assert!(told.starts_with("there is a user eve@other already"), "{told}");

    // After many tries a searching admin gets no more answers, not even about free names.
    for _ in 0..15 {
        add(&chief, "eve@other", "").await;
    }
    for email in ["eve@other", "free@lab"] {
        let (is_done, told) = add(&chief, email, "").await;
        assert!(!is_done && told.contains("too many of the names"), "{told}");
    }
    assert!(add(&root, "free@lab", "").await.0);
}

#[tokio::test]
async fn every_change_leaves_a_row_in_the_audit_log() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    ann.api.fails("create_user", r#"email: "b@lab", props: {password: "a long password"}"#).await;
    admin.fails("delete_domain", "name: \"nowhere\"").await;
    admin.does("create_domain", "name: \"lab\", props: {}").await;
    let log = admin.ask("{ audit_log(limit: 9) { items { user action target outcome } } }", json!({})).await;
    let rows: Vec<String> = log["audit_log"]["items"]
        .as_array()
        .unwrap_or_else(|| panic!("{log}"))
        .iter()
        .map(|row| {
            ["action", "target", "outcome"]
                .map(|field| row[field].as_str().unwrap_or_default())
                .join(" ")
                .to_lowercase()
        })
        .collect();
    assert_eq!(
        rows,
        [
            "create_domain lab done",
            "delete_domain nowhere failed",
            "create_user b@lab denied",
            "create_user ann@lab done"
        ]
    );
}
