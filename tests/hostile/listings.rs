//! Lists of repositories and tags that lead elsewhere, never end, or name what can't be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Case, Scene, at, bad, odd};
use crate::support::http1::{Answer, Request, Response, Server};
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

const TAGS: &str = "/v2/r/a/tags/list";

fn linked(target: &str) -> Response {
    Response::json(200, &json!({"name": "r/a", "tags": ["1", "2", "3", "4"]}))
        .header("link", &format!("<{target}>; rel=\"next\""))
}

#[tokio::test]
async fn a_link_to_elsewhere_is_not_followed_and_nothing_is_taken_for_gone() {
    let scene = Scene::set().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let foreign = Server::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Response::json(200, &json!({"tags": []})) }
    })
    .await;
    let (url, host) = (foreign.url(), foreign.host());
    let origin = "leads to another origin";
    let cases = vec![
        bad("another port", origin, at(TAGS, linked(&format!("{url}/v2/r/b/tags/list?last=4")))),
        bad("another host, no scheme", origin, at(TAGS, linked(&format!("//{host}/v2/r/b/tags/list")))),
        bad("another scheme", origin, at(TAGS, linked("https://127.0.0.1/v2/r/b/tags/list"))),
        bad("a file", origin, at(TAGS, linked("file:///etc/passwd"))),
        bad("not even a URL", "is not a URL", at(TAGS, linked("http://[::1"))),
        bad("too long", "is too long", at(TAGS, linked(&format!("?last={}", "x".repeat(9000))))),
        bad("user information", "carries a user name", |request: &Request| {
            let host = request.header("host")?;
            (request.path() == TAGS).then(|| linked(&format!("http://a:b@{host}{TAGS}?x")).into())
        }),
        bad("itself", "form a loop", at(TAGS, linked(&format!("{TAGS}?n=1000")))),
        bad("a circle of two", "form a loop", |request: &Request| {
            let to = if request.target.contains("two") { "?one" } else { "?two" };
            (request.path() == TAGS).then(|| linked(to).into())
        }),
        bad("ever new pages of the same names", "without a new name", {
            let page = AtomicUsize::new(0);
            move |request: &Request| {
                let next = || format!("?page={}", page.fetch_add(1, Ordering::SeqCst));
                (request.path() == TAGS).then(|| linked(&next()).into())
            }
        }),
        bad("dots", "form a loop", at(TAGS, linked("../tags/list?n=1000"))),
        odd("two at once", |request: &Request| {
            let two = || linked("?a").header("link", "<http://evil.invalid/>; rel=\"next\"");
            (request.target.starts_with(TAGS) && !request.target.ends_with("?a")).then(|| two().into())
        }),
        bad("a page in the middle that fails", "server answered 500", |request: &Request| {
            let first = || Response::json(200, &json!({"tags": ["1"]})).header("link", "<?p2>; rel=next");
            (request.path() == TAGS)
                .then(|| if request.target.contains("p2") { Response::new(500) } else { first() }.into())
        }),
        bad("ever new pages of ever new names", "too large: more than", {
            let page = AtomicUsize::new(0);
            move |request: &Request| {
                (request.path() == TAGS).then(|| {
                    let number = page.fetch_add(1, Ordering::SeqCst);
                    let names: Vec<String> = (0..30_000).map(|n| format!("t{number}-{n}")).collect();
                    let response = Response::json(200, &json!({"tags": names}));
                    response.header("link", &format!("<?page={number}>; rel=next")).into()
                })
            }
        }),
    ];
    scene.endure(cases).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the other host was asked");
}

#[tokio::test]
async fn lists_that_are_broken_or_empty_take_nothing_away() {
    let scene = Scene::set().await;
    let lists = |answer: fn() -> Answer| move |r: &Request| r.path().ends_with("/tags/list").then(answer);
    let mut cases: Vec<Case> = [
        ("no list", "{\"tags\":{}}"),
        ("numbers", "{\"tags\":[1,2]}"),
        ("cut short", "{\"tags\":[\"1\",\"2\""),
        ("brackets", "[[[[[[[["),
        ("a lone surrogate", "{\"tags\":[\"\\ud800\"]}"),
        ("twice", "{\"tags\":[\"1\"],\"tags\":[]}"),
    ]
    .into_iter()
    .map(|(name, body)| bad(name, "r/a", at(TAGS, Response::new(200).body(body))))
    .collect();
    cases.extend([
        bad(
            "every list is empty",
            "lacks 4 of the tags",
            lists(|| Response::json(200, &json!({"tags": []})).into()),
        ),
        bad(
            "every list is null",
            "lacks 4 of the tags",
            lists(|| Response::json(200, &json!({"tags": null})).into()),
        ),
        bad(
            "every repository is unknown, and its tags are there",
            "lacks 4 of the tags",
            lists(|| Response::new(404).into()),
        ),
        bad(
            "a list without two of the tags",
            "lacks 2 of the tags",
            at(TAGS, Response::json(200, &json!({"tags": ["1", "4"]}))),
        ),
        bad("every list is forbidden", "forbidden (403)", lists(|| Response::new(403).into())),
        bad("nothing is there at all", "so many at once", |_| Some(Response::new(404).into())),
        bad("no catalog and no lists", "lacks 4 of the tags", |r: &Request| {
            (r.path().ends_with("/tags/list") || r.path() == "/v2/_catalog")
                .then(|| Response::new(404).into())
        }),
        odd("an empty catalog, and repositories that are there", {
            at("/v2/_catalog", Response::json(200, &json!({"repositories": []})))
        }),
        odd("a catalog that is forbidden", at("/v2/_catalog", Response::new(403))),
        odd(
            "a catalog that is null",
            at("/v2/_catalog", Response::json(200, &json!({"repositories": null}))),
        ),
    ]);
    scene.endure(cases).await;
}

