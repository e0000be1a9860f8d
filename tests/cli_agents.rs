//! Agents, loading and unloading from the shell: the real binary, server, registry and Docker Engine.

use serde_json::Value;

use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::image::Image;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// Runs a command that must succeed, and returns what it printed.
async fn said(app: &App, arguments: &[&str]) -> String {
    let outcome = app.wharf(arguments).await;
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.text());
    outcome.stdout
}

/// Runs a command with `--json` that must succeed, and returns what it printed.
async fn told(app: &App, arguments: &[&str]) -> Value {
    let text = said(app, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{text}"))
}

/// Checks a refusal: exit code 1, nothing on stdout, these words on stderr.
async fn refused(app: &App, arguments: &[&str], words: &[&str]) {
    let outcome = app.wharf(arguments).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{arguments:?}: {}", outcome.text());
    for word in words {
        assert!(outcome.stderr.contains(word), "{arguments:?}: {word:?} is missing: {}", outcome.text());
    }
}

#[tokio::test]
async fn an_agent_that_drains_is_shown_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let engine = format!("oci:{}", folder.path().display());
    let app = App::start_with(move |command| {
        command.args(["--engine", &engine]);
    })
    .await;
    let agent = app.admin().agents_alive(1).await.remove(0);
    for (undo, status) in [(&[][..], "DRAINING"), (&["--undo"], "ALIVE")] {
        said(&app, &[&["agent", "drain", &agent], undo].concat()).await;
        let list = said(&app, &["agent", "list"]).await;
        assert!(list.lines().nth(1).is_some_and(|line| line.contains(status)), "{status}: {list}");
        let page = said(&app, &["agent", "show", &agent]).await;
        assert!(page.contains(status), "{status}: {page}");
        let told = told(&app, &["agent", "show", &agent]).await;
        assert_eq!((&told["status"], &told["schedulable"]), (&"ALIVE".into(), &(status == "ALIVE").into()));
    }
}

#[tokio::test]
async fn an_image_goes_to_a_node_and_comes_from_it_again() {
    let (Some(registry), Some(node)) = (RealRegistry::open().await, RealDocker::start().await) else {
        return;
    };
    registry.push(&Image::new("lab/python", "1").real_layers(2, 100_000)).await;
    let image = format!("{}/lab/python:1", registry.host());
    let url = node.url();
    let app = App::start_with(move |command| {
        command.args(["--engine", &url]);
    })
    .await;
    said(&app, &["registry", "add", registry.host()]).await;
    said(&app, &["image", "rescan", registry.host()]).await;

    // The server finds an engine moments after its start, not before.
    let agent = until("the agent", PATIENCE, async || {
        told(&app, &["agent", "list", "--status", "alive"]).await[0]["id"].as_str().map(str::to_owned)
    })
    .await;
    said(&app, &["agent", "label", &agent, "zone=a", "rack=7"]).await;
    said(&app, &["agent", "label", &agent, "rack-"]).await;
    let list = said(&app, &["agent", "list"]).await;
    let line = list.lines().nth(1).unwrap_or_default();
    assert!(line.starts_with(&agent) && line.contains("ALIVE") && line.ends_with("zone=a"), "{list}");
    let page = said(&app, &["agent", "show", &agent]).await;
    assert!(page.contains("labels") && page.contains("docker "), "{page}");
    refused(&app, &["agent", "show", "nobody"], &["no such agent", "wharf agent list"]).await;
    refused(&app, &["agent", "label", "nobody", "a=b"], &["no such agent", "wharf agent list"]).await;

    let set = told(&app, &["agent", "set", "{zone=a}"]).await;
    assert_eq!((&set["folded"], &set["count"]), (&agent.as_str().into(), &1.into()), "{set}");
    let caret = "  gpu01;rm\n       ^\n";
    refused(&app, &["agent", "set", "gpu01;rm"], &["expression: ", " at 5: ", caret]).await;
    for command in ["preload", "unload"] {
        refused(&app, &[command, &image, "gpu01;rm"], &[&image, " at 5: ", caret]).await;
        refused(&app, &[command, "nothing", "*"], &["no such image", "wharf image list"]).await;
    }
    refused(&app, &["preload", &image, "gpu01;rm", "--plan"], &[caret]).await;
    assert!(told(&app, &["task", "list"]).await.as_array().is_some_and(|tasks| tasks.len() == 1));

    let plan = said(&app, &["preload", &image, "*", "--plan"]).await;
    assert!(plan.contains("to-fetch") && plan.contains("1 agent, "), "{plan}");
    let loaded = said(&app, &["preload", &image, "{zone=a}"]).await;
    assert!(loaded.starts_with("preload ") && loaded.ends_with(&format!("\n{agent}: loaded\n")), "{loaded}");
    let again = said(&app, &["preload", &image, &agent]).await;
    assert!(again.contains(&format!("{agent}: already there")), "{again}");
    let state = async |arguments: &[&str]| {
        let rows = told(&app, &[&["image", "presence"], arguments].concat()).await;
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        assert_eq!(
            (&rows[0]["agent"], &rows[0]["reference"]),
            (&agent.as_str().into(), &image.as_str().into())
        );
        rows[0]["state"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(state(&[&image]).await, "present");
    assert_eq!(state(&["--agent", &agent]).await, "present");
    assert_eq!(state(&["--agent", &agent, &image]).await, "present");
    refused(&app, &["image", "presence", "--agent", "nobody"], &["wharf agent list"]).await;

    node.docker_ok(&["create", "--name", "holder", &image, "/file"]).await;
    let held = app.wharf(&["unload", &image, "*"]).await;
    assert_eq!(held.code, 1, "{}", held.text());
    assert!(held.stdout.contains("holder"), "{}", held.text());
    node.docker_ok(&["rm", "holder"]).await;
    let removed = said(&app, &["unload", &image, "*"]).await;
    assert!(removed.contains(&format!("{agent}: removed")), "{removed}");
    assert_eq!(state(&[&image]).await, "absent");
}
