//! Seed first: one agent of a site fetches an image, and the others take it from there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use wharf::base::digest::Digest;
use wharf::wire::image::{EngineInfo, Held};
use wharf::wire::message::{Answer as Answered, Ask, FromAgent, Images, Reply, ToAgent};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::http1::{Answer, Request, Response, Server};
use crate::support::image::{Built, Image, sha256};
use crate::support::layout::{blobs, reference, skopeo};
use crate::support::machine::{Machine, Speaker, becomes, hello, token};
use crate::support::process::on_path;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

/// A machine of a site, with its directory.
struct Node {
    id: String,
    machine: Machine,
    images: TempDir,
}

impl Node {
    fn folder(&self) -> PathBuf {
        self.images.path().into()
    }
}

/// Machines of one site, and a registry at the other end of its uplink.
struct Site {
    app: App,
    uplink: CountingProxy,
    nodes: Vec<Node>,
    built: Built,
    _registry: RealRegistry,
}

impl Site {
    async fn set(arguments: &'static [&'static str], nodes: usize) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        let built = registry.push(&Image::new("lab/python", "1").real_layers(2, 400_000).oci()).await;
        let uplink = CountingProxy::start(&registry.url()).await;
        let app = App::start_with(move |serve| {
            serve.args(arguments);
        })
        .await;
        app.admin().add_registry_at(&uplink.host(), &uplink.url(), None).await;
        app.admin().scan(&uplink.host()).await;
        let mut site = Self { app, uplink, nodes: Vec::new(), built, _registry: registry };
        for number in 1..=nodes {
            site.join(&format!("gpu{number:02}"), &["--peer-listen", "127.0.0.1:0"]).await;
        }
        site.uplink.take_log();
        Some(site)
    }

    async fn join(&mut self, id: &str, arguments: &[&str]) {
        let manager = self.app.url().to_owned();
        self.join_by(&manager, id, arguments).await;
    }

    async fn join_by(&mut self, manager: &str, id: &str, arguments: &[&str]) {
        let images = tempfile::Builder::new().prefix("wharf-images-").tempdir().expect("a directory");
        let engine = format!("oci:{}", images.path().display());
        let mut machine =
            Machine::new(manager, &engine).with(&["--id", id, "--label", "site=lab"]).with(arguments);
        machine.start(Some(&token(&self.api(), json!({})).await));
        becomes(&self.api(), id, "ALIVE").await;
        self.nodes.push(Node { id: id.into(), machine, images });
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    fn name(&self) -> String {
        format!("{}/{}:{}", self.uplink.host(), self.built.repository, self.built.tag)
    }

    fn layer(&self, position: usize) -> String {
        sha256(&self.built.blobs[position])
    }

    async fn begin(&self, agents: &str) -> String {
        self.api().transfer("preload_image", &self.name(), agents).await
    }

    async fn ends_well(&self, task: &str) {
        let event = self.api().finish(task).await;
        assert_eq!(event.name, "bgtask_done", "{:#}", self.api().task(task).await);
    }

    /// State and reason of each agent's item.
    async fn items(&self, task: &str) -> BTreeMap<String, (String, String)> {
        let task = self.api().task(task).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = task["items"].as_array().expect("items").iter();
        items.map(|item| (text(&item["name"]), (text(&item["state"]), text(&item["reason"])))).collect()
    }

    /// How often each blob came over the uplink.
    fn paid(&self) -> Vec<usize> {
        let mut counts = BTreeMap::new();
        for exchange in self.uplink.log() {
            if exchange.method == "GET" && exchange.is_blob() && exchange.body_bytes > 0 {
                *counts.entry(exchange.target).or_insert(0) += 1;
            }
        }
        counts.into_values().collect()
    }

    /// Lets the next image begin over the uplink: its manifest comes, its layers don't.
    fn pause(&self) {
        let gate = self.uplink.gate();
        self.uplink.answer(move |request| {
            if request.method == "GET" && request.target.contains("/manifests/") {
                gate.send_replace(false);
            }
            None
        });
    }

    /// Waits until layers were asked for, which don't come.
    async fn is_paused(&self) {
        until("the seed to be in the middle", PATIENCE, async || {
            let log = self.uplink.log();
            let has_begun = log.iter().any(|exchange| exchange.method == "GET" && exchange.is_manifest());
            (has_begun && self.uplink.arrived() > log.len()).then_some(())
        })
        .await;
    }

    /// Begins a preload everywhere and waits until its seed is stuck in the middle and all others wait for it; the task,
    /// and who is the seed.
    async fn stuck(&self) -> (String, String) {
        self.pause();
        let task = self.begin("*").await;
        let seed = until("all but the seed to wait for it", PATIENCE, async || {
            let items = self.items(&task).await;
            let (seed, _) = items.iter().find(|(_, (state, _))| state == "running")?;
            let words = format!("waits for {seed} to have fetched it");
            let all = items.iter().all(|(id, item)| id == seed || *item == ("waiting".into(), words.clone()));
            all.then(|| seed.clone())
        })
        .await;
        self.is_paused().await;
        (task, seed)
    }

    fn node(&self, id: &str) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("a node")
    }

    fn machine(&mut self, id: &str) -> &mut Machine {
        &mut self.nodes.iter_mut().find(|node| node.id == id).expect("a node").machine
    }

    async fn is_everywhere(&self) {
        for node in &self.nodes {
            let found = blobs(&node.folder());
            assert!(self.built.blobs.iter().all(|blob| found.contains(&sha256(blob))), "{}", node.id);
            if on_path("skopeo") {
                let reference = reference(&node.folder(), &self.name());
                let inspected = skopeo(self.app.launch().root(), &["inspect", &reference]).await;
                assert_eq!(inspected["Layers"], json!([self.layer(0), self.layer(1)]));
            }
        }
        let standing = self.api().presence(&self.name()).await;
        assert!(standing.iter().all(|state| state == "present"), "{standing:?}");
    }
}