/// Lists the tags in two pages, with this header as the link from the first to the second.
fn two_pages(link: &'static str) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    move |request| {
        let page = |tags: [&str; 2]| Response::json(200, &json!({"name": "r/a", "tags": tags}));
        (request.path() == TAGS).then(|| {
            if request.target.contains("p2") {
                page(["3", "4"]).into()
            } else {
                page(["1", "2"]).header("link", link).into()
            }
        })
    }
}

#[tokio::test]
async fn a_link_is_followed_as_it_is_meant_or_the_repository_fails() {
    let scene = Scene::set().await;
    let cases = vec![
        odd("no brackets", two_pages("/v2/r/a/tags/list?next_page=k&p2; rel=\"next\"")),
        odd("no relation", two_pages("</v2/r/a/tags/list?p2>")),
        odd("single quotes", two_pages("<?p2>; rel='next'")),
        odd("the proxy's port", two_pages("<http://127.0.0.1/v2/r/a/tags/list?p2>; rel=\"next\"")),
        odd("the proxy's scheme", two_pages("<https://127.0.0.1/v2/r/a/tags/list?p2>; rel=\"next\"")),
        odd("behind a page that is empty", |request: &Request| {
            let empty = || {
                Response::json(200, &json!({"name": "r/a", "tags": null})).header("link", "<?all>; rel=next")
            };
            (request.path() == TAGS && !request.target.contains("all")).then(|| empty().into())
        }),
        bad("a path that lost its beginning", "breaks off at page 2: not found (404)", {
            two_pages("</v2/a/tags/list?last=2>; rel=\"next\"")
        }),
        bad("no link at all", "can't be read", two_pages("next: page two")),
        bad("half a link", "can't be read", two_pages("</v2/r/a/tags/list?p2; rel=\"next\"")),
        bad("a page that is forbidden", "breaks off at page 2: forbidden (403)", {
            let pages = two_pages("<?p2>; rel=next");
            move |request: &Request| {
                if request.target.contains("p2") { Some(Response::new(403).into()) } else { pages(request) }
            }
        }),
    ];
    scene.endure(cases).await;
}

#[tokio::test]
async fn repositories_that_are_named_are_read_whatever_is_answered_in_place_of_the_list() {
    let scene = Scene::set().await;
    let json = |names: Value| Answer::from(Response::json(200, &json!({"repositories": names})));
    let cases: Vec<(&str, Answer, Option<&str>)> = vec![
        ("500", Response::new(500).into(), Some("failed")),
        ("504", Response::new(504).into(), Some("failed")),
        ("410", Response::new(410).into(), Some("skipped")),
        ("422", Response::new(422).into(), Some("skipped")),
        ("403", Response::new(403).into(), Some("skipped")),
        ("a page in HTML", Response::new(200).body("<html>log in</html>").into(), Some("failed")),
        ("nothing", Answer::Hang, Some("failed")),
        (
            "a redirect to elsewhere",
            { Response::new(307).header("location", "http://169.254.169.254/").into() },
            Some("failed"),
        ),
        ("an empty list", json(json!([])), None),
        ("null", json(Value::Null), None),
        ("another project's", json(json!(["other/x"])), None),
    ];
    let read = cases.into_iter().map(|(name, answer, list)| {
        let scene = &scene;
        async move {
            let admin = scene.app.admin();
            let registry = Shelf::start([Image::new("lab/py", "1"), Image::new("lab/r", "1")]).await;
            registry.turn(move |request| (request.path() == "/v2/_catalog").then(|| answer.clone()));
            let document = "mutation($host: String!, $props: CreateContainerRegistryInput!) {
                create_container_registry(hostname: $host, props: $props) { container_registry { hostname } } }";
            let props = json!({"url": registry.url(), "type": "docker", "username": USER, "password": PASSWORD,
                "project": ["lab/py"]});
            admin.ask(document, json!({"host": registry.host(), "props": props})).await;
            for expected in [[1, 0, 0, 0], [0, 0, 1, 0]] {
                let task = admin.scan(&registry.host()).await;
                assert_eq!(counts(&task)[..4], expected, "{name}: {task:#}");
                let failed = u64::from(list == Some("failed"));
                assert_eq!(counts(&task)[5], failed, "{name}: {task:#}");
                let said = list.map(|list| task["ledger"][list].to_string());
                assert!(said.is_none_or(|said| said.contains("list of repositories")), "{name}: {task:#}");
            }
        }
    });
    join_all(read).await;
}

