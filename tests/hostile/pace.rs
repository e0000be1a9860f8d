//! Registries that refuse, break and abort: when to come back, and when to give up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::{Case, Scene, VICTIM, at, bad, odd, raw};
use crate::support::http1::{Answer, Request, Response};
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// Says 429 with these headers to the first `count` requests for manifests.
fn slow_down(count: usize, retry_after: Option<String>) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    let left = AtomicUsize::new(count);
    move |request| {
        let refuse = request.path().contains("/manifests/")
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let response = Response::new(429).header("content-type", "text/plain").body("slow down");
        refuse.then(|| match &retry_after {
            Some(text) => response.header("retry-after", text).into(),
            None => response.into(),
        })
    }
}

fn unix(from_now: u64) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (since.as_secs() + from_now).to_string()
}

fn date(from_now: i64) -> String {
    let shift = Duration::from_secs(from_now.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if from_now < 0 { now - shift } else { now + shift })
}

#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it_and_the_scan_goes_on() {
    let scene = Scene::set().await;
    let asked = |text: &str| Some(text.to_owned());
    let cases = vec![
        odd("a second", slow_down(3, asked("1"))),
        odd("a date", slow_down(3, Some(date(2)))),
        odd("a Unix time", slow_down(3, Some(unix(2)))),
        odd("a Unix time in milliseconds", slow_down(1, Some(format!("{}000", unix(2))))),
        odd("seconds with a unit", slow_down(1, asked("1.5s"))),
        odd("a date gone by", slow_down(3, Some(date(-100)))),
        odd("not said", slow_down(1, None)),
        odd("no time at all", slow_down(3, asked("0"))),
        odd("less than no time", slow_down(1, asked("-5"))),
        odd("nonsense", slow_down(1, asked("when the moon is full"))),
        odd("lines that end in LF", {
            let first = AtomicUsize::new(0);
            move |request: &Request| {
                let refuse = request.path() == VICTIM && first.fetch_add(1, Ordering::SeqCst) == 0;
                let text = "HTTP/1.1 429 Slow\nretry-after: 1\ncontent-length: 4\nconnection: close\n\nslow";
                refuse.then(|| raw(text))
            }
        }),
    ];
    scene.endure(cases).await;
}

#[tokio::test]
async fn a_long_pause_fails_nothing_is_told_and_can_be_cancelled() {
    let scene = Scene::set().await;
    for text in ["999999".to_owned(), date(999_999), "90".to_owned()] {
        let admin = scene.app.admin();
        // More repositories than are read at once: those that wait their turn must not be given up for the pause.
        let names: Vec<String> = (0..12).map(|n| format!("r/{n}")).collect();
        let registry = Shelf::start(names.iter().map(|name| Image::new(name, "1"))).await;
        admin.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        admin.scan(&registry.host()).await;
        let before = scene.rows(&registry).await;
        let answer = Response::new(429).header("retry-after", &text).body("<html>slow</html>");
        registry.turn(move |request| request.path().contains("/manifests/").then(|| answer.clone().into()));
        let task = admin.rescan(&registry.host()).await;
        let waiting = until("every repository to wait", PATIENCE, async || {
            let task = admin.task(&task).await;
            let items: Vec<_> = task["items"].as_array()?.iter().filter(|i| i["attempts"] != 0).collect();
            let waiting = items.iter().filter(|item| item["state"] == "waiting").count();
            let running = items.iter().filter(|item| item["state"] == "running").count();
            (items.len() > names.len() && running == 0).then_some((task.clone(), waiting))
        })
        .await;
        assert_eq!(waiting.1, names.len(), "{text}: a pause is no failure: {:#}", waiting.0);
        assert_eq!(waiting.0["state"], "started");
        let said = waiting.0["message"].as_str().unwrap_or_default();
        assert!(said.contains("rate limited (429) until"), "{text}: {said}");
        let other = admin.scan(&scene.good.host()).await;
        assert_eq!(other["ledger"]["unchanged"], 14, "{other:#}");
        assert!(admin.mutate("cancel_task", &format!("id: \"{task}\"")).await.0);
        assert!(admin.finish(&task).await.name.ends_with("cancelled"));
        assert_eq!(scene.rows(&registry).await, before);
    }
    scene.is_well("long pauses").await;
}

