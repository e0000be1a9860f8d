//! Manifests and configs that contradict their digests, their types, or themselves.

use serde_json::{Value, json};

use super::{
    Case, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Scene, VICTIM, at, bad, child, each, entry, index_of, odd,
    served,
};
use crate::support::http1::{Answer, Response};
use crate::support::image::{Image, Manifest, sha256};

/// A good manifest that the healthy registry does not have at [`VICTIM`], with its config.
fn other() -> (Manifest, Vec<(String, Answer)>) {
    let built = Image::new("r/a", "1").content("another").oci().build();
    let mut answers: Vec<(String, Answer)> = vec![child(&built.manifests[0])];
    for blob in &built.blobs {
        answers
            .push((format!("/v2/r/a/blobs/{}", sha256(blob)), Response::new(200).body(blob.clone()).into()));
    }
    (built.manifests[0].clone(), answers)
}

fn text(media_type: &str, body: &str) -> Response {
    served(media_type, body.to_owned())
}

/// A manifest whose config is `config`, served with it.
fn with_config(
    config: impl Into<bytes::Bytes>,
) -> impl Fn(&crate::support::http1::Request) -> Option<Answer> + Send + Sync {
    let config = config.into();
    let manifest = Manifest::new(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(&config), "size": config.len()}, "layers": [],
        }),
    );
    each(vec![
        (VICTIM.to_owned(), served(OCI_MANIFEST, manifest.bytes).into()),
        (format!("/v2/r/a/blobs/{}", sha256(&config)), Response::new(200).body(config).into()),
    ])
}

fn layers(size: &str) -> String {
    let digest = format!("sha256:{}", "0a".repeat(32));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}",
        "size":2}},"layers":[{{"mediaType":"a/b","digest":"{digest}","size":{size}}}]}}"#
    )
}

#[tokio::test]
async fn bytes_that_are_not_what_their_digest_says_change_nothing() {
    let scene = Scene::set().await;
    let (manifest, _) = other();
    let right = &manifest.digest;
    let says = |digest: &str| {
        at(VICTIM, served(OCI_MANIFEST, manifest.bytes.clone()).header("docker-content-digest", digest))
    };
    let not = "not what Docker-Content-Digest says";
    let index = index_of(&[entry(right, "amd64")]);
    let lying = format!("/v2/r/a/manifests/{right}");
    let cases = vec![
        bad("the header names other bytes", not, says(&format!("sha256:{}", "12".repeat(32)))),
        bad(
            "other bytes under a digest",
            "not what the requested digest says",
            each(vec![
                (VICTIM.to_owned(), served(OCI_INDEX, index.bytes.clone()).into()),
                (lying, text(OCI_MANIFEST, &layers("3")).into()),
            ]),
        ),
        bad(
            "an index of a digest in upper case",
            "is not a digest",
            at(VICTIM, served(OCI_INDEX, index_of(&[entry(&right.to_uppercase(), "amd64")]).bytes)),
        ),
        bad("other bytes for the config", "not what the digest and size say", {
            let (manifest, mut answers) = other();
            answers.insert(0, (VICTIM.to_owned(), served(OCI_MANIFEST, manifest.bytes).into()));
            for (path, answer) in &mut answers {
                if path.contains("/blobs/") {
                    let Answer::Reply(good) = answer else { continue };
                    good.body = vec![b'x'; good.body.len()].into();
                }
            }
            each(answers)
        }),
    ];
    scene.endure(cases).await;
}

