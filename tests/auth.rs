//! Who is let in: the signature of keypairs as the official clients make it, and the errors they expect.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::api::{Api, Call, Reply, SEED_ERA};
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, App};
use crate::support::sign::{Hash, Keypair, Signature};
use crate::support::visitor::Visitor;

/// The smallest signed request there is.
fn hello(api: &Api) -> Call {
    api.call("POST", "/admin/gql").json(&json!({"query": "{ __typename }", "variables": {}}))
}

/// Sends the smallest request with its signature changed.
async fn with(api: &Api, change: impl FnOnce(Signature) -> Signature) -> Reply {
    hello(api).signed(change).send().await
}

#[tokio::test]
async fn every_sound_hash_is_accepted() {
    let app = App::start().await;
    let sound = [
        Hash::Sha256,
        Hash::Sha384,
        Hash::Sha512,
        Hash::Sha3_256,
        Hash::Sha3_512,
        Hash::Blake2b,
        Hash::Blake2s,
    ];
    for hash in sound {
        let reply = with(&app.admin(), |signature| Signature { hash, ..signature }).await;
        assert_eq!(reply.status, 200, "{hash:?}: {}", reply.text());
        assert_eq!(reply.json()["data"]["__typename"], "Query");
    }
}

#[tokio::test]
async fn broken_hashes_are_refused_even_when_the_signature_is_right() {
    let app = App::start().await;
    for hash in [Hash::Md5, Hash::Sha1] {
        let reply = with(&app.admin(), |signature| Signature { hash, ..signature }).await;
        let msg = reply.problem(400, "invalid-auth-params");
        assert!(msg.contains("Unsupported request signing method"), "{hash:?}: {msg}");
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_key_are_refused_alike() {
    let app = App::start().await;
    let ann = app.person("ann@lab", "user", "default").await;
    app.admin().does("delete_user", "email: \"ann@lab\"").await;
    let mut answers = Vec::new();
    for (access, secret) in [
        (ADMIN_ACCESS_KEY, "another-secret"),
        (ADMIN_ACCESS_KEY, ""),
        ("AKIANOSUCHKEYNOSUCHK", ADMIN_SECRET_KEY),
        (ann.access_key.as_str(), ann.secret_key.as_str()),
    ] {
        let api = Api::new(app.url(), Some(Keypair::new(access, secret)));
        let reply = hello(&api).send().await;
        reply.problem(401, "auth-failed");
        answers.push(reply.text());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "which keys there are is nobody's business: {answers:?}");
}

#[tokio::test]
async fn a_signature_is_good_for_one_request_only() {
    let app = App::start().await;
    let status = app.admin().call("GET", "/manager/status?x=1").send().await.status;
    assert!(status < 400, "the untouched request is fine: {status}");
    for (method, target, host) in [
        (Some("GET"), None, None),
        (None, Some("/admin/graphql"), None),
        (None, Some("/admin/gql?x=1"), None),
        (None, None, Some("other.example:80")),
    ] {
        let pretend = [method, target, host].map(|part| part.map(str::to_owned));
        let reply = with(&app.admin(), |signature| Signature { pretend, ..signature }).await;
        reply.problem(401, "auth-failed");
    }
    let path_only = [None, Some("/manager/status".to_owned()), None];
    let reply = app
        .admin()
        .call("GET", "/events/background-task?task_id=0")
        .signed(|signature| Signature { pretend: path_only, ..signature })
        .send()
        .await;
    reply.problem(401, "auth-failed");
}

#[tokio::test]
async fn the_clock_may_differ_by_less_than_fifteen_minutes() {
    let app = App::start().await;
    let minute = |minutes: i64| Timestamp::now() + SignedDuration::from_mins(minutes);
    for minutes in [-14, 0, 14] {
        let reply = with(&app.admin(), |signature| signature.at(minute(minutes), 0)).await;
        assert_eq!(reply.status, 200, "{minutes} minutes: {}", reply.text());
    }
    for minutes in [-16, 16, -60 * 24 * 365, 60 * 24 * 365] {
        let reply = with(&app.admin(), |signature| signature.at(minute(minutes), 0)).await;
        let msg = reply.problem(400, "invalid-auth-params");
        assert!(msg.contains("Date/time sync error"), "{minutes} minutes: {msg}");
    }
}

#[tokio::test]
async fn the_date_may_be_written_in_any_zone() {
    let app = App::start().await;
    // With offsets of fourteen hours one way or twelve the other, it is always another day somewhere.
    for hours in [-12, -5, 0, 9, 14] {
        let reply = with(&app.admin(), |signature| signature.at(Timestamp::now(), hours)).await;
        assert_eq!(reply.status, 200, "{hours} hours: {}", reply.text());
    }
    let admin = app.admin();
    let naive = with(&admin, |mut signature| {
        signature.date = signature.date.trim_end_matches("+00:00").to_owned();
        signature
    });
    assert_eq!(naive.await.status, 200, "a date with no zone is UTC");
}

#[tokio::test]
async fn a_date_that_is_none_is_refused() {
    let app = App::start().await;
    for date in ["", "yesterday", "2026-13-45T99:99:99+00:00", "99999999999999999999"] {
        let reply = with(&app.admin(), |signature| Signature { date: date.to_owned(), ..signature }).await;
        reply.problem(400, "invalid-auth-params");
    }
}

#[tokio::test]
async fn the_older_names_of_the_headers_and_the_scheme_are_understood() {
    let app = App::start().await;
    for date_header in ["X-BackendAI-Date", "X-Sorna-Date"] {
        let change = |signature| Signature { date_header: date_header.to_owned(), ..signature };
        assert_eq!(with(&app.admin(), change).await.status, 200, "{date_header}");
    }
    let reply = with(&app.admin(), |signature| Signature { scheme: "Sorna".to_owned(), ..signature }).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let admin = app.admin();
    let reply = with(&admin, |signature| Signature {
        scheme: "Sorna".to_owned(),
        version_header: "X-Sorna-Version".to_owned(),
        ..signature
    });
    assert_eq!(reply.await.status, 200, "signed with x-sorna-version");
}

#[tokio::test]
async fn a_malformed_authorization_is_told_from_a_wrong_one() {
    let app = App::start().await;
    for header in [
        "Basic YTpi",
        "BackendAI",
        "BackendAI nonsense",
        "BackendAI signMethod=HMAC-SHA256",
        "BackendAI credential=a:b",
        "BackendAI signMethod=HMAC-SHA256, credential=nocolon",
        "BackendAI signMethod=HMAC-WHIRLPOOL, credential=a:b",
        "BackendAI signMethod=, credential=:",
    ] {
        let dated = Signature::new(&Keypair::new("", ""), "v9.20250722");
        let call = hello(&app.anonymous())
            .header("Date", &dated.date)
            .header("X-BackendAI-Version", &dated.version)
            .header("Authorization", header);
        call.send().await.problem(400, "invalid-auth-params");
    }
}

#[tokio::test]
async fn nobody_in_particular_gets_nothing() {
    let app = App::start().await;
    let anonymous = app.anonymous();
    for path in ["/admin/gql", "/admin/graphql", "/graphql"] {
        let call = anonymous.call("POST", path).json(&json!({"query": "{ images { name } }"}));
        call.send().await.problem(401, "auth-failed");
    }
    anonymous
        .call("GET", "/events/background-task?task_id=0e9c2b34-0000-4000-8000-000000000001")
        .no_content_type()
        .send()
        .await
        .problem(401, "auth-failed");
}

#[tokio::test]
async fn a_stream_is_signed_with_the_content_type_it_does_not_send() {
    let app = App::start().await;
    let target = "/events/background-task?task_id=0e9c2b34-0000-4000-8000-000000000001";
    let reply = app.admin().call("GET", target).no_content_type().send().await;
    reply.problem(404, "generic-not-found");
    let kind = app.admin().call("GET", target).content_type("text/event-stream");
    kind.send().await.problem(404, "generic-not-found");
}

#[tokio::test]
async fn parameters_of_the_content_type_are_not_signed() {
    let app = App::start().await;
    let call = hello(&app.admin()).content_type("application/json; charset=utf-8");
    assert_eq!(call.send().await.status, 200);
}

#[tokio::test]
async fn a_version_from_before_our_time_is_refused() {
    let app = App::start().await;
    for version in ["v3.20170615", "v99.20990101", "latest"] {
        let reply =
            with(&app.admin(), |signature| Signature { version: version.to_owned(), ..signature }).await;
        let msg = reply.problem(400, "generic-bad-request");
        assert!(msg.contains("Unsupported API"), "{version}: {msg}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_are_problems_in_json() {
    let app = App::start().await;
    // The older clients read the body of any error as JSON, so it must be JSON everywhere.
    let reply = app.admin().call("POST", "/no/such/path").json(&json!({})).send().await;
    assert_eq!((reply.status, reply.json()["title"].is_string()), (404, true), "{}", reply.text());
    let reply = app.admin().call("DELETE", "/admin/gql").send().await;
    reply.problem(405, "method-not-allowed");
    for body in ["", "not json", "[]", "{\"query\": 5}", "{}"] {
        let call = app.admin().call("POST", "/admin/gql").content_type("application/json").body(body);
        let reply = call.send().await;
        assert_eq!(
            (reply.status, reply.json()["title"].is_string()),
            (400, true),
            "{body}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn the_oldest_clients_get_the_bare_data_and_errors_as_problems() {
    let app = App::start().await;
    let api = app.admin().with_agent(SEED_ERA, "v5.20191215");
    let run =
        async |query: &str| api.call("POST", "/admin/graphql").json(&json!({"query": query})).send().await;
    let reply = run("{ images { name registry tag digest size_bytes aliases } }").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"images": []})));
    let reply = run("{ images { no_such_field } }").await;
    reply.problem(400, "graphql-error");
    let body = reply.json();
    assert_eq!(body["title"], "GraphQL-generated error.");
    assert!(body["data"].to_string().contains("no_such_field"), "{body}");
    // The later clients get the same error in the form of the GraphQL specification.
    let refused = app.admin().refused("{ images { no_such_field } }", json!({})).await;
    assert!(refused.contains("no_such_field"), "{refused}");
}

#[tokio::test]
async fn fields_come_in_the_order_they_were_asked_for() {
    let app = App::start().await;
    let query = "{ b: __typename a: __typename c: __typename }";
    let reply = app.admin().call("POST", "/admin/graphql").json(&json!({"query": query})).send().await;
    // The oldest clients fill tables by position.
    assert_eq!(reply.text().replace(' ', ""), r#"{"b":"Query","a":"Query","c":"Query"}"#);
}

#[tokio::test]
async fn variables_that_the_document_does_not_declare_are_ignored() {
    let app = App::start().await;
    let admin = app.admin();
    let data = admin.ask(
        "query($x: Boolean) { images(is_operation: $x) { name } }",
        json!({
            "x": null, "architecture": "x86_64",
        }),
    );
    assert_eq!(data.await, json!({"images": []}));
}

#[tokio::test]
async fn what_is_refused_is_in_the_log_and_a_flood_of_it_does_not_fill_it() {
    let app = App::start().await;
    let admin = app.admin();
    with(&admin, |signature| signature.at(Timestamp::now() - SignedDuration::from_mins(16), 0)).await;
    let unknown = Api::new(app.url(), Some(Keypair::new("AKIANOBODYNOBODYNOBO", "a secret key")));
    hello(&unknown).send().await.problem(401, "auth-failed");
    let forged = Api::new(app.url(), Some(Keypair::new("AKIATESTTESTTESTTEST", "a wrong secret key")));
    hello(&forged).send().await.problem(401, "auth-failed");
    let cookie = format!("wharf-session={}", "x".repeat(43));
    hello(&app.anonymous()).header("Cookie", &cookie).send().await.problem(401, "auth-failed");
    let person = Visitor::admin(&app).await;
    let elsewhere = person.call("POST", "/server/logout").header("Origin", "https://evil.example");
    elsewhere.send().await.problem(403, "generic-forbidden");
    let rebound = hello(&admin).header("Host", "evil.example");
    rebound.send().await.problem(421, "misdirected-request");

    let log = app.logs();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a request was refused")).collect();
    assert_eq!(lines.len(), 6, "{log}");
    for (line, why) in lines.iter().zip([
        "Date/time sync error",
        "Unauthorized access",
        "Unauthorized access",
        "Unauthorized access",
        "this request comes from another site: its Origin is not this server's",
        "evil.example",
    ]) {
        assert!(line.contains(why) && line.contains("127.0.0.1"), "{why}: {line}");
    }
    assert!(!log.contains(&cookie), "what was tried is nobody's to read");

    for _ in 0..200 {
        hello(&forged).send().await.problem(401, "auth-failed");
    }
    let lines = app.logs().lines().filter(|line| line.contains("a request was refused")).count();
    assert!((7..=130).contains(&lines), "{lines} lines for 206 refusals");
}
