//! Short searches that take very long: patterns that are tried again at each letter of long labels.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// The longest label that is allowed, in bytes.
const LABEL: usize = 16 * 1024;
const IMAGES: usize = 12;
/// The most lists that one request may ask for.
const LISTS: usize = 9;

async fn with_long_labels() -> (App, Shelf) {
    let label = "a".repeat(LABEL);
    let image = |number: usize| Image::new("r/long", &number.to_string()).label("x", &label);
    let shelf = Shelf::start((0..IMAGES).map(image)).await;
    let app = App::start().await;
    app.admin().add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&shelf.host()).await;
    (app, shelf)
}

/// 45 patterns that nearly match at each letter, in each of the most lists that a request may have.
fn attack() -> (String, Value) {
    let pattern = |number: usize| format!("labels.x ilike \"%{}{number}%\"", "a".repeat(55));
    let filter: Vec<_> = (10..55).map(pattern).collect();
    let list = |number: usize| format!("l{number}: image_nodes(filter: $f) {{ count }}");
    let lists: Vec<_> = (0..LISTS).map(list).collect();
    (format!("query($f: String) {{ {} }}", lists.join(" ")), json!({"f": filter.join(" | ")}))
}

/// The processor time that the server has used, in hundredths of a second.
fn processor_time(app: &App) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", app.process_id())).expect("a running server");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // The time in the server's own code, and the time in the system for it.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

async fn page(api: &Api) -> Value {
    api.ask("{ image_nodes(filter: \"name like \\\"r%\\\"\", first: 1) { count } }", json!({})).await
}

#[tokio::test]
async fn patterns_that_nearly_match_everywhere_cost_no_more_than_others() {
    let (app, _shelf) = with_long_labels().await;
    let (query, variables) = attack();
    let admin = app.admin();
    let reader = app.person("reader@test.invalid", "user", "default").await.api;
    let attack = admin.call("POST", "/admin/gql").json(&json!({"query": query, "variables": variables}));
    let (reply, beside) = tokio::join!(attack.send(), page(&reader));
    assert!(beside["image_nodes"]["count"].is_number(), "{beside}");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert!(answer["errors"].is_null(), "{answer}");
    assert_eq!(answer["data"]["l8"]["count"], 0, "{answer}");
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_searched_for() {
    let (app, _shelf) = with_long_labels().await;
    let (query, variables) = attack();
    let admin = app.admin();
    let body = json!({"query": query, "variables": variables});
    let hang_up = || {
        let call = admin.call("POST", "/admin/gql").json(&body);
        async move { drop(tokio::time::timeout(Duration::from_millis(300), call.response()).await) }
    };
    join_all((0..40).map(|_| hang_up())).await;
    page(&admin).await;
    // Each of the abandoned requests alone takes seconds of processor time.
    until("the server to rest", PATIENCE, async || {
        let before = processor_time(&app);
        tokio::time::sleep(Duration::from_millis(300)).await;
        (processor_time(&app) - before < 10).then_some(())
    })
    .await;
}
