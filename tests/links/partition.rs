//! Links that break, agents and managers that die: no work is lost, none is done twice, and what waits says so.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{NODE, Scene};
use crate::support::machine::{agent, becomes};
use crate::support::wait::{PATIENCE, until};

fn soon_lost(command: &mut Command) {
    command.args(["--agent-silence", "3"]);
}

impl Scene {
    /// Begins a preload and waits until the engine has asked for layers, which don't come.
    async fn stuck(&self) -> String {
        let gate = self.registry.gate();
        self.registry.answer(move |request| {
            if request.method == "GET" && request.target.contains("/manifests/") {
                gate.send_replace(false);
            }
            None
        });
        let task = self.begin("preload_image").await;
        until("the layers to be asked for", PATIENCE, async || {
            let got = |e: &crate::support::proxy::Exchange| e.is_manifest() && e.method == "GET";
            let answered = self.registry.log().len();
            (self.registry.log().iter().any(got) && self.registry.arrived() > answered).then_some(())
        })
        .await;
        task
    }

    async fn waits(&self, task: &str, words: &str) {
        until(&format!("the item to wait and say {words:?}"), PATIENCE, async || {
            let (state, _, reason) = self.item(task).await;
            (state == "waiting" && reason.contains("waiting for the agent") && reason.contains(words))
                .then_some(())
        })
        .await;
    }

    async fn runs(&self, task: &str) {
        until("the item to run", PATIENCE, async || (self.item(task).await.0 == "running").then_some(()))
            .await;
    }

    /// Lets the layers come, and checks that each came once.
    async fn ends_well(&self, task: &str) {
        self.registry.behave();
        let event = self.api().finish(task).await;
        assert_eq!(event.name, "bgtask_done", "{:#}", self.api().task(task).await);
        until("the image to be present", PATIENCE, async || {
            (self.presence().await == "present").then_some(())
        })
        .await;
    }

    fn each_layer_came_once(&self) {
        let fetched = self.fetched();
        assert!(!fetched.is_empty() && fetched.iter().all(|(_, count)| *count == 1), "{fetched:?}");
    }
}

#[tokio::test]
async fn a_pull_goes_on_while_the_link_is_cut() {
    let Some(scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.link.cut();
    scene.waits(&task, "its link broke").await;
    let away = agent(&scene.api(), NODE).await;
    assert_eq!(away["status"], "ALIVE", "a short cut is no loss: {away}");
    scene.link.mend();
    scene.runs(&task).await;
    scene.ends_well(&task).await;
    let (state, attempts, reason) = scene.item(&task).await;
    assert_eq!((state.as_str(), attempts, reason.as_str()), ("done", 1, "loaded"));
    scene.each_layer_came_once();
}

#[tokio::test]
async fn a_pull_that_ended_while_the_link_was_cut_is_found_done() {
    let Some(scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.link.cut();
    scene.waits(&task, "its link broke").await;
    scene.registry.behave();
    scene.machine.logs("pulled").await;
    scene.link.mend();
    scene.ends_well(&task).await;
    scene.each_layer_came_once();
}

#[tokio::test]
async fn an_agent_nothing_is_heard_of_is_lost_after_its_time_and_alive_again_when_it_is_back() {
    let Some(mut scene) = Scene::set(soon_lost).await else { return };
    let task = scene.stuck().await;
    let pulled_plug = Instant::now();
    scene.link.freeze();
    let lost = becomes(&scene.api(), NODE, "LOST").await;
    // It was heard of a second ago at most when that began, or a little more on a busy machine.
    assert!(pulled_plug.elapsed() >= Duration::from_secs(1), "no sooner than that");
    assert!(lost["status_reason"].as_str().unwrap().contains("nothing was heard of it"), "{lost}");
    scene.waits(&task, "nothing was heard of it").await;
    assert_eq!(scene.presence().await, "unknown");
    scene.link.mend();
    becomes(&scene.api(), NODE, "ALIVE").await;
    scene.ends_well(&task).await;
    scene.each_layer_came_once();

    // A link that breaks and does not come back is a loss after the same time; a stopped process is, too.
    scene.link.cut();
    let lost = becomes(&scene.api(), NODE, "LOST").await;
    assert!(lost["status_reason"].as_str().unwrap().contains("its link broke"), "{lost}");
    scene.link.mend();
    becomes(&scene.api(), NODE, "ALIVE").await;
    scene.machine.process().signal("STOP");
    becomes(&scene.api(), NODE, "LOST").await;
    scene.machine.process().signal("CONT");
    becomes(&scene.api(), NODE, "ALIVE").await;
}

#[tokio::test]
async fn a_link_that_breaks_once_more_has_its_whole_time_once_more() {
    let change = |command: &mut Command| {
        command.args(["--agent-silence", "6"]);
    };
    let Some(scene) = Scene::set(change).await else { return };
    let api = scene.api();
    let is_away = async || agent(&api, NODE).await["status_reason"].is_string();
    let broke = Instant::now();
    scene.link.cut();
    until("the agent to be away", PATIENCE, async || is_away().await.then_some(())).await;
    scene.link.mend();
    until("the agent to be back", PATIENCE, async || (!is_away().await).then_some(())).await;
    // Its time runs from its last sign of life, of which there is one every two seconds: it is nearly over.
    until("the first break's time to be nearly over", PATIENCE, async || {
        (broke.elapsed() >= Duration::from_millis(3400)).then_some(())
    })
    .await;
    // It has to answer, so that it is known since when nothing can have been heard of it.
    let asked = Instant::now();
    let task = scene.begin("unload_image").await;
    until("the agent to answer", PATIENCE, async || {
        (api.task(&task).await["state"] != "started").then_some(())
    })
    .await;
    scene.link.cut();
    becomes(&api, NODE, "LOST").await;
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(5), "lost after {took:?}, in the time of the first break");
}

#[tokio::test]
async fn a_pull_is_begun_again_when_its_agent_was_killed_and_is_back() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.machine.process().kill9();
    scene.waits(&task, "its link broke").await;
    scene.registry.behave();
    scene.machine.start(None);
    scene.ends_well(&task).await;
    assert_eq!(scene.item(&task).await.0, "done");
}

