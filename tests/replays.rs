//! Captured signatures: none works a second time.

use std::net::IpAddr;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::api::{Api, Call};
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, App};
use crate::support::image::Image;
use crate::support::shelf::Shelf;
use crate::support::sign::{Keypair, Signature};
use crate::support::wait::{PATIENCE, until};

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

fn signature() -> Signature {
    Signature::new(&Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY), "v9.20250722")
}

/// Returns a request that makes a domain, with an existing signature.
fn making(api: &Api, signature: &Signature, name: &str) -> Call {
    let document = format!("mutation {{ create_domain(name: {name:?}, props: {{}}) {{ ok }} }}");
    let call = api.call("POST", "/admin/gql").signed(|_| signature.clone());
    call.json(&json!({ "query": document }))
}

async fn domains(app: &App) -> Vec<String> {
    let answer = app.admin().ask("{ domains { name } }", json!({})).await;
    let domains = answer["domains"].as_array().expect("a list");
    domains.iter().filter_map(|domain| domain["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_captured_head_carries_no_other_body() {
    let mut app = App::start().await;
    let (mine, thief, signature) = (app.admin(), app.admin().from(ELSEWHERE), signature());
    assert_eq!(making(&mine, &signature, "mine").send().await.status, 200);
    let why = making(&thief, &signature, "theirs").send().await.problem(401, "auth-failed");
    assert!(why.contains("sign each request anew"), "{why}");

    // It does not work later either, from any address and with any body.
    for api in [&mine, &thief] {
        until("the signature to be used up", PATIENCE, async || {
            (making(api, &signature, "mine").send().await.status == 401).then_some(())
        })
        .await;
        for name in ["mine", "theirs"] {
            making(api, &signature, name).send().await.problem(401, "auth-failed");
        }
    }
    assert!(!domains(&app).await.contains(&"theirs".to_owned()));

    // It does not work after a restart either.
    app.terminate().await;
    app.restart().await;
    for api in [app.admin(), app.admin().from(ELSEWHERE)] {
        let why = making(&api, &signature, "theirs").send().await.problem(401, "auth-failed");
        assert!(why.contains("sign the request anew"), "{why}");
    }
    app.admin().does("create_domain", "name: \"anew\", props: {}").await;
    assert!(!domains(&app).await.contains(&"theirs".to_owned()));
}

#[tokio::test]
async fn requests_of_one_second_may_have_one_signature() {
    let app = App::start().await;
    // On a busy machine some requests may come too late; sooner or later all come in time.
    until("requests of one second to be taken", PATIENCE, async || {
        let (api, signature) = (app.admin(), signature());
        let calls = ["a", "b", "c"].map(|name| making(&api, &signature, name).send());
        join_all(calls).await.iter().all(|reply| reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_may_be_opened_again_as_the_official_clients_do() {
    let registry = Shelf::start([Image::new("lab/python", "1")]).await;
    let app = App::start().await;
    let api = app.admin();
    api.add_registry_at(&registry.host(), &registry.url(), None).await;
    let (task, signature) = (api.rescan(&registry.host()).await, signature());
    let target = format!("/events/background-task?task_id={task}");
    let stream = async || {
        let call = api.call("GET", &target).signed(|_| signature.clone()).no_content_type();
        call.send().await.status
    };
    assert_eq!(stream().await, 200);
    // A request without a body is not accepted twice either; a stream is.
    until("the signature of a plain request to be used up", PATIENCE, async || {
        let call = api.call("GET", "/config/docker-registries").signed(|_| signature.clone());
        (call.send().await.status == 401).then_some(())
    })
    .await;
    assert_eq!(stream().await, 200);
}
