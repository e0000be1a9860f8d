//! Clocks that jump, under the real binary: nothing stored depends on a wrong clock, and no client waits because of
//! one.

use serde_json::{Value, json};

use crate::api_tokens::create;
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::clock::Clocks;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::process::run;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
const YEARS: i64 = 3_650 * DAY;

/// A server with something of everything that is removed after a time.
struct Scene {
    app: App,
    clocks: Clocks,
    registry: Shelf,
    session: Visitor,
    token: String,
    task: String,
}

impl Scene {
    async fn set() -> Self {
        let clocks = Clocks::real();
        let app = App::start_with(clocks.shown_to()).await;
        let registry = Shelf::start([Image::new("r/a", "1")]).await;
        let admin = app.admin();
        admin.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        let task = admin.rescan(&registry.host()).await;
        admin.finish(&task).await;
        let token = create(&admin, "ci", "read").await["token"].as_str().unwrap().to_owned();
        let session = Visitor::admin(&app).await;
        Self { app, clocks, registry, session, token, task }
    }

    async fn ready(&self) -> String {
        let reply = self.app.anonymous().call("GET", "/readyz").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    }

    /// Waits until the server doubts its clock, or no longer does.
    async fn is_doubted(&self, expected: bool) {
        until("the server to judge its clock", PATIENCE, async || {
            (self.ready().await.contains("\nclock: ") == expected).then_some(())
        })
        .await;
    }

    /// Waits until the log has these words so many times.
    async fn logs(&self, words: &str, times: usize) {
        let count = async || (self.app.logs().matches(words).count() >= times).then_some(());
        until(words, PATIENCE, count).await;
    }

    async fn doctor(&self) -> Vec<Value> {
        let found = self.app.wharf(&["doctor", "--json"]).await;
        let rows: Value = serde_json::from_str(&found.stdout).unwrap_or_else(|_| panic!("{}", found.text()));
        rows.as_array().unwrap().clone()
    }

    /// Checks that everything is still there and valid.
    async fn is_whole(&self, rows: usize) {
        assert!(self.session.is_signed_in().await, "the session");
        let token = self.app.anonymous().call("POST", "/graphql").json(&json!({"query": "{ __typename }"}));
        let token = token.header("Authorization", &format!("Bearer {}", self.token)).send().await;
        assert_eq!(token.status, 200, "the token: {}", token.text());
        let admin = self.app.admin();
        assert_eq!(admin.task(&self.task).await["state"], "done", "the archive");
        let kept = admin.audit_rows(0).await.len();
        assert!(kept >= rows, "{kept} rows of the audit log are left of {rows}");
    }

    /// Adds a row to the audit log, by the user of this session.
    async fn act(&self, session: &Visitor, name: &str) {
        let document =
            "mutation($name: String!) { create_api_token(name: $name, scope: \"read\") { ok msg } }";
        let done = session.ask(document, json!({"name": name})).await;
        assert_eq!(done["create_api_token"]["ok"], true, "{done}");
    }
}

#[tokio::test]
async fn a_clock_that_is_years_off_for_a_moment_takes_nothing_away() {
    let mut scene = Scene::set().await;
    scene.clocks.pass(5 * MINUTE);
    scene.clocks.set_right();
    let rows = scene.app.admin().audit_rows(0).await.len();
    assert_eq!(scene.ready().await, "ready\n");
    for (number, jump) in [YEARS, -YEARS].into_iter().enumerate() {
        scene.clocks.set(jump);
        // All periodic clean-ups run, more than once.
        scene.clocks.pass(6 * MINUTE);
        scene.is_doubted(true).await;
        scene.logs("the clock jumped", 2 * number + 1).await;
        scene.act(&scene.session, &format!("while it is off {number}")).await;
        let said = scene.doctor().await;
        let row = said.iter().find(|row| row["check"] == "expiry").unwrap_or_else(|| panic!("{said:#?}"));
        assert_eq!(row["result"], "warn", "{row}");
        assert!(row["found"].as_str().unwrap().contains("the clock jumped 3650 days"), "{row}");
        scene.clocks.set(-jump);
        scene.clocks.pass(6 * MINUTE);
        scene.logs("the clock jumped", 2 * number + 2).await;
        scene.clocks.set_right();
        scene.is_whole(rows + number).await;
        scene.is_doubted(true).await;
        scene.clocks.pass(11 * MINUTE);
        scene.logs("the clock is believed again", number + 1).await;
        assert_eq!(scene.ready().await, "ready\n");
        scene.clocks.set_right();
    }
    scene.is_whole(rows + 2).await;
    assert!(!scene.doctor().await.iter().any(|row| row["check"] == "expiry"));
}

