//! Many followers of tasks, some of them ill-behaved: none costs the server much, or disturbs the others.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::{Api, Call};
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::people;
use crate::support::proxy::CountingProxy;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::sign::Signature;
use crate::support::visitor::Visitor;

/// The number of followers of one task at once.
const CROWD: usize = 500;
/// The most memory they may cost together.
const COST: u64 = 64 << 20;

struct Scene {
    app: App,
    _registry: Shelf,
    proxy: CountingProxy,
}

impl Scene {
    async fn set() -> Self {
        let images = (0..200).map(|n| Image::new(&format!("r/{}", n % 8), &n.to_string()));
        let registry = Shelf::start(images).await;
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), Some((USER, PASSWORD))).await;
        proxy.hold();
        Self { app, _registry: registry, proxy }
    }
}

/// Opens a stream by hand, so that only its holder reads it.
async fn open(api: &Api, task: &str) -> TcpStream {
    let target = format!("/events/background-task?task_id={task}");
    let pair = crate::support::sign::Keypair::new(
        crate::support::app::ADMIN_ACCESS_KEY,
        crate::support::app::ADMIN_SECRET_KEY,
    );
    let signature = Signature::new(&pair, "v9.20250722");
    let authorization = signature.authorization("GET", &target, api.host(), "application/octet-stream");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\n{}: {}\r\n{}: {}\r\nAuthorization: {authorization}\r\n\r\n",
        api.host(),
        signature.date_header,
        signature.date,
        signature.version_header,
        signature.version,
    );
    let mut stream = TcpStream::connect(api.host()).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test]
async fn five_hundred_followers_and_some_that_never_read_cost_little_and_all_hear_the_end() {
    let scene = Scene::set().await;
    let api = scene.app.admin();
    let task = api.rescan(&scene.proxy.host()).await;
    let before = scene.app.peak_memory();
    let deaf = join_all((0..20).map(|_| open(&api, &task))).await;
    let followers: Vec<_> = (0..CROWD)
        .map(|_| {
            let (api, task) = (api.clone(), task.clone());
            tokio::spawn(async move { api.finish(&task).await })
        })
        .collect();
    scene.proxy.release();
    for follower in followers {
        let last = follower.await.expect("a follower that hears the end");
        assert!(last.name.ends_with("done"), "{last:?}");
    }
    let cost = scene.app.peak_memory() - before;
    assert!(cost < COST, "{} MiB for {CROWD} followers", cost >> 20);
    drop(deaf);
    let ready = scene.app.anonymous().call("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200);
}

#[tokio::test]
async fn whoever_opens_ever_more_streams_loses_the_oldest_with_a_word() {
    let scene = Scene::set().await;
    let api = scene.app.admin();
    let task = api.rescan(&scene.proxy.host()).await;
    let mut streams = Vec::new();
    // As many as one user may have, and some more.
    for _ in 0..13 {
        streams.extend(join_all((0..50).map(|_| open(&api, &task))).await);
    }
    let given_up = async |stream: &mut TcpStream| {
        let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
        while !String::from_utf8_lossy(&heard).contains("event: server_close") {
            match stream.read(&mut piece).await {
                Ok(read) if read > 0 => heard.extend_from_slice(&piece[..read]),
                _ => panic!("closed without a word: {}", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    };
    for stream in &mut streams[..50] {
        let heard = tokio::time::timeout(crate::support::wait::PATIENCE, given_up(stream)).await;
        let heard = heard.expect("the oldest are given up");
        assert!(heard.contains("too many streams"), "{heard}");
    }
    scene.proxy.release();
    let last =
        tokio::time::timeout(crate::support::wait::PATIENCE * 2, given_up(streams.last_mut().unwrap())).await;
    let last = last.expect("the others hear the end");
    assert!(last.contains("event: bgtask_done") || last.contains("event: bgtask_failed"), "{last}");
}

#[tokio::test]
async fn followers_that_are_cut_off_leave_nothing_behind() {
    let scene = Scene::set().await;
    let api = scene.app.admin();
    let task = api.rescan(&scene.proxy.host()).await;
    let files = || {
        let path = format!("/proc/{}/fd", scene.app.process_id());
        std::fs::read_dir(path).expect("the server's open files").count()
    };
    let before = files();
    for _ in 0..5 {
        let streams = join_all((0..40).map(|_| open(&api, &task))).await;
        assert!(files() >= before + 30);
        for stream in streams {
            stream.set_zero_linger().expect("a socket");
        }
    }
    crate::support::wait::until("the server to close them", Duration::from_secs(50), async || {
        (files() < before + 30).then_some(())
    })
    .await;
    scene.proxy.release();
    assert!(api.finish(&task).await.name.ends_with("done"));
}

#[tokio::test]
async fn a_nonsensical_last_event_id_is_as_good_as_none() {
    let scene = Scene::set().await;
    scene.proxy.release();
    let api = scene.app.admin();
    let task = api.rescan(&scene.proxy.host()).await;
    api.finish(&task).await;
    let long = "9".repeat(5000);
    for id in [
        "",
        "x",
        "-1",
        "0",
        "1.5",
        "99999999999999999999999999",
        "18446744073709551615",
        "null",
        "1; 2",
        &long,
    ] {
        let events = api.events_after(&task, Some(id)).await.rest().await;
        let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["bgtask_done", "server_close"], "{id:.30}");
    }
}

#[tokio::test]
async fn whoever_is_signed_out_switched_off_or_demoted_hears_no_more() {
    let scene = Scene::set().await;
    let root = scene.app.admin();
    let eve = scene.app.person("eve@lab", "superadmin", "default").await;
    let mut page = Visitor::of(&scene.app);
    page.sign_in(&eve.email, people::PASSWORD).await;
    let made = eve
        .api
        .ask(
            "mutation { create_api_token(name: \"ci\", scope: \"read\") { token api_token { id } } }",
            json!({}),
        )
        .await;
    let made = &made["create_api_token"];
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let max = scene.app.person("max@lab", "superadmin", "default").await;

    let task = root.rescan(&scene.proxy.host()).await;
    let stream = format!("/events/background-task?task_id={task}");
    let by_token = scene.app.anonymous().call("GET", &stream).unsigned().header("Authorization", &bearer);
    let calls = [
        page.call("GET", &stream).no_content_type(),
        by_token,
        eve.api.call("GET", &stream),
        max.api.call("GET", &stream),
        root.call("GET", &stream),
    ];
    let mut streams = join_all(calls.map(Call::response)).await;
    for stream in &mut streams {
        assert_eq!(stream.status(), 200);
        stream.chunk().await.expect("a stream").expect("the task as it is");
    }
    page.call("POST", "/server/logout").send().await;
    eve.api.does("revoke_api_token", &format!("id: {}", made["api_token"]["id"])).await;
    root.does("modify_keypair", &format!("access_key: {:?}, props: {{is_active: false}}", eve.access_key))
        .await;
    root.does("modify_user", &format!("email: {:?}, props: {{role: \"user\"}}", max.email)).await;
    scene.proxy.release();
    let heard = join_all(streams.into_iter().map(reqwest::Response::text)).await;
    let heard: Vec<String> = heard.into_iter().map(|text| text.expect("a stream that ends")).collect();
    assert!(heard[4].contains("event: bgtask_done"), "{}", heard[4]);
    for text in &heard[..4] {
        // A line that begins with a colon only says that the stream is still there.
        let events = text.lines().filter(|line| !line.is_empty() && !line.starts_with(':'));
        assert_eq!(events.count(), 0, "somebody heard what is not for them: {text}");
    }
}
