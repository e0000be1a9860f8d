//! The audit log over the API: who did what, from where, on what, and with what outcome.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, App};

/// Returns the action, target and outcome of each row, oldest first.
async fn told(app: &App) -> Vec<(String, String, String)> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let rows = app.admin().audit_rows(0).await;
    rows.iter().map(|row| (text(row, "action"), text(row, "target"), text(row, "outcome"))).collect()
}

fn row(action: &str, target: &str, outcome: &str) -> (String, String, String) {
    (action.into(), target.into(), outcome.into())
}

#[tokio::test]
async fn what_was_done_and_what_failed_is_told_with_who_and_from_where() {
    let mut app = App::start().await;
    app.admin().add_registry_at("cr.invalid", "https://cr.invalid", None).await;
    let (ok, _) = app.admin().mutate("alias_image", "alias: \"py\", target: \"cr.invalid/python:3\"").await;
    assert!(!ok, "there is no such image");
    let expected =
        [row("create_container_registry", "cr.invalid", "DONE"), row("alias_image", "py", "FAILED")];
    assert_eq!(told(&app).await, expected);
    app.restart().await;
    assert_eq!(told(&app).await, expected, "it is there after a restart");

    let rows = app.admin().audit_rows(0).await;
    assert_eq!(rows[0]["email"], ADMIN_EMAIL);
    assert_eq!(rows[0]["credential"], format!("keypair {ADMIN_ACCESS_KEY}"));
    assert_eq!(rows[0]["address"], "127.0.0.1");
    assert!(rows[0]["reason"].is_null());
    let reason = rows[1]["reason"].as_str().unwrap();
    assert!(reason.contains("cr.invalid/python:3"), "{reason}");
}

#[tokio::test]
async fn the_log_keeps_as_many_rows_as_it_was_told() {
    let app = App::start_with(|command| {
        command.args(["--audit-rows", "3"]);
    })
    .await;
    for number in 0..6 {
        app.admin().does("create_domain", &format!("name: \"d{number}\", props: {{}}")).await;
    }
    let kept = ["d3", "d4", "d5"].map(|domain| row("create_domain", domain, "DONE"));
    assert_eq!(told(&app).await, kept);
}

#[tokio::test]
async fn whoever_is_refused_again_and_again_is_one_row_and_pushes_nobody_out() {
    let app = App::start_with(|command| {
        command.args(["--audit-rows", "100"]);
    })
    .await;
    let admin = app.admin();
    let ann = app.person("ann@lab.example", "user", "default").await;
    for number in 0..20 {
        admin.does("create_domain", &format!("name: \"d{number}\", props: {{}}")).await;
    }
    let refused = async |request: usize| {
        let one = |n| format!("m{n}: dealias_image(alias: \"x{request}-{n}\") {{ ok }}");
        let document = format!("mutation {{ {} }}", (0..20).map(one).collect::<Vec<_>>().join(" "));
        ann.api.graphql(&document, json!({})).await;
    };
    refused(0).await;
    join_all((1..30).map(refused)).await;
    let rows = admin.audit_rows(0).await;
    let of = |action: &str| rows.iter().filter(|row| row["action"] == action).collect::<Vec<_>>();
    assert_eq!(of("create_domain").len(), 20, "{rows:#?}");
    let refused = of("dealias_image");
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert_eq!((&refused[0]["count"], &refused[0]["other_targets"]), (&json!(600), &json!(true)));
    assert!(refused[0]["last_at"].as_str() >= refused[0]["at"].as_str(), "{refused:#?}");
    // The API, the shell and the page show the same.
    let printed: Value =
        serde_json::from_str(&app.wharf(&["audit", "--outcome", "denied", "--json"]).await.stdout).unwrap();
    let document = std::fs::read_to_string("ui/src/pages/audit.graphql").expect("the query of the page");
    let shown = admin.ask(&document, json!({"outcome": "DENIED"})).await["audit_log"]["items"].take();
    for field in ["number", "at", "count", "last_at", "other_targets", "action", "target", "email", "reason"]
    {
        let told = &refused[0][field];
        assert_eq!((&printed[0][field], &shown[0][field]), (told, told), "{field}");
    }
    assert_eq!((printed.as_array().map(Vec::len), shown.as_array().map(Vec::len)), (Some(1), Some(1)));
    let told = app.wharf(&["audit", "--outcome", "denied"]).await.stdout;
    assert!(told.contains("denied 600 times until ") && told.contains(" and others"), "{told}");
}

#[tokio::test]
async fn the_command_prints_what_is_asked_for() {
    let app = App::start().await;
    app.admin().add_registry_at("cr.invalid", "https://cr.invalid", None).await;
    app.admin().mutate("dealias_image", "alias: \"no-such\"").await;
    let all = app.wharf(&["audit"]).await;
    assert_eq!(all.code, 0, "{}", all.text());
    let lines: Vec<&str> = all.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", all.text());
    for word in ["dealias_image", "no-such", "failed", "127.0.0.1", ADMIN_EMAIL] {
        assert!(lines[1].contains(word), "{word}: {}", lines[1]);
    }
    let failed = app.wharf(&["audit", "--outcome", "failed", "--since", "1h", "--json"]).await;
    let failed: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(failed.as_array().unwrap().len(), 1, "{failed}");
    assert_eq!(failed[0]["action"], "dealias_image");
    let none = app.wharf(&["audit", "--until", "1h", "--json"]).await;
    assert_eq!(none.stdout.trim(), "[]", "{}", none.text());
}

#[tokio::test]
async fn a_moment_that_is_none_is_refused() {
    let app = App::start().await;
    let refused = app.admin().refused("{ audit_log(since: \"yesterday\") { next } }", json!({})).await;
    assert!(refused.contains("yesterday") && refused.contains("2026-01-31T08:00:00Z"), "{refused}");
}
