//! The effects of a proxy in front: where a request comes from, what a browser is told, and who may see the metrics.

use crate::support::api::Call;
use crate::support::app::App;

/// Returns a server that trusts a proxy on this machine, and has a name.
async fn behind_a_proxy() -> App {
    App::start_with(|command| {
        command.args(["--trusted-proxy", "127.0.0.2", "--host", "wharf.lab"]);
    })
    .await
}

async fn header(call: Call, name: &str) -> Option<String> {
    let response = call.response().await;
    response.headers().get(name).map(|value| value.to_str().expect("a text").to_owned())
}

#[tokio::test]
async fn answers_are_kept_by_nobody_unless_they_say_so() {
    let app = App::start().await;
    for path in ["/", "/healthz", "/readyz", "/nothing/here.json", "/manager/status", "/server/login-check"] {
        let kept = header(app.admin().call("GET", path), "cache-control").await;
        assert_eq!(kept.as_deref(), Some("no-store"), "{path}");
    }
    let query = serde_json::json!({"query": "{ images { name } }"});
    let kept = header(app.admin().call("POST", "/graphql").json(&query), "cache-control").await;
    assert_eq!(kept.as_deref(), Some("no-store"));
}

#[tokio::test]
async fn a_browser_that_sees_tls_is_told_to_come_by_tls_only() {
    let app = behind_a_proxy().await;
    let proxied = app.anonymous().from([127, 0, 0, 2].into());
    let over = |scheme: &str| proxied.call("GET", "/healthz").header("X-Forwarded-Proto", scheme);
    let said = header(over("https"), "strict-transport-security").await;
    assert_eq!(said.as_deref(), Some("max-age=31536000"));
    assert_eq!(header(over("http"), "strict-transport-security").await, None);
    let by_itself = app.anonymous().call("GET", "/healthz").header("X-Forwarded-Proto", "https");
    assert_eq!(header(by_itself, "strict-transport-security").await, None, "anybody may write that");
}

#[tokio::test]
async fn numbers_are_for_this_machine_and_for_super_admins() {
    let app = behind_a_proxy().await;
    let here = app.anonymous();
    let proxied = app.anonymous().from([127, 0, 0, 2].into());
    assert_eq!(here.call("GET", "/metrics").send().await.status, 200);
    for (what, call) in [
        ("through a proxy that is trusted", proxied.call("GET", "/metrics")),
        ("with its client's name", here.call("GET", "/metrics").header("Host", "wharf.lab")),
        ("with the client's address", here.call("GET", "/metrics").header("X-Forwarded-For", "192.0.2.1")),
        ("with its own name", here.call("GET", "/metrics").header("Via", "1.1 proxy")),
    ] {
        let reply = call.send().await;
        assert_eq!(reply.status, 403, "{what}: {}", reply.text());
        assert!(reply.text().contains("super-admin's token"), "{what}: {}", reply.text());
    }
    let admin = app.admin().from([127, 0, 0, 2].into());
    assert_eq!(admin.call("GET", "/metrics").send().await.status, 200);
    let person = app.person("ann@lab", "user", "default").await;
    let reply = person.api.from([127, 0, 0, 2].into()).call("GET", "/metrics").send().await;
    assert_eq!(reply.status, 403, "{}", reply.text());
}
