//! An agent that dials in, and a manager that is killed while a rule loads something onto it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{held_at_work, lab};
use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::machine::{Machine, token};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

#[tokio::test]
async fn a_task_goes_on_when_its_agent_takes_a_while_to_dial_a_restarted_manager() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all([lab("python", "3")]).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let mut app = App::start().await;
    let api = app.admin();
    api.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    api.scan(&proxy.host()).await;
    let link = CutProxy::start(app.url()).await;
    let images = tempfile::tempdir().unwrap();
    let engine = format!("oci:{}", images.path().join("images").display());
    let mut machine = Machine::new(&link.url(), &engine).with(&["--id", "gpu01"]);
    machine.start(Some(&token(&api, json!({})).await));
    api.agents_alive(1).await;
    let name = held_at_work(&api, &proxy).await;
    let id = api.tasks_of("standard").await[0]["id"].as_str().unwrap().to_owned();

    app.kill9();
    link.cut();
    app.restart().await;
    // A look at the agents within this time would find only lost ones, and take the task back.
    let restarted = Instant::now();
    until("a look's time to be over", PATIENCE, async || {
        let tasks = api.tasks_of("standard").await;
        assert!(tasks.len() == 1 && tasks[0]["state"] == "started", "{tasks:#?}");
        (restarted.elapsed() >= Duration::from_secs(4)).then_some(())
    })
    .await;
    link.mend();
    api.agents_alive(1).await;
    proxy.release();
    let last = api.finish(&id).await;
    assert_eq!(last.name, "bgtask_done", "{:#}", api.task(&id).await);
    api.rule_is("standard", "filled").await;
    assert_eq!(api.presence(&name).await, ["present"]);
    let tasks = api.tasks_of("standard").await;
    assert!(tasks.len() == 1 && tasks[0]["id"] == id && tasks[0]["state"] == "done", "{tasks:#?}");
}