const SEED_FIRST: &[&str] = &["--seed-first", "--agent-silence", "30"];

#[tokio::test]
async fn the_uplink_is_paid_once_and_those_who_wait_say_for_whom() {
    let Some(site) = Site::set(SEED_FIRST, 4).await else { return };
    let (task, _) = site.stuck().await;
    site.uplink.behave();
    site.ends_well(&task).await;
    let paid = site.paid();
    assert!(!paid.is_empty() && paid.iter().all(|times| *times == 1), "{paid:?}");
    site.is_everywhere().await;
}

#[tokio::test]
async fn it_is_off_unless_it_is_asked_for_and_only_for_agents_of_one_site() {
    let Some(mut site) = Site::set(&[], 3).await else { return };
    let task = site.begin("*").await;
    site.ends_well(&task).await;
    assert!(site.paid().iter().all(|times| *times == 3), "{:?}", site.paid());

    let Some(other) = Site::set(SEED_FIRST, 1).await else { return };
    site = other;
    let task = site.begin("*").await;
    site.ends_well(&task).await;
    site.uplink.take_log();
    let images = tempfile::tempdir().unwrap();
    let engine = format!("oci:{}", images.path().display());
    let mut elsewhere = Machine::new(site.app.url(), &engine).with(&["--id", "far", "--label", "site=other"]);
    elsewhere.start(Some(&token(&site.api(), json!({})).await));
    becomes(&site.api(), "far", "ALIVE").await;
    let task = site.begin("far").await;
    site.ends_well(&task).await;
    assert!(!site.paid().is_empty(), "another site fetches for itself");
}

#[tokio::test]
async fn when_the_seed_is_removed_another_one_goes_on() {
    let Some(site) = Site::set(SEED_FIRST, 3).await else { return };
    let (task, seed) = site.stuck().await;
    let (ok, msg) = site.api().mutate("remove_agent", &format!("id: {seed:?}")).await;
    assert!(ok, "{msg}");
    site.uplink.behave();
    site.ends_well(&task).await;
    let items = site.items(&task).await;
    let ended: Vec<&str> = items.values().map(|(state, _)| state.as_str()).collect();
    assert_eq!(ended.iter().filter(|state| **state == "done").count(), 2, "{items:?}");
    assert!(site.paid().iter().all(|times| *times <= 2), "{:?}", site.paid());
}

#[tokio::test]
async fn when_the_seed_fails_another_one_goes_on() {
    let Some(site) = Site::set(SEED_FIRST, 3).await else { return };
    let left = Mutex::new(Some(Answer::Reply(Response::new(404))));
    site.uplink
        .answer(move |request| request.target.contains("/blobs/").then(|| left.lock().take()).flatten());
    let task = site.begin("*").await;
    site.ends_well(&task).await;
    let items = site.items(&task).await;
    let count = |wanted: &str| items.values().filter(|(state, _)| state == wanted).count();
    assert_eq!((count("failed"), count("done")), (1, 2), "{items:?}");
    assert!(site.paid().iter().all(|times| *times <= 2), "{:?}", site.paid());
}

#[tokio::test]
async fn a_seed_that_is_drained_ends_what_it_began_and_the_others_have_it_from_there() {
    let Some(site) = Site::set(SEED_FIRST, 3).await else { return };
    let (task, seed) = site.stuck().await;
    let drain = "mutation($id: String!) { modify_agent(id: $id, props: {schedulable: false}) { ok msg } }";
    let answer = site.api().ask(drain, json!({"id": seed})).await;
    assert_eq!(answer["modify_agent"]["ok"], true, "{answer}");
    site.uplink.behave();
    site.ends_well(&task).await;
    assert!(site.paid().iter().all(|times| *times == 1), "{:?}", site.paid());
    site.is_everywhere().await;
}

