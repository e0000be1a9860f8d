//! An agent that is lost while a rule loads an image onto it.

use super::{LONG, held_at_work, lab};
use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::until;

#[tokio::test]
async fn a_lost_agent_is_left_until_it_is_back_and_no_task_waits_for_it() {
    let Some(registry) = RealRegistry::open().await else { return };
    let Some(mut node) = RealDocker::start().await else { return };
    registry.push_all([lab("python", "3")]).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let url = node.url();
    let app = App::start_with(move |command| {
        command.args(["--engine", &url]);
    })
    .await;
    let api = app.admin();
    api.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    api.scan(&proxy.host()).await;
    api.agents_alive(1).await;
    let name = held_at_work(&api, &proxy).await;

    node.kill9();
    let rule = api.rule_until("standard", "the loss", |rule| rule["status"]["away_count"] == 1).await;
    assert!(rule["status"]["away"][0]["reason"].as_str().unwrap().starts_with("lost: "), "{rule:#}");
    let ended = until("the task to end", LONG, async || {
        let tasks = api.tasks_of("standard").await;
        (tasks.len() == 1 && tasks[0]["state"] != "started").then(|| tasks[0].clone())
    })
    .await;
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    assert_eq!(ended["items"][0]["state"], "cancelled", "{ended:#}");

    proxy.release();
    node.restart().await;
    until("the image to be there", LONG, async || (api.presence(&name).await == ["present"]).then_some(()))
        .await;
    assert_eq!(api.tasks_of("standard").await.len(), 2);
}