#[tokio::test]
async fn a_start_with_a_clock_that_is_years_off_takes_nothing_away() {
    let mut scene = Scene::set().await;
    let rows = scene.app.admin().audit_rows(0).await.len();
    for jump in [YEARS, -YEARS] {
        scene.app.kill9();
        scene.clocks.set(jump);
        scene.app.restart().await;
        assert!(scene.ready().await.contains("\nclock: the clock jumped 36"), "{}", scene.ready().await);
        scene.logs("the clock jumped", 1).await;
        let mut other = Visitor::of(&scene.app);
        let reply = other.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        assert_eq!(reply.json()["authenticated"], true, "who signs in is in: {}", reply.text());
        scene.act(&other, &format!("while it is off by {jump}")).await;
        scene.clocks.pass(6 * MINUTE);
        scene.logs("the clock jumped", 1).await;
        scene.app.kill9();
        scene.clocks.set_right();
        scene.app.restart().await;
        assert_eq!(scene.ready().await, "ready\n", "it is what it was when a server last believed it");
        scene.is_whole(rows).await;
    }
}

#[tokio::test]
async fn a_server_that_was_off_for_a_month_removes_what_is_old_after_ten_minutes() {
    let mut scene = Scene::set().await;
    scene.app.terminate().await;
    scene.clocks.set(31 * DAY);
    let data_dir = scene.app.data_dir();
    let mut doctor = scene.app.launch().wharf(&["doctor", "--data-dir", data_dir.to_str().unwrap()]);
    scene.clocks.shown_to()(&mut doctor);
    let said =
        run(doctor.env("WHARF_ENDPOINT", "http://127.0.0.1:1"), scene.app.launch().root(), PATIENCE).await;
    assert!(said.stdout.contains("the clock jumped 31 days ahead"), "{}", said.text());

    scene.app.restart().await;
    let mut session = Visitor::of(&scene.app);
    session.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert!(session.is_signed_in().await && !scene.session.is_signed_in().await);
    let task = json!({"id": scene.task});
    let state = "query($id: String!) { background_task(id: $id) { state } }";
    assert_eq!(session.ask(state, task.clone()).await["background_task"]["state"], "done");
    scene.clocks.pass(11 * MINUTE);
    scene.is_doubted(false).await;
    until("the archive to be swept", PATIENCE, async || {
        let answer = session.asking(state, &task).send().await.json();
        answer["data"]["background_task"].is_null().then_some(())
    })
    .await;
    assert!(session.is_signed_in().await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_wait_longer() {
    let mut scene = Scene::set().await;
    let host = scene.registry.host();
    scene.registry.turn(|request| {
        let slow = || Response::new(429).header("retry-after", "90").into();
        request.path().ends_with("/tags/list").then(slow)
    });
    let task = scene.app.admin().rescan(&host).await;
    let waits = async || {
        let task = scene.app.admin().task(&task).await;
        let mut items = task["items"].as_array()?.iter();
        items.any(|item| item["state"] == "waiting" && item["attempts"] == 1).then_some(())
    };
    until("the repository to wait", PATIENCE, waits).await;
    scene.registry.turn(|_| None);
    // A smaller change than counts as a jump.
    scene.clocks.set(-20 * 60 * MINUTE);
    scene.clocks.pass(91);
    until("the wait to be over", PATIENCE, async || {
        let document = "query($id: String!) { background_task(id: $id) { state } }";
        let answer = scene.session.ask(document, json!({"id": task})).await;
        (answer["background_task"]["state"] == "done").then_some(())
    })
    .await;
}
