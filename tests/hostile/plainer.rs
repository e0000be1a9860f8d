//! Registries that refuse what is optional, each in its own way: everything is read all the same, and they are not
//! asked for it again, not even after a restart.

use futures_util::future::join_all;
use serde_json::json;

use super::{Scene, healthy};
use crate::support::app::App;
use crate::support::http1::{Request, Response};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

fn is_conditional(request: &Request) -> bool {
    request.header("if-none-match").is_some()
}

fn is_head(request: &Request) -> bool {
    request.method == "HEAD"
}

fn has_number(request: &Request) -> bool {
    request.query().iter().any(|(key, _)| key == "n")
}

#[tokio::test]
async fn rescans_find_everything_unchanged_where_cheap_requests_are_refused() {
    let scene = Scene::set().await;
    // How the registry answers a conditional request, a HEAD, and a request for a number of names.
    let ways = [
        (412, 404, 400),
        (400, 400, 405),
        (403, 401, 413),
        (405, 403, 414),
        (404, 405, 422),
        (501, 501, 400),
    ];
    let read = ways.into_iter().map(|(conditional, head, number)| {
        let scene = &scene;
        async move {
            let registry = scene.registry().await;
            let refusal = json!({"errors": [{"code": "TOO_MANY_TAGS_REQUESTED"}]});
            registry.turn(move |request| match request {
                request if is_conditional(request) => Some(Response::json(conditional, &refusal).into()),
                request if is_head(request) => Some(Response::json(head, &refusal).into()),
                request if has_number(request) => Some(Response::json(number, &refusal).into()),
                _ => None,
            });
            let mut last = Vec::new();
            for number in 0..4 {
                registry.take_log();
                let task = scene.app.admin().scan(&registry.host()).await;
                assert_eq!(counts(&task), [0, 0, 14, 0, 0, 0], "{conditional} {head} {number}: {task:#}");
                last = registry.take_log();
            }
            let refused = last.iter().filter(|r| is_conditional(r) || is_head(r) || has_number(r));
            assert_eq!(refused.count(), 0, "{conditional} {head}: {last:#?}");
        }
    });
    join_all(read).await;
    scene.is_well("all refusals").await;
}

#[tokio::test]
async fn what_a_registry_refuses_is_remembered_over_a_restart() {
    let registry = Shelf::start(healthy()).await;
    let mut app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    registry.turn(|request| {
        let refused = is_conditional(request) || is_head(request) || has_number(request);
        refused.then(|| Response::new(400).into())
    });
    for _ in 0..3 {
        app.admin().scan(&registry.host()).await;
    }
    registry.take_log();
    app.terminate().await;
    app.restart().await;
    let task = app.admin().scan(&registry.host()).await;
    assert_eq!(counts(&task), [0, 0, 14, 0, 0, 0], "{task:#}");
    let log = registry.take_log();
    let refused = log.iter().filter(|r| is_conditional(r) || is_head(r) || has_number(r));
    assert_eq!(refused.count(), 0, "{log:#?}");
}
