//! Token servers that misbehave, and the single flight to those that do not (R11).

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::registry::error::Reason;
use crate::registry::tests::server::{Reply, Server, Then};
use crate::registry::tests::{ann, client, hasty, manifest, patient, remote, tags};

/// A registry that wants bearer tokens, and its token server at `/token`. `accepts` says whether this token (numbered
/// from 1) is good for this path.
async fn guarded(
    token: impl Fn(usize) -> Reply + Send + Sync + 'static,
    accepts: impl Fn(usize, &str) -> bool + Send + Sync + 'static,
) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.path().starts_with("/token") {
            return token(count.fetch_add(1, Ordering::SeqCst) + 1);
        }
        let sent =
            request.header("authorization").and_then(|text| text.strip_prefix("Bearer t")?.parse().ok());
        if sent.is_some_and(|number| accepts(number, request.path())) {
            return if request.path().contains("manifests") { manifest(&[]) } else { tags(&["x"], None) };
        }
        let challenge =
            r#"Bearer realm="/token",service="cr",scope="repository:a:pull",error="insufficient_scope""#;
        Reply::new(401, &[("www-authenticate", challenge)], "")
    })
    .await
}

fn numbered(number: usize) -> Reply {
    Reply::ok(json!({"token": format!("t{number}"), "expires_in": 300}).to_string())
}

fn fetched_tokens(server: &Server) -> usize {
    server.lines().iter().filter(|line| line.contains("/token")).count()
}

#[tokio::test]
async fn a_token_is_fetched_once_per_scope_for_all_who_need_it() {
    let server = guarded(numbered, |_, _| true).await;
    let mut remote = remote(&server.url());
    remote.credentials = Some(ann());
    let client = client(remote, patient());
    client.manifest("a", "tag").await.unwrap();
    let token = &server.lines()[1];
    assert_eq!(token, "GET /token?service=cr&scope=repository%3Aa%3Apull&client_id=wharf&account=ann");
    assert_eq!(server.requests()[1].header("authorization"), Some("Basic YW5uOmh1bnRlcjI="));
    // The scheme is known now: one token for the next repository, however many requests ask at once, and no more
    // 401s.
    let before = server.requests().len();
    let asked = (0..8).map(|_| client.manifest("b", "tag"));
    for outcome in futures_util::future::join_all(asked).await {
        outcome.unwrap();
    }
    assert_eq!((server.requests().len() - before, fetched_tokens(&server)), (9, 2));
}

#[tokio::test]
async fn an_expired_token_is_renewed_before_use_and_a_refused_one_once() {
    let brief =
        |number| Reply::ok(json!({"token": format!("t{number}"), "expires_in": 0.000_001}).to_string());
    let server = guarded(brief, |_, _| true).await;
    let brief = client(remote(&server.url()), patient());
    for _ in 0..3 {
        brief.manifest("a", "tag").await.unwrap();
    }
    // One 401 in all, and one token per request.
    assert_eq!((server.requests().len(), fetched_tokens(&server)), (7, 3));

    // The first token becomes invalid after its first use.
    let uses = AtomicUsize::new(0);
    let server =
        guarded(numbered, move |number, _| number > 1 || uses.fetch_add(1, Ordering::SeqCst) == 0).await;
    let client = client(remote(&server.url()), patient());
    for _ in 0..3 {
        client.manifest("a", "tag").await.unwrap();
    }
    assert_eq!(fetched_tokens(&server), 2);
}

#[tokio::test]
async fn a_registry_that_refuses_fresh_tokens_is_not_asked_again() {
    let server = guarded(numbered, |_, path| !path.contains("/a/")).await;
    let client = client(remote(&server.url()), patient());
    let error = client.manifest("a", "tag").await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unauthorized(_)), "{error}");
    assert!(!error.is_transient());
    assert_eq!((server.requests().len(), fetched_tokens(&server)), (3, 1));
    // The trouble is this repository's, not the next one's.
    client.manifest("b", "tag").await.unwrap();
}

#[tokio::test]
async fn a_forbidden_repository_is_only_that() {
    let server = Server::start(|request| match request.path() {
        "/v2/secret/tags/list?n=1000" => Reply::new(403, &[], "internal host 10.0.0.5 says no"),
        _ => tags(&["x"], None),
    })
    .await;
    let client = client(remote(&server.url()), patient());
    let error = client.tags("secret").await.unwrap_err();
    assert_eq!(error.to_string(), "cr.test: tags of secret: forbidden (403)");
    client.tags("open").await.unwrap();
}