#[tokio::test]
async fn indexes_that_go_in_circles_or_on_and_on_come_to_an_end() {
    let scene = Scene::set().await;
    // A digest can't name itself, so a circle needs a registry that lies about one of them.
    let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
    let circle = |to: &str| Answer::from(served(OCI_INDEX, index_of(&[entry(to, "amd64")]).bytes));
    let at_digest = |digest: &str| format!("/v2/r/a/manifests/{digest}");
    let deep = |depth: usize| {
        let (manifest, mut answers) = other();
        let mut inner = index_of(&[entry(&manifest.digest, "amd64")]);
        for _ in 1..depth {
            answers.push(child(&inner));
            let nested = json!({"mediaType": OCI_INDEX, "digest": inner.digest, "size": inner.bytes.len()});
            inner = index_of(&[nested]);
        }
        answers.push((VICTIM.to_owned(), served(OCI_INDEX, inner.bytes).into()));
        answers
    };
    let twice = {
        let (manifest, mut answers) = other();
        let entry = entry(&manifest.digest, "amd64");
        let index = index_of(&[entry.clone(), entry.clone(), entry]);
        answers.push((VICTIM.to_owned(), served(OCI_INDEX, index.bytes).into()));
        answers
    };
    let missing = |good: bool| {
        let (manifest, mut answers) = other();
        let mut entries = vec![entry(&b, "arm64")];
        if good {
            entries.push(entry(&manifest.digest, "riscv64"));
        }
        answers.push((VICTIM.to_owned(), served(OCI_INDEX, index_of(&entries).bytes).into()));
        answers
    };
    let many: Vec<Value> =
        (0..10_000).map(|n| entry(&format!("sha256:{n:064x}"), &format!("arch{n}"))).collect();
    let cases = vec![
        bad(
            "a circle",
            "not what the requested digest says",
            each(vec![
                (VICTIM.to_owned(), circle(&a)),
                (at_digest(&a), circle(&b)),
                (at_digest(&b), circle(&a)),
            ]),
        ),
        bad("an index of itself", "not what the requested digest says", {
            each(vec![(VICTIM.to_owned(), circle(&a)), (at_digest(&a), circle(&a))])
        }),
        odd("eight indexes deep", each(deep(8))),
        bad("a thousand indexes deep", "nest more than 8 deep", each(deep(1000))),
        bad(
            "ten thousand children",
            "the index has more than 256 manifests",
            at(VICTIM, served(OCI_INDEX, index_of(&many).bytes)),
        ),
        odd("the same child three times", each(twice)),
        bad("a child that is not there", "not found (404)", each(missing(false))),
        bad("no child that is readable", "server answered 500", {
            let answer = Answer::from(Response::new(500));
            each(vec![
                (VICTIM.to_owned(), served(OCI_INDEX, index_of(&[entry(&a, "amd64")]).bytes).into()),
                (at_digest(&a), answer),
            ])
        }),
    ];
    scene.endure(cases).await;

    // What can be read of an index is catalogued; what can't is told, and what was there of it stays.
    let registry = scene.registry().await;
    registry.turn(each(missing(true)));
    let admin = scene.app.admin();
    let task = admin.scan(&registry.host()).await;
    assert_eq!(task["ledger"]["added"], 1, "{task:#}");
    assert_eq!(task["ledger"]["removed"], 0, "{task:#}");
    assert_eq!(scene.rows(&registry).await.len(), 15, "{task:#}");
}

#[tokio::test]
async fn what_a_manifest_is_served_as_does_not_matter() {
    let scene = Scene::set().await;
    let good = |content_type: Option<&str>, with_type: bool| {
        let (_, mut answers) = other();
        let mut body: Value = match &answers[0].1 {
            Answer::Reply(response) => serde_json::from_slice(&response.body).unwrap(),
            answer => panic!("{answer:?}"),
        };
        if !with_type {
            body.as_object_mut().unwrap().remove("mediaType");
        }
        let response = Response::new(200).body(body.to_string());
        let response = match content_type {
            Some(kind) => response.header("content-type", kind),
            None => response,
        };
        answers[0] = (VICTIM.to_owned(), response.into());
        each(answers)
    };
    let cases = vec![
        odd("an image served as an index", good(Some(OCI_INDEX), true)),
        odd("an image of no type served as an index", good(Some(OCI_INDEX), false)),
        odd("a type of its own", good(Some("application/vnd.other+json"), true)),
        odd("an old type", {
            good(Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), false)
        }),
        odd("bytes", good(Some("binary/octet-stream"), false)),
        odd("parameters", good(Some(&format!("{OCI_MANIFEST}; charset=utf-8; q=\"a;b\"")), true)),
        odd("upper case", good(Some(&OCI_MANIFEST.to_uppercase()), true)),
        odd("no Content-Type", good(None, true)),
        odd("no type at all", good(None, false)),
        odd("a type in the header only", good(Some(OCI_MANIFEST), false)),
        odd("plain text", good(Some("text/plain"), true)),
    ];
    scene.endure(cases).await;
}

