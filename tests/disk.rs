//! A disk that is full: what can't be kept is refused with the reason and the remedy, and nothing that was kept is lost.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::api::Api;
use crate::support::app::{App, Launch};
use crate::support::disk::SmallDisk;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

/// Gives images other names until that is refused, and returns how many were given and what was said then.
async fn alias_until_refused(api: &Api, target: &str) -> (usize, String) {
    for n in 0..20_000 {
        let name = format!("{n}-{}", "x".repeat(200));
        let (ok, msg) = api.mutate("alias_image", &format!("alias: \"{name}\", target: \"{target}\"")).await;
        if !ok {
            return (n, msg);
        }
    }
    panic!("the disk is never full");
}

async fn aliases(api: &Api) -> usize {
    api.images().await.iter().map(|image| image["aliases"].as_array().map_or(0, Vec::len)).sum()
}

/// A server on such a place, with a registry that was scanned.
async fn scene(launch: Launch) -> (App, Shelf) {
    let registry = Shelf::start([Image::new("r/a", "1"), Image::new("r/b", "1")]).await;
    let app = launch.start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    (app, registry)
}

/// Writes until there is no room: refused with the remedy, and nothing is there but what was acknowledged.
async fn fill_up(app: &App, registry: &Shelf) -> usize {
    let api = app.admin();
    let target = format!("{}/r/a:1", registry.host());
    let (given, msg) = alias_until_refused(&api, &target).await;
    assert!(msg.contains("is full") && msg.contains("free some space, then restart wharf"), "{msg}");
    assert_eq!(aliases(&api).await, given, "nothing but what was acknowledged");
    // A second try, and a task, are refused as well: never a false `ok`.
    let (ok, msg) = api.mutate("alias_image", &format!("alias: \"again\", target: \"{target}\"")).await;
    assert!(!ok && msg.contains("restart wharf"), "{msg}");
    let (ok, msg) = api.mutate("rescan_images", &format!("registry: \"{}\"", registry.host())).await;
    assert!(!ok && msg.contains("restart wharf"), "{msg}");
    // Reading goes on, and whoever watches the server is told.
    assert_eq!(api.images().await.len(), 2);
    let ready = app.anonymous().call("GET", "/readyz").send().await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    given
}

async fn recovers(app: &mut App, registry: &Shelf, given: usize) {
    app.restart().await;
    let api = app.admin();
    assert_eq!(aliases(&api).await, given, "what was acknowledged is on the disk, and nothing else");
    let target = format!("{}/r/a:1", registry.host());
    let (ok, msg) = api.mutate("alias_image", &format!("alias: \"after\", target: \"{target}\"")).await;
    assert!(ok, "{msg}");
    let task = api.scan(&registry.host()).await;
    assert_eq!(task["ledger"]["failed_count"], 0, "{task:#}");
    let ready = app.anonymous().call("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200, "{}", ready.text());
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_none() {
    let launch = Launch::plain();
    let Some(disk) = SmallDisk::mount(launch.data_dir(), 8) else {
        eprintln!(
            "left out: no file system can be mounted here; the limit on file sizes stands in for a full disk"
        );
        return;
    };
    let (mut app, registry) = scene(launch.clone()).await;
    disk.fill();
    let given = fill_up(&app, &registry).await;
    disk.free();
    recovers(&mut app, &registry, given).await;
    drop(app);
    drop(disk);
}

#[tokio::test]
async fn a_file_that_may_not_grow_refuses_changes_and_loses_none() {
    let is_limited = Arc::new(AtomicBool::new(true));
    let limited = Arc::clone(&is_limited);
    let launch = Launch::new(move |command| {
        if limited.load(Ordering::SeqCst) {
            limit(command);
        }
    });
    let (mut app, registry) = scene(launch).await;
    let given = fill_up(&app, &registry).await;
    is_limited.store(false, Ordering::SeqCst);
    recovers(&mut app, &registry, given).await;
}

/// The same command under a shell that lets no file grow beyond some megabytes.
fn limit(command: &mut Command) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"");
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    *command = shell;
}