#[tokio::test]
async fn bad_token_responses_are_errors_that_tell_no_secret() {
    let huge = format!(r#"{{"token":"{}"}}"#, "a".repeat(1 << 20));
    let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(17 << 10));
    for (status, body, reason) in [
        (200, "{}", "Invalid"),
        (200, "", "Invalid"),
        (200, "hunter2 <html>", "Invalid"),
        (200, &huge, "TooLarge"),
        (200, &long, "Invalid"),
        (401, "hunter2 is wrong", "Unauthorized"),
        (403, "hunter2", "Forbidden"),
        (404, "hunter2", "Status"),
        (500, "hunter2", "Status"),
    ] {
        let body = body.to_owned();
        let server = guarded(move |_| Reply::new(status, &[], &body), |_, _| true).await;
        let mut remote = remote(&server.url());
        remote.credentials = Some(ann());
        let error = client(remote, patient()).manifest("a", "tag").await.unwrap_err();
        assert!(format!("{:?}", error.reason).starts_with(reason), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && shown.contains("token from 127.0.0.1"), "{shown}");
    }
}

#[tokio::test]
async fn of_several_challenges_bearer_is_taken_and_none_we_know_is_an_error() {
    let server = Server::start(|request| {
        if request.path().starts_with("/token") {
            return numbered(1);
        }
        match request.header("authorization") {
            Some("Bearer t1") => Reply::ok("{}"),
            _ => {
                Reply::new(401, &[("www-authenticate", "Negotiate, Basic realm=x, Bearer realm=/token")], "")
            }
        }
    })
    .await;
    client(remote(&server.url()), patient()).ping().await.unwrap();
    for challenge in ["Negotiate", "Basic realm=x", ""] {
        let server = Server::start(move |_| Reply::new(401, &[("www-authenticate", challenge)], "")).await;
        let error = client(remote(&server.url()), patient()).ping().await.unwrap_err();
        assert!(matches!(error.reason, Reason::Unauthorized(_)), "{challenge}: {error}");
        assert_eq!(server.requests().len(), 1);
    }
}