#[tokio::test]
async fn when_the_seed_dies_another_one_goes_on_and_it_takes_the_rest_from_there_when_it_is_back() {
    let Some(mut site) = Site::set(&["--seed-first", "--agent-silence", "3"], 3).await else { return };
    let (task, seed) = site.stuck().await;
    site.machine(&seed).process().kill9();
    until("another to be the seed", PATIENCE, async || {
        let items = site.items(&task).await;
        items.iter().any(|(id, (state, _))| *id != seed && state != "waiting").then_some(())
    })
    .await;
    site.uplink.behave();
    until("the others to be done", PATIENCE, async || {
        let items = site.items(&task).await;
        items.iter().all(|(id, (state, _))| *id == seed || state == "done").then_some(())
    })
    .await;
    site.uplink.take_log();
    site.machine(&seed).start(None);
    site.ends_well(&task).await;
    assert_eq!(site.paid(), [0; 0], "nothing more over the uplink");
    site.is_everywhere().await;
}

#[tokio::test]
async fn a_seed_whose_link_breaks_for_a_moment_stays_the_seed() {
    let Some(mut site) = Site::set(&["--seed-first", "--agent-silence", "60"], 0).await else { return };
    let link = CutProxy::start(site.app.url()).await;
    site.join_by(&link.url(), "gpu01", &["--peer-listen", "127.0.0.1:0"]).await;
    site.uplink.take_log();
    site.pause();
    let task = site.begin("*").await;
    site.is_paused().await;
    link.cut();
    until("the seed to be away", PATIENCE, async || {
        site.items(&task).await["gpu01"].1.contains("its link broke").then_some(())
    })
    .await;
    // Another one that wants the image now waits for the one that is away, whose pull goes on.
    site.join("gpu02", &["--peer-listen", "127.0.0.1:0"]).await;
    let second = site.begin("gpu02").await;
    until("the other one to wait", PATIENCE, async || {
        site.items(&second).await["gpu02"].1.contains("waits for gpu01").then_some(())
    })
    .await;
    link.mend();
    site.uplink.behave();
    site.ends_well(&task).await;
    site.ends_well(&second).await;
    assert!(site.paid().iter().all(|times| *times == 1), "{:?}", site.paid());
    site.is_everywhere().await;
}

#[tokio::test]
async fn a_killed_manager_goes_on_with_a_site_where_it_was() {
    let Some(mut site) = Site::set(SEED_FIRST, 3).await else { return };
    let (task, _) = site.stuck().await;
    site.app.kill9();
    site.app.restart().await;
    site.uplink.behave();
    site.ends_well(&task).await;
    site.is_everywhere().await;
}

#[tokio::test]
async fn a_cancelled_task_leaves_nobody_waiting() {
    let Some(site) = Site::set(SEED_FIRST, 3).await else { return };
    let (task, _) = site.stuck().await;
    assert!(site.api().mutate("cancel_task", &format!("id: {task:?}")).await.0);
    assert_eq!(site.api().finish(&task).await.name, "bgtask_cancelled");
    site.uplink.behave();
    let task = site.begin("*").await;
    site.ends_well(&task).await;
    site.is_everywhere().await;
}

#[tokio::test]
async fn a_peer_whose_disk_lies_is_found_out() {
    let Some(site) = Site::set(SEED_FIRST, 2).await else { return };
    let task = site.begin("gpu01").await;
    site.ends_well(&task).await;
    let hex = site.layer(0);
    let file = site.node("gpu01").folder().join("blobs/sha256").join(hex.trim_start_matches("sha256:"));
    let spoilt: Vec<u8> = site.built.blobs[0].iter().map(|byte| !byte).collect();
    fs::write(&file, spoilt).unwrap();
    site.uplink.take_log();
    let task = site.begin("gpu02").await;
    site.ends_well(&task).await;
    site.node("gpu02").machine.logs("a peer is left").await;
    let good = site.node("gpu02").folder().join("blobs/sha256").join(hex.trim_start_matches("sha256:"));
    assert_eq!(sha256(&fs::read(good).unwrap()), hex);
    let fetched: Vec<_> = site.uplink.log().into_iter().filter(|e| e.target.ends_with(&hex)).collect();
    assert_eq!(fetched.len(), 1, "the registry is the last resort: {fetched:?}");
}

