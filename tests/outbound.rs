//! Registries behind a proxy that the environment names: which requests go through it, and which never do.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::support::app::App;
use crate::support::http1::{Response, Server};
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
