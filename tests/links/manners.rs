//! Agents that break the protocol: each is told why, thrown out, and does no harm to others.

use futures_util::future::join_all;
use serde_json::json;
use wharf::base::digest::Digest;
use wharf::wire::image::{EngineInfo, Fault, Held, Progress, Pull, Pulled};
use wharf::wire::message::{Answer, Ask, End, FromAgent, Images, Reply, ToAgent};
use wharf::wire::{MAX_MESSAGE, MAX_NAMES};

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::machine::{Speaker, agent, becomes, hello, token};
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::shelf::Shelf;
use crate::support::simulated::someone;

async fn joined(app: &App, key: &str) -> (Speaker, String) {
    let token = token(&app.admin(), json!({})).await;
    let joined = Speaker::join(app, hello(Some(&token), key)).await;
    joined.unwrap_or_else(|refusal| panic!("refused: {refusal}"))
}

#[tokio::test]
async fn another_version_of_the_protocol_is_refused_with_both_versions_named() {
    let app = App::start().await;
    let mut future = hello(Some(&token(&app.admin(), json!({})).await), "futurefuture");
    future.protocols = vec![98, 99];
    let refusal = Speaker::join(&app, future).await.err().expect("a refusal");
    assert!(refusal.starts_with("Version: ") && refusal.contains("98, 99"), "{refusal}");
    assert!(app.logs().contains("98, 99"), "the manager's log says it too");
}

#[tokio::test]
async fn who_breaks_the_protocol_is_thrown_out_with_the_reason() {
    let app = App::start().await;
    let image = |names: usize| Held {
        id: Digest::sha256_of(b"x"),
        parts: Vec::new(),
        names: vec!["cr.io/a:1".into(); names],
        manifests: Vec::new(),
        size: 1,
    };
    let report = |held| FromAgent::Images(Images { held: vec![held], ..Images::default() });
    let cases: Vec<(&str, serde_json::Value, &str)> = vec![
        ("twicetwice", json!({"hello": hello(None, "twicetwice")}), "hello twice"),
        ("unknownword", json!({"dance": {}}), "no message of this protocol"),
        ("toomanynames", serde_json::to_value(report(image(MAX_NAMES + 1))).unwrap(), "names"),
        ("strangeengine", json!({"here": EngineInfo { kind: "steam".into(), ..someone("h") }}), "steam"),
        ("toolargemessage", json!({"x": "y".repeat(MAX_MESSAGE)}), "too long"),
    ];
    for (key, message, words) in cases {
        let (mut speaker, id) = joined(&app, key).await;
        speaker.say(&message).await;
        let reason = speaker.refusal().await;
        assert!(reason.contains(words), "{key}: {reason}");
        let lost = becomes(&app.admin(), &id, "LOST").await;
        assert!(lost["status_reason"].as_str().unwrap().contains("disconnected"), "{lost}");
        assert!(app.logs().contains(words), "{words}");
    }
}

#[tokio::test]
async fn a_flood_is_ended_and_costs_no_memory() {
    let app = App::start().await;
    let (mut speaker, id) = joined(&app, "floodflood").await;
    speaker.say(&FromAgent::Here(someone("h"))).await;
    becomes(&app.admin(), &id, "ALIVE").await;
    let before = app.peak_memory();
    // Fields that are not known are passed over, so this costs the manager as little as a megabyte can.
    let large = json!({"images": {"x": "y".repeat(1_000_000)}});
    for _ in 0..200 {
        speaker.say(&large).await;
    }
    let lost = becomes(&app.admin(), &id, "LOST").await;
    assert!(lost["status_reason"].as_str().unwrap().contains("too much"), "{lost}");
    let grown = app.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB for one agent", grown >> 20);
    // Little messages in great number are a flood too.
    let (mut speaker, id) = joined(&app, "floodflood2").await;
    for _ in 0..5_000 {
        speaker.say(&FromAgent::Images(Images::default())).await;
    }
    becomes(&app.admin(), &id, "LOST").await;
}

