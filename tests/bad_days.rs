//! Two hundred bad moments on one data directory while things of every kind change: kills, a full disk, a cut link, a
//! clock that jumps. Nothing acknowledged may be lost, and no task may be left without an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{App, Launch};
use crate::support::clock::Clocks;
use crate::support::cut::CutProxy;
use crate::support::disk::SmallDisk;
use crate::support::image::Image;
use crate::support::machine::{Machine, becomes, token};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// The number of bad moments; `WHARF_BAD_MOMENTS` overrides it.
const MOMENTS: usize = 200;
/// The most actions of a writer between two bad moments: by then all of its things are made and removed.
const MOST_TURNS: usize = 80;
/// The number of writers that change things at once.
const WRITERS: usize = 4;
const NODE: &str = "i-far";
const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// A kind of thing that can be made, found by its name, and removed.
struct Kind {
    name: &'static str,
    /// The mutation that makes it; `NAME` and `HOST` are replaced.
    make: &'static str,
    /// The mutation that removes it; `ID` is replaced.
    take: &'static str,
    list: &'static str,
    /// The fields of a listed thing: its name, and the value by which it is removed.
    fields: [&'static str; 2],
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "alias",
        make: r#"alias_image(alias: "NAME", target: "HOST/r/1:1") { ok msg }"#,
        take: r#"dealias_image(alias: "ID") { ok msg }"#,
        list: "images { aliases }",
        fields: ["", ""],
    },
    Kind {
        name: "registry",
        make: r#"create_container_registry(hostname: "NAME.invalid", props: { url: "http://127.0.0.1:1", type: "docker", username: "u", password: "p" }) { container_registry { hostname } }"#,
        take: r#"delete_container_registry(hostname: "ID") { container_registry { hostname } }"#,
        list: "container_registries { hostname }",
        fields: ["hostname", "hostname"],
    },
    Kind {
        name: "rule",
        make: r#"create_preload_rule(name: "NAME", props: { images: "HOST/none/*", target_agents: "i-far", enabled: false }) { ok msg }"#,
        take: r#"delete_preload_rule(name: "ID") { ok msg }"#,
        list: "preload_rules { name }",
        fields: ["name", "name"],
    },
    Kind {
        name: "scaling group",
        make: r#"create_scaling_group(name: "NAME", props: { driver: "static", scheduler: "fifo" }) { ok msg }"#,
        take: r#"delete_scaling_group(name: "ID") { ok msg }"#,
        list: "scaling_groups { name }",
        fields: ["name", "name"],
    },
    Kind {
        name: "domain",
        make: r#"create_domain(name: "NAME", props: { description: "x" }) { ok msg }"#,
        take: r#"purge_domain(name: "ID") { ok msg }"#,
        list: "domains { name }",
        fields: ["name", "name"],
    },
    Kind {
        name: "group",
        make: r#"create_group(name: "NAME", props: { domain_name: "default" }) { ok msg }"#,
        take: r#"purge_group(gid: "ID") { ok msg }"#,
        list: "groups { id name }",
        fields: ["name", "id"],
    },
    Kind {
        name: "token",
        make: r#"create_api_token(name: "NAME", scope: "read") { ok msg }"#,
        take: r#"revoke_api_token(id: "ID") { ok msg }"#,
        list: "api_tokens { id name }",
        fields: ["name", "id"],
    },
];

const TASKS: [&str; 3] = [
    r#"rescan_images(registry: "HOST") { ok msg task_id }"#,
    r#"preload_image(reference: "HOST/r/2:1", target_agents: "i-far") { ok msg task_id }"#,
    r#"unload_image(reference: "HOST/r/2:1", target_agents: "i-far") { ok msg task_id }"#,
];

/// The answer to a request.
enum Answer {
    Done(Value),
    /// The thing may or may not have been made.
    Doubtful,
    /// The server went away.
    Gone,
}

async fn send(api: &Api, document: &str) -> Answer {
    let call = api.call("POST", "/admin/gql").json(&json!({"query": document, "variables": {}}));
    let Ok(response) = call.try_response().await else { return Answer::Gone };
    let Ok(bytes) = response.bytes().await else { return Answer::Gone };
    let Ok(mut answer) = serde_json::from_slice::<Value>(&bytes) else { return Answer::Gone };
    let it = answer["data"]["it"].take();
    if it.is_object() && it["ok"] != false {
        return Answer::Done(it);
    }
    // The disk is full, or a date differs from the server's clock.
    let said = format!("{it} {answer}");
    let bad_moment =
        ["is full", "tasks are running already", "Unauthorized", "auth", "stopping", "Date/time"];
    assert!(bad_moment.iter().any(|word| said.contains(word)), "{document}: {said}");
    Answer::Doubtful
}

