//! Backups of a running server, and their restore on another machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use wharf::store::{Store, Table};

use crate::support::api::Api;
use crate::support::app::{App, Launch};
use crate::support::disk::SmallDisk;
use crate::support::http1;
use crate::support::image::Image;
use crate::support::process::{Process, read, run};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// Returns a server that has scanned a registry which needs a password.
async fn scene(launch: Launch) -> (App, Shelf) {
    let registry = Shelf::start([Image::new("r/a", "1"), Image::new("r/b", "1")]).await;
    let app = launch.start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    (app, registry)
}

/// Returns the numbers that images were given as aliases.
async fn numbers(api: &Api) -> BTreeSet<usize> {
    let images = api.images().await;
    let aliases = images.iter().filter_map(|image| image["aliases"].as_array()).flatten();
    aliases.map(|alias| alias.as_str().unwrap()[1..].parse().unwrap()).collect()
}

/// Starts a restored copy.
async fn restored(launch: &Launch, backup: &Path, key: Option<&Path>) -> App {
    let copy = Launch::plain();
    let (file, data_dir) = (backup.to_str().unwrap(), copy.data_dir());
    let mut arguments = vec!["restore", file, "--data-dir", data_dir.to_str().unwrap()];
    if let Some(key) = key {
        arguments.extend(["--key-file", key.to_str().unwrap()]);
    }
    let outcome = run(&mut launch.wharf(&arguments), launch.root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(data_dir.join("secret.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&mut launch.wharf(&arguments), launch.root(), PATIENCE).await;
    assert_eq!(again.code, 1, "{}", again.text());
    assert!(again.stderr.contains("a database already"), "{}", again.text());
    copy.start().await
}

/// Checks that nothing half done is left, neither here nor in the data directory.
fn assert_tidy(app: &App) {
    for folder in [app.launch().root(), &app.data_dir()] {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = names
            .filter(|name| [".part", ".backup-", ".new"].iter().any(|mark| name.contains(mark)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_backup_taken_during_writes_is_the_state_of_one_moment() {
    let (app, registry) = scene(Launch::plain()).await;
    let target = format!("{}/r/a:1", registry.host());
    // Aliases are made one after the other, so at any moment the first ones exist, without gaps.
    let (given, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (api, count, end) = (app.admin(), Arc::clone(&given), Arc::clone(&is_over));
    let writer = tokio::spawn(async move {
        while !end.load(Ordering::SeqCst) {
            let n = count.load(Ordering::SeqCst);
            let (ok, msg) =
                api.mutate("alias_image", &format!("alias: \"n{n}\", target: \"{target}\"")).await;
            assert!(ok, "{msg}");
            count.store(n + 1, Ordering::SeqCst);
        }
    });
    let busy = async |least: usize| {
        until("writes", PATIENCE, async || (given.load(Ordering::SeqCst) >= least).then_some(())).await;
    };
    for round in 0..3 {
        busy(10 * (round + 1)).await;
        let before = given.load(Ordering::SeqCst);
        let file = app.launch().root().join(format!("backup-{round}"));
        let outcome = app.wharf(&["backup", file.to_str().unwrap()]).await;
        assert_eq!(outcome.code, 0, "{}", outcome.text());
        let after = given.load(Ordering::SeqCst);
        assert!(outcome.stdout.contains("keep secret.key"), "{}", outcome.text());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let refused = run(
            &mut app.launch().wharf(&["restore", file.to_str().unwrap(), "--data-dir", "elsewhere"]),
            app.launch().root(),
            PATIENCE,
        )
        .await;
        assert!(refused.code == 1 && refused.stderr.contains("--key-file"), "{}", refused.text());
        let copy = restored(app.launch(), &file, Some(&app.data_dir().join("secret.key"))).await;
        let found = numbers(&copy.admin()).await;
        assert!((before..=after + 1).contains(&found.len()), "{before} {} {after}", found.len());
        assert!(found.iter().copied().eq(0..found.len()), "{found:?}");
        // The backup has the registry's password, so the registry can be read again.
        let task = copy.admin().scan(&registry.host()).await;
        assert_eq!(task["ledger"]["failed_count"], 0, "{task:#}");
    }
    is_over.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert_tidy(&app);
    let rows = app.admin().ask("{ audit_log(action: \"back_up\") { items { outcome } } }", json!({})).await;
    assert_eq!(rows["audit_log"]["items"].as_array().map(Vec::len), Some(3), "{rows}");
}

#[tokio::test]
async fn a_stopped_servers_directory_is_backed_up_with_its_key() {
    let (mut app, registry) = scene(Launch::plain()).await;
    let file = app.launch().root().join("backup");
    let data_dir = app.data_dir();
    let arguments = ["backup", file.to_str().unwrap(), "--offline", data_dir.to_str().unwrap()];
    let refused = app.wharf(&arguments).await;
    assert!(refused.code == 1 && refused.stderr.contains("another wharf is running"), "{}", refused.text());
    app.terminate().await;
    let outcome = run(&mut app.launch().wharf(&arguments), app.launch().root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert!(outcome.stdout.contains("the key to its secrets too"), "{}", outcome.text());
    let again = run(&mut app.launch().wharf(&arguments), app.launch().root(), PATIENCE).await;
    assert!(again.code == 1 && again.stderr.contains("there already"), "{}", again.text());
    let copy = restored(app.launch(), &file, None).await;
    let task = copy.admin().scan(&registry.host()).await;
    assert_eq!(task["ledger"]["failed_count"], 0, "{task:#}");
    assert_tidy(&app);
}

#[tokio::test]
async fn only_super_admins_take_backups_and_no_token_for_reading_does() {
    let app = App::start().await;
    let create = "mutation { create_api_token(name: \"ci\", scope: \"read\") { token } }";
    let made = app.admin().ask(create, json!({})).await;
    let token = made["create_api_token"]["token"].as_str().unwrap().to_owned();
    app.anonymous().call("POST", "/backup").send().await.problem(401, "auth-failed");
    let call = app.anonymous().call("POST", "/backup").header("Authorization", &format!("Bearer {token}"));
    call.send().await.problem(403, "generic-forbidden");
    let ann = app.person("ann@lab.example", "admin", "default").await;
    ann.api.call("POST", "/backup").send().await.problem(403, "generic-forbidden");
    let rows: Vec<Value> = app.admin().audit_rows(0).await;
    let denied = rows.iter().filter(|row| row["action"] == "back_up" && row["outcome"] == "DENIED").count();
    assert_eq!(denied, 2, "{rows:?}");
    assert_tidy(&app);
}

#[tokio::test]
async fn a_full_disk_ends_a_backup_and_nothing_else() {
    let launch = Launch::plain();
    let Some(here) = SmallDisk::mount(launch.root().join("small"), 4) else {
        eprintln!("left out: no file system can be mounted here");
        return;
    };
    let (app, _registry) = scene(launch.clone()).await;
    here.fill();
    let file = launch.root().join("small/backup");
    let outcome = app.wharf(&["backup", file.to_str().unwrap()]).await;
    assert!(outcome.code == 1 && outcome.stderr.contains("free some space"), "{}", outcome.text());
    let left = fs::read_dir(launch.root().join("small")).unwrap().count();
    assert_eq!(left, 1, "the filler, and nothing half written");
    here.free();
    let outcome = app.wharf(&["backup", file.to_str().unwrap()]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    drop(app);
    drop(here);

    // The server makes the backup in its data directory, and needs room there; without room, the server itself goes
    // on.
    let launch = Launch::plain();
    let there = SmallDisk::mount(launch.data_dir(), 8).expect("as before");
    let (app, _registry) = scene(launch.clone()).await;
    there.fill();
    let file = launch.root().join("backup");
    let outcome = app.wharf(&["backup", file.to_str().unwrap()]).await;
    assert!(outcome.code == 1 && outcome.stderr.contains("no room for the backup"), "{}", outcome.text());
    there.free();
    let outcome = app.wharf(&["backup", file.to_str().unwrap()]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert_tidy(&app);
    drop(app);
    drop(there);
}

/// Makes a stopped server's database some 30 MB larger.
fn fatten(data_dir: &Path) {
    const FAT: Table<String> = Table::new("KEY_TO_FAT");
    let store = Store::open(data_dir).expect("a stopped server's data");
    let megabyte = "x".repeat(1 << 20);
    for n in 0_u32..30 {
        store.write_now(|w| w.put(&FAT, n.to_be_bytes(), &megabyte)).expect("room");
    }
}

/// Returns an incomplete file of a folder, if there is one.
fn half_done(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.to_string_lossy();
        (name.contains(".part") || name.ends_with(".new"))
            && path.metadata().is_ok_and(|found| found.len() > 0)
    });
    names.next()
}

#[tokio::test]
async fn a_backup_and_a_restore_that_are_stopped_leave_nothing_behind() {
    let mut app = App::start().await;
    app.terminate().await;
    fatten(&app.data_dir());
    let (launch, data_dir) = (app.launch().clone(), app.data_dir());
    let root = launch.root().to_owned();
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let stopped = async |arguments: &[&str], signal: &str, folder: &Path| {
        let mut command = launch.wharf(arguments);
        command.env("WHARF_ACCESS_KEY", "AK").env("WHARF_SECRET_KEY", "SK");
        let (out, err) = (root.join("stopped.out"), root.join("stopped.err"));
        let mut process = Process::spawn(&mut command, &out, &err).expect("the binary runs");
        until("something half done", PATIENCE, async || half_done(folder)).await;
        process.signal(signal);
        let status = process.exit("a command that was stopped", PATIENCE).await;
        assert_eq!(status.code(), Some(1), "{arguments:?}: {}", read(&err));
        assert!(read(&err).contains("stopped; what was half done is removed"), "{}", read(&err));
        assert_eq!(half_done(folder), None, "{arguments:?}");
        fs::remove_file(err).unwrap();
    };
    for signal in ["INT", "TERM"] {
        let arguments = ["backup", &at("b"), "--offline", data_dir.to_str().unwrap()];
        stopped(&arguments, signal, &root).await;
        assert!(!root.join("b").exists());
    }
    let arguments = ["backup", &at("b"), "--offline", data_dir.to_str().unwrap()];
    let outcome = run(&mut launch.wharf(&arguments), &root, PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    stopped(&["restore", &at("b"), "--data-dir", &at("copy")], "INT", &root.join("copy")).await;
    assert!(!root.join("copy/wharf.redb").exists() && !root.join("copy/secret.key").exists());

    // A backup from a server that stops halfway.
    let slow = http1::Server::start(|_: http1::Request| async {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        http1::Answer::Pause([head.as_bytes(), &vec![7; 50_000]].concat().into())
    })
    .await;
    let endpoint = slow.url();
    for signal in ["INT", "TERM"] {
        stopped(&["backup", &at("c"), "--endpoint", &endpoint], signal, &root).await;
    }
}

#[tokio::test]
async fn a_backup_that_nobody_reads_is_dropped_with_its_file() {
    let mut app = App::start().await;
    app.terminate().await;
    fatten(&app.data_dir());
    app.restart().await;
    let held = |app: &App| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", app.process_id())).expect("its descriptors");
        let files = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        files.filter(|file| file.to_string_lossy().contains("backup-")).count()
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        // Only the head is read.
        unread.push(app.admin().call("POST", "/backup").json(&json!({})).response().await);
    }
    assert_eq!(held(&app), 4);
    let fifth = app.admin().call("POST", "/backup").json(&json!({})).send().await;
    assert!(fifth.text().contains("4 backups are on their way already"), "{}", fifth.text());
    until("the files to be gone", 10 * PATIENCE, async || (held(&app) == 0).then_some(())).await;
    let read = app.admin().call("POST", "/backup").json(&json!({})).send().await;
    assert!(read.body.len() > 30 << 20, "{}", read.body.len());
}