#[tokio::test]
async fn the_managers_own_directories_are_handed_out_by_the_manager() {
    let Some(mut site) = Site::set(&["--seed-first", "--engine", "oci:images"], 0).await else { return };
    let own = site.api().agents_alive(1).await.remove(0);
    let label =
        "mutation($id: String!) { modify_agent(id: $id, props: {labels: [{key: \"site\", value: \"lab\"}]}) {
        ok msg } }";
    let answer = site.api().ask(label, json!({"id": own})).await;
    assert_eq!(answer["modify_agent"]["ok"], true, "{answer}");
    let task = site.begin(&own).await;
    site.ends_well(&task).await;
    site.join("gpu01", &[]).await;
    site.uplink.take_log();
    let task = site.begin("gpu01").await;
    site.ends_well(&task).await;
    assert_eq!(site.paid(), [0; 0]);
    site.is_everywhere().await;
    // Who comes without a grant learns nothing.
    let target = format!("/agents/v2/lab/python/blobs/{}", site.layer(0));
    for caller in [site.api(), site.app.anonymous()] {
        let reply = caller.call("GET", &target).send().await;
        assert_eq!((reply.status, reply.body.len()), (401, 0));
    }
}

/// An agent that says that it has the image and hands it out at an address of the test's.
async fn pretender(site: &Site, peer_url: String) -> Speaker {
    let mut said = hello(Some(&token(&site.api(), json!({})).await), "pretender01");
    said.id = Some("pretender".into());
    said.labels = BTreeMap::from([("site".into(), "lab".into())]);
    said.peer_url = Some(peer_url);
    let (mut speaker, _) = Speaker::join(&site.app, said).await.expect("it is let in");
    let here = EngineInfo {
        kind: "oci".into(),
        id: None,
        hostname: "pretender".into(),
        version: "1".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        labels: BTreeMap::new(),
    };
    speaker.say(&FromAgent::Here(here)).await;
    let id: Digest = site.built.part("x86_64").config.parse().unwrap();
    let held = Held { id, names: vec![site.name()], manifests: Vec::new(), parts: Vec::new(), size: 1 };
    speaker
        .say(&FromAgent::Images(Images { full: true, last: true, held: vec![held], ..Images::default() }))
        .await;
    becomes(&site.api(), "pretender", "ALIVE").await;
    speaker
}

/// Agrees to whatever is asked of it.
async fn agree(mut speaker: Speaker) {
    while let Ok(message) = speaker.hear().await {
        let ToAgent::Ask(request) = message else { continue };
        let answer = match request.ask {
            Ask::HandOut { .. } => Answered::HandsOut,
            Ask::Look => Answered::Looked,
            _ => Answered::Found(None),
        };
        speaker.say(&FromAgent::Answer(Reply { call: request.call, answer })).await;
    }
}

#[tokio::test]
async fn a_peer_that_lies_or_is_slow_is_left_and_grants_are_in_no_log() {
    let Some(mut site) = Site::set(&["--seed-first", "--log-level", "trace"], 0).await else { return };
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (noted, lie) = (Arc::clone(&seen), site.built.blobs[0].len());
    let layer = site.layer(1);
    let server = Server::start(move |request: Request| {
        noted.lock().push(request.clone());
        // No manifest, one layer that never comes, and one of other bytes.
        let answer = if request.target.ends_with(&layer) {
            Answer::Stall
        } else if request.target.contains("/manifests/") {
            Answer::Reply(Response::new(404))
        } else {
            Answer::Reply(Response::new(200).body(Bytes::from(vec![b'x'; lie])))
        };
        async move { answer }
    })
    .await;
    let speaker = pretender(&site, server.url()).await;
    let agreeing = tokio::spawn(agree(speaker));
    until("the manager to know what the peer says it has", PATIENCE, async || {
        let presence = site.api().presence(&site.name()).await;
        (presence == ["present"]).then_some(())
    })
    .await;
    site.join("gpu01", &["--log-level", "trace"]).await;
    let task = site.begin("gpu01").await;
    site.ends_well(&task).await;
    site.node("gpu01").machine.logs("a peer is left").await;
    let requests = seen.lock().clone();
    let shown: Vec<String> =
        requests.iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect();
    assert!(!shown.is_empty(), "the peer was asked: {requests:?}");
    let logs = [site.app.logs(), site.node("gpu01").machine.log()];
    for header in shown {
        use base64::Engine as _;
        let encoded = header.trim_start_matches("Basic ");
        let text =
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap();
        let grant = text.strip_prefix("grant:").expect("a grant");
        for log in &logs {
            assert!(!log.contains(grant) && !log.contains(encoded));
        }
    }
    agreeing.abort();
}

#[tokio::test]
async fn nobody_is_sent_to_their_own_machine_by_an_agent_elsewhere() {
    let Some(site) = Site::set(SEED_FIRST, 0).await else { return };
    let speaker = pretender(&site, "http://169.254.169.254/latest".into()).await;
    let agreeing = tokio::spawn(agree(speaker));
    until("the manager to say that it sends nobody there", PATIENCE, async || {
        site.app.logs().contains("nobody is sent to the address").then_some(())
    })
    .await;
    agreeing.abort();
}
