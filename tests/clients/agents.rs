//! Agents: one Docker Engine, one server, and every release in turn.

use std::sync::Arc;

use crate::clients::rows::{AGENTS, NO_ITEMS, RELEASES};
use crate::clients::trial::Trial;
use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::wait::{PATIENCE, until};

#[tokio::test]
async fn with_every_release() {
    let Some(docker) = RealDocker::start().await else { return };
    let engine = format!("unix://{}", docker.socket().display());
    let app = Arc::new(App::start_with(move |command| _ = command.args(["--engine", &engine])).await);
    let admin = app.admin();
    let id = until("the engine to be met", PATIENCE, async || {
        let found = admin.ask("{ agents(status: \"ALIVE\") { id } }", serde_json::json!({})).await;
        found["agents"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    for release in RELEASES {
        let Some(mut trial) = Trial::beside(AGENTS, release, Arc::clone(&app)).await else { return };
        let list = trial.say("admin agents", "admin agent list");
        trial.works("admin agent list", &list, &[&id, "ALIVE", "default"]).await;
        let some = [list.as_slice(), &["-s", "ALIVE", "--scaling-group", "default"]].concat();
        trial.works("admin agent list -s STATUS", &some, &[&id]).await;
        let none = [list.as_slice(), &["-s", "TERMINATED"]].concat();
        if matches!(trial.year, 23 | 24) {
            trial.cannot("admin agent list, when there are none", &none, &NO_ITEMS).await;
        } else {
            let printed = trial.works("admin agent list, when there are none", &none, &[]).await;
            trial.check("admin agent list, when there are none", !printed.contains(&id), &printed);
        }
        let info = trial.say("admin agent -i", "admin agent info");
        let info = [info.as_slice(), &[&id]].concat();
        trial.works("admin agent info ID", &info, &[&id]).await;
        trial.finish();
    }
}
