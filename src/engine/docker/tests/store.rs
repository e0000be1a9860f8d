//! Docker's containerd image store, as engines of different releases tell of it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Answer, FakeDocker, a_pull, absent, manifest};
use crate::base::digest::Digest;
use crate::engine::Engine as _;
use crate::engine::image::Part;
use crate::engine::pull::Pull;

/// The digest of an index with the wanted image and one for another architecture.
fn index() -> Digest {
    Digest::sha256_of(b"index")
}

/// An engine of this API's version with Docker's containerd store, which answers so about images.
fn containerd_store(
    version: &'static str,
    images: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static,
) -> FakeDocker {
    FakeDocker::start(move |asked| match asked.target.as_str() {
        "/_ping" => Answer::Greeting(version),
        "/info" => Answer::Reply(
            200,
            json!({"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}),
        ),
        target => images(&asked.method, target).unwrap_or_else(absent),
    })
}

/// What such an engine shows of an image.
fn shown(id: &Digest, tags: &[&str], more: Value) -> Value {
    let mut shown = json!({"Id": id, "RepoTags": tags, "RepoDigests": [], "Size": 5});
    let Value::Object(more) = more else { return shown };
    shown.as_object_mut().unwrap().extend(more);
    shown
}

fn entry(id: &Digest, architecture: &str, available: bool) -> Value {
    json!({"ID": id, "Kind": "image", "Available": available,
           "ImageData": {"Platform": {"architecture": architecture, "os": "linux"}}})
}

fn part(architecture: &str, manifest: Option<Digest>) -> Part {
    Part { architecture: architecture.into(), manifest }
}

#[tokio::test]
async fn an_index_is_what_of_it_is_there() {
    let (other, attestation) = (Digest::sha256_of(b"arm"), Digest::sha256_of(b"attestation"));
    let manifests = json!({"Manifests": [
        entry(&manifest(), "amd64", true),
        entry(&other, "arm64", false),
        {"ID": attestation, "Kind": "attestation", "Available": true},
    ]});
    let hollow = json!({"Manifests": [entry(&other, "arm64", false)]});
    let fake = containerd_store("1.52", move |_, target| {
        let whole = shown(&index(), &["cr.test/lab/python:1"], manifests.clone());
        let hollow = shown(&Digest::sha256_of(b"hollow"), &["cr.test/lab/hollow:1"], hollow.clone());
        match target {
            "/images/json?manifests=1" => Some(Answer::Reply(200, json!([whole, hollow]))),
            target if target.starts_with("/images/cr.test/lab/python:1/json") => {
                Some(Answer::Reply(200, whole))
            }
            target if target.starts_with("/images/cr.test/lab/hollow:1/json") => {
                Some(Answer::Reply(200, hollow))
            }
            _ => None,
        }
    });
    let engine = fake.engine();
    let [held] = engine.images().await.unwrap().try_into().unwrap();
    assert_eq!(held.parts, [part("x86_64", Some(manifest()))]);
    assert!(held.is(&a_pull().identity()), "{held:?}");
    assert_eq!(engine.find("cr.test/lab/python:1").await, Ok(Some(held)));
    // A name alone, of which nothing is there, is no image.
    assert_eq!(engine.find("cr.test/lab/hollow:1").await, Ok(None));
}

#[tokio::test]
async fn an_engine_that_tells_of_one_image_at_a_time_is_asked_of_each_once() {
    // Whatever the version: what counts is what the list says.
    for version in ["1.45", "1.52"] {
        asked_once(version).await;
    }
}

async fn asked_once(version: &'static str) {
    let fake = containerd_store(version, move |_, target| {
        let listed = shown(&index(), &["cr.test/lab/python:1"], json!({}));
        let whole = shown(&index(), &["cr.test/lab/python:1"], json!({"Architecture": "amd64"}));
        match target {
            "/images/json?manifests=1" => Some(Answer::Reply(200, json!([listed]))),
            target if target.starts_with(&format!("/images/{}/json", index())) => {
                Some(Answer::Reply(200, whole))
            }
            _ => None,
        }
    });
    let engine = fake.engine();
    for _ in 0..3 {
        let [held] = engine.images().await.unwrap().try_into().unwrap();
        assert_eq!(held.parts, [part("x86_64", None)]);
        assert!(!held.is(&a_pull().identity()), "the index is not the one that the catalog knows");
        assert!(held.is(&Pull { index: Some(index()), ..a_pull() }.identity()));
    }
    let asked = fake.log().iter().filter(|asked| asked.contains(index().as_str())).count();
    assert_eq!(asked, 1, "{:?}", fake.log());
}

#[tokio::test]
async fn what_a_containerd_store_has_by_its_index_only_gets_its_name() {
    let tagged = Arc::new(Mutex::new(false));
    let fake = containerd_store("1.52", move |method, target| {
        let manifests = json!({"Manifests": [entry(&manifest(), "amd64", true)]});
        let found = shown(&index(), &["cr.test/lab/python:1"], manifests);
        match (method, target) {
            ("POST", target) if target.starts_with(&format!("/images/{}/tag?", index())) => {
                *tagged.lock() = true;
                Some(Answer::Reply(201, json!({})))
            }
            ("GET", target) if target.starts_with(&format!("/images/{}/json", index())) => {
                Some(Answer::Reply(200, found))
            }
            ("GET", target) if target.starts_with("/images/cr.test/lab/python:1/") && *tagged.lock() => {
                Some(Answer::Reply(200, found))
            }
            _ => None,
        }
    });
    let pull = Pull { index: Some(index()), ..a_pull() };
    let pulled = fake.engine().pull(&pull, &|_| {}, &CancellationToken::new()).await.unwrap();
    assert!(!pulled.fetched && pulled.held.digest == index(), "{pulled:?}");
}
