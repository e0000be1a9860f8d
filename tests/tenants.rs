//! Domains, groups and scaling groups: what can be done with them, what is refused and why, and that changes last.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;

async fn domain(api: &Api, name: &str) -> Value {
    let query = "query($n: String) { domain(name: $n) {
        name description is_active allowed_docker_registries integration_id scaling_groups } }";
    api.ask(query, json!({"n": name})).await["domain"].take()
}

#[tokio::test]
async fn a_domain_is_made_changed_switched_off_and_purged() {
    let app = App::start().await;
    let admin = app.admin();
    admin
        .does(
            "create_domain",
            r#"name: " lab ", props: {description: "d", allowed_docker_registries: ["cr.io"]}"#,
        )
        .await;
    let lab = domain(&admin, "lab").await;
    assert_eq!(lab["allowed_docker_registries"], json!(["cr.io"]));
    assert_eq!((&lab["is_active"], &lab["scaling_groups"]), (&json!(true), &json!([])));

    admin.does("modify_domain", r#"name: "lab", props: {integration_id: "x-1"}"#).await;
    let changed = domain(&admin, "lab").await;
    assert_eq!((&changed["description"], &changed["integration_id"]), (&json!("d"), &json!("x-1")));
    assert_eq!(changed["allowed_docker_registries"], json!(["cr.io"]), "null leaves as it is");

    admin.does("delete_domain", r#"name: "lab""#).await;
    assert_eq!(domain(&admin, "lab").await["is_active"], false);
    assert_eq!(admin.list("domains(is_active: true)", "name").await, ["default"]);
    let again = admin.fails("create_domain", r#"name: "lab", props: {}"#).await;
    assert!(again.contains("deleted domain lab; purge it first"), "{again}");
    admin.does("purge_domain", r#"name: "lab""#).await;
    assert_eq!(admin.refused("{ domain(name: \"lab\") { name } }", json!({})).await, "no such domain: lab");
    admin.does("create_domain", r#"name: "lab", props: {}"#).await;
}

#[tokio::test]
async fn a_change_by_an_old_client_does_not_empty_the_registries() {
    let app = App::start().await;
    let admin = app.admin();
    admin
        .does("create_domain", r#"name: "lab", props: {allowed_docker_registries: ["cr.io", "b.io:5000"]}"#)
        .await;
    let as_old_clients =
        r#"name: "lab", props: {description: "x", allowed_docker_registries: [], allowed_vfolder_hosts: []}"#;
    admin.does("modify_domain", as_old_clients).await;
    assert_eq!(domain(&admin, "lab").await["allowed_docker_registries"], json!(["b.io:5000", "cr.io"]));
    admin.does("modify_domain", r#"name: "lab", props: {allowed_docker_registries: [""]}"#).await;
    assert_eq!(domain(&admin, "lab").await["allowed_docker_registries"], json!([]));
}

#[tokio::test]
async fn a_renamed_domain_keeps_its_users_and_groups() {
    let app = App::start().await;
    let admin = app.admin();
    admin.does("create_domain", r#"name: "lab", props: {allowed_docker_registries: ["cr.io"]}"#).await;
    admin.does("create_group", r#"name: "vision", props: {domain_name: "lab"}"#).await;
    let ann = app.person("ann@lab", "user", "lab").await;
    let taken = admin.fails("modify_domain", r#"name: "lab", props: {name: "default"}"#).await;
    assert!(taken.contains("there is a domain default already"), "{taken}");
    admin.does("modify_domain", r#"name: "lab", props: {name: "studio"}"#).await;
    let mut own =
        ann.api.ask("{ domain { name allowed_docker_registries } user { domain_name } }", json!({})).await;
    assert_eq!(own["domain"].take(), json!({"name": "studio", "allowed_docker_registries": ["cr.io"]}));
    assert_eq!(own["user"]["domain_name"], "studio");
    assert_eq!(admin.list("groups(domain_name: \"studio\")", "name").await, ["vision"]);
    assert_eq!(admin.list("domains", "name").await, ["default", "studio"]);
}

#[tokio::test]
async fn a_domain_in_use_stays_and_says_who_uses_it() {
    let app = App::start().await;
    let admin = app.admin();
    admin.does("create_domain", r#"name: "lab", props: {}"#).await;
    admin.does("create_group", r#"name: "vision", props: {domain_name: "lab"}"#).await;
    app.person("ann@lab", "user", "lab").await;
    for mutation in ["delete_domain", "purge_domain"] {
        let why = admin.fails(mutation, r#"name: "lab""#).await;
        assert!(why.contains("still has users: ann@lab"), "{mutation}: {why}");
    }
    admin.does("delete_user", r#"email: "ann@lab""#).await;
    admin.does("delete_domain", r#"name: "lab""#).await;
    let why = admin.fails("purge_domain", r#"name: "lab""#).await;
    assert!(why.contains("ann@lab; move or purge them first"), "deleted users count too: {why}");
    admin.does("purge_user", r#"email: "ann@lab""#).await;
    let why = admin.fails("purge_domain", r#"name: "lab""#).await;
    assert!(why.contains("still has groups: vision"), "{why}");
    let group = admin.group_id("vision").await;
    admin.does("purge_group", &format!("gid: \"{group}\"")).await;
    admin.does("purge_domain", r#"name: "lab""#).await;
}

#[tokio::test]
async fn a_groups_members_are_users_of_its_domain() {
    let app = App::start().await;
    let admin = app.admin();
    for name in ["lab", "other"] {
        admin.does("create_domain", &format!("name: \"{name}\", props: {{}}")).await;
    }
    admin.does("create_group", r#"name: "vision", props: {domain_name: "lab"}"#).await;
    let (ann, eve) = (app.person("ann@lab", "user", "lab").await, app.person("eve@x", "user", "other").await);
    let group = admin.group_id("vision").await;
    let change = |mode: &str, id: &str| {
        format!("gid: \"{group}\", props: {{user_update_mode: \"{mode}\", user_uuids: [\"{id}\"]}}")
    };
    assert!(ann.api.list("groups", "name").await.is_empty());
    admin.does("modify_group", &change("add", &ann.id)).await;
    assert_eq!(ann.api.list("groups", "name").await, ["vision"]);
    assert_eq!(admin.list(&format!("users(group_id: \"{group}\")"), "email").await, ["ann@lab"]);

    let why = admin.fails("modify_group", &change("add", &eve.id)).await;
    assert!(why.contains("eve@x is of the domain other"), "{why}");
    let why = admin.fails("modify_group", &change("toggle", &ann.id)).await;
    assert!(why.contains("\"toggle\" is neither add nor remove"), "{why}");
    let why =
        admin.fails("modify_group", &format!("gid: \"{group}\", props: {{domain_name: \"other\"}}")).await;
    assert!(why.contains("a group stays in its domain, which is lab"), "{why}");

    admin.does("modify_user", r#"email: "ann@lab", props: {domain_name: "other"}"#).await;
    assert!(ann.api.list("groups", "name").await.is_empty(), "a move ends memberships");
    admin.does("modify_group", &change("remove", &ann.id)).await;
}

#[tokio::test]
async fn names_are_unique_and_fit_to_be_shown() {
    let app = App::start().await;
    let admin = app.admin();
    let long = "x".repeat(65);
    for (name, why) in [
        ("", "name: it is empty"),
        ("  ", "name: it is empty"),
        (long.as_str(), "is longer than 64 characters"),
        ("a\u{202e}b", "other characters that do not show"),
        ("a\nb", "has control characters"),
    ] {
        for mutation in ["create_domain", "create_group", "create_scaling_group"] {
            let msg = admin.fails(mutation, &format!("name: {}, props: {{}}", json!(name))).await;
            assert!(msg.contains(why), "{mutation} {name:?}: {msg}");
        }
    }
    for (mutation, why) in [
        ("create_domain", "there is a domain default already"),
        ("create_group", "there is a group default in the domain default already"),
        ("create_scaling_group", "there is a scaling group default already"),
    ] {
        let msg = admin.fails(mutation, r#"name: "default", props: {}"#).await;
        assert!(msg.contains(why), "{mutation}: {msg}");
    }
    let msg =
        admin.fails("create_domain", r#"name: "d", props: {allowed_docker_registries: ["http://x/"]}"#).await;
    assert!(msg.contains("\"http://x/\" can name no registry"), "{msg}");
    let msg = admin.fails("create_group", r#"name: "g", props: {domain_name: "nowhere"}"#).await;
    assert_eq!(msg, "no such domain: nowhere");
    let text = json!("x".repeat(501));
    let msg = admin.fails("create_domain", &format!("name: \"d\", props: {{description: {text}}}")).await;
    assert!(msg.contains("description: it may have 500 characters at most"), "{msg}");
    assert_eq!(admin.list("domains", "name").await, ["default"]);
}

#[tokio::test]
async fn associations_are_made_and_ended_alone_together_and_all_at_once() {
    let app = App::start().await;
    let admin = app.admin();
    for name in ["a", "b", "c"] {
        admin.does("create_scaling_group", &format!("name: \"{name}\", props: {{}}")).await;
    }
    let group = admin.group_id("default").await;
    let key = crate::support::app::ADMIN_ACCESS_KEY;
    for (suffix, party, list) in [
        (
            "domain",
            "domain: \"default\"".to_owned(),
            "scaling_groups_for_domain(domain: \"default\")".to_owned(),
        ),
        (
            "user_group",
            format!("user_group: \"{group}\""),
            "scaling_groups_for_user_group(user_group: \"default\")".to_owned(),
        ),
        (
            "keypair",
            format!("access_key: \"{key}\""),
            format!("scaling_groups_for_keypair(access_key: \"{key}\")"),
        ),
    ] {
        let before = admin.list(&list, "name").await;
        let one = format!("scaling_group: \"a\", {party}");
        for _ in 0..2 {
            admin.does(&format!("associate_scaling_group_with_{suffix}"), &one).await;
        }
        admin
            .does(
                &format!("associate_scaling_groups_with_{suffix}"),
                &format!("scaling_groups: [\"b\", \"c\"], {party}"),
            )
            .await;
        let mut all: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        all.extend(before.clone());
        assert_eq!(admin.list(&list, "name").await, all, "{suffix}");
        for _ in 0..2 {
            admin.does(&format!("disassociate_scaling_group_with_{suffix}"), &one).await;
        }
        admin
            .does(
                &format!("disassociate_scaling_groups_with_{suffix}"),
                &format!("scaling_groups: [\"b\", \"c\"], {party}"),
            )
            .await;
        assert_eq!(admin.list(&list, "name").await, before, "{suffix}");

        let unknown = format!("scaling_groups: [\"a\", \"nowhere\"], {party}");
        let msg = admin.fails(&format!("associate_scaling_groups_with_{suffix}"), &unknown).await;
        assert_eq!(msg, "no such scaling group: nowhere");
        assert_eq!(admin.list(&list, "name").await, before, "{suffix}: all or nothing");
    }
    for (mutation, party, missing) in [
        ("domain", "domain: \"nowhere\"", "no such domain: nowhere"),
        ("keypair", "access_key: \"AKNOWHERE\"", "no such keypair: AKNOWHERE"),
        (
            "user_group",
            "user_group: \"00000000-0000-4000-8000-000000000000\"",
            "no such group: 00000000-0000-4000-8000-000000000000",
        ),
    ] {
        let field = format!("associate_scaling_group_with_{mutation}");
        assert_eq!(admin.fails(&field, &format!("scaling_group: \"a\", {party}")).await, missing);
    }
    admin
        .does(
            "associate_scaling_group_with_user_group",
            &format!("scaling_group: \"a\", user_group: \"{group}\""),
        )
        .await;
    admin.does("disassociate_all_scaling_groups_with_group", &format!("user_group: \"{group}\"")).await;
    admin.does("disassociate_all_scaling_groups_with_domain", "domain: \"default\"").await;
    for name in ["a", "b", "c", "default"] {
        admin.does("delete_scaling_group", &format!("name: \"{name}\"")).await;
    }
    assert!(
        admin.list("scaling_groups", "name").await.is_empty(),
        "the default one too, once nothing uses it"
    );
}

#[tokio::test]
async fn a_scaling_group_in_use_stays_and_says_what_uses_it() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    let key = ann.access_key.as_str();
    let associate = format!("scaling_group: \"default\", access_key: \"{key}\"");
    admin.does("associate_scaling_group_with_keypair", &associate).await;
    let why = admin.fails("delete_scaling_group", "name: \"default\"").await;
    assert!(why.contains("is used by domains default; keypairs") && why.contains(key), "{why}");
    admin.does("delete_keypair", &format!("access_key: \"{key}\"")).await;
    admin
        .does("disassociate_scaling_group_with_domain", "scaling_group: \"default\", domain: \"default\"")
        .await;
    admin.does("delete_scaling_group", "name: \"default\"").await;
    assert_eq!(
        admin.fails("delete_scaling_group", "name: \"default\"").await,
        "no such scaling group: default"
    );
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let mut app = App::start().await;
    let admin = app.admin();
    let all = "{ domains { name description is_active allowed_docker_registries scaling_groups created_at }
        groups { id name domain_name is_active scaling_groups created_at }
        scaling_groups { name description is_active created_at }
        users { uuid email username role status domain_name groups { id name } created_at modified_at }
        keypairs { access_key user_id is_active rate_limit created_at } }";
    admin.does("create_domain", r#"name: "lab", props: {allowed_docker_registries: ["cr.io"]}"#).await;
    admin.does("create_domain", r#"name: "gone", props: {}"#).await;
    admin.does("create_group", r#"name: "vision", props: {domain_name: "lab"}"#).await;
    admin.does("create_scaling_group", r#"name: "gpu", props: {description: "many"}"#).await;
    admin.does("associate_scaling_group_with_domain", r#"scaling_group: "gpu", domain: "lab""#).await;
    let group = admin.group_id("vision").await;
    let props = json!({"password": "a long password", "domain_name": "lab", "group_ids": [group]});
    let ann = app.person_with("ann@lab", props).await;
    app.person("bob@lab", "admin", "lab").await;
    admin.does("delete_user", "email: \"bob@lab\"").await;
    admin
        .does("modify_keypair", &format!("access_key: \"{}\", props: {{rate_limit: 7}}", ann.access_key))
        .await;
    admin.does("purge_domain", "name: \"gone\"").await;
    let before = admin.ask(all, json!({})).await;
    app.kill9();
    app.restart().await;
    assert_eq!(admin.ask(all, json!({})).await, before);
    assert_eq!(ann.api.list("groups", "name").await, ["vision"], "the keypair still signs");
}
