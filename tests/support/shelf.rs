//! A registry in this process: it works correctly until a test makes it misbehave.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;

use super::http1::{Answer, Request, Response, Server};
use super::image::{Image, Manifest, sha256};
use super::registry::{PASSWORD, USER};

type Hook = Arc<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
struct State {
    /// The manifests, by repository and tag or digest.
    manifests: BTreeMap<(String, String), Manifest>,
    blobs: BTreeMap<String, Bytes>,
    /// The tags, by repository.
    tags: BTreeMap<String, Vec<String>>,
    hook: Option<Hook>,
    log: Vec<Request>,
}

/// The registry. It requires [`USER`] and [`PASSWORD`] by Basic authentication.
pub struct Shelf {
    state: Arc<Mutex<State>>,
    server: Server,
}

impl Shelf {
    /// Starts a correct registry of these images.
    pub async fn start(images: impl IntoIterator<Item = Image>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        for image in images {
            put(&mut state.lock(), &image);
        }
        let shared = Arc::clone(&state);
        let server = Server::start(move |request: Request| {
            let hook = {
                let mut state = shared.lock();
                state.log.push(request.clone());
                state.hook.clone()
            };
            let answer = hook.and_then(|hook| hook(&request));
            let answer = answer.unwrap_or_else(|| healthy(&shared.lock(), &request).into());
            async move { answer }
        })
        .await;
        Self { state, server }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Lets `hook` answer from now on, if it has an answer.
    pub fn turn(&self, hook: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) {
        self.state.lock().hook = Some(Arc::new(hook));
    }

    /// Adds an image, or moves its tag.
    pub fn put(&self, image: &Image) {
        put(&mut self.state.lock(), image);
    }

    /// Returns every request so far, in order, and forgets them.
    pub fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().log)
    }
}

fn put(state: &mut State, image: &Image) {
    let built = image.build();
    for blob in &built.blobs {
        state.blobs.insert(sha256(blob), blob.clone());
    }
    let top = built.manifests.last().expect("an image has a manifest");
    for manifest in &built.manifests {
        state.manifests.insert((built.repository.clone(), manifest.digest.clone()), manifest.clone());
    }
    state.manifests.insert((built.repository.clone(), built.tag.clone()), top.clone());
    let tags = state.tags.entry(built.repository).or_default();
    if !tags.contains(&built.tag) {
        tags.push(built.tag);
    }
}

fn healthy(state: &State, request: &Request) -> Response {
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if request.header("authorization") != Some(&basic) {
        return Response::new(401).header("www-authenticate", "Basic realm=\"shelf\"");
    }
    let path = request.path().strip_prefix("/v2/").unwrap_or_default();
    if path == "_catalog" {
        let names: Vec<&String> = state.tags.keys().collect();
        return Response::json(200, &json!({"repositories": names}));
    }
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return match state.tags.get(repository) {
            Some(tags) => Response::json(200, &json!({"name": repository, "tags": tags})),
            None => Response::new(404),
        };
    }
    if let Some((repository, reference)) = path.split_once("/manifests/") {
        let key = (repository.to_owned(), reference.to_owned());
        return state.manifests.get(&key).map_or_else(|| Response::new(404), |m| manifest(m, request));
    }
    match path.split_once("/blobs/").and_then(|(_, digest)| state.blobs.get(digest)) {
        Some(blob) => Response::new(200).body(blob.clone()),
        None if path.is_empty() => Response::new(200).body("{}"),
        None => Response::new(404),
    }
}

fn manifest(manifest: &Manifest, request: &Request) -> Response {
    let tag = format!("\"{}\"", manifest.digest);
    let known = request.header("if-none-match") == Some(&tag);
    let response = Response::new(if known { 304 } else { 200 })
        .header("content-type", &manifest.media_type)
        .header("docker-content-digest", &manifest.digest)
        .header("etag", &tag);
    if known { response } else { response.body(manifest.bytes.clone()) }
}
