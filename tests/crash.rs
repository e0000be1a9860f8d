//! `kill -9` again and again, in bursts of mutations on one data directory: everything acknowledged survives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// How many times the server is killed; `WHARF_KILLS` asks for more.
const KILLS: usize = 30;
/// The number of writers that change things at once.
const WRITERS: usize = 4;

/// What a writer knows about an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// The server was killed before it answered.
    Doubtful,
}

/// What one writer did before the server went away.
struct Written {
    aliases: BTreeMap<String, Known>,
    tasks: Vec<String>,
}

/// Returns the answer to a mutation; `None` if the server is gone.
async fn try_mutate(api: &Api, document: &str) -> Option<Value> {
    let call = api.call("POST", "/admin/gql").json(&json!({"query": document, "variables": {}}));
    let bytes = call.try_response().await.ok()?.bytes().await.ok()?;
    let mut answer: Value = serde_json::from_slice(&bytes).ok()?;
    let answer = answer["data"]["it"].take();
    assert_eq!(answer["ok"], true, "{document}: {answer}");
    Some(answer)
}

/// Changes aliases of its own, and rescans now and then, until the server is gone.
async fn write(
    api: Api,
    host: String,
    number: usize,
    mut aliases: BTreeMap<String, Known>,
    acknowledged: Arc<AtomicUsize>,
) -> Written {
    let mut tasks = Vec::new();
    for turn in 0.. {
        if turn % 8 == 3 {
            let document =
                format!("mutation {{ it: rescan_images(registry: \"{host}\") {{ ok msg task_id }} }}");
            let Some(answer) = try_mutate(&api, &document).await else { break };
            tasks.push(answer["task_id"].as_str().expect("a task").to_owned());
            continue;
        }
        let alias = format!("writer-{number}-{}", turn % 5);
        let before = aliases.insert(alias.clone(), Known::Doubtful);
        let (document, after) = if before == Some(Known::There) {
            (format!("mutation {{ it: dealias_image(alias: \"{alias}\") {{ ok msg }} }}"), Known::Gone)
        } else {
            let target = format!("{host}/r/{}:1", turn % 3);
            let document = format!(
                "mutation {{ it: alias_image(alias: \"{alias}\", target: \"{target}\") {{ ok msg }} }}"
            );
            (document, Known::There)
        };
        if try_mutate(&api, &document).await.is_none() {
            break;
        }
        aliases.insert(alias, after);
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    Written { aliases, tasks }
}

/// The aliases that must exist according to the audit log.
#[derive(Default)]
struct Logged {
    aliases: BTreeSet<String>,
    last: u64,
}

impl Logged {
    /// Reads the rows added since the last time; none may be missing.
    async fn follow(&mut self, api: &Api) {
        for row in api.audit_rows(self.last).await {
            let number = row["number"].as_u64().expect("a number");
            assert_eq!(number, self.last + 1, "a row is missing: {row}");
            self.last = number;
            assert_eq!(row["outcome"], "DONE", "{row}");
            let target = row["target"].as_str().expect("a target").to_owned();
            match row["action"].as_str() {
                Some("alias_image") => assert!(self.aliases.insert(target), "twice: {row}"),
                Some("dealias_image") => assert!(self.aliases.remove(&target), "twice: {row}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_every_kill() {
    let kills = std::env::var("WHARF_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let images = (0..12).map(|n| Image::new(&format!("r/{}", n % 3), &(n / 3).to_string()));
    let registry = Shelf::start(images).await;
    let mut app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    let mut known = vec![BTreeMap::new(); WRITERS];
    let mut tasks = BTreeSet::new();
    let mut logged = Logged::default();
    for kill in 0..kills {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = known
            .drain(..)
            .enumerate()
            .map(|(number, aliases)| {
                let (api, count) = (app.admin(), Arc::clone(&acknowledged));
                tokio::spawn(write(api, registry.host(), number, aliases, count))
            })
            .collect();
        // A different moment each time, and never between two requests of all writers.
        let enough = 5 + kill * 7 % 23;
        until("some mutations", PATIENCE, async || {
            (acknowledged.load(Ordering::SeqCst) >= enough).then_some(())
        })
        .await;
        app.kill9();
        let mut written = Vec::new();
        for writer in writers {
            written.push(writer.await.expect("a writer that met no refusal"));
        }
        app.restart().await;
        let images = app.admin().images().await;
        assert_eq!(images.len(), 12, "kill {kill}");
        let there: BTreeSet<&str> = images
            .iter()
            .flat_map(|image| image["aliases"].as_array().unwrap())
            .filter_map(Value::as_str)
            .collect();
        for Written { mut aliases, tasks: started } in written {
            for (alias, state) in &mut aliases {
                let is_there = there.contains(alias.as_str());
                let right = *state == Known::Doubtful || (*state == Known::There) == is_there;
                assert!(right, "kill {kill}: {alias} was left {state:?}, and now that is no longer so");
                *state = if is_there { Known::There } else { Known::Gone };
            }
            known.push(aliases);
            tasks.extend(started);
        }
        logged.follow(&app.admin()).await;
        let told: BTreeSet<&str> = logged.aliases.iter().map(String::as_str).collect();
        assert_eq!(told, there, "kill {kill}: the audit log tells of other aliases than there are");
        for task in &tasks {
            let found = app.admin().task(task).await;
            assert_eq!(found["id"], **task, "kill {kill}: an acknowledged task is unknown");
        }
    }
    assert!(!tasks.is_empty());
    for task in &tasks {
        assert!(app.admin().finish(task).await.name.ends_with("done"));
        let task = app.admin().task(task).await;
        let open = |item: &&Value| item["state"] != "done";
        assert_eq!(task["items"].as_array().unwrap().iter().filter(open).count(), 0, "half done: {task:#}");
    }
    assert!(!app.logs().contains("panicked"), "{}", app.logs());
}

#[tokio::test]
async fn a_task_that_is_told_to_stop_in_its_middle_ends_under_its_own_id() {
    let images = (0..40).map(|n| Image::new(&format!("r/{}", n % 8), &n.to_string()));
    let registry = Shelf::start(images).await;
    let mut app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    // Half of the repositories are read; the others don't answer.
    registry.turn(|request| {
        let stalls = ["/r/4/", "/r/5/", "/r/6/", "/r/7/"].iter().any(|part| request.path().contains(part));
        stalls.then_some(crate::support::http1::Answer::Stall)
    });
    let task = app.admin().rescan(&registry.host()).await;
    until("half of the scan", PATIENCE, async || (app.admin().images().await.len() == 20).then_some(()))
        .await;
    let (status, took) = app.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", app.logs());
    assert!(took.as_secs() < 10, "{took:?}");
    registry.take_log();
    registry.turn(|_| None);
    app.restart().await;
    assert!(app.admin().finish(&task).await.name.ends_with("done"));
    let ended = app.admin().task(&task).await;
    assert_eq!(ended["ledger"]["added"], 40, "the account is of the whole task: {ended:#}");
    assert_eq!(app.admin().images().await.len(), 40);
    let again = registry.take_log();
    let read_again = again.iter().filter(|request| request.path() == "/v2/r/0/tags/list").count();
    assert_eq!(read_again, 0, "what was committed is not read again");
}
