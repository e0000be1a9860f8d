//! The content of manifests and configs is kept for as long as an image or a tag leads to it, and no longer.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::process::run;
use crate::support::proxy::{CountingProxy, Exchange};
use crate::support::registry::RealRegistry;
use crate::support::verbs::counts;
use crate::support::wait::{PATIENCE, until};

/// The number of images that come and go.
const PASSING: usize = 2_000;
/// What the server logs after a check: that there was nothing to remove, or that it has removed everything.
const LOOKED: [&str; 2] =
    ["all contents are some image's", "contents that no image has any more were removed"];

fn passing() -> impl Iterator<Item = Image> {
    (0..PASSING).map(|n| Image::new(&format!("passing/{}", n % 20), &format!("t{n}")).content(&n.to_string()))
}

/// Returns the number of records, by `wharf doctor`; the server is started again.
async fn records(app: &mut App) -> usize {
    app.terminate().await;
    let directory = app.data_dir();
    let mut doctor = app.launch().wharf(&["doctor", "--json", "--data-dir", directory.to_str().unwrap()]);
    doctor.env("WHARF_ENDPOINT", "http://127.0.0.1:1");
    let outcome = run(&mut doctor, app.launch().root(), PATIENCE).await;
    let rows: Vec<Value> =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
    let found = rows.iter().find(|row| row["check"] == "database").expect("a database")["found"].clone();
    let found = found.as_str().unwrap().split(", ").find_map(|part| part.strip_suffix(" records"));
    let count = found.unwrap_or_else(|| panic!("{}", outcome.text())).parse().expect("a number");
    app.restart().await;
    count
}

/// Returns how many times the server has checked.
fn looks(app: &App) -> usize {
    LOOKED.iter().map(|words| app.logs().matches(words).count()).sum()
}

/// Waits until the server has checked once more than before.
async fn looked(app: &App, before: usize) {
    until("contents to be collected", PATIENCE, async || (looks(app) > before).then_some(())).await;
}

async fn rescan_all(api: &Api, registry: &str) -> Value {
    let document = "mutation($r: String!) {
        rescan_images(registry: $r, confirm_removals: true) { ok msg task_id } }";
    let answer = api.ask(document, json!({"r": registry})).await;
    let task = answer["rescan_images"]["task_id"].as_str().expect("a task").to_owned();
    assert!(api.finish(&task).await.name.ends_with("done"));
    api.task(&task).await
}

#[tokio::test]
async fn images_that_come_and_go_leave_nothing_behind_and_what_stays_is_not_fetched_again() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push(&Image::new("lab/python", "1")).await;
    registry
        .push(&Image::new("lab/both", "1").platforms(&["linux/amd64", "linux/arm64", "windows/amd64"]))
        .await;
    registry.push(&Image::helm("lab/chart", "0.1.0")).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let mut app = App::start_with(|command| {
        command.env("WHARF_LOG_LEVEL", "info,wharf::scan::collector=debug");
    })
    .await;
    app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
    app.admin().scan(&proxy.host()).await;
    let few = records(&mut app).await;

    registry.stock(passing());
    let came = app.admin().scan(&proxy.host()).await;
    assert_eq!(counts(&came), [PASSING as u64, 0, 3, 0, 2, 0], "{came:#}");
    let most = records(&mut app).await;
    assert!(most >= few + 5 * PASSING, "an image, a manifest, a config, and that both were served: {most}");

    for repository in 0..20 {
        registry.delete_repository(&format!("passing/{repository}"));
    }
    let went = rescan_all(&app.admin(), &proxy.host()).await;
    assert_eq!(counts(&went), [0, 0, 3, PASSING as u64, 2, 0], "{went:#}");
    // Killed during or before the removal: nothing is lost, and the rest of the work is done later.
    app.kill9();
    let before = looks(&app);
    app.restart().await;
    assert_eq!(app.admin().images().await.len(), 3);
    looked(&app, before).await;
    let left = records(&mut app).await;
    // That an image came and that it went is history, which is kept and has a bound of its own.
    let history = 2 * PASSING;
    assert!(left < few + history + 60, "{few} records before, {most} with the images, {left} after them");

    // Remaining content costs one conditional request, and returning content is read as if new.
    proxy.take_log();
    let same = app.admin().scan(&proxy.host()).await;
    assert_eq!(counts(&same), [0, 0, 3, 0, 2, 0], "{same:#}");
    let bodies = |wanted: fn(&Exchange) -> bool| {
        proxy.take_log().iter().filter(|e| wanted(e) && e.body_bytes > 0).count()
    };
    assert_eq!(bodies(|e| e.is_manifest() || e.is_blob()), 0);
    registry.stock(passing().take(100));
    let back = app.admin().scan(&proxy.host()).await;
    assert_eq!(counts(&back), [100, 0, 3, 0, 2, 0], "{back:#}");
    assert_eq!(bodies(Exchange::is_blob), 100, "each config once");
    let image = app.admin().image("passing/7", "t7", "x86_64").await;
    assert!(image["labels"].as_array().is_some_and(|labels| !labels.is_empty()), "{image}");
}

#[tokio::test]
async fn what_a_scan_has_fetched_and_not_named_yet_is_kept_while_it_waits() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.stock((0..40).map(|n| Image::new("lab/slow", &format!("t{n:02}")).content(&n.to_string())));
    let proxy = CountingProxy::start(&registry.url()).await;
    let app = App::start_with(|command| {
        command.env("WHARF_LOG_LEVEL", "info,wharf::scan::collector=debug");
    })
    .await;
    app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
    // After most of the scan the registry asks for a pause, so what was read so far is kept for later.
    proxy.answer({
        let asked = std::sync::atomic::AtomicUsize::new(0);
        move |request| {
            let is_late = request.path().contains("/manifests/")
                && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 35;
            let pause = || crate::support::http1::Response::new(429).header("retry-after", "4").into();
            is_late.then(pause)
        }
    });
    let task = app.admin().rescan(&proxy.host()).await;
    looked(&app, looks(&app)).await;
    assert_eq!(app.admin().images().await.len(), 0, "the scan waits");
    assert!(app.admin().finish(&task).await.name.ends_with("done"));
    assert_eq!(app.admin().images().await.len(), 40);
    let log = proxy.log();
    let blobs = log.iter().filter(|e| e.is_blob() && e.body_bytes > 0).count();
    assert_eq!(blobs, 40, "each config once");
    assert!(!app.logs().contains("were removed"), "{}", app.logs());
}