#[tokio::test]
async fn who_lies_about_progress_is_not_believed() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push(&Image::new("lab/python", "1")).await;
    let app = App::start().await;
    let api = app.admin();
    api.add_registry(&registry).await;
    api.scan(registry.host()).await;
    let at = |bytes_done, bytes_total| Progress { bytes_done, bytes_total, ..Progress::default() };
    for (key, told) in [
        ("backwards", vec![at(50, 100), at(40, 100)]),
        ("toomuchdone", vec![at(101, 100)]),
        ("shrinkingtotal", vec![at(50, 100), at(50, 90)]),
    ] {
        let (mut speaker, id) = joined(&app, key).await;
        speaker.say(&FromAgent::Here(someone("h"))).await;
        speaker.say(&FromAgent::Images(Images { full: true, last: true, ..Images::default() })).await;
        becomes(&api, &id, "ALIVE").await;
        let document = "mutation($r: String!, $a: String!) {
            preload_image(reference: $r, target_agents: $a) { task_id msg } }";
        let image = format!("{}/lab/python:1", registry.host());
        let answer = api.ask(document, json!({"r": image, "a": id})).await;
        let task = answer["preload_image"]["task_id"].as_str().expect("a task").to_owned();
        let mut refused = None;
        while refused.is_none() {
            match speaker.hear().await.expect("a message") {
                ToAgent::Ask(request) => {
                    assert!(matches!(request.ask, Ask::Find(_)));
                    let reply = Reply { call: request.call, answer: Answer::Found(None) };
                    speaker.say(&FromAgent::Answer(reply)).await;
                }
                ToAgent::Pull { pull, .. } => {
                    for progress in told.clone() {
                        speaker.say(&FromAgent::Pulling { pull: pull.clone(), progress }).await;
                    }
                }
                ToAgent::Refused(refusal) => refused = Some(refusal.reason),
                _ => {}
            }
        }
        let reason = refused.unwrap_or_default();
        assert!(reason.contains("go back") || reason.contains("pass their total"), "{key}: {reason}");
        let lost = becomes(&api, &id, "LOST").await;
        assert!(lost["status_reason"].as_str().unwrap().contains("disconnected"), "{lost}");
        assert!(api.mutate("remove_agent", &format!("id: {id:?}")).await.0);
        // With the agent gone for good, its item is given up and says so.
        let event = api.finish(&task).await;
        assert_eq!(event.name, "bgtask_failed");
        let (progress, total) = (&event.data["current_progress"], &event.data["total_progress"]);
        assert!(progress.as_u64() <= total.as_u64(), "{event:?}");
    }
}

#[tokio::test]
async fn who_connects_and_says_nothing_of_use_gets_no_further() {
    let app = App::start().await;
    let mut speaker = Speaker::connect(&app).await;
    speaker.say(&FromAgent::Bye).await;
    assert!(speaker.hear().await.is_err(), "hello comes first");
    let mut speaker = Speaker::connect(&app).await;
    speaker.say(&json!({"hello": {"protocols": "x".repeat(20_000)}})).await;
    assert!(speaker.hear().await.is_err(), "a hello is small");
    // However many are silent, others are let in when those have had their time.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Speaker::connect(&app).await);
    }
    let (_speaker, id) = joined(&app, "welcomewelcome").await;
    assert!(agent(&app.admin(), &id).await["id"].is_string());
    let page = app.anonymous().call("GET", "/agents/link");
    let page = page.header("Connection", "upgrade").header("Upgrade", "websocket");
    let page =
        page.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(page.header("Origin", "http://evil.example").send().await.status, 403);
}

