//! Requests that a registry need not know: each is refused in many ways, and has a plainer one behind it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{
    base::digest::Digest,
    registry::{
        client::{Client, probe::Probe},
        manners::{Manners, PageSize, ProbeMode, TokenMethod},
        tests::{
            EMPTY, ann, client, manifest, patient, remote,
            server::{Reply, Request, Server},
            tags,
        },
    },
};

fn known() -> Digest {
    Digest::sha256_of(EMPTY.as_bytes())
}

fn is_conditional(request: &Request) -> bool {
    request.header("if-none-match").is_some()
}

fn is_head(request: &Request) -> bool {
    request.line.starts_with("HEAD ")
}

/// A client that probes by this request.
fn probing(server: &Server, probe: ProbeMode) -> Client {
    let mut remote = remote(&server.url());
    remote.manners.probe = probe;
    client(remote, patient())
}

#[tokio::test]
async fn a_probe_that_is_refused_in_any_way_is_made_plainly_and_that_is_remembered() {
    for status in [400, 401, 403, 404, 405, 406, 412, 500, 501] {
        for (asked, kind, learned) in [
            (ProbeMode::Unknown, is_conditional as fn(&Request) -> bool, ProbeMode::Head),
            (ProbeMode::Conditional, is_conditional, ProbeMode::Head),
            (ProbeMode::Head, is_head, ProbeMode::Get),
        ] {
            let server = Server::start(move |request| {
                if kind(request) {
                    Reply::new(status, &[], "")
                } else {
                    manifest(&[("etag", &format!("\"{}\"", known()))])
                }
            })
            .await;
            let client = probing(&server, asked);
            for times in 1..=3 {
                assert_ne!(client.manners().probe, learned, "{status} {asked:?} {times}");
                assert_eq!(client.probe("a", "tag", &known()).await.unwrap(), Probe::Unchanged, "{status}");
                assert_eq!(server.requests().len(), 2 * times, "{status} {asked:?}: {:?}", server.lines());
            }
            assert_eq!(client.manners().probe, learned, "{status} {asked:?}");
            let moved = client.probe("a", "tag", &Digest::sha256_of(b"old")).await.unwrap();
            assert!(matches!(moved, Probe::Fetched(fetched) if fetched.digest == known()), "{status}");
        }
    }
}

#[tokio::test]
async fn what_is_refused_now_and_then_is_no_habit() {
    for (asked, kind) in
        [(ProbeMode::Conditional, is_conditional as fn(&Request) -> bool), (ProbeMode::Head, is_head)]
    {
        let count = AtomicUsize::new(0);
        let server = Server::start(move |request| match request {
            request if kind(request) && count.fetch_add(1, Ordering::SeqCst) % 3 < 2 => {
                Reply::new(403, &[], "")
            }
            request if is_conditional(request) => Reply::new(304, &[], ""),
            _ => manifest(&[("docker-content-digest", known().as_str())]),
        })
        .await;
        let client = probing(&server, asked);
        for _ in 0..9 {
            assert_eq!(client.probe("a", "tag", &known()).await.unwrap(), Probe::Unchanged);
            assert_eq!(client.manners().probe, asked);
        }
    }
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let is_refused = request.path().ends_with("n=1000") && count.fetch_add(1, Ordering::SeqCst) % 3 < 2;
        if is_refused { Reply::new(500, &[], "") } else { tags(&["a"], None) }
    })
    .await;
    let client = client(remote(&server.url()), patient());
    for _ in 0..9 {
        client.tags("a").await.unwrap();
        assert_eq!(client.manners(), Manners::default());
    }
}

#[tokio::test]
async fn what_the_plain_request_says_counts_and_a_missing_tag_teaches_nothing() {
    for (asked, status) in [(ProbeMode::Conditional, 404), (ProbeMode::Head, 404), (ProbeMode::Head, 403)] {
        let server = Server::start(move |_| Reply::new(status, &[], "")).await;
        let client = probing(&server, asked);
        let error = client.probe("a", "tag", &known()).await.unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(client.manners().probe, asked);
    }
    // Passing trouble is no refusal.
    let fails = AtomicBool::new(true);
    let server = Server::start(move |_| {
        if fails.swap(false, Ordering::SeqCst) { Reply::new(503, &[], "") } else { Reply::new(304, &[], "") }
    })
    .await;
    let client = probing(&server, ProbeMode::Conditional);
    assert_eq!(client.probe("a", "tag", &known()).await.unwrap(), Probe::Unchanged);
    assert_eq!(client.manners().probe, ProbeMode::Conditional);
}

