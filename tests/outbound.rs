//! Registries behind a proxy that the environment names: which requests go through it, and which never do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::json;

use crate::support::api::http_client;
use crate::support::app::App;
use crate::support::http1::{Request, Response, Server};
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

#[tokio::test]
async fn registries_are_reached_through_the_proxy_and_this_machine_is_not() {
    for (names, value) in [
        (&["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"][..], ""),
        (&["http_proxy", "https_proxy", "no_proxy"], "http://"),
        (&["ALL_PROXY", "NO_PROXY"], "http://"),
    ] {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let proxy = Server::start(move |request| {
            log.lock().push(format!("{} {}", request.method, request.target));
            let status = if request.method == "CONNECT" { 502 } else { 200 };
            async move { Response::new(status).body("{}") }
        })
        .await;
        let address = format!("{value}{}", proxy.host());
        let app = App::start_with(move |command| {
            for name in names {
                let is_exception = name.eq_ignore_ascii_case("no_proxy");
                command.env(name, if is_exception { "direct.internal.test" } else { &address });
            }
        })
        .await;
        let admin = app.admin();
        let test = "mutation($host: String!) { test_container_registry(hostname: $host) { ok msg } }";
        for (host, scheme) in
            [("cr.internal.test", "http"), ("tls.internal.test", "https"), ("direct.internal.test", "http")]
        {
            admin.add_registry_at(host, &format!("{scheme}://{host}"), None).await;
            let _ = admin.ask(test, json!({"host": host})).await;
        }
        let registry = Shelf::start([Image::new("lab/py", "1")]).await;
        admin.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        let task = admin.scan(&registry.host()).await;
        assert_eq!(counts(&task), [1, 0, 0, 0, 0, 0], "{names:?}: {task:#}");
        let heard = heard.lock().clone();
        assert!(heard.contains(&"GET http://cr.internal.test/v2/".to_owned()), "{names:?}: {heard:?}");
        assert!(heard.contains(&"CONNECT tls.internal.test:443".to_owned()), "{names:?}: {heard:?}");
        let others =
            heard.iter().filter(|line| !line.contains("cr.internal") && !line.contains("tls.internal"));
        assert_eq!(others.count(), 0, "{names:?}: {heard:?}");
    }
}

/// Answers as a proxy with accounts does that knows a registry by name.
async fn pass_on(request: Request, registry: String) -> Response {
    if request.header("proxy-authorization") != Some("Basic YW5uOnBsYW50ZWQtcHc=") {
        return Response::new(407).header("proxy-authenticate", "Basic realm=\"proxy\"");
    }
    let Some(path) = request.target.strip_prefix("http://cr.lab.test") else { return Response::new(502) };
    let mut passed = http_client().get(format!("{registry}{path}"));
    for name in ["authorization", "accept", "if-none-match"] {
        if let Some(value) = request.header(name) {
            passed = passed.header(name, value);
        }
    }
    let answer = passed.send().await.expect("the registry answers");
    let mut response = Response::new(answer.status().as_u16());
    for name in ["content-type", "docker-content-digest", "etag", "www-authenticate"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value.to_str().expect("a header"));
        }
    }
    response.body(answer.bytes().await.expect("a body"))
}

#[tokio::test]
async fn a_registry_may_have_a_proxy_of_its_own_or_none() {
    let registry = Shelf::start([Image::new("lab/py", "1")]).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let leads_away = Arc::new(AtomicBool::new(false));
    let (log, upstream, away) = (Arc::clone(&heard), registry.url(), Arc::clone(&leads_away));
    let proxy = Server::start(move |request: Request| {
        log.lock().push(format!("{} {}", request.method, request.target));
        let is_away = away.load(Ordering::SeqCst) && request.target.contains("/manifests/");
        let upstream = upstream.clone();
        async move {
            if is_away {
                return Response::new(307).header("location", "http://169.254.169.254/latest/meta-data/");
            }
            pass_on(request, upstream).await
        }
    })
    .await;
    let others = Arc::new(Mutex::new(0));
    let count = Arc::clone(&others);
    let other = Server::start(move |_| {
        *count.lock() += 1;
        async { Response::new(502) }
    })
    .await;
    let address = other.url();
    let app = App::start_with(move |command| {
        command.env("HTTP_PROXY", &address).env("HTTPS_PROXY", &address);
    })
    .await;
    let admin = app.admin();
    admin.add_registry_at("cr.lab.test", "http://cr.lab.test", Some((USER, PASSWORD))).await;
    let change = async |proxy: &str| {
        let mutation = "mutation($proxy: String, $password: String) {
            modify_container_registry(hostname: \"cr.lab.test\", props: {proxy: $proxy, password: $password}) {
            container_registry { config { proxy } } } }";
        let changed = admin.ask(mutation, json!({"proxy": proxy, "password": PASSWORD})).await;
        changed["modify_container_registry"]["container_registry"]["config"]["proxy"].clone()
    };
    let fails = async || {
        let task = admin.rescan("cr.lab.test").await;
        assert!(admin.finish(&task).await.name.ends_with("failed"));
    };
    let shown = change(&format!("http://ann:planted-pw@{}", proxy.host())).await;
    assert_eq!(shown, format!("http://ann@{}", proxy.host()));
    let task = admin.scan("cr.lab.test").await;
    assert_eq!(counts(&task), [1, 0, 0, 0, 0, 0], "{task:#}");
    // What is shown has no password, and writing it back takes none away.
    assert_eq!(change(shown.as_str().unwrap()).await, shown);
    let task = admin.scan("cr.lab.test").await;
    assert_eq!(counts(&task), [0, 0, 1, 0, 0, 0], "{task:#}");
    assert_eq!(*others.lock(), 0, "the environment's proxy was asked");

    // Another proxy does not get what was given for the way before; the same one, with another password of its own, does.
    let to = async |proxy: String| {
        let mutation = "mutation($proxy: String) {
            modify_container_registry(hostname: \"cr.lab.test\", props: {proxy: $proxy}) {
            container_registry { config { password } } msg } }";
        admin.ask(mutation, json!({"proxy": proxy})).await["modify_container_registry"].clone()
    };
    let kept = to(format!("http://ann:planted-pw@{}", proxy.host())).await;
    assert!(kept["msg"].is_null() && !kept["container_registry"]["config"]["password"].is_null(), "{kept:#}");
    let dropped = to(format!("http://eve@{}", other.host())).await;
    assert!(dropped["container_registry"]["config"]["password"].is_null(), "{dropped:#}");
    assert!(dropped["msg"].as_str().is_some_and(|msg| msg.contains("password")), "{dropped:#}");
    change(&format!("http://ann:planted-pw@{}", proxy.host())).await;

    // The proxy resolves names, and addresses are judged as ever: none of these is asked of it.
    leads_away.store(true, Ordering::SeqCst);
    heard.lock().clear();
    let task = admin.rescan("cr.lab.test").await;
    admin.finish(&task).await;
    leads_away.store(false, Ordering::SeqCst);
    let lines = std::mem::take(&mut *heard.lock());
    assert!(lines.iter().any(|line| line.contains("/manifests/")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("169.254")), "{lines:?}");

    // A proxy that refuses us, none at all, and the environment's.
    change(&format!("http://ann:wrong@{}", proxy.host())).await;
    fails().await;
    assert_eq!(change("direct").await, "direct");
    fails().await;
    assert_eq!(*others.lock(), 0, "the environment's proxy was asked");
    assert_eq!(change("").await, serde_json::Value::Null);
    fails().await;
    assert!(*others.lock() > 0, "the environment's proxy was not asked");
    assert!(!app.logs().contains("planted"));
}