/// A registry that shows the anonymous a part of what it has; only `/v2/` asks who is there.
async fn partly_open(challenge: &'static str, anonymous: Reply) -> Server {
    Server::start(move |request| {
        if request.path().starts_with("/token") {
            return match request.header("authorization") {
                Some(basic) if basic.starts_with("Basic ") => numbered(1),
                _ => Reply::new(401, &[], ""),
            };
        }
        let good = if challenge.starts_with("Basic") { "Basic " } else { "Bearer t1" };
        match request.header("authorization").is_some_and(|sent| sent.starts_with(good)) {
            true if request.path().contains("_catalog") => Reply::ok(r#"{"repositories":["all"]}"#),
            true => tags(&["all"], None),
            false if request.path() == "/v2/" && !challenge.is_empty() => {
                Reply::new(401, &[("www-authenticate", challenge)], "")
            }
            false => anonymous.clone(),
        }
    })
    .await
}

#[tokio::test]
async fn credentials_are_used_from_the_first_request() {
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"/token\",service=\"s\""] {
        for anonymous in [
            Reply::ok(r#"{"repositories":["part"],"tags":["part"]}"#),
            Reply::ok(r#"{"repositories":null,"tags":null}"#),
            Reply::new(403, &[], ""),
            Reply::new(404, &[], ""),
        ] {
            let server = partly_open(challenge, anonymous).await;
            let mut remote = remote(&server.url());
            remote.credentials = Some(ann());
            let client = client(remote, patient());
            assert_eq!(client.repositories().await.unwrap().good, ["all"], "{challenge}");
            assert_eq!(client.tags("a").await.unwrap().good, ["all"], "{challenge}");
            let pings = server.lines().iter().filter(|line| *line == "GET /v2/").count();
            assert_eq!(pings, 1, "{:?}", server.lines());
        }
    }
    // A registry that asks nobody is told who is there all the same.
    let server = Server::start(|request| match request.header("authorization") {
        Some("Basic YW5uOmh1bnRlcjI=") => tags(&["all"], None),
        _ => tags(&["part"], None),
    })
    .await;
    let mut remote = remote(&server.url());
    remote.credentials = Some(ann());
    assert_eq!(client(remote, patient()).tags("a").await.unwrap().good, ["all"]);
}

#[tokio::test]
async fn a_scope_that_is_refused_gives_way_to_the_one_that_the_registry_names() {
    for refusal in [400, 401, 403, 404] {
        // The registry is behind a proxy that rewrites `a` to `proj/a`; what it names may also be too much.
        for (named, given) in [("repository:proj/a:pull", "proj"), ("repository:a:pull,push", "a%3Apull")] {
            let server = Server::start(move |request| {
                let path = request.path();
                if path.starts_with("/token") {
                    let is_good = path.contains(given) && !path.contains("push");
                    return if is_good { numbered(1) } else { Reply::new(refusal, &[], "") };
                }
                if request.header("authorization") == Some("Bearer t1") {
                    return tags(&["x"], None);
                }
                let challenge = format!(r#"Bearer realm="/token",service="s",scope="{named}""#);
                Reply::new(401, &[("www-authenticate", &challenge)], "")
            })
            .await;
            for credentials in [None, Some(ann())] {
                let remote = crate::registry::client::Remote { credentials, ..remote(&server.url()) };
                let client = client(remote, patient());
                for _ in 0..2 {
                    assert_eq!(client.tags("a").await.unwrap().good, ["x"], "{refusal} {named}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_answered_without_a_token_is_not_taken_for_the_answer_to_the_account() {
    let server = Server::start(|request| match request.path() {
        "/v2/" => Reply::new(401, &[("www-authenticate", "Bearer realm=\"/token\"")], ""),
        path if path.starts_with("/token") => Reply::new(403, &[], ""),
        _ => tags(&["part"], None),
    })
    .await;
    let mut remote = remote(&server.url());
    remote.credentials = Some(ann());
    let error = client(remote, patient()).tags("a").await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden, "{error}");
}

#[tokio::test]
async fn a_token_server_may_redirect_within_its_origin() {
    let server = Server::start(|request| match request.path() {
        path if path.starts_with("/token?") => Reply::redirect(307, "/service/token"),
        "/service/token" if request.header("authorization").is_some() => numbered(1),
        _ => match request.header("authorization") {
            Some("Bearer t1") => tags(&["x"], None),
            _ => Reply::new(401, &[("www-authenticate", "Bearer realm=\"/token\"")], ""),
        },
    })
    .await;
    let mut remote = remote(&server.url());
    remote.credentials = Some(ann());
    client(remote, patient()).tags("a").await.unwrap();
}

#[tokio::test]
async fn requests_work_where_what_the_registry_wants_can_not_be_asked() {
    let silent = Reply::raw("", Then::Hang);
    for failure in [Reply::new(500, &[], ""), Reply::new(503, &[], ""), Reply::new(404, &[], ""), silent] {
        for challenge in ["Basic realm=\"x\"", "Bearer realm=\"/token\",service=\"s\""] {
            let failure = failure.clone();
            let server =
                Server::start(move |request| match (request.path(), request.header("authorization")) {
                    ("/v2/", _) => failure.clone(),
                    (path, Some(basic)) if path.starts_with("/token") && basic.starts_with("Basic ") => {
                        numbered(1)
                    }
                    ("/v2/a/manifests/gone", Some(_)) => Reply::new(404, &[], ""),
                    (_, Some("Bearer t1")) => tags(&["all"], None),
                    (_, Some("Basic YW5uOmh1bnRlcjI=")) if challenge.starts_with("Basic") => {
                        tags(&["all"], None)
                    }
                    _ => Reply::new(401, &[("www-authenticate", challenge)], ""),
                })
                .await;
            let mut remote = remote(&server.url());
            remote.credentials = Some(ann());
            let client = client(remote, hasty());
            for _ in 0..3 {
                assert_eq!(client.tags("a").await.unwrap().good, ["all"], "{challenge}");
            }
            let pings = server.lines().iter().filter(|line| *line == "GET /v2/").count();
            assert_eq!(pings, 1, "it is not asked for each request: {:?}", server.lines());
        }
    }
}

#[tokio::test]
async fn nothing_counts_as_missing_while_what_the_registry_wants_is_not_known() {
    let server = Server::start(|request| match request.path() {
        "/v2/" => Reply::new(500, &[], ""),
        // It takes who shows no token for anonymous.
        _ => Reply::new(404, &[], ""),
    })
    .await;
    let mut remote = remote(&server.url());
    remote.credentials = Some(ann());
    let client = client(remote, patient());
    for error in [client.manifest("a", "tag").await.unwrap_err(), client.tags("a").await.unwrap_err()] {
        assert_eq!(error.to_string(), "cr.test: ping: server answered 500");
    }
}
