//! Hundreds of agents in one task, some of them slow and some dead: never too much at once, in order, nobody passed
//! over, and it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::machine::token;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::simulated::{Pace, Simulated, Watch};
use crate::support::verbs::counts;
use crate::support::wait::{PATIENCE, until};

const AGENTS: usize = 500;
/// What is worked on at once, in one task and from one registry.
const AT_ONCE: usize = 16;
/// How long a dead agent is waited for, in seconds.
const WAIT: &str = "6s";

fn id(number: usize) -> String {
    format!("gpu{number:03}")
}

/// One in twenty is dead, half of them from the beginning; one in ten is slow.
fn pace(number: usize) -> Pace {
    match number % 40 {
        3 => Pace::Gone,
        23 => Pace::Never,
        7 | 17 | 27 | 37 => Pace::Slow(Duration::from_millis(100)),
        _ => Pace::AtOnce,
    }
}

fn is_dead(number: usize) -> bool {
    matches!(pace(number), Pace::Gone | Pace::Never)
}

struct Crowd {
    app: App,
    registry: Shelf,
    watch: Arc<Watch>,
    _agents: JoinSet<()>,
}

impl Crowd {
    async fn gather() -> Self {
        let registry =
            Shelf::start(["a", "b", "c"].map(|name| Image::new(&format!("r/{name}"), "1").content(name)))
                .await;
        let app = App::start_with(|command| {
            command.args(["--agent-silence", "15", "--agent-wait", WAIT]);
        })
        .await;
        let api = app.admin();
        api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        api.scan(&registry.host()).await;
        let token = token(&api, json!({"uses": AGENTS})).await;
        let (watch, mut agents) = (Arc::new(Watch::default()), JoinSet::new());
        for number in 0..AGENTS {
            let agent =
                Simulated { id: id(number), architecture: "x86_64", held: Vec::new(), pace: pace(number) };
            let (url, token, watch) = (app.url().to_owned(), token.clone(), Arc::clone(&watch));
            agents.spawn(async move { agent.run(&url, &token, watch).await });
        }
        until("all agents to have reported", PATIENCE * 3, async || {
            (watch.reported.load(Ordering::SeqCst) == AGENTS).then_some(())
        })
        .await;
        Self { app, registry, watch, _agents: agents }
    }

    async fn begin(&self, image: &str) -> String {
        let name = format!("{}/r/{image}:1", self.registry.host());
        self.app.admin().transfer("preload_image", &name, "*").await
    }

    async fn letters(&self, image: &str) -> String {
        let query = "query($r: [String!]!) { presence_matrix(references: $r) { rows { states } } }";
        let name = format!("{}/r/{image}:1", self.registry.host());
        let data = self.app.admin().ask(query, json!({"r": [name]})).await;
        data["presence_matrix"]["rows"][0]["states"].as_str().unwrap().to_owned()
    }
}

/// What a task came to when all is well but for the dead.
fn all_but_the_dead(task: &Value) {
    let dead = (0..AGENTS).filter(|&number| is_dead(number)).count();
    let (there, failed) = (u64::try_from(AGENTS - dead).unwrap(), u64::try_from(dead).unwrap());
    assert_eq!(counts(task), [there, 0, 0, 0, 0, failed], "{}", task["message"]);
    let remarks = task["ledger"]["failed"].as_array().unwrap();
    let mut named: Vec<&str> = remarks.iter().map(|remark| remark["reference"].as_str().unwrap()).collect();
    named.sort_unstable();
    let expected: Vec<String> = (0..AGENTS).filter(|&number| is_dead(number)).map(id).collect();
    assert_eq!(named, expected);
    for remark in remarks {
        let reason = remark["reason"].as_str().unwrap();
        assert!(reason.contains("the agent was away for"), "{remark}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_on_five_hundred_agents_ends_although_some_are_slow_and_some_dead() {
    let crowd = Crowd::gather().await;
    let api = crowd.app.admin();
    let task = crowd.begin("a").await;
    assert_eq!(api.finish(&task).await.name, "bgtask_done");
    all_but_the_dead(&api.task(&task).await);
    let (most, begun) = crowd.watch.take();
    // How many it comes to is a matter of the machine's speed; the most is not.
    assert!((2..=AT_ONCE).contains(&most), "{most} at once");
    // In their order, but for what is under way at once; and each exactly once.
    let living: Vec<String> = (0..AGENTS).filter(|&number| !is_dead(number)).map(id).collect();
    for (place, (agent, _)) in begun.iter().enumerate() {
        let due = living.binary_search(agent).expect("a living one");
        assert!(due <= place + AT_ONCE, "{agent} is the {due}th and came {place}th");
    }
    assert_eq!(begun.len(), living.len());
    let letters = crowd.letters("a").await;
    let expected: String = (0..AGENTS).map(|number| if is_dead(number) { 'u' } else { 'p' }).collect();
    assert_eq!(letters, expected);

    // Two tasks at once share what one had: neither waits for the other's end, and together they do no more.
    let (first, second) = tokio::join!(crowd.begin("b"), crowd.begin("c"));
    for task in [first, second] {
        assert_eq!(api.finish(&task).await.name, "bgtask_done");
        all_but_the_dead(&api.task(&task).await);
    }
    let (most, begun) = crowd.watch.take();
    assert!((2..=AT_ONCE).contains(&most), "{most} at once");
    assert_eq!(begun.len(), 2 * living.len());
    let early = &begun[..begun.len() / 2];
    let of_second = early.iter().filter(|(_, repository)| repository.ends_with("/c")).count();
    let share = early.len() / 4..=early.len() - early.len() / 4;
    assert!(share.contains(&of_second), "of the first {} {of_second} were the second's", early.len());
}
