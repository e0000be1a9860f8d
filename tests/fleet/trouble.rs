//! What goes wrong on one node stays there: a disk that is full, and tasks that want the same image at the same time.

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::disk::SmallDisk;
use crate::support::dockerd::RealDocker;
use crate::support::image::Image;
use crate::support::missing;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// A server with these engines that has read one image; the image's name comes with it.
async fn scene(nodes: &[&RealDocker]) -> Option<(App, RealRegistry, CountingProxy, String)> {
    let registry = RealRegistry::open().await?;
    registry.push(&Image::new("lab/python", "1").real_layers(2, 200_000)).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let engines: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let app = App::start_with(move |command| {
        for engine in &engines {
            command.args(["--engine", engine]);
        }
    })
    .await;
    let api = app.admin();
    api.add_registry_at(&proxy.host(), &proxy.url(), registry.credentials()).await;
    api.scan(&proxy.host()).await;
    api.agents_alive(nodes.len()).await;
    let name = format!("{}/lab/python:1", proxy.host());
    Some((app, registry, proxy, name))
}

/// The state and the reason of each item, sorted.
fn ends(task: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let items = task["items"].as_array().expect("items");
    let mut ends: Vec<_> = items.iter().map(|item| (text(item, "state"), text(item, "reason"))).collect();
    ends.sort();
    ends
}

#[tokio::test]
async fn a_full_disk_fails_its_own_node_until_there_is_room() {
    let folder = tempfile::Builder::new().prefix("wm-").tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("data"), 100) else {
        return missing("the right to mount", "run the tests as root");
    };
    let place = folder.path().join("data").display().to_string();
    let full = RealDocker::start_with(&["--data-root", &place]).await;
    let (Some(full), Some(other)) = (full, RealDocker::start().await) else { return };
    let Some((app, _registry, _proxy, name)) = scene(&[&full, &other]).await else { return };
    disk.fill();
    let (event, task) = app.admin().transfer_to_end("preload_image", &name, "*").await;
    let ends_full = ends(&task);
    assert_eq!((event.as_str(), &ends_full[0]), ("bgtask_done", &("done".into(), "loaded".into())));
    assert!(ends_full[1].0 == "failed" && ends_full[1].1.contains("no space left"), "{task:#}");
    assert_eq!(task["ledger"]["failed_count"], 1, "{task:#}");
    disk.free();
    let (_, task) = app.admin().transfer_to_end("preload_image", &name, "*").await;
    let done = |reason: &str| ("done".to_owned(), reason.to_owned());
    assert_eq!(ends(&task), [done("already there"), done("loaded")], "{task:#}");
    assert_eq!(app.admin().presence(&name).await, ["present", "present"]);
    drop((full, disk));
}

#[tokio::test]
async fn tasks_that_want_one_image_on_one_node_take_turns_and_say_so() {
    let Some(node) = RealDocker::start().await else { return };
    let Some((app, _registry, proxy, name)) = scene(&[&node]).await else { return };
    let api = app.admin();
    proxy.take_log();
    proxy.hold();
    let first = api.transfer("preload_image", &name, "*").await;
    proxy.reached(1).await;
    let waits = async |task: &str| {
        until("the task to say that it waits for its turn", PATIENCE, async || {
            let message = api.task(task).await["message"].as_str().unwrap_or_default().to_owned();
            message.contains("waiting for its turn").then_some(())
        })
        .await;
    };
    let second = api.transfer("preload_image", &name, "*").await;
    waits(&second).await;
    let given_up = api.transfer("unload_image", &name, "*").await;
    waits(&given_up).await;
    let last = api.transfer("unload_image", &name, "*").await;
    waits(&last).await;
    // Whoever waits can be cancelled, and is nobody's obstacle then.
    assert!(api.mutate("cancel_task", &format!("id: {given_up:?}")).await.0);
    assert_eq!(api.finish(&given_up).await.name, "bgtask_cancelled");
    proxy.release();
    for (task, reason) in [(&first, "loaded"), (&second, "already there"), (&last, "removed")] {
        assert_eq!(api.finish(task).await.name, "bgtask_done");
        assert_eq!(ends(&api.task(task).await), [("done".to_owned(), reason.to_owned())]);
    }
    assert_eq!(api.presence(&name).await, ["absent"]);
    assert_eq!(node.docker_ok(&["images", "-q"]).await, "");
    // What has ended can't be cancelled any more, and says so.
    let answer = api.ask(&format!("mutation {{ cancel_task(id: {last:?}) {{ ok msg }} }}"), json!({})).await;
    let answer = &answer["cancel_task"];
    assert!(answer["ok"] == false && answer["msg"].as_str().unwrap().contains("ended already"), "{answer}");
}
