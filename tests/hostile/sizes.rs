//! Bodies that are larger than they say, smaller than they say, or larger than anybody needs.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Scene, VICTIM, at, bad, each, odd, raw, served};
use crate::support::http1::{Answer, Request, Response};
use crate::support::image::{Image, Manifest, sha256};

const MANIFEST_LIMIT: usize = 4 << 20;
const PAGE_LIMIT: usize = 32 << 20;

/// A manifest of one layer that is exactly so large, and the answers it takes to read it.
fn manifest_of(size: usize, content: &str) -> (Bytes, Vec<(String, Answer)>) {
    let built = Image::new("r/a", "1").content(content).oci().build();
    let mut bytes = built.manifests[0].bytes.to_vec();
    bytes.resize(size, b' ');
    let blobs = built.blobs.iter().map(|blob| {
        (format!("/v2/r/a/blobs/{}", sha256(blob)), Response::new(200).body(blob.clone()).into())
    });
    (bytes.into(), blobs.collect())
}

#[tokio::test]
async fn lengths_and_encodings_that_lie_change_nothing() {
    let scene = Scene::set().await;
    let (bytes, _) = manifest_of(600, "lengths");
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: {OCI_MANIFEST}\r\n{length}\r\n");
    let whole = String::from_utf8(bytes.to_vec()).unwrap();
    let zipped = Response::new(200).header("content-type", OCI_MANIFEST);
    // A megabyte of zeros in gzip is a thousand bytes; whatever is in here is not looked at.
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].repeat(1000);
    let mut cases = vec![
        bad("longer than it is", "unreachable", at(VICTIM, raw(head("content-length: 5000\r\n") + &whole))),
        bad("shorter than it is", "invalid", {
            at(VICTIM, raw(head("connection: close\r\ncontent-length: 50\r\n") + &whole))
        }),
        bad("chunks without an end", "unreachable", {
            at(VICTIM, raw(head("transfer-encoding: chunked\r\n") + "5\r\n{\"a\":"))
        }),
        bad(
            "a chunk that is no number",
            "",
            at(VICTIM, raw(head("transfer-encoding: chunked\r\n") + "zz\r\n")),
        ),
        bad("two lengths", "", {
            at(VICTIM, raw(head("content-length: 5\r\ncontent-length: 7\r\n") + &whole))
        }),
        bad("a length below zero", "", at(VICTIM, raw(head("content-length: -1\r\n") + &whole))),
        bad("8 GiB declared", "too large", at(VICTIM, raw(head("content-length: 8589934592\r\n") + &whole))),
        bad(
            "headers without end",
            "",
            at(VICTIM, raw("HTTP/1.1 200 OK\r\n".to_owned() + &"x: y\r\n".repeat(100_000))),
        ),
        bad("a header of a megabyte", "", {
            at(VICTIM, raw(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20))))
        }),
    ];
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let answer = zipped.clone().header("content-encoding", encoding).body(bomb.clone());
        cases.push(bad(encoding, "it is compressed", at(VICTIM, answer)));
    }
    scene.endure(cases).await;
}

#[tokio::test]
async fn floods_are_cut_off_and_leave_the_server_small() {
    let scene = Scene::set().await;
    let endless = || Answer::Flood("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".into());
    let (fits, mut answers) = manifest_of(MANIFEST_LIMIT, "fits");
    answers.push((VICTIM.to_owned(), served(OCI_MANIFEST, fits.clone()).into()));
    let over = Bytes::from([fits.as_ref(), b" "].concat());
    let page = |body: &str, size: usize| {
        let mut body = body.as_bytes().to_vec();
        body.resize(size, b' ');
        Bytes::from(body)
    };
    let large = page("{\"tags\":[\"1\",\"2\",\"3\",\"4\"]}", PAGE_LIMIT);
    let cases = vec![
        odd("a manifest of 4 MiB", each(answers)),
        bad("a manifest of 4 MiB and a byte", "more than 4194304 bytes", {
            at(VICTIM, served(OCI_MANIFEST, over))
        }),
        bad("every manifest a flood", "more than 4194304 bytes", move |request: &Request| {
            request.path().contains("/manifests/").then(endless)
        }),
        bad("every list of tags a flood", "more than 33554432 bytes", move |request: &Request| {
            request.path().ends_with("/tags/list").then(endless)
        }),
        bad("the catalog a flood", "more than 33554432 bytes", at("/v2/_catalog", endless())),
        odd("lists of tags of 32 MiB", {
            let many = page("{\"tags\":[\"1\"]}", PAGE_LIMIT);
            move |request: &Request| {
                let body = if request.path().contains("many") { &many } else { &large };
                request.path().ends_with("/tags/list").then(|| Response::new(200).body(body.clone()).into())
            }
        }),
        bad("everything a flood", "too large", move |_| Some(endless())),
    ];
    scene.endure_in_turn(cases).await;
}