/// Has an agent of this key load an image; the words with which its item ends, when the agent ends the pull like this, and
/// shows that under the image's name afterwards.
async fn told_so(
    app: &App,
    key: &str,
    image: &str,
    end: impl Fn(&Pull) -> End,
    shown: impl Fn(&Pull) -> Option<Held>,
) -> (String, String) {
    let api = app.admin();
    let (mut speaker, id) = joined(app, key).await;
    speaker.say(&FromAgent::Here(someone("h"))).await;
    speaker.say(&FromAgent::Images(Images { full: true, last: true, ..Images::default() })).await;
    becomes(&api, &id, "ALIVE").await;
    let task = api.transfer("preload_image", image, &id).await;
    let answering = async {
        let mut now = None;
        loop {
            match speaker.hear().await.expect("a message") {
                ToAgent::Ask(request) => {
                    let answer = match request.ask {
                        Ask::Find(_) => Answer::Found(now.clone()),
                        _ => Answer::Looked,
                    };
                    speaker.say(&FromAgent::Answer(Reply { call: request.call, answer })).await;
                }
                ToAgent::Pull { pull, what } => {
                    now = shown(&what);
                    let progress = Progress { message: format!("with {PASSWORD}"), ..Progress::default() };
                    speaker.say(&FromAgent::Pulling { pull: pull.clone(), progress }).await;
                    speaker.say(&FromAgent::Pulled { pull, end: end(&what) }).await;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let last = tokio::select! {
        last = api.finish(&task) => last,
        () = answering => unreachable!("it answers until it is dropped"),
    };
    let item = api.task(&task).await["items"][0].clone();
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    (text("state"), format!("{} {:?}", text("reason"), last))
}

#[tokio::test]
async fn who_says_done_is_believed_when_it_was_that_image_and_its_engine_shows_it() {
    let registry = Shelf::start([Image::new("lab/python", "1")]).await;
    let app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    let image = format!("{}/lab/python:1", registry.host());
    let held = |id: &Digest| Held {
        id: id.clone(),
        names: Vec::new(),
        manifests: Vec::new(),
        parts: Vec::new(),
        size: 1,
    };
    let done = |id: &Digest| End::Done(Pulled { held: held(id), fetched: true, remarks: Vec::new() });
    let other = Digest::sha256_of(b"another image");

    let (state, why) =
        told_so(&app, "honesthonest", &image, |what| done(&what.config), |what| Some(held(&what.config)))
            .await;
    assert_eq!(state, "done", "{why}");
    let (state, why) = told_so(&app, "anotheranother", &image, |_| done(&other), |_| None).await;
    assert!(state == "failed" && why.contains("not the expected"), "{state}: {why}");
    let (state, why) = told_so(&app, "nothingnothing", &image, |what| done(&what.config), |_| None).await;
    assert!(state == "failed" && why.contains("and yet has no"), "{state}: {why}");
    let (state, why) =
        told_so(&app, "movedmoved", &image, |what| done(&what.config), |_| Some(held(&other))).await;
    assert!(state == "failed" && why.contains("not the expected"), "{state}: {why}");
}

#[tokio::test]
async fn what_an_agent_says_of_a_failure_repeats_no_secret() {
    let registry = Shelf::start([Image::new("lab/python", "1")]).await;
    let app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    let image = format!("{}/lab/python:1", registry.host());
    let failed = |_: &Pull| {
        let message = format!(
            "GET https://{USER}:other-{PASSWORD}@cr.invalid/v2/: 401\u{1b}[31m\nfor {PASSWORD}, sent Bearer {}",
            "eyJhbGciOiJSUzI1NiJ9".repeat(3)
        );
        End::Failed(Fault { class: "unauthorized".into(), message })
    };
    let (state, why) = told_so(&app, "talkative1", &image, failed, |_| None).await;
    assert_eq!(state, "failed", "{why}");
    assert!(
        why.contains("401") && why.contains("[secret]@cr.invalid") && why.contains("for [secret]"),
        "{why}"
    );
    for kept in [why.as_str(), &app.logs()] {
        for secret in [PASSWORD, "eyJhbGciOiJSUzI1NiJ9", "\u{1b}[31m"] {
            assert!(!kept.contains(secret), "{secret}: {kept}");
        }
    }
}

#[tokio::test]
async fn however_many_say_nothing_an_agent_gets_in() {
    let app = App::start().await;
    let api = app.admin();
    let token = token(&api, json!({})).await;
    let silent = join_all((0..700).map(|_| Speaker::dial(&app))).await;
    let (_speaker, id) = Speaker::join(&app, hello(Some(&token), "welcomewelcome")).await.expect("in");
    assert!(agent(&api, &id).await["id"].is_string());
    drop(silent);
}
