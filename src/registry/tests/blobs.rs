//! Blobs that are read piece by piece.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    base::digest::Digest,
    registry::{
        client::blob::Body,
        error::{Error, Reason},
        limits::ClientLimits,
        tests::{
            ann, client, hasty, patient, remote,
            server::{Reply, Request, Server, Then},
        },
    },
};

const BLOB: &[u8] = b"0123456789";

/// Serves ranges correctly.
fn healthy(request: &Request) -> Reply {
    let Some(range) = request.header("range") else { return Reply::new(200, &[], BLOB) };
    let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    if from >= BLOB.len() {
        return Reply::new(416, &[("content-range", "bytes */10")], "");
    }
    Reply::new(206, &[("content-range", &format!("bytes {from}-9/10"))], &BLOB[from..])
}

async fn open(server: &Server, from: u64) -> Result<Body, Error> {
    open_within(patient(), server, from).await
}

async fn open_within(limits: ClientLimits, server: &Server, from: u64) -> Result<Body, Error> {
    client(remote(&server.url()), limits).open_blob("a", &Digest::sha256_of(BLOB), 10, from).await
}

async fn read(body: &mut Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_blob_is_read_whole_or_from_where_it_broke_off() {
    let server = Server::start(healthy).await;
    for from in [0_usize, 1, 9] {
        let mut body = open(&server, from as u64).await.unwrap();
        assert_eq!((body.from(), read(&mut body).await.unwrap()), (from as u64, BLOB[from..].to_vec()));
    }
    assert_eq!(server.requests()[0].header("range"), None);
    // A registry that has nothing at that position is asked for the whole blob.
    let mut body = open(&server, 10).await.unwrap();
    assert_eq!((body.from(), read(&mut body).await.unwrap()), (0, BLOB.to_vec()));
}

#[tokio::test]
async fn a_registry_without_ranges_sends_all_of_it() {
    let server = Server::start(|_| Reply::new(200, &[], BLOB)).await;
    let mut body = open(&server, 5).await.unwrap();
    assert_eq!((body.from(), read(&mut body).await.unwrap()), (0, BLOB.to_vec()));
}

#[tokio::test]
async fn what_is_not_the_part_that_was_asked_for_is_refused() {
    for (status, range, body) in [
        (206, "bytes 4-9/10", "456789"),
        (206, "bytes 5-9/11", "56789"),
        (206, "", "56789"),
        (200, "", "01234"),
        (200, "", "0123456789x"),
        (204, "", ""),
    ] {
        let server = Server::start(move |_| Reply::new(status, &[("content-range", range)], body)).await;
        let error = open(&server, 5).await.err().unwrap();
        assert!(matches!(error.reason, Reason::Invalid(_)), "{status} {range}: {error}");
    }
}

#[tokio::test]
async fn a_blob_that_stops_ends_or_never_ends_is_told() {
    let head = "HTTP/1.1 200 X\r\n";
    for (rest, then, reason) in [
        ("content-length: 10\r\n\r\n01234", Then::Hang, "timed out"),
        ("content-length: 10\r\n\r\n01234", Then::Close, "unreachable"),
        ("content-length: 10\r\n\r\n01234", Then::Reset, "unreachable"),
        ("\r\n01234", Then::Close, "before its end"),
        ("\r\n01234", Then::Flood, "more bytes"),
    ] {
        let server = Server::start(move |_| Reply::raw(format!("{head}{rest}"), then)).await;
        let limits = if matches!(then, Then::Hang) { hasty() } else { patient() };
        let error = match open_within(limits, &server, 0).await {
            Ok(mut body) => read(&mut body).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(reason), "{rest:?}: {error}");
        assert_eq!(error.is_transient(), !matches!(error.reason, Reason::Invalid(_)), "{error}");
    }
}

#[tokio::test]
async fn passing_trouble_is_sat_out_and_refusals_are_told() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, &[], ""),
        _ => healthy(request),
    })
    .await;
    assert_eq!(read(&mut open(&server, 3).await.unwrap()).await.unwrap(), b"3456789");
    for (status, reason) in [(404, "NotFound"), (403, "Forbidden"), (503, "Status")] {
        let server = Server::start(move |_| Reply::new(status, &[], "")).await;
        let error = open(&server, 0).await.err().unwrap();
        assert!(format!("{:?}", error.reason).starts_with(reason), "{error}");
    }
}

#[tokio::test]
async fn the_range_goes_with_a_redirect_and_the_password_does_not() {
    let storage = Server::start(|request| {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        healthy(request)
    })
    .await;
    let port = storage.port;
    let server = Server::start(move |request| match request.header("authorization") {
        None => Reply::new(401, &[("www-authenticate", "Basic realm=x")], ""),
        Some(_) => Reply::redirect(307, &format!("http://registry.example:{port}/blob")),
    })
    .await;
    let mut remote = remote(&format!("http://registry.example:{}", server.port));
    remote.credentials = Some(ann());
    let client = client(remote, patient());
    let mut body = client.open_blob("a", &Digest::sha256_of(BLOB), 10, 4).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), b"456789");
    assert_eq!(storage.requests()[0].header("range"), Some("bytes=4-"));
    for bad in ["A", "a/../b", ""] {
        assert!(client.open_blob(bad, &Digest::sha256_of(BLOB), 10, 0).await.is_err());
    }
}
