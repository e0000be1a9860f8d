//! Why an image is on an agent or is not, from the first order to a rule's window.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wharf::wire::image::Held;

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, App};
use crate::support::image::Image;
use crate::support::machine::token;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::simulated::{Pace, Simulated, Watch};
use crate::support::wait::{PATIENCE, until};
use crate::transfers::architectures;

const WHY: &str = "query($r: String!, $a: String!, $arch: String) {
    explain_image_presence(reference: $r, agent: $a, architecture: $arch) {
        reference agent architecture state because causes { code text at next_at task_id rule } } }";

/// The agents: one of another architecture, one that is slow, one that fails, one that has another image.
const AGENTS: [(&str, &str, Pace); 4] = [
    ("arm1", "aarch64", Pace::AtOnce),
    ("slow1", "x86_64", Pace::Slow(Duration::from_millis(700))),
    ("fails1", "x86_64", Pace::Fails),
    ("other1", "x86_64", Pace::AtOnce),
];

struct Scene {
    app: App,
    /// The image's canonical name.
    name: String,
    _registry: Shelf,
    _agents: JoinSet<()>,
}

impl Scene {
    async fn set() -> Self {
        let registry = Shelf::start([Image::new("r/one", "1"), Image::new("r/two", "1")]).await;
        let app = App::start().await;
        let (api, name) = (app.admin(), format!("{}/r/one:1", registry.host()));
        api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        api.scan(&registry.host()).await;
        let token = token(&api, json!({"uses": AGENTS.len()})).await;
        let (watch, mut agents) = (Arc::new(Watch::default()), JoinSet::new());
        let two = Image::new("r/two", "1").build();
        for (id, architecture, pace) in AGENTS {
            let other = Held {
                id: two.part("x86_64").config.parse().expect("a digest"),
                names: vec![name.clone()],
                manifests: Vec::new(),
                parts: Vec::new(),
                size: 1,
            };
            let held = if id == "other1" { vec![other] } else { Vec::new() };
            let agent = Simulated { id: id.into(), architecture, held, pace };
            let (url, token, watch) = (app.url().to_owned(), token.clone(), Arc::clone(&watch));
            agents.spawn(async move { agent.run(&url, &token, watch).await });
        }
        until("all agents to have reported", PATIENCE, async || {
            (watch.reported.load(Ordering::SeqCst) == AGENTS.len()).then_some(())
        })
        .await;
        let scene = Self { app, name, _registry: registry, _agents: agents };
        until("all reports to be known", PATIENCE, async || {
            let states = scene.api().presence(&scene.name).await;
            states.iter().all(|state| state != "unknown").then_some(())
        })
        .await;
        scene
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    async fn why(&self, agent: &str) -> Value {
        let asked = json!({"r": self.name, "a": agent});
        self.api().ask(WHY, asked).await["explain_image_presence"].take()
    }

    /// Waits until the first cause is this one.
    async fn is_because(&self, agent: &str, code: &str) -> Value {
        until(&format!("{agent} to be {code}"), PATIENCE, async || {
            let why = self.why(agent).await;
            (why["causes"][0]["code"] == code).then_some(why)
        })
        .await
    }
}

fn codes(why: &Value) -> Vec<&str> {
    why["causes"].as_array().unwrap().iter().map(|cause| cause["code"].as_str().unwrap()).collect()
}

/// Asserts the state, the codes of the causes and the beginning of the sentence after the state.
fn says(why: &Value, state: &str, expected: &[&str], words: &str) {
    assert_eq!((why["state"].as_str().unwrap(), codes(why).as_slice()), (state, expected), "{why:#}");
    let because = why["because"].as_str().unwrap();
    let rest = because.split_once("1: ").expect("an agent").1;
    assert!(rest.starts_with(words), "{words}: {because}");
}

#[tokio::test]
async fn an_explanation_follows_an_image_from_the_first_order_to_a_rules_window() {
    let scene = Scene::set().await;
    let (api, name) = (scene.api(), scene.name.as_str());
    let nobody = "no known task was for it there, and no rule wants it there";
    says(&scene.why("slow1").await, "absent", &["never-asked"], nobody);

    let task = api.transfer("preload_image", name, "slow1").await;
    let why = until("some bytes", PATIENCE, async || {
        let why = scene.why("slow1").await;
        why["causes"][0]["text"].as_str().is_some_and(|text| text.contains(" of 4 bytes")).then_some(why)
    })
    .await;
    says(&why, "absent", &["loading"], &format!("a task of {ADMIN_EMAIL} is loading it: "));
    assert_eq!(why["causes"][0]["task_id"], task.as_str());
    assert_eq!(api.finish(&task).await.name, "bgtask_done");
    let why = scene.why("slow1").await;
    says(&why, "present", &["loaded"], &format!("{ADMIN_EMAIL} loaded it at "));
    assert_eq!((&why["architecture"], &why["causes"][0]["task_id"]), (&json!("x86_64"), &json!(task)));

    let task = api.transfer("preload_image", name, "fails1").await;
    let why = scene.is_because("fails1", "failed").await;
    says(&why, "absent", &["failed"], &format!("a task of {ADMIN_EMAIL} failed to load it "));
    let cause = &why["causes"][0];
    assert!(cause["text"].as_str().unwrap().contains(": no route to host; the next try is at "), "{cause}");
    assert!(cause["next_at"].is_string() && cause["task_id"] == task.as_str(), "{cause}");
    let (cancelled, said) = api.mutate("cancel_task", &format!("id: \"{task}\"")).await;
    assert!(cancelled, "{said}");
    api.finish(&task).await;
    says(
        &scene.why("fails1").await,
        "absent",
        &["cancelled"],
        &format!("a task of {ADMIN_EMAIL} was cancelled"),
    );

    let task = api.transfer("unload_image", name, "slow1").await;
    api.finish(&task).await;
    let why = scene.why("slow1").await;
    says(&why, "absent", &["removed"], &format!("{ADMIN_EMAIL} removed it at "));
    assert_eq!(why["causes"][0]["task_id"], task.as_str());

    let why = scene.why("arm1").await;
    says(&why, "absent", &["other-architecture"], "the agent is aarch64; the image is for x86_64");
    assert_eq!(why["architecture"], json!(null));
    let other = scene.why("other1").await;
    says(&other, "stale", &["other-image", "no-rule"], "the name means another image there; no task");

    // A window that opens in two hours, by the clock of the time zone that it names.
    let time =
        |hours: i64| Timestamp::now().checked_add(hours.hours()).unwrap().strftime("%H:%M").to_string();
    let window = format!("{}-{}", time(2), time(3));
    let rule = ["rule", "add", "nightly", name, "*", "--window", &window, "--time-zone", "UTC"];
    let added = scene.app.wharf(&rule).await;
    assert_eq!(added.code, 0, "{}", added.text());
    let why = scene.why("slow1").await;
    assert_eq!(codes(&why), ["removed", "rule-window"]);
    let cause = &why["causes"][1];
    let opens: Timestamp = cause["next_at"].as_str().unwrap().parse().unwrap();
    assert!(opens > Timestamp::now() && cause["rule"] == "nightly", "{cause}");
    assert_eq!(codes(&scene.why("other1").await), ["other-image", "rule-window"]);
    let off = scene.app.wharf(&["rule", "disable", "nightly"]).await;
    assert_eq!(off.code, 0, "{}", off.text());
    assert_eq!(codes(&scene.why("slow1").await), ["removed", "rule-disabled"]);
}

#[tokio::test]
async fn the_shell_says_first_why_and_then_all_that_is_known() {
    let scene = Scene::set().await;
    let (app, name) = (&scene.app, scene.name.as_str());
    let said = app.wharf(&["image", "why", name, "other1"]).await;
    let sentence = format!(
        "{name} is stale on other1: the name means another image there; no task is replacing it, and no rule wants it \
         there"
    );
    assert_eq!((said.code, said.stdout.lines().next()), (0, Some(sentence.as_str())), "{}", said.text());
    let rows: Vec<&str> = said.stdout.lines().skip(2).collect();
    assert!(rows[0].starts_with("CAUSE") && rows[1].starts_with("other-image"), "{rows:?}");
    assert!(rows[2].starts_with("no-rule") && rows.len() == 3, "{rows:?}");
    let told = app.wharf(&["image", "why", name, "arm1", "--architecture", "amd64", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{}", told.text()));
    assert_eq!((&told["state"], codes(&told)), (&json!("absent"), vec!["other-architecture"]), "{told:#}");
    let nobody = app.wharf(&["image", "why", name, "none1"]).await;
    assert!(
        nobody.code == 0 && nobody.stdout.contains("there is no agent with this id"),
        "{}",
        nobody.text()
    );
    for (arguments, words) in [
        (vec!["image", "why", "none", "arm1"], "no such image"),
        (
            vec!["image", "why", name, "arm1", "--architecture", "riscv64"],
            "has no image for riscv64; it has x86_64",
        ),
    ] {
        let refused = app.wharf(&arguments).await;
        assert!(refused.code == 1 && refused.stderr.contains(words), "{words}: {}", refused.text());
    }
}

#[tokio::test]
async fn what_was_done_with_one_architecture_is_no_cause_for_another() {
    let scene = architectures::Scene::set().await;
    let (api, name) = (scene.api(), scene.name("both"));
    let (end, task) = api.transfer_to_end("preload_image", &name, "*").await;
    assert_eq!(end, "bgtask_done", "{task:#}");
    for (agent, architecture, expected) in [
        ("pc1", json!(null), vec!["loaded"]),
        ("pc1", json!("amd64"), vec!["loaded"]),
        ("pc1", json!("arm64"), vec!["other-architecture"]),
        ("arm1", json!("arm64"), vec!["loaded"]),
    ] {
        let asked = json!({"r": name, "a": agent, "arch": architecture});
        let why = api.ask(WHY, asked).await["explain_image_presence"].take();
        assert_eq!(codes(&why), expected, "{agent} {architecture}: {why:#}");
    }
}
