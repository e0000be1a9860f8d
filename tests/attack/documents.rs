//! Documents that are allowed, and each of which keeps a processor for long.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::beside::Beside;
use crate::support::app::App;

/// Who ask at once, and for how much each.
const AT_ONCE: usize = 12;
const ALIASES: usize = 8;

/// The schema, many times in one document: a thousand fields in all.
fn schemas() -> Value {
    let mut text = String::from("{");
    for number in 0..ALIASES {
        let _ = write!(
            text,
            " a{number}: __schema {{ types {{ fields {{ name args {{ name type {{ name ofType {{ name }} }} }} }} }} }}"
        );
    }
    text.push('}');
    json!({ "query": text })
}

/// One long text for many fields.
fn long_variable() -> Value {
    let mut text = String::from("query($e: String) {");
    for number in 0..120 {
        let _ = write!(text, " a{number}: user(email: $e) {{ email }}");
    }
    text.push('}');
    json!({ "query": text, "variables": { "e": "x".repeat(200_000) } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_take_long_keep_nobody_else_from_being_answered() {
    let app = App::start().await;
    let reader = app.person("reader@test.invalid", "user", "default").await.api;
    let beside = Beside::start(&app).await;
    let mut asked = JoinSet::new();
    for number in 0..AT_ONCE {
        let reader = reader.clone();
        let document = if number % 3 == 2 { long_variable() } else { schemas() };
        asked.spawn(async move { reader.call("POST", "/admin/gql").json(&document).send().await });
    }
    for reply in asked.join_all().await {
        // Answered, or given up after its time: never a broken connection.
        assert!(matches!(reply.status, 200 | 503), "{}: {}", reply.status, reply.text());
    }
    beside.was_served(&app).await;
}
