//! Background tasks as clients follow them: server-sent events in both dialects, and what outlives a restart.

use std::time::Duration;

use serde_json::json;

use crate::api_tokens::create;
use crate::support::api::{Api, MODERN, SEED_ERA};
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::rude::Rude;
use crate::support::sse::Event;
use crate::support::verbs::counts;
use crate::support::wait::{PATIENCE, until};

/// A server with a registry of some repositories, which is behind a proxy.
struct Scene {
    app: App,
    proxy: CountingProxy,
    registry: RealRegistry,
}

impl Scene {
    async fn set(images: usize) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        registry.push_all((0..images).map(|n| Image::new(&format!("r/{}", n % 5), &n.to_string()))).await;
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
        Some(Self { app, proxy, registry })
    }

    async fn rescan(&self) -> String {
        self.app.admin().rescan(&self.proxy.host()).await
    }
}

/// Checks the shape every client relies on: updates, one final event, then `server_close`.
fn well_formed(events: &[Event], prefix: &str, task: &str) {
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let (close, rest) = names.split_last().expect("events");
    assert_eq!(*close, "server_close", "{names:?}");
    let (last, updates) = rest.split_last().expect("a final event");
    assert_eq!(*last, format!("{prefix}_done"), "{names:?}");
    assert!(updates.iter().all(|name| *name == format!("{prefix}_updated")), "{names:?}");
    let mut before = 0;
    for event in &events[..events.len() - 1] {
        assert_eq!(event.data["task_id"], task, "{event:?}");
        assert!(event.data["message"].is_string(), "{event:?}");
        let (current, total) = (event.number("current_progress"), event.number("total_progress"));
        assert!(before <= current && current <= total, "{event:?} after {before}");
        before = current;
    }
}

#[tokio::test]
async fn each_client_hears_the_events_it_knows() {
    let Some(scene) = Scene::set(20).await else { return };
    for (agent, version, prefix) in [
        (SEED_ERA, "v5.20191215", "task"),
        ("Backend.AI Client for Python 20.09.9", "v6.20210815", "task"),
        ("Backend.AI Client for Python 21.03.9", "v6.20210815", "bgtask"),
        ("Backend.AI Client for Python 22.03.2", "v6.20220315", "bgtask"),
        (MODERN, "v9.20250722", "bgtask"),
        ("Python/3.13 aiohttp/3.12.15", "v9.20250722", "bgtask"),
    ] {
        let api = scene.app.admin().with_agent(agent, version);
        let task = scene.rescan().await;
        let events = api.events(&task).await.rest().await;
        well_formed(&events, prefix, &task);
        // A second stream gives a latecomer what it needs, and no more.
        let events = api.events(&task).await.rest().await;
        assert_eq!(events.len(), 2, "{events:?}");
        well_formed(&events, prefix, &task);
    }
}

#[tokio::test]
async fn of_repositories_that_are_as_they_were_only_the_sum_is_kept() {
    let Some(scene) = Scene::set(20).await else { return };
    let (admin, host) = (scene.app.admin(), scene.proxy.host());
    let names = |task: &serde_json::Value| -> Vec<String> {
        let items = task["items"].as_array().expect("a list").iter();
        items.map(|item| item["name"].as_str().expect("a name").replace(&host, "HOST")).collect()
    };
    let first = admin.scan(&host).await;
    assert_eq!(names(&first).len(), 7, "what is new is told of: {first:#}");
    let second = admin.scan(&host).await;
    assert_eq!(counts(&second), [0, 0, 20, 0, 0, 0], "{second:#}");
    assert_eq!((&second["current_progress"], &second["total_progress"]), (&json!(20), &json!(20)));
    let all = ["HOST: repositories", "5 repositories as they were", "HOST: removals"];
    assert_eq!(names(&second), all, "{second:#}");

    scene.registry.push(&Image::new("r/3", "3").content("new")).await;
    let third = admin.scan(&host).await;
    assert_eq!(counts(&third), [0, 1, 19, 0, 0, 0], "{third:#}");
    let all = ["HOST: repositories", "4 repositories as they were", "HOST/r/3", "HOST: removals"];
    assert_eq!(names(&third), all, "{third:#}");
}

#[tokio::test]
async fn a_listener_sees_the_task_move() {
    let Some(scene) = Scene::set(50).await else { return };
    scene.proxy.hold();
    let task = scene.rescan().await;
    let mut listener = scene.app.admin().events(&task).await;
    let mut events = vec![listener.next().await.expect("how it stands")];
    scene.proxy.delay(Duration::from_millis(5));
    scene.proxy.release();
    events.extend(listener.rest().await);
    well_formed(&events, "bgtask", &task);
    assert!(events.len() > 3, "{events:?}");
    let ids: Vec<u64> = events.iter().filter_map(|e| e.id.as_ref()).map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() >= events.len() - 1, "each event has an id: {events:?}");
    assert!(ids.is_sorted(), "{ids:?}");
}