#[tokio::test]
async fn a_head_without_a_digest_is_followed_by_a_get() {
    for digest in [&[][..], &[("docker-content-digest", "")], &[("docker-content-digest", "none")]] {
        let server = Server::start(move |_| manifest(digest)).await;
        let client = probing(&server, ProbeMode::Head);
        assert_eq!(client.probe("a", "tag", &known()).await.unwrap(), Probe::Unchanged, "{digest:?}");
        assert_eq!(server.lines(), ["HEAD /v2/a/manifests/tag", "GET /v2/a/manifests/tag"]);
        assert_eq!(client.manners().probe, ProbeMode::Get);
    }
}

#[tokio::test]
async fn a_number_of_names_that_is_refused_in_any_words_is_made_smaller_and_then_left_out() {
    for status in [400, 405, 413, 414, 416, 422, 500] {
        for (fits, learned) in [("n=100", PageSize::Small), ("list", PageSize::Any)] {
            let server = Server::start(move |request| {
                if request.path().ends_with(fits) {
                    tags(&["a"], None)
                } else {
                    Reply::new(status, &[], r#"{"errors":[{"code":"TOO_MANY_TAGS_REQUESTED"}]}"#)
                }
            })
            .await;
            let client = client(remote(&server.url()), patient());
            for _ in 0..4 {
                assert_eq!(client.tags("a").await.unwrap().good, ["a"], "{status} {fits}");
            }
            assert_eq!(client.manners().page, learned, "{status}");
            let asked = if learned == PageSize::Any { 3 } else { 2 };
            assert_eq!(server.requests().len(), 3 * asked + 1, "{status}: {:?}", server.lines());
        }
        let server = Server::start(move |_| Reply::new(status, &[], "")).await;
        let client = client(remote(&server.url()), patient());
        assert!(client.tags("a").await.unwrap_err().to_string().contains(&status.to_string()));
        assert_eq!(client.manners(), Manners::default());
    }
}

#[tokio::test]
async fn a_part_of_a_blob_that_is_refused_is_asked_for_as_a_whole() {
    const BLOB: &[u8] = b"0123456789";
    for status in [400, 403, 404, 405, 416, 500, 501, 204, 206] {
        let server = Server::start(move |request| match request.header("range") {
            Some(_) => Reply::new(status, &[], ""),
            None => Reply::new(200, &[], BLOB),
        })
        .await;
        let client = client(remote(&server.url()), patient());
        for _ in 0..4 {
            let mut body = client.open_blob("a", &Digest::sha256_of(BLOB), 10, 5).await.unwrap();
            assert_eq!(body.from(), 0, "{status}");
            assert_eq!(body.next().await.unwrap().unwrap().as_ref(), BLOB);
        }
        let is_remembered = status != 416;
        assert_eq!(client.manners().refuses_ranges, is_remembered, "{status}");
        assert_eq!(server.requests().len(), if is_remembered { 7 } else { 8 }, "{status}");
    }
}

/// A registry that wants a token, which its token server gives to one kind of request only.
async fn issuing(method: &'static str, refusal: u16) -> Server {
    Server::start(move |request| {
        if request.path().starts_with("/token") {
            return if request.line.starts_with(method) {
                Reply::ok(r#"{"access_token":"t"}"#)
            } else {
                Reply::new(refusal, &[], "")
            };
        }
        match request.header("authorization") {
            Some("Bearer t") => tags(&["x"], None),
            _ => Reply::new(401, &[("www-authenticate", "Bearer realm=\"/token\",service=\"s\"")], ""),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_server_is_asked_by_the_method_that_it_knows() {
    for refusal in [400, 404, 405, 415, 501] {
        for (method, begun, learned) in [
            ("POST", TokenMethod::Get, TokenMethod::Post),
            ("GET", TokenMethod::Post, TokenMethod::Get),
            ("POST", TokenMethod::Post, TokenMethod::Post),
        ] {
            let server = issuing(method, refusal).await;
            let mut remote = remote(&server.url());
            (remote.credentials, remote.manners.token) = (Some(ann()), begun);
            let client = client(remote, patient());
            assert_eq!(client.tags("a").await.unwrap().good, ["x"], "{refusal} {method}");
            assert_eq!(client.manners().token, learned);
            let post = server.requests().into_iter().find(|request| request.line == "POST /token");
            assert_eq!(post.is_some(), method == "POST" || begun == TokenMethod::Post);
            if let Some(post) = post {
                // The password is in the form, and nowhere else.
                assert_eq!(post.header("authorization"), None);
                assert_eq!(post.header("content-type"), Some("application/x-www-form-urlencoded"));
            }
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let server = issuing("POST", 405).await;
    let mut remote = remote(&server.url());
    let mut token = ann();
    token.username = "<token>".into();
    remote.credentials = Some(token);
    client(remote, patient()).tags("a").await.unwrap();
    let lines: Vec<String> = server.lines().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(lines, ["POST /token"]);
}
