//! An image that can't be loaded.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Scene, lab};
use crate::support::http1::{Answer, Response};

#[tokio::test]
async fn an_image_that_is_broken_is_left_for_longer_and_longer_until_it_is_another_one() {
    let Some(mut scene) = Scene::set(&["one"], vec![lab("broken", "1"), lab("sound", "1")]).await else {
        return;
    };
    let api = scene.api();
    // The registry has lost all blobs of this image.
    scene.proxy.answer(|request| {
        let is_gone = request.path().contains("/lab/broken/blobs/");
        is_gone.then(|| Answer::from(Response::new(404)))
    });
    scene.add("standard", "lab/*", "*", json!({})).await;
    scene.becomes("lab/sound:1", &["present"]).await;
    let rule = api.rule_until("standard", "a setback", |rule| rule["status"]["held_back"] == 1).await;
    assert_eq!(rule["state"], "waiting", "{rule:#}");
    let waiting = &rule["status"]["waiting"][0];
    assert_eq!(waiting["image"], scene.name("lab/broken:1"), "{rule:#}");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.starts_with("came to nothing once: "), "{reason}");
    assert!(waiting["until"].is_string(), "{waiting}");
    let tasks = api.tasks_of("standard").await.len();
    assert_eq!(tasks, 2);

    // Other events and a restart do not cause another attempt at once.
    scene.another_round("standard").await;
    scene.app.kill9();
    scene.app.restart().await;
    let rule = api.rule_until("standard", "the same", |rule| rule["status"]["held_back"] == 1).await;
    let now = api.tasks_of("standard").await.len();
    // On a slow machine, the time of the next attempt may have come meanwhile; then this is not checked.
    let until: Timestamp = waiting["until"].as_str().unwrap().parse().unwrap();
    if Timestamp::now() < until {
        let again: Timestamp = rule["status"]["waiting"][0]["until"].as_str().unwrap().parse().unwrap();
        assert!(again.duration_since(until).abs() < SignedDuration::from_secs(5), "{rule:#}");
        assert_eq!(now, tasks, "{rule:#}");
    }

    // A new push is another image, even under the same name.
    scene.proxy.behave();
    scene.registry.push_all([lab("broken", "1").label("mended", "yes")]).await;
    api.scan(&scene.host()).await;
    scene.becomes("lab/broken:1", &["present"]).await;
    api.rule_is("standard", "filled").await;
}

#[tokio::test]
async fn a_task_of_a_rule_that_somebody_cancels_is_not_made_again_at_once() {
    let Some(scene) = Scene::set(&["one"], vec![lab("python", "3")]).await else { return };
    let api = scene.api();
    scene.proxy.hold();
    scene.add("standard", "lab/*", "*", json!({})).await;
    let rule = api.rule_until("standard", "a task", |rule| rule["status"]["loading"] == 1).await;
    let task = rule["status"]["task_ids"][0].as_str().unwrap().to_owned();
    api.does("cancel_task", &format!("id: {task:?}")).await;
    scene.proxy.release();
    let rule = api.rule_until("standard", "a setback", |rule| rule["status"]["held_back"] == 1).await;
    let reason = rule["status"]["waiting"][0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("its task was cancelled"), "{reason}");
    scene.another_round("standard").await;
    assert_eq!(api.tasks_of("standard").await.len(), 1);
}
