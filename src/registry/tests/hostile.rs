//! Registries that misbehave, one test per way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicIsize, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{
    base::digest::Digest,
    registry::{
        client::{Client, Remote, probe::Probe},
        error::{Error, Reason},
        limits::ClientLimits,
        manifest::MAX_MANIFEST,
        manners::{Manners, ProbeMode},
        tests::{
            EMPTY, Internet, OCI_INDEX, client, hasty, manifest, patient, remote,
            server::{Reply, Request, Server, Then},
        },
    },
};

/// A script that gives the first answer once and the manifest from then on.
fn once(first: Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_| if count.fetch_add(1, Ordering::SeqCst) == 0 { first.clone() } else { manifest(&[]) }
}

async fn ask(server: &Server, limits: ClientLimits) -> Result<(), Error> {
    client(remote(&server.url()), limits).manifest("a", "tag").await.map(drop)
}

fn until(error: &Error) -> SystemTime {
    match error.reason {
        Reason::RateLimited { until } => until.until,
        _ => panic!("{error}"),
    }
}

fn from_here(until: SystemTime) -> Duration {
    until.duration_since(SystemTime::now()).unwrap_or_default()
}

fn from_now(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds))
}

// R1: requests to slow down.

#[tokio::test]
async fn a_long_pause_is_reported_kept_and_shared_by_clones_only() {
    for (text, low, high) in
        [("90", 85, 90), (&from_now(90), 85, 91), ("999999", 895, 900), (&from_now(9999), 895, 900)]
    {
        let headers = [("retry-after", text), ("content-type", "text/plain")];
        let server = Server::start(once(Reply::new(429, &headers, "slow down"))).await;
        let told = client(remote(&server.url()), patient());
        let error = told.manifest("a", "tag").await.unwrap_err();
        assert!(error.is_transient());
        let wait = from_here(until(&error)).as_secs();
        assert!((low..=high).contains(&wait), "{text}: {wait}");
        // The pause holds for every request and clone, without a packet.
        assert_eq!(until(&told.clone().ping().await.unwrap_err()), until(&error));
        assert_eq!(server.requests().len(), 1);
        // Other registries are not affected.
        let other = Server::start(|_| manifest(&[])).await;
        ask(&other, patient()).await.unwrap();
    }
}