#[tokio::test]
async fn a_registry_in_trouble_is_tried_a_few_times_and_told_of() {
    let scene = Scene::set().await;
    let mut cases: Vec<Case> = Vec::new();
    for (name, status, why) in [
        ("500 for good", 500, "server answered 500"),
        ("502 for good", 502, "server answered 502"),
        ("503 for good", 503, "server answered 503"),
        ("504 for good", 504, "server answered 504"),
        ("418", 418, "server answered 418"),
        ("403 of one tag", 403, "forbidden (403)"),
        ("404 of one tag: it vanished after it was listed", 404, "not found (404)"),
        ("410", 410, "server answered 410"),
    ] {
        cases.push(bad(name, why, at(VICTIM, Response::new(status).body("<html>oops</html>"))));
    }
    cases.extend([
        odd("a burst of 503", {
            let count = AtomicUsize::new(0);
            move |_| {
                let count = count.fetch_add(1, Ordering::SeqCst);
                (count < 20 && !count.is_multiple_of(3)).then(|| Response::new(503).into())
            }
        }),
        bad("closed without a word", "unreachable", at(VICTIM, Answer::Hang)),
        bad("reset without a word", "unreachable", at(VICTIM, Answer::Reset("".into()))),
        bad(
            "reset after the headers",
            "unreachable",
            at(VICTIM, Answer::Reset("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n".into())),
        ),
        bad("not HTTP", "unreachable", at(VICTIM, raw("SSH-2.0-OpenSSH_9.6\r\n"))),
        bad("every tag list is closed", "unreachable", |request| {
            request.path().ends_with("/tags/list").then_some(Answer::Hang)
        }),
        bad("everything is closed", "unreachable", |_| Some(Answer::Hang)),
        bad("everything is 500", "server answered 500", |_| Some(Response::new(500).into())),
        bad("everything is a page in HTML", "invalid response", |_| {
            Some(Response::new(200).header("content-type", "text/html").body("<html>log in</html>").into())
        }),
        bad("everything is an empty object", "", |_| Some(Response::json(200, &json!({})).into())),
        bad("a redirect to itself", "too many redirects", {
            at(VICTIM, Response::new(307).header("location", VICTIM))
        }),
        bad(
            "a redirect to a file",
            "",
            at(VICTIM, Response::new(307).header("location", "file:///etc/passwd")),
        ),
        bad(
            "a redirect to the metadata of a cloud",
            "blocked host",
            at(VICTIM, Response::new(307).header("location", "http://169.254.169.254/latest/meta-data/")),
        ),
    ]);
    scene.endure(cases).await;
}

#[tokio::test]
async fn a_registry_whose_tls_breaks_is_not_read_and_keeps_its_rows() {
    let scene = Scene::set().await;
    let registry = scene.registry().await;
    let before = scene.rows(&registry).await;
    let admin = scene.app.admin();
    // What answers at the new address speaks, but no TLS.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let change = "mutation($host: String!, $url: String!) {
        modify_container_registry(hostname: $host, props: {url: $url}) { container_registry { hostname } } }";
    let host = registry.host();
    admin.ask(change, json!({"host": host, "url": url})).await;
    let task = admin.rescan(&host).await;
    admin.finish(&task).await;
    let task = admin.task(&task).await;
    answering.abort();
    assert_eq!(task["state"], "failed", "{task:#}");
    let message = task["message"].as_str().unwrap_or_default();
    assert!(message.contains("TLS refused") || message.contains("unreachable"), "{task:#}");
    assert_eq!(scene.rows(&registry).await, before);
    scene.is_well("TLS").await;
}
