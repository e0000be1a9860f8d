//! A week of pretended use: what retention would take then is what it takes.

use serde_json::{Value, json};

use super::{LONG, image};
use crate::api_tokens::create;
use crate::support::app::App;
use crate::support::clock::Clocks;
use crate::support::dockerd::RealDocker;
use crate::support::registry::RealRegistry;
use crate::support::wait::until;

const DAY: i64 = 24 * 60 * 60;

/// Asks with a token, because signatures are dated by the real clock.
async fn ask(app: &App, token: &str, query: &str, variables: Value) -> Value {
    let call = app.anonymous().call("POST", "/graphql");
    let call = call.json(&json!({"query": query, "variables": variables}));
    let reply = call.header("Authorization", &format!("Bearer {token}")).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut answer = reply.json();
    assert!(answer["errors"].is_null(), "{query}\n{answer:#}");
    answer["data"].take()
}

#[tokio::test]
async fn after_a_week_of_use_retention_takes_what_its_dry_run_said() {
    let (Some(docker), Some(registry)) = (RealDocker::start().await, RealRegistry::open().await) else {
        return;
    };
    let tags = ["1", "2", "3", "4", "5", "6"];
    registry.push_all(tags.map(|tag| image("lab/python", tag, 10_000))).await;
    let mut clocks = Clocks::real();
    let (url, shown) = (docker.url(), clocks.shown_to());
    let mut app = App::start_with(move |command| {
        shown(command);
        command.args(["--engine", &url]);
    })
    .await;
    let api = app.admin();
    api.add_registry(&registry).await;
    api.scan(registry.host()).await;
    api.agents_alive(1).await;
    let name = |tag: &str| format!("{}/lab/python:{tag}", registry.host());
    for tag in tags {
        let (event, task) = api.transfer_to_end("preload_image", &name(tag), "*").await;
        assert_eq!(event, "bgtask_done", "{task:#}");
    }
    let token = create(&api, "week", "full").await["token"].as_str().unwrap().to_owned();
    let usage = async |app: &App, tag: &str| {
        let query = "query($r: String!) { image_presence(reference: $r) { usage {
            in_use last_used_at unused_since came_at } } }";
        let data = ask(app, &token, query, json!({"r": name(tag)})).await;
        data["image_presence"][0]["usage"].clone()
    };
    let is_in_use = async |app: &App, tag: &str, expected: bool| {
        until("the container to be heard of", LONG, async || {
            (usage(app, tag).await["in_use"] == expected).then_some(())
        })
        .await;
    };
    // On each day a container of another image is there for a while; that of the first day stays.
    for (day, tag) in ["1", "2", "3", "2", "4"].into_iter().enumerate() {
        let container = format!("day-{day}");
        docker.docker_ok(&["create", "--name", &container, &name(tag), "/file"]).await;
        is_in_use(&app, tag, true).await;
        if day > 0 {
            docker.docker_ok(&["rm", &container]).await;
            is_in_use(&app, tag, false).await;
        }
        clocks.pass(DAY);
    }
    // What is known is known after a restart too.
    let before = usage(&app, "4").await;
    assert!(before["last_used_at"].is_string(), "{before:#}");
    app.terminate().await;
    app.restart().await;
    until("the agent to be read", LONG, async || {
        let usage = usage(&app, "4").await;
        (usage["in_use"] == false).then(|| assert_eq!(usage, before))
    })
    .await;
    clocks.pass(2 * DAY);

    // Days since the last use: 1 in use, 2: 4, 3: 5, 4: 3, 5 and 6 never: 7.
    let props = |days: i64| json!({"images": "*", "target_agents": "*", "unused_for": days * DAY, "keep_last": 1, "confirm": true});
    let preview = async |app: &App, days: i64| {
        let query = "query($p: CreateRetentionRuleInput!) { retention_preview(props: $p) {
            count frees_bytes agents { images { names } } } }";
        let plan = ask(app, &token, query, json!({"p": props(days)})).await["retention_preview"].take();
        let images = plan["agents"][0]["images"].as_array().unwrap().clone();
        images.iter().map(|image| image["names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(preview(&app, 8).await, [""; 0]);
    assert_eq!(preview(&app, 6).await, [name("5")], "6 is the last of its repository");
    assert_eq!(preview(&app, 5).await, [name("5"), name("3")]);
    let expected = preview(&app, 4).await;
    assert_eq!(expected, [name("5"), name("3"), name("2")], "unused longest first");

    let query = "mutation($p: CreateRetentionRuleInput!) { create_retention_rule(name: \"old\", props: $p) { ok msg } }";
    let added = ask(&app, &token, query, json!({"p": props(4)})).await;
    assert_eq!(added["create_retention_rule"]["ok"], true, "{added}");
    let task = until("the task to end", LONG, async || {
        let query = "{ background_tasks { retention state items { reference state reason } } }";
        let tasks = ask(&app, &token, query, json!({})).await["background_tasks"].take();
        let task = tasks.as_array().unwrap().iter().find(|task| task["retention"] == "old").cloned();
        task.filter(|task| task["state"] != "started")
    })
    .await;
    let items = task["items"].as_array().unwrap();
    let gone: Vec<&str> = items.iter().map(|item| item["reference"].as_str().unwrap()).collect();
    assert_eq!(gone, expected, "{task:#}");
    assert!(items.iter().all(|item| item["state"] == "done" && item["reason"] == "removed"), "{task:#}");
    let mut listed: Vec<String> = docker
        .docker_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .await
        .lines()
        .map(str::to_owned)
        .collect();
    listed.sort();
    assert_eq!(listed, ["1", "4", "6"].map(name));
    assert_eq!(preview(&app, 4).await, [""; 0]);
}
