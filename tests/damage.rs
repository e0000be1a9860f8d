//! A database that something else changed, moved or removed: wharf reports it, and never writes over it.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::support::app::{App, Launch};
use crate::support::image::Image;
use crate::support::process::{read, run};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::PATIENCE;

/// Returns a server with forty images, each with so many long labels.
async fn scene(labels: usize) -> (App, Shelf) {
    let text = "x".repeat(15_000);
    let labelled =
        |image: Image| (0..labels).fold(image, |image, n| image.label(&format!("text-{n}"), &text));
    let registry = Shelf::start((0..40).map(|n| labelled(Image::new(&format!("r/{n}"), "1")))).await;
    let app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    (app, registry)
}

async fn alias(app: &App, registry: &Shelf, name: &str) -> (bool, String) {
    let target = format!("{}/r/1:1", registry.host());
    app.admin().mutate("alias_image", &format!("alias: \"{name}\", target: \"{target}\"")).await
}

async fn aliases(app: &App) -> Vec<String> {
    let images = app.admin().images().await;
    let all = images.iter().flat_map(|image| image["aliases"].as_array().unwrap());
    let mut all: Vec<String> = all.map(|alias| alias.as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

async fn health(app: &App) -> (u16, String) {
    let reply = app.anonymous().call("GET", "/healthz").send().await;
    (reply.status, reply.text())
}

#[tokio::test]
async fn a_damaged_database_is_refused_in_one_line_and_left_as_it_is() {
    let (mut app, _registry) = scene(0).await;
    app.terminate().await;
    let (launch, path) = (app.launch().clone(), app.data_dir().join("wharf.redb"));
    // Without the pages that are not used any more, of which any bit may change.
    let compacted = app.wharf(&["compact", "--data-dir", app.data_dir().to_str().unwrap()]).await;
    assert_eq!(compacted.code, 0, "{}", compacted.text());
    let whole = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refusals = 0;
    for at in used.iter().step_by(used.len() / 24) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let said = read(&launch.root().join("stderr.log")).len();
        let mut restarted = None;
        // A changed bit in a part that is never read changes nothing.
        if launch.starts().await {
            restarted = Some(launch.clone().start().await);
        }
        let words = read(&launch.root().join("stderr.log")).split_off(said);
        assert!(!words.contains("panicked") && !words.contains("internal error"), "byte {at}: {words}");
        if let Some(app) = restarted {
            assert_eq!(app.admin().images().await.len(), 40, "byte {at}");
            continue;
        }
        refusals += 1;
        assert!(fs::read(&path).unwrap() == bytes, "byte {at}: a damaged file was written");
        let refused = launch.refused().await;
        assert_eq!(refused.code, 1, "{}", refused.text());
        for words in ["wharf.redb", "not a usable wharf database", "restore a backup"] {
            assert!(refused.stderr.contains(words), "byte {at}: {}", refused.stderr);
        }
        assert_eq!(
            refused.stderr.lines().filter(|line| line.starts_with("wharf: ")).count(),
            1,
            "{}",
            refused.stderr
        );
    }
    assert!(refusals > 3, "only {refusals} were refused");
}

#[tokio::test]
async fn damage_that_a_start_does_not_read_is_found_before_it_does_anything() {
    let launch = Launch::new(|command| {
        command.args(["--engine", "oci:images"]);
    });
    let mut app = launch.clone().start().await;
    // Rows of the audit log are read from the file, on request.
    let (ok, _) =
        app.admin().mutate("alias_image", "alias: \"unread\", target: \"never-read-at-a-start\"").await;
    assert!(!ok);
    app.terminate().await;
    let path = app.data_dir().join("wharf.redb");
    let (mut bytes, text) = (fs::read(&path).unwrap(), b"never-read-at-a-start");
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    // Files that a successful start would remove, and create.
    let left = app.data_dir().join("wharf.redb.backup-left");
    fs::write(&left, "").unwrap();
    fs::remove_dir_all(launch.root().join("images")).unwrap();
    let refused = launch.refused().await;
    assert!(
        refused.code == 1 && refused.stderr.contains("not a usable wharf database"),
        "{}",
        refused.text()
    );
    assert!(!refused.stdout.contains("listening"), "{}", refused.text());
    assert!(fs::read(&path).unwrap() == bytes, "a damaged file was written");
    assert!(left.exists() && !launch.root().join("images").exists());
}

#[tokio::test]
async fn a_database_file_that_is_moved_away_is_noticed_before_anything_is_called_done() {
    let (mut app, registry) = scene(0).await;
    let path = app.data_dir().join("wharf.redb");
    let elsewhere = path.with_extension("elsewhere");
    let (ok, msg) = alias(&app, &registry, "before").await;
    assert!(ok, "{msg}");
    fs::rename(&path, &elsewhere).unwrap();
    for _ in 0..2 {
        let (ok, msg) = alias(&app, &registry, "lost").await;
        assert!(!ok && msg.contains("removed or replaced") && msg.contains("wharf backup"), "{msg}");
        let (status, words) = health(&app).await;
        assert_eq!(status, 503, "{words}");
        // A different file under the same name must be noticed.
        fs::write(&path, b"another").unwrap();
    }
    // The held file can still be saved, and is complete.
    let saved = app.launch().root().join("saved.backup");
    let done = app.wharf(&["backup", saved.to_str().unwrap()]).await;
    assert_eq!(done.code, 0, "{}", done.text());
    // Once the file is back, all is well, without a restart.
    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(health(&app).await.0, 200);
    let (ok, msg) = alias(&app, &registry, "after").await;
    assert!(ok, "{msg}");
    app.restart().await;
    assert_eq!(aliases(&app).await, ["after", "before"]);
}

#[tokio::test]
async fn damage_under_a_running_server_ends_all_writing_and_is_told() {
    // More than the storage library keeps in memory.
    let (mut app, registry) = scene(12).await;
    let path = app.data_dir().join("wharf.redb");
    let mut bytes = fs::read(&path).unwrap();
    // The header stays, because the library has it in memory.
    bytes[4096..].iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    // Written in place, as a disk would do it.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&bytes[4096..], 4096).unwrap();
    // Every read of it is refused, and from then on every write.
    let saved = app.launch().root().join("saved.backup");
    let backup = app.wharf(&["backup", saved.to_str().unwrap()]).await;
    assert!(backup.code == 1 && backup.stderr.contains("is damaged"), "{}", backup.text());
    assert!(!saved.exists());
    let (ok, told) = alias(&app, &registry, "lost").await;
    assert!(!ok && told.contains("damaged") && told.contains("restore a backup"), "{told}");
    let (status, words) = health(&app).await;
    assert!(status == 503 && words.contains("damaged"), "{status} {words}");
    assert!(!app.logs().contains("panicked at"), "{}", app.logs());
    // Lists come from memory.
    assert_eq!(app.admin().images().await.len(), 40);
    let before = fs::read(&path).unwrap();
    let (ok, _) = alias(&app, &registry, "more").await;
    assert!(!ok);
    app.terminate().await;
    assert!(fs::read(&path).unwrap() == before, "a damaged file was written");
    let refused = app.launch().refused().await;
    assert!(refused.stderr.contains("not a usable wharf database"), "{}", refused.text());
}

#[tokio::test]
async fn compacting_gives_room_back_and_is_refused_while_a_server_runs() {
    let (mut app, registry) = scene(0).await;
    let directory = app.data_dir();
    let directory = directory.to_str().unwrap();
    let compact = ["compact", "--json", "--data-dir", directory];
    let refused = app.wharf(&compact).await;
    assert!(refused.code == 1 && refused.stderr.contains("another wharf is running"), "{}", refused.text());
    let (ok, msg) = alias(&app, &registry, "kept").await;
    assert!(ok, "{msg}");
    app.terminate().await;
    let done = app.wharf(&compact).await;
    assert_eq!(done.code, 0, "{}", done.text());
    let done: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let size = fs::metadata(app.data_dir().join("wharf.redb")).unwrap().len();
    // A copy of so little may need one page more than the original.
    let page = 4096;
    assert!(
        done["after"] == size && done["before"].as_u64().map(|before| before + page) >= Some(size),
        "{done}"
    );
    app.restart().await;
    assert_eq!(aliases(&app).await, ["kept"]);
    let absent = run(&mut Launch::plain().wharf(&compact[..2]), app.launch().root(), PATIENCE).await;
    assert!(absent.code == 1 && absent.stderr.contains("no wharf data directory"), "{}", absent.text());
}