#[tokio::test]
async fn names_that_can_be_none_are_named_once_and_never_asked_for() {
    let scene = Scene::set().await;
    let registry = scene.registry().await;
    let before = scene.rows(&registry).await;
    let bad = [
        "../..",
        "%2e%2e",
        "a/../b",
        "/etc/passwd",
        "a b",
        "",
        "UPPER",
        "-x",
        "<script>alert(1)</script>",
        "\u{1b}[31mred",
        "\u{202e}txt.exe",
        "\u{1f4a9}",
        "a\u{0}b",
        "a\r\nSet-Cookie: x",
        "a?x=y",
        "a#x",
        "con;rm -rf /",
        "$(reboot)",
        "http://evil.invalid/x",
    ];
    let mut repositories: Vec<String> = bad.iter().map(|&name| name.to_owned()).collect();
    repositories.push("a".repeat(300));
    repositories.extend(["r/a", "r/b", "r/c", "r/many"].map(str::to_owned));
    // As a tag `UPPER` is as good as any.
    let mut tags: Vec<String> =
        bad.iter().filter(|name| **name != "UPPER").map(|&name| name.to_owned()).collect();
    tags.extend((0..300).map(|n| format!("-{n}")));
    tags.extend(["1", "2", "3", "4"].map(str::to_owned));
    let (listed, tagged) = (json!({"repositories": repositories}), json!({"tags": tags}));
    registry.turn(move |request| match request.path() {
        "/v2/_catalog" => Some(Response::json(200, &listed).into()),
        TAGS => Some(Response::json(200, &tagged).into()),
        _ => None,
    });
    let task = scene.app.admin().scan(&registry.host()).await;
    assert_eq!(scene.rows(&registry).await, before);
    let refused = bad.len() + 1 + bad.len() - 1 + 300;
    assert_eq!(counts(&task), [0, 0, 14, 0, refused as u64, 0], "each one is counted: {task:#}");
    let said = task.to_string();
    for hidden in ["\u{1b}", "\u{202e}", "\u{0}", "\\u001b", "\\u0000"] {
        assert!(!said.contains(hidden), "{hidden:?} is not fit to show: {said}");
    }
    for request in registry.take_log() {
        let good = ["/r/a/", "/r/b/", "/r/c/", "/r/many/", "/_catalog"];
        assert!(good.iter().any(|part| request.path().contains(part)), "{}", request.target);
        assert!(!request.target.contains("Cookie") && !request.target.contains('%'), "{}", request.target);
    }
    scene.is_well("names").await;
}

#[tokio::test]
async fn a_tag_that_moves_while_it_is_read_is_read_as_one_or_the_other() {
    let scene = Scene::set().await;
    let registry = scene.registry().await;
    let moves: Vec<_> = (0..6)
        .map(|n| crate::support::image::Image::new("r/a", "1").content(&format!("version {n}")).oci().build())
        .collect();
    let digests: Vec<Value> = moves.iter().map(|built| json!(built.digest())).collect();
    for built in &moves {
        registry.put(&crate::support::image::Image::new("r/a", "1").content(&built.parts[0].config));
    }
    let (turn, served) = (AtomicUsize::new(0), moves.clone());
    registry.turn(move |request| {
        let blobs = served.iter().flat_map(|built| &built.blobs);
        if let Some((_, digest)) = request.path().split_once("/blobs/") {
            let blob = blobs.into_iter().find(|blob| crate::support::image::sha256(blob) == digest);
            return blob.map(|blob| Response::new(200).body(blob.clone()).into());
        }
        let manifest = &served[turn.load(Ordering::SeqCst) % served.len()].manifests[0];
        (request.path() == super::VICTIM).then(|| {
            turn.fetch_add(1, Ordering::SeqCst);
            super::served(&manifest.media_type, manifest.bytes.clone()).into()
        })
    });
    for _ in 0..4 {
        let task = scene.app.admin().scan(&registry.host()).await;
        assert_eq!(counts(&task), [0, 1, 13, 0, 0, 0], "{task:#}");
        let data = scene
            .app
            .admin()
            .ask(
                "query($r: String!) { image(reference: $r) { target_digest } }",
                json!({"r": format!("{}/r/a:1", registry.host())}),
            )
            .await;
        assert!(digests.contains(&data["image"]["target_digest"]), "{data}");
    }
}