#[tokio::test]
async fn a_short_or_unreadable_pause_is_sat_out() {
    for headers in [&[("retry-after", "0")][..], &[("retry-after", "-7")], &[("retry-after", "soon")], &[]] {
        let server = Server::start(once(Reply::new(429, headers, "x"))).await;
        ask(&server, patient()).await.unwrap();
        assert_eq!(server.requests().len(), 2, "{headers:?}");
    }
    let server = Server::start(once(Reply::new(429, &[("retry-after", "1")], ""))).await;
    let start = Instant::now();
    ask(&server, patient()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn endless_refusals_end_as_rate_limited_and_lines_may_end_in_lf() {
    let server = Server::start(|_| {
        Reply::raw(
            "HTTP/1.1 429 Too Many\nretry-after: 0\ncontent-length: 4\nconnection: close\n\nslow",
            Then::Close,
        )
    })
    .await;
    assert!(from_here(until(&ask(&server, patient()).await.unwrap_err())) < Duration::from_secs(1));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_nearly_used_quota_stops_pulls_but_not_heads() {
    let server = Server::start(|_| manifest(&[("ratelimit-remaining", "1;w=21600")])).await;
    let client = client(remote(&server.url()), patient());
    client.manifest("a", "tag").await.unwrap();
    until(&client.manifest("a", "tag").await.unwrap_err());
    client.ping().await.unwrap();
    assert_eq!(server.requests().len(), 2);
}

// R2: passing trouble.

#[tokio::test]
async fn passing_trouble_is_tried_again_and_lasting_trouble_is_not_hidden() {
    for status in [408, 500, 502, 503, 504] {
        let server = Server::start(once(Reply::new(status, &[], "<html>"))).await;
        ask(&server, patient()).await.unwrap();
        let server =
            Server::start(move |_| Reply::new(status, &[], r#"{"errors":[{"code":"UNKNOWN"}]}"#)).await;
        let error = ask(&server, patient()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Status { status, code: Some("UNKNOWN") });
        assert!(error.is_transient());
        assert_eq!(server.requests().len(), 4);
    }
    for status in [400, 405, 410, 418, 501] {
        let server = Server::start(move |_| Reply::new(status, &[], "")).await;
        assert!(!ask(&server, patient()).await.unwrap_err().is_transient());
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn broken_connections_are_tried_again() {
    for (bytes, then) in [
        ("", Then::Close),
        ("", Then::Reset),
        ("HTTP/1.1 200 OK\r\ncontent-le", Then::Reset),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", Then::Reset),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"schema", Then::Close),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\"", Then::Close),
    ] {
        let server = Server::start(once(Reply::raw(bytes, then))).await;
        ask(&server, patient()).await.unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        assert_eq!(server.requests().len(), 2);
        let server = Server::start(move |_| Reply::raw(bytes, then)).await;
        let error = ask(&server, patient()).await.unwrap_err();
        assert!(matches!(error.reason, Reason::Unreachable(_)), "{bytes:?}: {error}");
        assert_eq!(server.requests().len(), 4);
    }
    let port = Server::start(|_| manifest(&[])).await.port;
    let error = client(remote(&format!("http://127.0.0.1:{port}")), patient()).ping().await.unwrap_err();
    assert!(error.to_string().contains("refused") && error.is_transient(), "{error}");
}

// R3: slowness.

#[tokio::test]
async fn every_kind_of_slowness_meets_a_deadline_and_frees_its_slot() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    // Each request meets the one deadline that is short.
    let headers = || ClientLimits { headers: hasty().headers, ..patient() };
    let idle = || ClientLimits { idle: hasty().idle, ..patient() };
    let total = || ClientLimits { total: hasty().total, ..patient() };
    for (bytes, then, limits, deadline) in [
        ("", Then::Hang, headers(), "no response headers"),
        ("HTTP/1.1 200 OK\r\nx: ", Then::Drip(b"y"), headers(), "no response headers"),
        ("", Then::Drip(b"HTTP/1.1 100 Continue\r\n\r\n"), headers(), "no response headers"),
        (HEAD, Then::Hang, idle(), "the body stopped"),
        (HEAD, Then::Drip(b" "), total(), "the whole answer"),
    ] {
        let server =
            Server::start(
                move |request| {
                    if request.path() == "/v2/" { Reply::ok("{}") } else { Reply::raw(bytes, then) }
                },
            )
            .await;
        let mut one = remote(&server.url());
        one.concurrency = 1;
        let client = client(one, limits);
        let error = client.manifest("a", "tag").await.unwrap_err();
        assert!(error.to_string().contains(deadline), "{bytes:?} {then:?}: {error}");
        assert!(error.is_transient());
        client.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_asked_three_times_and_said_to_be_silent_meanwhile() {
    let server = Server::start(|_| Reply::raw("", Then::Hang)).await;
    let short = hasty().headers;
    let limits = ClientLimits { headers: short, catalog_headers: short, attempts: 9, ..patient() };
    let client = client(remote(&server.url()), limits);
    let told = async {
        loop {
            if let Some(silence) = client.silence() {
                return silence.to_string();
            }
            tokio::task::yield_now().await;
        }
    };
    let (error, told) = tokio::join!(client.repositories(), told);
    assert!(told.contains("no answer for 0 s") && told.ends_with("3 times at most"), "{told}");
    assert!(error.unwrap_err().to_string().contains("no response headers"));
    assert_eq!(server.requests().len(), 3);
    assert!(client.silence().is_none());
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_allowed() {
    // Signed: a request given up early may be subtracted before the server has added it.
    let (now, most) = (Arc::new(AtomicIsize::new(0)), Arc::new(AtomicIsize::new(0)));
    let seen = (now.clone(), most.clone());
    let server = Server::start(move |_| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Reply::raw("", Then::Hang)
    })
    .await;
    let mut two = remote(&server.url());
    two.concurrency = 2;
    let limits = ClientLimits { attempts: 1, ..hasty() };
    let client = client(two, limits);
    let done = seen.0.clone();
    futures_util::future::join_all((0..6).map(|_| async {
        client.ping().await.unwrap_err();
        done.fetch_sub(1, Ordering::SeqCst);
    }))
    .await;
    assert_eq!(seen.1.load(Ordering::SeqCst), 2);
}

// R4 and R5: lies about size.

#[tokio::test]
async fn compressed_bodies_are_refused_and_not_asked_for() {
    for encoding in ["gzip", "deflate", "br", "ZSTD", "gzip, identity"] {
        let headers = [("content-type", OCI_INDEX), ("content-encoding", encoding)];
        let server = Server::start(move |_| Reply::new(200, &headers, b"\x1f\x8b\x08\0\0")).await;
        let client = client(remote(&server.url()), patient());
        let digest = Digest::sha256_of(b"plain");
        for error in [
            client.manifest("a", "tag").await.unwrap_err(),
            client.tags("a").await.unwrap_err(),
            client.blob("a", &digest, 5, 5).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("compressed"), "{encoding}: {error}");
        }
        let request = &server.requests()[0];
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        let accept = request.header("accept").unwrap();
        assert_eq!(accept.split(", ").count(), 4, "{accept}");
        assert_eq!(request.header("user-agent"), Some(concat!("wharf/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(request.header("cookie"), None);
    }
}

#[tokio::test]
async fn an_encoding_that_changes_nothing_is_none() {
    for encoding in ["", "identity", "Identity", "none", "utf-8", "aws-chunked", "binary", "gzip"] {
        let server = Server::start(move |request| {
            if request.path().contains("blobs") {
                Reply::new(200, &[("content-encoding", encoding)], "layer")
            } else {
                manifest(&[("content-encoding", encoding)])
            }
        })
        .await;
        let client = client(remote(&server.url()), patient());
        client.manifest("a", "tag").await.unwrap();
        let digest = Digest::sha256_of(b"layer");
        client.blob("a", &digest, 5, 5).await.unwrap();
        let mut body = client.open_blob("a", &digest, 5, 0).await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap().as_ref(), b"layer", "{encoding}");
    }
}

#[tokio::test]
async fn a_body_cut_by_its_own_length_is_invalid() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 20\r\n\r\n";
    let server = Server::start(move |_| Reply::raw(format!("{head}{EMPTY}"), Then::Close)).await;
    let error = ask(&server, patient()).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_manifest_of_four_mebibytes_is_taken_and_one_byte_more_is_not() {
    for (size, fits) in [(MAX_MANIFEST, true), (MAX_MANIFEST + 1, false)] {
        let body = format!("{EMPTY}{}", " ".repeat(size - EMPTY.len()));
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for reply in [Reply::ok(&body), Reply::raw(chunked, Then::Close)] {
            let server = Server::start(move |_| reply.clone()).await;
            match ask(&server, patient()).await {
                Ok(()) => assert!(fits),
                Err(error) => {
                    assert!(!fits, "{error}");
                    assert_eq!(error.reason, Reason::TooLarge { limit: 4 << 20, what: "bytes" });
                }
            }
        }
    }
}

#[tokio::test]
async fn floods_are_cut_off_at_the_cap() {
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    const DECLARED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8589934592\r\n\r\n";
    /// Memory that kernel and library buffers may hold beyond what we read.
    const SLACK: usize = 12 << 20;
    let digest = Digest::sha256_of(b"x");
    for (head, manifest, page, blob) in [(ENDLESS, 4 << 20, 32 << 20, 100), (DECLARED, 0, 0, 0)] {
        let start = || Server::start(move |_| Reply::raw(head, Then::Flood));
        let connect = |server: &Server| client(remote(&server.url()), patient());
        let server = start().await;
        let error = connect(&server).manifest("a", "tag").await.unwrap_err();
        assert_eq!(error.reason, Reason::TooLarge { limit: 4 << 20, what: "bytes" });
        assert!(server.sent() <= manifest + SLACK, "{}", server.sent());
        for is_catalog in [true, false] {
            let server = start().await;
            let client = connect(&server);
            let outcome = if is_catalog { client.repositories().await } else { client.tags("a").await };
            assert_eq!(outcome.unwrap_err().reason, Reason::TooLarge { limit: 32 << 20, what: "bytes" });
            assert!(server.sent() <= page + SLACK, "{}", server.sent());
        }
        let server = start().await;
        let error = connect(&server).blob("a", &digest, 100, 1000).await.unwrap_err();
        assert_eq!(error.reason, Reason::TooLarge { limit: 100, what: "bytes" });
        assert!(server.sent() <= blob + SLACK, "{}", server.sent());
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_blob_must_be_what_its_descriptor_says() {
    let server = Server::start(|_| Reply::ok("12345")).await;
    let client = client(remote(&server.url()), patient());
    let digest = Digest::sha256_of(b"12345");
    assert_eq!(client.blob("a", &digest, 5, 5).await.unwrap(), b"12345");
    for (digest, size) in [(&digest, 4), (&digest, 6), (&Digest::sha256_of(b"54321"), 5)] {
        assert!(client.blob("a", digest, size, 100).await.is_err(), "{digest} {size}");
    }
    let before = server.requests().len();
    for (size, cap) in [(6, 5), (1 << 30, usize::MAX), (u64::MAX, usize::MAX)] {
        let error = client.blob("a", &digest, size, cap).await.unwrap_err();
        assert!(matches!(error.reason, Reason::TooLarge { .. }), "{error}");
    }
    assert_eq!(server.requests().len(), before);
}

// R7 and R9: digests and types that don't agree.

#[tokio::test]
async fn bytes_that_are_not_what_a_digest_says_are_refused() {
    let right = Digest::sha256_of(EMPTY.as_bytes());
    let wrong = Digest::sha256_of(b"other");
    let upper = right.to_string().to_uppercase();
    for (stated, good) in [
        (right.as_str(), true),
        (wrong.as_str(), false),
        // These say nothing, as if there were no header.
        (&upper, true),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", true),
        ("sha256:", true),
        ("latest", true),
        ("", true),
    ] {
        let header = stated.to_owned();
        let server = Server::start(move |_| manifest(&[("docker-content-digest", &header)])).await;
        let outcome = client(remote(&server.url()), patient()).manifest("a", "tag").await;
        assert_eq!(outcome.is_ok(), good, "{stated}: {outcome:?}");
    }
    let server = Server::start(|_| manifest(&[])).await;
    let client = client(remote(&server.url()), patient());
    assert_eq!(client.manifest("a", right.as_str()).await.unwrap().digest, right);
    assert_eq!(client.manifest("a", "tag").await.unwrap().digest, right);
    let error = client.manifest("a", wrong.as_str()).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Invalid(_)), "{error}");
    let sent = server.requests().len();
    for reference in [upper.as_str(), "", "../x", "a b", "sha256:12", "%2e%2e", "a/b", "tag?x=y", "tag#x"] {
        assert!(client.manifest("a", reference).await.is_err(), "{reference}");
    }
    for repository in ["", "..", "a/../b", "A", "%2e%2e/x", "a//b", "a b", "http://x", "/a", "a?x", "a#x"] {
        assert!(client.manifest(repository, "tag").await.is_err(), "{repository}");
        assert!(client.tags(repository).await.is_err(), "{repository}");
        assert!(client.blob(repository, &right, 1, 1).await.is_err(), "{repository}");
    }
    assert_eq!(server.requests().len(), sent, "nonsense was sent");
}

#[tokio::test]
async fn a_sha512_digest_is_as_good() {
    let other = sha512(b"other").to_string();
    let server = Server::start(move |_| manifest(&[("docker-content-digest", &other)])).await;
    assert!(ask(&server, patient()).await.is_err());
    let digest = sha512(EMPTY.as_bytes());
    let header = digest.to_string();
    let server = Server::start(move |_| manifest(&[("docker-content-digest", &header)])).await;
    let fetched = client(remote(&server.url()), patient()).manifest("a", "tag").await.unwrap();
    assert_eq!(fetched.digest, digest);
}

fn sha512(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    format!("sha512:{}", crate::base::digest::hex(&sha2::Sha512::digest(bytes))).parse().unwrap()
}

#[tokio::test]
async fn the_type_stated_or_the_shape_decides_and_not_the_type_served() {
    let image = "application/vnd.oci.image.manifest.v1+json";
    let bare = r#"{"schemaVersion":2,"manifests":[]}"#;
    for (content_type, body, expected) in [
        (OCI_INDEX, EMPTY, Some(OCI_INDEX)),
        ("Application/vnd.OCI.image.index.v1+json; charset=utf-8", EMPTY, Some(OCI_INDEX)),
        (OCI_INDEX, bare, Some(OCI_INDEX)),
        ("application/json", EMPTY, Some(OCI_INDEX)),
        ("text/plain; charset=utf-8", bare, Some(OCI_INDEX)),
        ("binary/octet-stream", bare, Some(OCI_INDEX)),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", bare, Some(OCI_INDEX)),
        ("", bare, Some(OCI_INDEX)),
        (image, EMPTY, Some(OCI_INDEX)),
        ("text/html", "<html>", None),
        (OCI_INDEX, "not json", None),
    ] {
        let server = Server::start(move |_| Reply::new(200, &[("content-type", content_type)], body)).await;
        let fetched = client(remote(&server.url()), patient()).manifest("a", "tag").await;
        assert_eq!(fetched.ok().map(|f| f.media_type).as_deref(), expected, "{content_type} {body}");
    }
}

// What a client learns from answers.

#[tokio::test]
async fn the_cheapest_probe_is_learned() {
    let known = Digest::sha256_of(EMPTY.as_bytes());
    let tag = format!("\"{known}\"");
    // An `ETag` that equals the digest promises conditional requests.
    let server = Server::start(move |_| manifest(&[("etag", &tag)])).await;
    let learner = client(remote(&server.url()), patient());
    learner.manifest("a", "tag").await.unwrap();
    assert_eq!(learner.probe_mode(), ProbeMode::Conditional);
    // The promise was a lie: this registry always sends the whole manifest.
    assert_eq!(learner.probe("a", "tag", &known).await.unwrap(), Probe::Unchanged);
    assert_eq!(learner.probe_mode(), ProbeMode::Head);
    assert_eq!(server.requests()[1].header("if-none-match"), Some(format!("\"{known}\"").as_str()));
    // Its HEAD has no digest either.
    assert_eq!(learner.probe("a", "tag", &known).await.unwrap(), Probe::Unchanged);
    assert_eq!(learner.probe_mode(), ProbeMode::Get);
    assert_eq!(server.lines()[2..], ["HEAD /v2/a/manifests/tag", "GET /v2/a/manifests/tag"]);
    let old = Digest::sha256_of(b"old");
    assert!(matches!(learner.probe("a", "tag", &old).await.unwrap(), Probe::Fetched(f) if f.digest == known));

    let server = Server::start(|_| Reply::new(304, &[], "")).await;
    let learner = client(remote(&server.url()), patient());
    assert_eq!(learner.probe("a", "tag", &known).await.unwrap(), Probe::Unchanged);
    assert_eq!(learner.probe_mode(), ProbeMode::Conditional);
    // No condition was sent here.
    assert!(learner.manifest("a", "tag").await.is_err());
}

#[tokio::test]
async fn docker_hub_is_always_asked_by_head() {
    // Even an answer without a digest does not change that.
    let server = Server::start(|_| manifest(&[])).await;
    let hub = client(remote(&format!("http://registry-1.docker.io:{}", server.port)), patient());
    let known = Digest::sha256_of(EMPTY.as_bytes());
    assert_eq!(hub.probe("a", "tag", &known).await.unwrap(), Probe::Unchanged);
    assert_eq!(server.lines(), ["HEAD /v2/a/manifests/tag", "GET /v2/a/manifests/tag"]);
    assert_eq!(hub.probe_mode(), ProbeMode::Head);
    for probe in [ProbeMode::Unknown, ProbeMode::Conditional, ProbeMode::Get] {
        let manners = Manners { probe, ..Manners::default() };
        let hub = Remote { manners, ..remote("https://registry-1.docker.io") };
        assert_eq!(Client::with_resolver(hub, Arc::new(Internet)).unwrap().probe_mode(), ProbeMode::Head);
    }
}

#[tokio::test]
async fn errors_are_one_line_and_repeat_nothing_from_a_body() {
    for status in [400, 401, 403, 404, 410, 500] {
        let body = r#"{"errors":[{"code":"SECRET_CODE","message":"secret message"}]} secret"#;
        let server = Server::start(move |_| Reply::new(status, &[("x-secret", "secret")], body)).await;
        let error = ask(&server, patient()).await.unwrap_err().to_string();
        assert!(error.starts_with("cr.test: manifest of a:tag: ") && !error.contains('\n'), "{error}");
        assert!(!error.to_lowercase().contains("secret"), "{error}");
        assert!(status == 403 || error.contains(&status.to_string()) || status == 401, "{error}");
    }
}