#[tokio::test]
async fn json_made_to_break_readers_is_refused_and_the_old_row_kept() {
    let scene = Scene::set().await;
    let invalid = "invalid";
    let digest = format!("sha256:{}", "0a".repeat(32));
    let deep = |open: &str| format!("{}{}", r#"{"schemaVersion":2,"layers":"#, open.repeat(100_000));
    let mut cases: Vec<Case> = [
        ("cut short", layers("1")[..60].to_owned()),
        ("empty", String::new()),
        ("null", "null".to_owned()),
        ("a list", "[]".to_owned()),
        ("brackets without end", deep("[")),
        ("braces without end", deep("{\"a\":")),
        ("a key twice", layers("1").replace("\"layers\"", "\"layers\":[],\"layers\"")),
        ("the type twice", layers("1").replacen("\"config\"", "\"mediaType\":\"a/b\",\"config\"", 1)),
        ("both kinds at once", layers("1").replacen("\"config\"", "\"manifests\":[],\"config\"", 1)),
        ("a byte order mark", format!("\u{feff}{}", layers("1"))),
        ("a size of -1", layers("-1")),
        ("a size of 2^64", layers("18446744073709551616")),
        ("a size of 1e400", layers("1e400")),
        ("a size of NaN", layers("NaN")),
        ("a size in words", layers("\"12\"")),
        ("a lone surrogate", layers("1").replace("a/b", "\\ud800")),
        ("no config", format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","layers":[]}}"#)),
        ("version 3", layers("1").replace(":2,", ":3,")),
        ("embedded data that is something else", {
            layers("1").replace("\"size\":2", "\"size\":2,\"data\":\"AAA=\"")
        }),
        ("a digest with NUL", layers("1").replace(&digest, "sha256:\\u0000")),
    ]
    .into_iter()
    .map(|(name, body)| bad(name, invalid, at(VICTIM, text(OCI_MANIFEST, &body))))
    .collect();
    let utf16: Vec<u8> = layers("1").encode_utf16().flat_map(u16::to_le_bytes).collect();
    cases.push(bad("UTF-16", invalid, at(VICTIM, served(OCI_MANIFEST, utf16))));
    for (name, config) in [
        ("a config cut short", r#"{"os":"linux""#.to_owned()),
        ("a config of brackets", format!("{{\"config\":{{\"Labels\":{}", "[".repeat(100_000))),
        ("a config with a lone surrogate", r#"{"os":"linux","architecture":"\udfff"}"#.to_owned()),
        ("a config whose labels are a list", r#"{"os":"linux","config":{"Labels":[1]}}"#.to_owned()),
        ("an empty config", " ".to_owned()),
    ] {
        cases.push(bad(name, "invalid image config", with_config(config)));
    }
    scene.endure(cases).await;

    // Sizes add up to as much as there is a number for, and no further.
    let scene = Scene::set().await;
    let max = u64::MAX.to_string();
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Labels": {"a\u{0}b": "c\u{0}\u{1b}[31m"}}});
    let config = config.to_string();
    let body = layers(&max)
        .replace(
            &format!("{digest}\",\n        \"size\":2"),
            &format!("{}\",\"size\":{}", sha256(config.as_bytes()), config.len()),
        )
        .replace("\"layers\":[", &format!("\"layers\":[{{\"digest\":\"{digest}\",\"size\":{max}}},"));
    let blob = format!("/v2/r/a/blobs/{}", sha256(config.as_bytes()));
    let answers = vec![
        (VICTIM.to_owned(), text(OCI_MANIFEST, &body).into()),
        (blob, Response::new(200).body(config).into()),
    ];
    scene.endure(vec![odd("2^64 - 1 twice, and control characters in a label", each(answers))]).await;
}

#[tokio::test]
async fn a_registry_of_nothing_but_broken_or_foreign_manifests_empties_no_catalog() {
    let scene = Scene::set().await;
    let everywhere = |body: &'static str, media_type: &'static str| {
        move |request: &crate::support::http1::Request| {
            request.path().contains("/manifests/").then(|| text(media_type, body).into())
        }
    };
    let chart = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/chart",
        "config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,
        "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;
    let cases = vec![
        bad("broken", "invalid manifest", everywhere(r#"{"schemaVersion":2,"layers":7}"#, OCI_MANIFEST)),
        bad(
            "schema 1 for all",
            "so many at once",
            everywhere(r#"{"schemaVersion":1}"#, "application/vnd.docker.distribution.manifest.v1+json"),
        ),
        bad("a chart for all", "so many at once", everywhere(chart, OCI_MANIFEST)),
        bad(
            "an empty index for all",
            "so many at once",
            everywhere(r#"{"schemaVersion":2,"manifests":[]}"#, OCI_INDEX),
        ),
    ];
    scene.endure(cases).await;
}

/// The other image, with its manifest changed.
fn changed(
    change: impl Fn(&mut Value),
) -> impl Fn(&crate::support::http1::Request) -> Option<Answer> + Send + Sync {
    let (manifest, mut answers) = other();
    let mut body: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    change(&mut body);
    answers[0] = (VICTIM.to_owned(), served(OCI_MANIFEST, body.to_string()).into());
    each(answers)
}

#[tokio::test]
async fn what_an_engine_runs_is_an_image_however_it_is_described() {
    let scene = Scene::set().await;
    let config_type = |kind: Value| changed(move |manifest| manifest["config"]["mediaType"] = kind.clone());
    let cases = vec![
        odd(
            "no version",
            changed(|manifest| drop(manifest.as_object_mut().unwrap().remove("schemaVersion"))),
        ),
        odd("version 0", changed(|manifest| manifest["schemaVersion"] = json!(0))),
        odd("no layers", changed(|manifest| manifest["layers"] = Value::Null)),
        odd("a config of no type", config_type(Value::Null)),
        odd("a config of bytes", config_type(json!("application/octet-stream"))),
        odd("a config of JSON", config_type(json!("application/json"))),
    ];
    scene.endure(cases).await;
    // Keys of configs are read without letter case.
    let registry = scene.registry().await;
    let config = json!({"OS": "linux", "architecture": "amd64", "Config": {"labels": {"a": "b"}}, "rootfS": {"diff_ids": []}});
    registry.turn(with_config(config.to_string()));
    scene.app.admin().scan(&registry.host()).await;
    let rows = scene.rows(&registry).await;
    assert!(rows.iter().any(|row| row.contains(r#"[{"key":"a","value":"b"}]"#)), "{rows:#?}");
}

#[tokio::test]
async fn what_holds_no_image_is_in_the_ledger_with_the_reason() {
    let attestation = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"x"), "size": 5,
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let windows = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"x"), "size": 5,
        "platform": {"os": "windows", "architecture": "amd64"}});
    let data = "no config at all";
    let raw = json!({"schemaVersion": 2, "layers": [],
        "config": {"mediaType": "application/octet-stream", "digest": sha256(data.as_bytes()), "size": data.len()}});
    let scene = Scene::set().await;
    for (manifest, why) in [
        (index_of(&[]).bytes, "an index without images"),
        (index_of(&[attestation]).bytes, "an index without images"),
        (index_of(&[windows]).bytes, "not for Linux but windows/amd64"),
        (json!({"mediaType": OCI_INDEX, "manifests": null}).to_string().into(), "an index without images"),
        (raw.to_string().into(), "an artifact, not an image"),
    ] {
        let registry = scene.registry().await;
        let blob = format!("/v2/r/a/blobs/{}", sha256(data.as_bytes()));
        registry.turn(each(vec![
            (VICTIM.to_owned(), served(OCI_INDEX, manifest).into()),
            (blob, Response::new(200).body(data).into()),
        ]));
        for _ in 0..2 {
            let task = scene.app.admin().scan(&registry.host()).await;
            let skipped = task["ledger"]["skipped"].to_string();
            assert!(skipped.contains(why) && skipped.contains("r/a:1"), "{why}: {task:#}");
        }
    }
}

#[tokio::test]
async fn a_platform_has_one_name_however_it_is_spelt() {
    let spellings = [
        ("linux/arm/6", "armv6l"),
        ("linux/arm/v6l", "armv6l"),
        ("linux/arm/armv6", "armv6l"),
        ("linux/arm/V6", "armv6l"),
        ("linux/arm/5", "armv5l"),
        ("linux/armel", "armv6l"),
        ("linux/arm/v7l", "armv7l"),
        ("linux/arm", "armv7l"),
        ("linux/arm64/V8", "aarch64"),
        ("linux/x86-64", "x86_64"),
    ];
    let images = spellings
        .iter()
        .enumerate()
        .map(|(n, (platform, _))| Image::new("r/a", &n.to_string()).platforms(&[platform]));
    let registry = crate::support::shelf::Shelf::start(images).await;
    let app = crate::support::app::App::start().await;
    let credentials = Some((crate::support::registry::USER, crate::support::registry::PASSWORD));
    app.admin().add_registry_at(&registry.host(), &registry.url(), credentials).await;
    app.admin().scan(&registry.host()).await;
    let images = app.admin().images().await;
    for (n, (platform, expected)) in spellings.iter().enumerate() {
        let tag = n.to_string();
        let image = images.iter().find(|image| image["tag"] == tag).unwrap();
        assert_eq!(image["architecture"], *expected, "{platform}");
    }
}