/// A registry of `tags` tags in each of four repositories, where each manifest and each config is what is given.
fn crowd(
    tags: usize,
    make: impl Fn(&str, usize) -> (Bytes, Bytes) + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    // By digest, which config of which repository it is: to make them all to find one takes long.
    let configs: Mutex<HashMap<String, (String, usize)>> = Mutex::default();
    move |request| {
        let path = request.path();
        let repository = path.strip_prefix("/v2/")?.split('/').take(2).collect::<Vec<_>>().join("/");
        if path.ends_with("/tags/list") {
            let healthy = if repository == "r/many" { 1 } else { 4 };
            let mut names: Vec<String> = (1..=healthy).map(|n: u32| n.to_string()).collect();
            names.extend((0..tags).map(|n| format!("x{n}")));
            return Some(Response::json(200, &json!({"tags": names})).into());
        }
        if let Some((_, tag)) = path.split_once("/manifests/x") {
            let number = tag.parse().ok()?;
            let (manifest, config) = make(&repository, number);
            configs.lock().insert(sha256(&config), (repository, number));
            let media_type = if manifest.windows(11).take(200).any(|w| w == b"\"manifests\"") {
                OCI_INDEX
            } else {
                OCI_MANIFEST
            };
            return Some(served(media_type, manifest).into());
        }
        let (_, digest) = path.split_once("/blobs/")?;
        let (repository, number) = configs.lock().get(digest).cloned()?;
        Some(Response::new(200).body(make(&repository, number).1).into())
    }
}

fn manifest_for(config: &[u8], size: usize) -> Bytes {
    let manifest = Manifest::new(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": config.len()}, "layers": [],
        }),
    );
    let mut bytes = manifest.bytes.to_vec();
    bytes.resize(size.max(bytes.len()), b' ');
    bytes.into()
}

fn config_of(name: &str, labels: &Map<String, Value>) -> Bytes {
    json!({"os": "linux", "architecture": "amd64", "comment": name, "config": {"Labels": labels}})
        .to_string()
        .into()
}

#[tokio::test]
async fn a_crowd_of_the_largest_manifests_at_once_leaves_the_server_small() {
    let scene = Scene::set().await;
    let registry = scene.registry().await;
    registry.turn(crowd(24, |repository, n| {
        let config = config_of(&format!("{repository}{n}"), &Map::new());
        (manifest_for(&config, MANIFEST_LIMIT), config)
    }));
    let task = scene.app.admin().scan(&registry.host()).await;
    assert_eq!(task["ledger"]["added"], 4 * 24, "{:#}", task["ledger"]);
    scene.is_well("the largest manifests").await;
}

#[tokio::test]
async fn manifests_that_swell_when_they_are_read_leave_the_server_small() {
    let scene = Scene::set().await;
    let registry = scene.registry().await;
    // Six bytes for a pair, of which a map makes ten times as much.
    let mut pairs = String::new();
    for n in 0..400_000 {
        let _ = write!(pairs, "\"{n:x}\":\"\",");
    }
    let swelling = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"digest":"sha256:{}","size":1,
        "annotations":{{{}"z":""}}}}]}}"#,
        "0a".repeat(32),
        &pairs[..pairs.len().min(MANIFEST_LIMIT - 1000)].trim_end_matches(|c| c != ','),
    );
    registry.turn(crowd(8, move |repository, n| {
        let name = format!("{repository}{n}");
        (swelling.replacen("\"z\"", &format!("\"{name}\""), 1).into(), Bytes::new())
    }));
    let task = scene.app.admin().scan(&registry.host()).await;
    assert_eq!(task["ledger"]["failed_count"], 4 * 8, "{:#}", task["ledger"]);
    scene.is_well("swelling manifests").await;
}

#[tokio::test]
async fn labels_without_measure_are_left_out_and_leave_the_server_small() {
    let scene = Scene::set().await;
    // Each label is as long as one may be; together they are all that a config may hold.
    let registry = scene.registry().await;
    let labels: Map<String, Value> =
        (0..480).map(|n| (format!("key-{n}"), Value::from("v".repeat(16 * 1024)))).collect();
    registry.turn(crowd(8, move |repository, n| {
        let config = config_of(&format!("{repository}{n}"), &labels);
        (manifest_for(&config, 0), config)
    }));
    let task = scene.app.admin().scan(&registry.host()).await;
    assert_eq!(task["ledger"]["added"], 4 * 8, "{:#}", task["ledger"]);
    scene.is_well("long labels").await;
}

#[tokio::test]
async fn single_labels_and_their_number_have_a_limit_too() {
    let scene = Scene::set().await;
    let mut cases = Vec::new();
    for (name, labels) in [
        ("a hundred thousand labels", (0..100_000).map(|n| (n.to_string(), Value::from("x"))).collect()),
        ("a label of 7 MB", Map::from_iter([("a".to_owned(), Value::from("x".repeat(7 << 20)))])),
    ] {
        let config = config_of(name, &labels);
        let answers = vec![
            (VICTIM.to_owned(), served(OCI_MANIFEST, manifest_for(&config, 0)).into()),
            (format!("/v2/r/a/blobs/{}", sha256(&config)), Response::new(200).body(config).into()),
        ];
        cases.push(odd(name, each(answers)));
    }
    let large = config_of("50 MB", &Map::from_iter([("a".to_owned(), Value::from("x".repeat(50 << 20)))]));
    let answers = vec![
        (VICTIM.to_owned(), served(OCI_MANIFEST, manifest_for(&large, 0)).into()),
        (format!("/v2/r/a/blobs/{}", sha256(&large)), Response::new(200).body(large).into()),
    ];
    cases.push(bad("a label of 50 MB", "too large", each(answers)));
    scene.endure_in_turn(cases).await;
}
