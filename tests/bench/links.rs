//! The cost of many agents that dial in: simple loops that speak the real protocol to the real server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use wharf::base::digest::Digest;
use wharf::wire::image::Held;

use super::report::{check, heading, mebibytes, milliseconds, note, number_after};
use super::stock;
use super::support::app::{App, Launch};
use super::support::machine::token;
use super::support::simulated::{Pace, Simulated, Watch};
use super::support::wait::until;

const AGENTS: usize = 1_000;
const IMAGES: usize = 200;
/// How long the server is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(5);

pub async fn measure() {
    heading(&format!("links: {AGENTS} agents that dial in, {IMAGES} images each"));
    let launch = Launch::plain();
    stock::fill(&launch.data_dir(), 100).await;
    let app = launch.start().await;
    let token = token(&app.admin(), json!({"uses": AGENTS})).await;
    let watch = Arc::new(Watch::default());
    let begun = Instant::now();
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let (url, token, watch) = (app.url().to_owned(), token.clone(), Arc::clone(&watch));
        let agent = agent(number);
        agents.spawn(async move { agent.run(&url, &token, watch).await });
    }
    until("all agents to have reported", LIMIT, async || {
        (watch.reported.load(Ordering::Relaxed) == AGENTS && alive(&app).await == AGENTS).then_some(())
    })
    .await;
    note("join and report, all of them", &milliseconds(begun.elapsed()));
    let agents_joined = f64::from(u32::try_from(AGENTS).expect("a small number"));
    note("joins in a second", &format!("{:.0}", agents_joined / begun.elapsed().as_secs_f64()));
    check("resident", mebibytes(memory(&app, "VmRSS:")), 300.0, " MiB");
    let (watched, used) = (Instant::now(), processor(&app));
    tokio::time::sleep(IDLE).await;
    let percent =
        processor(&app).saturating_sub(used).as_secs_f64() / watched.elapsed().as_secs_f64() * 100.0;
    check("processor, idle", percent, 2.0, " %");

    let query = "{ images { registry name tag } }";
    let image = app.admin().ask(query, json!({})).await["images"][0].clone();
    let part = |field: &str| image[field].as_str().expect("text").to_owned();
    let name = format!("{}/{}:{}", part("registry"), part("name"), part("tag"));
    let document =
        "mutation($r: String!) { preload_image(reference: $r, target_agents: \"*\") { ok msg task_id } }";
    let asked = Instant::now();
    let answer = app.admin().ask(document, json!({"r": name})).await;
    check("a preload on all of them, until it is begun", asked.elapsed().as_secs_f64(), 1.0, " s");
    let task = answer["preload_image"]["task_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let (admin, id) = (app.admin(), task.clone());
    let events = tokio::spawn(async move { admin.events(&id).await.rest().await });
    until("the task to end", LIMIT, async || {
        (app.admin().task(&task).await["state"] != "STARTED"
            && app.admin().task(&task).await["state"] != "started")
            .then_some(())
    })
    .await;
    note("the same, until it is done", &milliseconds(asked.elapsed()));
    let events = events.await.expect("events");
    let gaps = events.windows(2).map(|two| two[1].after.saturating_sub(two[0].after));
    note("events that one follower got meanwhile", &events.len().to_string());
    note("the longest it got none", &milliseconds(gaps.max().unwrap_or_default()));
    let ended = app.admin().task(&task).await;
    assert_eq!(ended["ledger"]["added"], AGENTS, "{}", ended["message"]);
    check("resident at most, ever", mebibytes(memory(&app, "VmHWM:")), 300.0, " MiB");
}

async fn alive(app: &App) -> usize {
    let data = app.admin().ask("{ agents(status: \"ALIVE\") { id } }", json!({})).await;
    data["agents"].as_array().map_or(0, Vec::len)
}

fn memory(app: &App, which: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process_id())).expect("its status");
    number_after(&status, which)
}

/// The processor time that the server has used, including threads that have ended; the kernel counts it in hundredths
/// of a second.
fn processor(app: &App) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", app.process_id())).expect("its state");
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn held(number: usize) -> Held {
    Held {
        id: Digest::sha256_of(&number.to_le_bytes()),
        parts: Vec::new(),
        names: vec![format!("cr.lab.invalid/stable/image-{number}:1.0-ubuntu22.04")],
        manifests: vec![Digest::sha256_of(format!("manifest {number}").as_bytes())],
        size: 4_000_000_000,
    }
}

/// A simulated agent; half of its images are the same on all agents.
fn agent(number: usize) -> Simulated {
    let own = (0..IMAGES / 2).map(|image| held(1_000_000 + number * IMAGES + image));
    let held = (0..IMAGES / 2).map(held).chain(own).collect();
    Simulated { id: format!("gpu{number:04}"), architecture: "x86_64", held, pace: Pace::AtOnce }
}
