//! Token services that are elsewhere, forgetful, generous or mad.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Case, Scene, bad, odd};
use crate::support::http1::{Answer, Request, Response, Server};

fn challenge(realm: &str) -> Response {
    let value = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:r/a:pull\"");
    Response::new(401).header("www-authenticate", &value).body("{}")
}

#[tokio::test]
async fn a_realm_on_a_foreign_host_gets_nothing() {
    let scene = Scene::set().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let foreign = Server::start(move |request| {
        log.lock().push(request);
        async { Response::json(200, &json!({"token": "t"})) }
    })
    .await;
    let port = foreign.host().rsplit_once(':').unwrap().1.to_owned();
    let mut cases: Vec<Case> = Vec::new();
    for (name, realm) in [
        ("a name that leads to this machine", format!("http://localhost.evil.invalid:{port}/token")),
        ("another loopback address", format!("http://127.0.0.2:{port}/token")),
        ("the metadata of a cloud", "http://169.254.169.254/token".to_owned()),
        ("user information", format!("http://user:pass@127.0.0.2:{port}/token")),
        ("every address", format!("http://0.0.0.0:{port}/token")),
        ("IPv6", format!("http://[::ffff:169.254.169.254]:{port}/token")),
        ("a file", "file:///etc/passwd".to_owned()),
        ("a number for an address", format!("http://2852039166:{port}/token")),
    ] {
        let answer = challenge(&realm);
        // The healthy scan taught the registry's own way, so each request is refused anew.
        cases.push(bad(name, "", move |_: &Request| Some(answer.clone().into())));
    }
    scene.endure(cases).await;
    let heard: Vec<String> = heard.lock().iter().map(|request| format!("{request:?}")).collect();
    assert!(heard.is_empty(), "the foreign host was spoken to: {heard:#?}");
}

/// A registry in front of the healthy one that wants a token, and gives it by `answer`. A token is good for `uses`.
fn guarded(
    uses: usize,
    answer: impl Fn(usize) -> Response + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    let (issued, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
    move |request| {
        if request.path() == "/token" {
            left.store(uses, Ordering::SeqCst);
            return Some(answer(issued.fetch_add(1, Ordering::SeqCst)).into());
        }
        let bearer = request.header("authorization").is_some_and(|value| value.starts_with("Bearer "));
        let spend = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if bearer && spend() {
            return match request.path() {
                "/v2/_catalog" => {
                    let names = json!({"repositories": ["r/a", "r/b", "r/c", "r/many"]});
                    Some(Response::json(200, &names).into())
                }
                path if path.ends_with("/tags/list") => {
                    let tags = if path.contains("many") { json!(["1"]) } else { json!(["1", "2", "3", "4"]) };
                    Some(Response::json(200, &json!({"tags": tags})).into())
                }
                _ => Some(Response::new(304).into()),
            };
        }
        Some(challenge("/token").into())
    }
}

fn token(extra: &Value) -> Response {
    let mut body = json!({"token": "planted-token"});
    if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
        body.extend(extra.clone());
    }
    Response::json(200, &body)
}

#[tokio::test]
async fn tokens_of_every_kind_are_used_as_far_as_they_go() {
    let scene = Scene::set().await;
    let many = usize::MAX;
    let mut cases = vec![
        odd("five seconds", guarded(many, |_| token(&json!({"expires_in": 5})))),
        odd("no time told", guarded(many, |_| token(&json!({})))),
        odd("zero", guarded(many, |_| token(&json!({"expires_in": 0})))),
        odd("negative", guarded(many, |_| token(&json!({"expires_in": -1})))),
        odd("huge", guarded(many, |_| token(&json!({"expires_in": 1e300})))),
        odd("in words", guarded(many, |_| token(&json!({"expires_in": "a while"})))),
        odd(
            "the other name",
            guarded(many, |_| Response::json(200, &json!({"access_token": "planted-token"}))),
        ),
    ];
    for (name, why, answer) in [
        ("a megabyte", "too large", token(&json!({"token": "a".repeat(1 << 20)}))),
        ("none", "the token response has no token", Response::json(200, &json!({"expires_in": 60}))),
        ("a line break", "no header can carry", token(&json!({"token": "a\r\nX: y"}))),
        ("no JSON", "not readable JSON", Response::new(200).body("<html>")),
        ("a redirect", "", Response::new(302).header("location", "http://127.0.0.2/token")),
        ("refused", "unauthorized (401)", Response::new(401)),
        ("forbidden", "forbidden (403)", Response::new(403).body("planted-words")),
        ("not enough", "unauthorized (401)", {
            Response::new(401).header("www-authenticate", "Bearer error=\"insufficient_scope\"")
        }),
    ] {
        cases.push(bad(name, why, guarded(many, move |_| answer.clone())));
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    cases.push(bad(
        "never good enough",
        "unauthorized (401)",
        guarded(0, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            token(&json!({}))
        }),
    ));
    scene.endure(cases).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= 2 * (1 + 4 + 14), "a refused token is replaced once, not {asked} times");
    let logs = scene.app.logs();
    assert!(!logs.contains("planted-token") && !logs.contains("planted-words"), "{logs}");
}

#[tokio::test]
async fn a_missing_repository_that_says_401_and_a_forbidden_one_keep_their_rows() {
    let scene = Scene::set().await;
    let only = |status: u16| {
        move |request: &Request| {
            request.path().starts_with("/v2/r/b/").then(|| {
                Response::new(status)
                    .header("www-authenticate", "Basic realm=\"shelf\"")
                    .body("planted-words")
                    .into()
            })
        }
    };
    scene
        .endure(vec![
            bad("401 of one repository", "unauthorized (401)", only(401)),
            bad("403 of one repository", "forbidden (403)", only(403)),
        ])
        .await;
}
