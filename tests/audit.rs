//! The audit log over the API: who, from where, what, on what, and what came of it.

use serde_json::{Value, json};

use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, App};

/// The action, target and outcome of each row, the oldest first.
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
        app.admin().mutate("dealias_image", &format!("alias: \"a{number}\"")).await;
    }
    let kept = ["a3", "a4", "a5"].map(|alias| row("dealias_image", alias, "FAILED"));
    assert_eq!(told(&app).await, kept);
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