#[tokio::test]
async fn the_first_event_leaves_the_client_time_to_start_its_spinner() {
    let Some(scene) = Scene::set(5).await else { return };
    let task = scene.rescan().await;
    scene.app.admin().finish(&task).await;
    // A busy machine can only make the pause look shorter than it was, so the longest of a few counts.
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let first = scene.app.admin().events(&task).await.next().await.expect("an event");
        longest = longest.max(first.after);
    }
    assert!(longest >= Duration::from_millis(200), "{longest:?}");
}

#[tokio::test]
async fn a_listener_that_comes_back_misses_nothing() {
    let Some(scene) = Scene::set(50).await else { return };
    scene.proxy.hold();
    let task = scene.rescan().await;
    let api = scene.app.admin();
    let mut events = api.events(&task).await;
    let first = events.next().await.expect("the state so far");
    drop(events);
    let id = first.id.clone().expect("an id");
    scene.proxy.release();
    until("the task to end", PATIENCE, async || (api.task(&task).await["state"] == "done").then_some(()))
        .await;
    let missed = api.events_after(&task, Some(&id)).await.rest().await;
    well_formed(&missed, "bgtask", &task);
    let number = |event: &Event| event.id.as_ref().and_then(|id| id.parse::<u64>().ok());
    let after = number(&first).expect("ids are numbers");
    assert!(missed.iter().filter_map(number).all(|id| id > after), "{missed:?} after {id}");
}

#[tokio::test]
async fn whoever_has_heard_the_end_is_told_it_again_and_does_not_wait_for_ever() {
    let Some(scene) = Scene::set(2).await else { return };
    let api = scene.app.admin();
    let task = scene.rescan().await;
    let end = api.finish(&task).await;
    let id = end.id.clone().expect("an id");
    let listen = async { api.events_after(&task, Some(&id)).await.rest().await };
    // A waiting stream sends signs of life, so reading it would never end.
    let again = tokio::time::timeout(PATIENCE, listen).await.expect("a stream that ends");
    well_formed(&again, "bgtask", &task);
    assert_eq!(again.len(), 2, "{again:?}");
    assert_eq!((&again[0].id, &again[0].data), (&end.id, &end.data));
}

#[tokio::test]
async fn a_task_nobody_knows_is_not_found() {
    let app = App::start().await;
    for parameter in ["task_id", "taskId"] {
        let target = format!("/events/background-task?{parameter}=0e9c2b34-0000-4000-8000-000000000001");
        let reply = app.admin().call("GET", &target).no_content_type().send().await;
        let body = reply.text();
        reply.problem(404, "generic-not-found");
        assert!(body.contains("No such background task."), "{body}");
    }
    for target in ["/events/background-task", "/events/background-task?task_id=nonsense"] {
        let reply = app.admin().call("GET", target).no_content_type().send().await;
        assert!(matches!(reply.status, 400 | 404), "{target}: {}", reply.text());
        assert!(reply.json()["type"].is_string());
    }
    let admin = app.admin();
    let data = admin.graphql(
        "query($id: String!) { background_task(id: $id) { id } }",
        json!({"id": "0e9c2b34-0000-4000-8000-000000000001"}),
    );
    assert!(data.await["data"]["background_task"].is_null());
}

#[tokio::test]
async fn a_task_of_somebody_else_is_like_one_that_nobody_knows() {
    let Some(scene) = Scene::set(2).await else { return };
    let task = scene.rescan().await;
    scene.app.admin().finish(&task).await;
    for role in ["user", "monitor", "admin"] {
        let person = scene.app.person(&format!("{role}@lab"), role, "default").await.api;
        let told = async |id: &str| {
            let target = format!("/events/background-task?task_id={id}");
            let stream = person.call("GET", &target).no_content_type().send().await;
            assert_eq!(stream.status, 404, "{role}: {}", stream.text());
            let query = "query($id: String!) { background_task(id: $id) { id } }";
            let asked = person.graphql(query, json!({"id": id})).await.to_string();
            let cancelled = person.fails("cancel_task", &format!("id: \"{id}\"")).await;
            format!("{}\n{asked}\n{cancelled}", stream.text()).replace(id, "ID")
        };
        assert_eq!(told(&task).await, told("0e9c2b34-0000-4000-8000-000000000001").await, "{role}");
    }
}

