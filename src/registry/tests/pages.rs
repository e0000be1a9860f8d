//! Lists in pages (R10): where they go on, and where they end.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::registry::{
    error::{Error, Reason},
    limits::ClientLimits,
    tests::{
        client, patient, remote,
        server::{Reply, Request, Server},
        tags,
    },
};

async fn list(
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (Result<Vec<String>, Error>, usize) {
    let server = Server::start(script).await;
    let limits = ClientLimits { pages: 20, ..patient() };
    let listed = client(remote(&server.url()), limits).tags("a").await.map(|names| names.good);
    (listed, server.requests().len())
}

#[tokio::test]
async fn a_listing_follows_links_and_ends_without_one() {
    let (listed, requests) = list(|request| match request.path() {
        "/v2/a/tags/list?n=1000" => {
            tags(&["a", "b"], Some("</v2/a/tags/list?n=1000&next_page=opaque>; rel=\"next\""))
        }
        "/v2/a/tags/list?n=1000&next_page=opaque" => {
            tags(&["c"], Some("<list?p=3>; rel=next, <list?p=4>; rel=next"))
        }
        "/v2/a/tags/list?p=3" => tags(&["d", "a"], None),
        other => panic!("{other}"),
    })
    .await;
    assert_eq!((listed.unwrap(), requests), (["a", "b", "c", "d"].map(String::from).to_vec(), 3));
}

#[tokio::test]
async fn a_page_without_new_names_does_not_end_a_listing_and_a_loop_fails_it() {
    let (listed, requests) = list(|request| match request.path() {
        "/v2/a/tags/list?n=1000" => tags(&[], Some("<?p=2>; rel=next")),
        "/v2/a/tags/list?p=2" => tags(&["a"], Some("<?p=3>; rel=next")),
        "/v2/a/tags/list?p=3" => tags(&["a"], Some("<?p=4>; rel=next")),
        "/v2/a/tags/list?p=4" => tags(&["b"], None),
        other => panic!("{other}"),
    })
    .await;
    assert_eq!((listed.unwrap(), requests), (["a", "b"].map(String::from).to_vec(), 4));
    // A link to itself, and a loop of two.
    let (listed, requests) = list(|_| tags(&["a"], Some("<?n=1000>; rel=next"))).await;
    assert!(listed.unwrap_err().to_string().contains("loop"));
    assert_eq!(requests, 1);
    let count = AtomicUsize::new(0);
    let (listed, requests) = list(move |request| {
        let tag = count.fetch_add(1, Ordering::SeqCst).to_string();
        let other = if request.path().ends_with('x') { "<?y>; rel=next" } else { "<?x>; rel=next" };
        tags(&[&tag], Some(other))
    })
    .await;
    assert!(listed.unwrap_err().to_string().contains("loop"));
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn endless_paging_is_an_error() {
    let count = AtomicUsize::new(0);
    let (listed, requests) = list(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst).to_string();
        tags(&[&number], Some(&format!("<?last={number}>; rel=next")))
    })
    .await;
    assert_eq!(listed.unwrap_err().reason, Reason::TooLarge { limit: 20, what: "pages" });
    assert_eq!(requests, 20);
}

#[tokio::test]
async fn a_full_page_without_a_link_goes_on_after_its_last_name() {
    let (listed, _) = list(|request| {
        let from = match request.path().split_once("last=t") {
            None => 0,
            Some((_, number)) => number.parse::<usize>().unwrap() + 1,
        };
        let names: Vec<String> =
            (from..2500.min(from + 1000)).map(|number| format!("t{number:04}")).collect();
        tags(&names.iter().map(String::as_str).collect::<Vec<_>>(), None)
    })
    .await;
    assert_eq!(listed.unwrap().len(), 2500);
}

/// The tags `t0000` to `t<count>`, as one page.
fn numbered(count: usize) -> Reply {
    let names: Vec<String> = (0..count).map(|number| format!("t{number:04}")).collect();
    tags(&names.iter().map(String::as_str).collect::<Vec<_>>(), None)
}

#[tokio::test]
async fn a_full_page_that_may_not_be_the_last_is_doubted() {
    // What the registry sends after the last name, without a number of names, and for one name less.
    for (after, whole, less, expected) in [
        (numbered(0), numbered(7), numbered(7), Some(1000)),
        (numbered(1000), numbered(1500), numbered(7), Some(1500)),
        (Reply::new(400, &[], ""), numbered(1500), numbered(7), Some(1500)),
        // It knows no pages, and has exactly a thousand.
        (numbered(1000), numbered(1000), numbered(1000), Some(1000)),
        // It cuts off what is beyond the number.
        (numbered(1000), numbered(1000), numbered(999), None),
        (Reply::new(404, &[], ""), numbered(10), numbered(999), None),
    ] {
        let (listed, _) = list(move |request| match request.path() {
            "/v2/a/tags/list" => whole.clone(),
            path if path.contains("n=999") => less.clone(),
            path if path.contains("last=") => after.clone(),
            _ => numbered(1000),
        })
        .await;
        match (listed, expected) {
            (Ok(names), Some(expected)) => assert_eq!(names.len(), expected),
            (Err(error), None) => assert!(error.to_string().contains("full page"), "{error}"),
            (listed, expected) => panic!("{listed:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn only_the_first_page_can_say_that_a_repository_is_unknown() {
    let (listed, _) = list(|_| Reply::new(404, &[], "")).await;
    assert_eq!(listed.unwrap_err().reason, Reason::NotFound);
    for status in [401, 403, 404, 405, 410] {
        let (listed, _) = list(move |request| match request.path() {
            "/v2/a/tags/list?n=1000" => tags(&["a"], Some("</a/tags/list?last=a>; rel=next")),
            _ => Reply::new(status, &[], ""),
        })
        .await;
        let error = listed.unwrap_err();
        assert!(matches!(&error.reason, Reason::Invalid(_) | Reason::Unauthorized(_)), "{status}: {error}");
    }
    // Storage that a registry redirects to may lack what the registry has.
    let elsewhere = Server::start(|_| Reply::new(404, &[], "")).await;
    let (listed, _) = list(move |_| Reply::redirect(307, &elsewhere.url())).await;
    assert_eq!(listed.unwrap_err().reason, Reason::Status { status: 404, code: None });
}

#[tokio::test]
async fn a_page_that_fails_fails_the_listing() {
    for second in [Reply::new(404, &[], ""), Reply::ok("{"), Reply::ok("[]"), Reply::new(500, &[], "")] {
        let (listed, _) = list(move |request| {
            if request.path().ends_with("n=1000") {
                tags(&["a"], Some("<?x>; rel=next"))
            } else {
                second.clone()
            }
        })
        .await;
        assert!(listed.is_err());
    }
    let (listed, _) = list(|_| Reply::ok(r#"{"name":"a","tags":null}"#)).await;
    assert_eq!(listed.unwrap(), Vec::<String>::new());
}
