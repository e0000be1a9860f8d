//! A full disk: changes that can't be stored are refused with the reason and the remedy, and nothing stored is lost.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App, Launch};
use crate::support::disk::SmallDisk;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

/// Gives images aliases until that is refused; returns the number given and the refusal.
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

/// Returns a server on such a disk, with a registry that was scanned.
async fn scene(launch: Launch) -> (App, Shelf) {
    let registry = Shelf::start([Image::new("r/a", "1"), Image::new("r/b", "1")]).await;
    let app = launch.start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    (app, registry)
}

/// Writes until there is no room: the refusal names the remedy, and only acknowledged changes exist.
async fn fill_up(app: &App, registry: &Shelf) -> usize {
    let api = app.admin();
    let target = format!("{}/r/a:1", registry.host());
    let (given, msg) = alias_until_refused(&api, &target).await;
    assert!(msg.contains("is full") && msg.contains("goes on by itself"), "{msg}");
    // Monitoring is told, and reading goes on. A smaller write of the server's own may have found room meanwhile, and
    // then all is well until the next one.
    let mut given = given;
    for path in ["/healthz", "/readyz"] {
        let mut state = app.anonymous().call("GET", path).send().await;
        for again in 0..50 {
            if state.status == 503 {
                break;
            }
            let name = format!("again-{}-{again}-{}", &path[1..], "x".repeat(200));
            let alias = format!("alias: \"{name}\", target: \"{target}\"");
            given += usize::from(api.mutate("alias_image", &alias).await.0);
            state = app.anonymous().call("GET", path).send().await;
        }
        assert_eq!(state.status, 503, "{path}: {}", state.text());
        assert!(state.text().contains("is full"), "{path}: {}", state.text());
    }
    assert_eq!(aliases(&api).await, given, "nothing but what was acknowledged");
    assert_eq!(api.images().await.len(), 2);
    given
}

/// Checks that writing goes on without a restart once there is room, and that nothing was lost.
async fn goes_on(app: &App, registry: &Shelf, given: usize) -> usize {
    let api = app.admin();
    let target = format!("{}/r/a:1", registry.host());
    until("room to write", PATIENCE, async || {
        let (ok, msg) = api.mutate("alias_image", &format!("alias: \"after\", target: \"{target}\"")).await;
        assert!(ok || msg.contains("is full"), "{msg}");
        ok.then_some(())
    })
    .await;
    assert_eq!(aliases(&api).await, given + 1);
    let task = api.scan(&registry.host()).await;
    assert_eq!(task["ledger"]["failed_count"], 0, "{task:#}");
    for path in ["/healthz", "/readyz"] {
        let state = app.anonymous().call("GET", path).send().await;
        assert_eq!(state.status, 200, "{path}: {}", state.text());
    }
    given + 1
}

async fn survives_a_restart(app: &mut App, given: usize) {
    app.restart().await;
    assert_eq!(aliases(&app.admin()).await, given, "what was acknowledged is on the disk, and nothing else");
}

/// Returns a small disk for the data directory; `None` if mounting is not allowed.
fn small_disk(launch: &Launch) -> Option<SmallDisk> {
    let disk = SmallDisk::mount(launch.data_dir(), 12);
    if disk.is_none() {
        eprintln!(
            "left out: no file system can be mounted here; the limit on file sizes stands in for a full disk"
        );
    }
    disk
}

#[tokio::test]
async fn a_full_disk_refuses_changes_loses_none_and_is_no_trouble_once_it_has_room() {
    let launch = Launch::plain();
    let Some(disk) = small_disk(&launch) else { return };
    let (mut app, registry) = scene(launch.clone()).await;
    disk.fill();
    let given = fill_up(&app, &registry).await;
    // A user with the correct password can sign in to read, and wrong passwords are counted.
    let mut visitor = Visitor::of(&app);
    let wrong = visitor.sign_in(ADMIN_EMAIL, "not the password").await;
    assert_eq!(wrong.json()["authenticated"], false, "{}", wrong.text());
    let right = visitor.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert_eq!(right.json()["authenticated"], true, "{}", right.text());
    assert!(visitor.is_signed_in().await);
    disk.free();
    let given = goes_on(&app, &registry, given).await;
    assert!(visitor.is_signed_in().await);
    survives_a_restart(&mut app, given).await;
    drop(app);
    drop(disk);
}

#[tokio::test]
async fn a_task_that_meets_a_full_disk_names_it_and_goes_on_when_there_is_room() {
    let launch = Launch::plain();
    let Some(disk) = small_disk(&launch) else { return };
    let (app, registry) = scene(launch.clone()).await;
    let (api, host) = (app.admin(), registry.host());
    for (round, cancelled) in [false, true].into_iter().enumerate() {
        // Too much for the free room within the file.
        let text = "x".repeat(15_000);
        for n in 0..10 {
            let image = Image::new("r/a", &format!("{round}-{n}"));
            registry.put(&(0..6).fold(image, |image, n| image.label(&format!("text-{n}"), &text)));
        }
        // The registry gets its request before the disk is full, and answers when it is.
        let (asked, is_full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let seen = (Arc::clone(&asked), Arc::clone(&is_full));
        registry.turn(move |_| {
            seen.0.store(true, Ordering::SeqCst);
            let busy = Response::new(503).header("Retry-After", "1").into();
            (!seen.1.load(Ordering::SeqCst)).then_some(busy)
        });
        let id = api.rescan(&host).await;
        until("the registry is asked", PATIENCE, async || asked.load(Ordering::SeqCst).then_some(())).await;
        disk.fill();
        let _ = alias_until_refused(&api, &format!("{host}/r/a:1")).await;
        is_full.store(true, Ordering::SeqCst);
        let said = |word: &'static str| {
            let (api, id) = (&api, &id);
            until("words of the task", PATIENCE, async move || {
                let task = api.task(id).await;
                task["message"].as_str().is_some_and(|said| said.contains(word)).then_some(task)
            })
        };
        let waiting = said("is full").await;
        assert_eq!(waiting["state"], "started", "{waiting:#}");
        if cancelled {
            let (ok, msg) = api.mutate("cancel_task", &format!("id: \"{id}\"")).await;
            // A small change may still find room within the file.
            assert!(ok || (msg.contains("is full") && msg.contains("told to stop all the same")), "{msg}");
            let ended = said("cancelled").await;
            assert_eq!(ended["state"], "cancelled", "{ended:#}");
        }
        disk.free();
        let ended = until("the end", PATIENCE, async || {
            let task = api.task(&id).await;
            (task["state"] != "started").then_some(task)
        })
        .await;
        assert_eq!(ended["state"], if cancelled { "cancelled" } else { "done" }, "{ended:#}");
        registry.turn(|_| None);
        goes_on_writing(&api, &host).await;
    }
    drop(app);
    drop(disk);
}

async fn goes_on_writing(api: &Api, host: &str) {
    until("room to write", PATIENCE, async || {
        let (ok, msg) = api.mutate("alias_image", &format!("alias: \"x\", target: \"{host}/r/a:1\"")).await;
        assert!(ok || msg.contains("is full"), "{msg}");
        ok.then_some(())
    })
    .await;
    let (ok, msg) = api.mutate("dealias_image", "alias: \"x\"").await;
    assert!(ok, "{msg}");
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
    survives_a_restart(&mut app, given).await;
    goes_on(&app, &registry, given).await;
}

/// Runs the command under a shell that lets no file grow beyond some megabytes.
fn limit(command: &mut Command) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -f 4096; exec \"$0\" \"$@\"");
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    *command = shell;
}