#[tokio::test]
async fn both_spellings_of_the_parameter_work() {
    let Some(scene) = Scene::set(5).await else { return };
    let task = scene.rescan().await;
    scene.app.admin().finish(&task).await;
    let target = format!("/events/background-task?taskId={task}");
    let reply = scene.app.admin().call("GET", &target).no_content_type().send().await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().contains("bgtask_done") && reply.text().contains("server_close"),
        "{}",
        reply.text()
    );
}

#[tokio::test]
async fn a_cancelled_task_stops_and_says_so() {
    let Some(scene) = Scene::set(20).await else { return };
    let api = scene.app.admin();
    scene.proxy.hold();
    let task = scene.rescan().await;
    scene.proxy.reached(1).await;
    let (ok, msg) = api.mutate("cancel_task", &format!(r#"id: "{task}""#)).await;
    assert!(ok, "{msg}");
    let last = api.finish(&task).await;
    assert_eq!(last.name, "bgtask_cancelled");
    assert_eq!(api.task(&task).await["state"], "cancelled");
    assert!(api.images().await.is_empty());
    let (ok, msg) = api.mutate("cancel_task", &format!(r#"id: "{task}""#)).await;
    assert!(!ok && msg.contains(&task), "a task that ended is not cancelled again: {msg}");
    scene.proxy.release();
    let task = scene.rescan().await;
    assert_eq!(api.finish(&task).await.name, "bgtask_done");
}

#[tokio::test]
async fn what_ended_is_remembered_over_a_restart() {
    let Some(mut scene) = Scene::set(10).await else { return };
    let task = scene.rescan().await;
    scene.app.admin().finish(&task).await;
    let before = scene.app.admin().task(&task).await;
    scene.app.kill9();
    scene.app.restart().await;
    assert_eq!(scene.app.admin().task(&task).await, before);
    let events = scene.app.admin().events(&task).await.rest().await;
    assert_eq!(events.len(), 2, "{events:?}");
    well_formed(&events, "bgtask", &task);
    let data = scene.app.admin().ask("{ background_tasks { id state } }", json!({})).await;
    assert!(
        data["background_tasks"].as_array().unwrap().contains(&json!({"id": task, "state": "done"})),
        "{data}"
    );
}

#[tokio::test]
async fn whoever_hangs_up_while_a_task_is_taken_in_leaves_none_that_never_ends() {
    let Some(scene) = Scene::set(1).await else { return };
    let api = scene.app.admin();
    let tasks = async || {
        let data = api.ask("{ background_tasks { state } }", json!({})).await;
        data["background_tasks"].as_array().expect("a list").clone()
    };
    let token = create(&api, "ci", "full").await["token"].as_str().expect("a token").to_owned();
    let document = "mutation($r: String) { rescan_images(registry: $r) { ok msg } }";
    let variables = json!({"r": scene.proxy.host()});
    // At every moment from before the request is read until after it is done.
    for patience in (0..100).map(|step| Duration::from_micros(30 * step)) {
        let client = Rude::ask(&scene.app, &token, document, &variables).await;
        tokio::time::sleep(patience).await;
        client.break_off();
        until("all tasks to end", PATIENCE, async || {
            tasks().await.iter().all(|task| task["state"] != "started").then_some(())
        })
        .await;
    }
    assert!(!tasks().await.is_empty());
}

#[tokio::test]
async fn a_server_stopped_in_the_middle_of_a_task_goes_on_with_it_later() {
    let Some(mut scene) = Scene::set(50).await else { return };
    scene.proxy.hold();
    let task = scene.rescan().await;
    scene.proxy.reached(1).await;
    let mut listener = scene.app.admin().events(&task).await;
    listener.next().await.expect("the state so far");
    let (status, took) = scene.app.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", scene.app.logs());
    assert!(took < Duration::from_secs(20), "{took:?} with a listener and a registry that hangs");
    scene.proxy.release();
    scene.app.restart().await;
    let last = scene.app.admin().finish(&task).await;
    assert_eq!(last.name, "bgtask_done");
    assert_eq!(scene.app.admin().images().await.len(), 50);
}

#[tokio::test]
async fn many_can_listen_and_one_that_does_not_read_disturbs_nobody() {
    let Some(scene) = Scene::set(50).await else { return };
    let api: Api = scene.app.admin();
    scene.proxy.hold();
    let task = scene.rescan().await;
    let deaf = api.events(&task).await;
    let listeners: Vec<_> = (0..20)
        .map(|_| {
            let (api, task) = (api.clone(), task.clone());
            tokio::spawn(async move { api.events(&task).await.rest().await })
        })
        .collect();
    scene.proxy.release();
    for listener in listeners {
        well_formed(&listener.await.unwrap(), "bgtask", &task);
    }
    drop(deaf);
}