/// Returns the things of a kind, each with the value by which it is removed.
async fn list(api: &Api, kind: &Kind) -> BTreeMap<String, String> {
    let data = api.ask(&format!("{{ it: {} }}", kind.list), json!({})).await;
    let rows = data["it"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match kind.name {
        "alias" => rows
            .flat_map(|row| row["aliases"].as_array().unwrap())
            .map(|alias| (text(alias), text(alias)))
            .collect(),
        _ => rows
            .map(|row| (text(&row[kind.fields[0]]).replace(".invalid", ""), text(&row[kind.fields[1]])))
            .collect(),
    }
}

/// What a writer knows about its things, by kind and name; `None` if in doubt.
type Known = BTreeMap<(usize, String), Option<bool>>;
/// The values by which things are removed.
type Ids = BTreeMap<(usize, String), String>;

/// What one writer did until a bad moment.
struct Written {
    known: Known,
    tasks: Vec<String>,
}

/// Makes and removes things, and begins tasks, until something goes wrong.
async fn write(
    api: Api,
    host: String,
    number: usize,
    mut known: Known,
    mut ids: Ids,
    acknowledged: Arc<AtomicUsize>,
    first: usize,
) -> Written {
    let mut tasks = Vec::new();
    for turn in first..first + MOST_TURNS {
        if turn % 19 == 5 {
            // One at a time is enough: a task goes on through all later moments.
            if !tasks.is_empty() {
                continue;
            }
            let document = TASKS[turn / 19 % TASKS.len()].replace("HOST", &host);
            match send(&api, &format!("mutation {{ it: {document} }}")).await {
                Answer::Done(answer) => tasks.push(answer["task_id"].as_str().expect("a task").to_owned()),
                Answer::Doubtful => {}
                Answer::Gone => break,
            }
            continue;
        }
        let which = turn % KINDS.len();
        let key = (which, format!("w{number}-{}", turn / KINDS.len() % 3));
        let is_there = known.get(&key).copied().flatten().unwrap_or(false);
        let document = match (is_there, ids.get(&key)) {
            (false, _) => KINDS[which].make.replace("NAME", &key.1).replace("HOST", &host),
            (true, Some(id)) => KINDS[which].take.replace("ID", id),
            // It was made just now.
            (true, None) => continue,
        };
        known.insert(key.clone(), None);
        match send(&api, &format!("mutation {{ it: {document} }}")).await {
            Answer::Done(_) => {
                // A thing that is made again may have another id.
                ids.remove(&key);
                known.insert(key, Some(!is_there));
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            // It is checked once all is well again.
            Answer::Doubtful | Answer::Gone => break,
        }
    }
    Written { known, tasks }
}

/// Returns everything that writers made and that exists.
async fn there(api: &Api) -> Ids {
    let mut all = Ids::new();
    for (which, kind) in KINDS.iter().enumerate() {
        let found = list(api, kind).await;
        all.extend(
            found.into_iter().filter(|(name, _)| name.starts_with('w')).map(|(name, id)| ((which, name), id)),
        );
    }
    all
}

/// Compares what the writers know with what exists, and updates their knowledge.
fn agree(known: &mut [Known], there: &Ids, what: &str) {
    for (key, state) in known.iter_mut().flatten() {
        let is_there = there.contains_key(key);
        assert!(
            state.is_none_or(|state| state == is_there),
            "{what}: {} {key:?} was {state:?}",
            KINDS[key.0].name
        );
        *state = Some(is_there);
    }
}

/// The audit log from its first row on: none may be missing.
struct Log {
    last: u64,
}

impl Log {
    async fn follow(&mut self, api: &Api, what: &str) {
        for row in api.audit_rows(self.last).await {
            let number = row["number"].as_u64().expect("a number");
            assert_eq!(number, self.last + 1, "{what}: a row is missing: {row}");
            self.last = number;
        }
    }
}

/// The server and the machine around it.
struct Scene {
    app: App,
    registry: Shelf,
    disk: Option<SmallDisk>,
    /// How many times the disk was found full.
    full: usize,
    clocks: Clocks,
    wire: CutProxy,
    _machine: Machine,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn set() -> Self {
        let clocks = Clocks::real();
        let launch = Launch::new(clocks.shown_to());
        let disk = SmallDisk::mount(launch.data_dir(), 48);
        let images =
            (0..12).map(|n| Image::new(&format!("r/{}", n % 3), &(n / 3).to_string()).real_layers(1, 1000));
        let registry = Shelf::start(images).await;
        let app = launch.start().await;
        app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        app.admin().scan(&registry.host()).await;
        let wire = CutProxy::start(app.url()).await;
        let folder = tempfile::tempdir().expect("a directory");
        let engine = format!("oci:{}", folder.path().join("images").display());
        let mut machine = Machine::new(&wire.url(), &engine).with(&["--id", NODE]);
        machine.start(Some(&token(&app.admin(), json!({})).await));
        becomes(&app.admin(), NODE, "ALIVE").await;
        Self { app, registry, disk, full: 0, clocks, wire, _machine: machine, _folder: folder }
    }

    /// Causes a bad moment while the writers work.
    async fn suffer(&mut self, moment: usize) {
        match moment % 8 {
            1 => {
                if let Some(disk) = &self.disk {
                    disk.fill();
                    // Too much for the free room within the file.
                    let text = "x".repeat(15_000);
                    for n in 0..12 {
                        let image = Image::new("r/3", &format!("{moment}-{n}"));
                        self.registry
                            .put(&(0..6).fold(image, |image, n| image.label(&format!("text-{n}"), &text)));
                    }
                    let api = self.app.admin();
                    let rescan = format!("registry: \"{}\"", self.registry.host());
                    until("a place among the tasks", PATIENCE, async || {
                        let (ok, msg) = api.mutate("rescan_images", &rescan).await;
                        let is_busy = msg.contains("tasks are running already");
                        assert!(ok || is_busy || msg.contains("is full"), "{msg}");
                        (!is_busy).then_some(())
                    })
                    .await;
                    let met = until("the full disk is met", PATIENCE, async || {
                        let ready = api.call("GET", "/readyz").send().await;
                        (ready.status == 503).then_some(())
                    });
                    // Earlier removals may have left enough room within the file.
                    let is_met = tokio::time::timeout(Duration::from_secs(5), met).await.is_ok();
                    self.full += usize::from(is_met);
                    disk.free();
                }
            }
            3 => {
                self.wire.cut();
                self.app.kill9();
                self.wire.mend();
            }
            5 => {
                // One jump while the server runs, and one at a start.
                for jump in [TEN_YEARS, -TEN_YEARS] {
                    self.clocks.set(jump);
                    let _ = self.app.anonymous().call("GET", "/readyz").try_response().await;
                    self.clocks.set_right();
                }
                self.clocks.set(if moment % 16 == 5 { TEN_YEARS } else { -TEN_YEARS });
                self.app.restart().await;
                self.clocks.set_right();
            }
            6 => self.wire.cut(),
            _ => {}
        }
        self.app.kill9();
        self.app.restart().await;
        self.wire.mend();
    }
}

#[tokio::test]
async fn two_hundred_bad_moments_lose_nothing_and_leave_no_task_without_an_end() {
    let moments =
        std::env::var("WHARF_BAD_MOMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(MOMENTS);
    let mut scene = Scene::set().await;
    let mut known = vec![Known::new(); WRITERS];
    let (mut tasks, mut log, mut done) = (Vec::new(), Log { last: 0 }, 0);
    for moment in 0..moments {
        let what = format!("moment {moment}");
        let ids = there(&scene.app.admin()).await;
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = known
            .drain(..)
            .enumerate()
            .map(|(number, known)| {
                let (api, host) = (scene.app.admin(), scene.registry.host());
                let first = moment * 5 + number * 3;
                tokio::spawn(write(api, host, number, known, ids.clone(), Arc::clone(&acknowledged), first))
            })
            .collect();
        let enough = 2 + moment * 7 % 11;
        let some = async || (acknowledged.load(Ordering::SeqCst) >= enough).then_some(());
        until("some changes", PATIENCE, some).await;
        scene.suffer(moment).await;
        for writer in writers {
            let written = writer.await.expect("a writer that met nothing but bad moments");
            known.push(written.known);
            tasks.extend(written.tasks);
        }
        done += acknowledged.load(Ordering::SeqCst);
        let api = scene.app.admin();
        agree(&mut known, &there(&api).await, &what);
        log.follow(&api, &what).await;
    }
    let api = scene.app.admin();
    becomes(&api, NODE, "ALIVE").await;
    for id in &tasks {
        let state = until("the end of a task", PATIENCE, async || {
            let task = api.task(id).await;
            assert_eq!(task["id"], **id, "an acknowledged task is unknown");
            (task["state"] != "started").then_some(task["state"].clone())
        });
        assert_ne!(state.await, "cancelled");
    }
    assert!(done > moments * 5 && tasks.len() > moments / 8, "{done} changes, {} tasks", tasks.len());
    assert!(scene.full > 0 || scene.disk.is_none(), "the disk was never full");
    let logs = scene.app.logs();
    assert!(!logs.contains("panicked") && !logs.contains("is stuck"), "{logs}");
    eprintln!(
        "{moments} bad moments, {done} acknowledged changes, {} tasks, {} full disks",
        tasks.len(),
        scene.full
    );
}