#[tokio::test]
async fn a_killed_manager_finds_the_pull_that_went_on_without_it() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.app.kill9();
    scene.app.restart().await;
    scene.runs(&task).await;
    scene.ends_well(&task).await;
    assert_eq!(scene.item(&task).await.0, "done");
    scene.each_layer_came_once();
}

#[tokio::test]
async fn a_stopped_manager_leaves_the_pulls_alone() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    let (status, took) = scene.app.terminate().await;
    assert!(status.success() && took < Duration::from_secs(20), "{status} after {took:?}");
    scene.app.restart().await;
    scene.runs(&task).await;
    scene.ends_well(&task).await;
    scene.each_layer_came_once();
}

#[tokio::test]
async fn both_are_killed_and_the_task_goes_on() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.machine.process().kill9();
    scene.app.kill9();
    scene.app.restart().await;
    scene.waits(&task, "not reached since the server started").await;
    scene.registry.behave();
    scene.machine.start(None);
    scene.ends_well(&task).await;
}

#[tokio::test]
async fn a_cancelled_task_ends_the_pull_on_the_other_machine() {
    let Some(scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    assert!(scene.api().mutate("cancel_task", &format!("id: {task:?}")).await.0);
    assert_eq!(scene.api().finish(&task).await.name, "bgtask_cancelled");
    scene.machine.logs("stopped on request").await;
    scene.registry.behave();
    until("dockerd to give up", PATIENCE, async || {
        scene.node.log().contains("context canceled").then_some(())
    })
    .await;
    // A task that waits for an agent that is away can be cancelled, too.
    scene.link.cut();
    until("the agent to be away", PATIENCE, async || {
        agent(&scene.api(), NODE).await["status_reason"].is_string().then_some(())
    })
    .await;
    let task = scene.begin("preload_image").await;
    scene.waits(&task, "its link broke").await;
    assert!(scene.api().mutate("cancel_task", &format!("id: {task:?}")).await.0);
    assert_eq!(scene.api().finish(&task).await.name, "bgtask_cancelled");
}

#[tokio::test]
async fn an_engine_that_is_gone_is_told_of_and_waited_for() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let task = scene.stuck().await;
    scene.node.kill9();
    let lost = becomes(&scene.api(), NODE, "LOST").await;
    assert!(lost["status_reason"].as_str().unwrap().contains("its engine does not answer"), "{lost}");
    scene.registry.behave();
    scene.node.restart().await;
    becomes(&scene.api(), NODE, "ALIVE").await;
    scene.ends_well(&task).await;
}
