//! The demo's registry: serves the read side of the OCI distribution protocol from memory.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use poem::http::{StatusCode, header};
use poem::web::{Data, Path, Query};
use poem::{Body, Endpoint, EndpointExt as _, Request, Response, Route, get, handler};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::demo::images::DemoImages;
use crate::http::connections::Connections;
use crate::http::peer::Proxies;

/// How long transfers may go on after the demo was told to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// How many names a page lists unless asked otherwise.
const PAGE: usize = 100;

/// Serves the registry until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, images: Arc<RwLock<DemoImages>>, stop: CancellationToken) {
    let connections = Connections { proxies: Proxies::default(), last_requests: LAST_REQUESTS };
    connections.serve(listener, routes(images), stop).await;
}

/// All routes of the registry.
fn routes(images: Arc<RwLock<DemoImages>>) -> impl Endpoint<Output = Response> {
    Route::new()
        .at("/v2", get(hello))
        .at("/v2/_catalog", get(catalog))
        .at("/v2/*path", get(find).head(find))
        .with(poem::middleware::AddData::new(images))
        .map_to_response()
}

/// The query parameters of a page of names.
#[derive(Deserialize)]
struct Paging {
    n: Option<usize>,
    last: Option<String>,
}

#[handler]
fn hello() -> Response {
    json_response(&json!({}))
}

#[handler]
fn catalog(Data(images): Data<&Arc<RwLock<DemoImages>>>, Query(paging): Query<Paging>) -> Response {
    page("/v2/_catalog", "repositories", images.read().tags.keys(), &paging, json!({}))
}

/// Handles everything below a repository. Names may contain slashes, so the path is parsed from its end.
#[handler]
fn find(
    request: &Request,
    Path(path): Path<String>,
    Data(images): Data<&Arc<RwLock<DemoImages>>>,
    Query(paging): Query<Paging>,
) -> Response {
    if path.is_empty() {
        return json_response(&json!({}));
    }
    let images = &*images.read();
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return match images.tags.get(repository) {
            Some(tags) => {
                let url = format!("/v2/{repository}/tags/list");
                page(&url, "tags", tags.keys(), &paging, json!({ "name": repository }))
            }
            None => missing("NAME_UNKNOWN", "repository name not known to registry"),
        };
    }
    if let Some((repository, wanted)) = path.rsplit_once("/manifests/") {
        let tagged = images.tags.get(repository).and_then(|tags| tags.get(wanted)).map(AsRef::as_ref);
        return whole(images, tagged.unwrap_or(wanted), "MANIFEST_UNKNOWN");
    }
    match path.rsplit_once("/blobs/") {
        Some((_, digest)) => blob(request, images, digest),
        None => missing("UNSUPPORTED", "no such page"),
    }
}

/// Returns a page of names, with a link to the next one.
fn page<'a>(
    url: &str,
    field: &str,
    names: impl Iterator<Item = &'a String>,
    paging: &Paging,
    mut body: Value,
) -> Response {
    let count = paging.n.unwrap_or(PAGE).clamp(1, PAGE);
    let mut rest = names.filter(|name| paging.last.as_ref().is_none_or(|last| *name > last));
    let listed: Vec<&String> = rest.by_ref().take(count).collect();
    let more = rest.next().is_some();
    let link =
        listed.last().filter(|_| more).map(|last| format!("<{url}?n={count}&last={last}>; rel=\"next\""));
    if let Some(fields) = body.as_object_mut() {
        fields.insert(field.into(), json!(listed));
    }
    let mut response = json_response(&body);
    if let Some(link) = link.and_then(|link| link.parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

fn whole(images: &DemoImages, digest: &str, code: &str) -> Response {
    match images.blobs.find(digest) {
        Some(blob) => bytes(StatusCode::OK, blob.media_type, digest, blob.bytes.clone()),
        None => missing(code, "it is not here"),
    }
}

/// Returns a blob, or its rest from an offset on.
fn blob(request: &Request, images: &DemoImages, digest: &str) -> Response {
    let Some(blob) = images.blobs.find(digest) else { return missing("BLOB_UNKNOWN", "it is not here") };
    let length = blob.bytes.len();
    match request.header(header::RANGE).and_then(first_byte) {
        None => bytes(StatusCode::OK, blob.media_type, digest, blob.bytes.clone()),
        Some(from) if from < length => {
            let rest = blob.bytes.slice(from..);
            let range = format!("bytes {from}-{}/{length}", length - 1);
            let mut response = bytes(StatusCode::PARTIAL_CONTENT, blob.media_type, digest, rest);
            if let Ok(range) = range.parse() {
                response.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            response
        }
        Some(_) => Response::builder().status(StatusCode::RANGE_NOT_SATISFIABLE).finish(),
    }
}

/// Parses `bytes=100-`: the only form with which clients resume a transfer.
fn first_byte(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn bytes(status: StatusCode, media_type: &str, digest: &str, bytes: Bytes) -> Response {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::ACCEPT_RANGES, "bytes")
        .header("Docker-Content-Digest", digest)
        .body(Body::from_bytes(bytes))
}

fn missing(code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = json_response(&body);
    response.set_status(StatusCode::NOT_FOUND);
    response
}

fn json_response(value: &Value) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .body(Body::from_string(value.to_string()))
}
