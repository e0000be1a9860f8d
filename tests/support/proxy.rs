//! A proxy in front of a registry: it keeps a log of every request, and can delay, hold, fail and drop them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::api::http_client;
use super::http1::{Answer, Request, Response, Server};
use super::wait::PATIENCE;

/// One exchange as the log records it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub status: u16,
    /// How many body bytes went back to the client.
    pub body_bytes: usize,
    pub authorization: Option<String>,
    /// `If-None-Match`, where the client sent it.
    pub condition: Option<String>,
    pub accept: Option<String>,
    /// `Range`, where the client sent it.
    pub range: Option<String>,
}

impl Exchange {
    pub fn is_manifest(&self) -> bool {
        self.target.contains("/manifests/")
    }

    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }

    pub fn is_tag_list(&self) -> bool {
        self.target.contains("/tags/list")
    }

    pub fn is_catalog(&self) -> bool {
        self.target.contains("/v2/_catalog")
    }
}

type Hook = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;
type Choice = Box<dyn Fn(&Request) -> bool + Send + Sync>;

struct State {
    upstream: String,
    http: reqwest::Client,
    log: Mutex<Vec<Exchange>>,
    arrived: AtomicUsize,
    changed: Notify,
    delay: AtomicU64,
    trickle: AtomicU64,
    gate: watch::Sender<bool>,
    /// The requests that the gate stops; all requests if not set.
    gated: Mutex<Option<Choice>>,
    /// The requests that waited at the shut gate.
    held: Mutex<Vec<Request>>,
    failures: Mutex<(usize, u16)>,
    drops: AtomicUsize,
    hook: Mutex<Option<Hook>>,
}

/// The proxy. Its [`url`](Self::url) stands in for the registry's.
pub struct CountingProxy {
    state: Arc<State>,
    server: Server,
}

impl CountingProxy {
    /// Starts a proxy in front of `upstream`, a URL with neither path nor final slash.
    pub async fn start(upstream: &str) -> Self {
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            http: http_client(),
            log: Mutex::default(),
            arrived: AtomicUsize::new(0),
            changed: Notify::new(),
            delay: AtomicU64::new(0),
            trickle: AtomicU64::new(0),
            gate: watch::Sender::new(true),
            gated: Mutex::default(),
            held: Mutex::default(),
            failures: Mutex::new((0, 503)),
            drops: AtomicUsize::new(0),
            hook: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let server = Server::start(move |request| pass(Arc::clone(&shared), request)).await;
        Self { state, server }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Returns the exchanges so far, in the order of their answers.
    pub fn log(&self) -> Vec<Exchange> {
        self.state.log.lock().clone()
    }

    /// Empties the log and the count of arrivals, and returns what was in the log.
    pub fn take_log(&self) -> Vec<Exchange> {
        self.state.arrived.store(0, Ordering::SeqCst);
        std::mem::take(&mut *self.state.log.lock())
    }

    /// Returns how many requests have arrived, answered or not, since the log was last taken.
    pub fn arrived(&self) -> usize {
        self.state.arrived.load(Ordering::SeqCst)
    }

    /// Waits until that many have arrived.
    pub async fn reached(&self, count: usize) {
        let arrive = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                // Registered before looking, so that an arrival in between is not missed.
                changed.as_mut().enable();
                if self.arrived() >= count {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, arrive).await;
        assert!(waited.is_ok(), "only {} of {count} requests arrived at the proxy", self.arrived());
    }

    /// Delays each request.
    pub fn delay(&self, each: Duration) {
        self.state.delay.store(u64::try_from(each.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Sends blobs in ten pieces, with this pause before each.
    pub fn trickle(&self, each: Duration) {
        self.state.trickle.store(u64::try_from(each.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets requests arrive but none go on, until [`release`](Self::release).
    pub fn hold(&self) {
        self.state.gate.send_replace(false);
    }

    /// Holds some requests, until [`release`](Self::release); the others go on.
    pub fn hold_those(&self, choice: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        *self.state.gated.lock() = Some(Box::new(choice));
        self.hold();
    }

    /// Returns every request held so far, and forgets them.
    pub fn take_held(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.held.lock())
    }

    /// Returns the gate that [`hold`](Self::hold) shuts, for hooks that shut it themselves.
    pub fn gate(&self) -> watch::Sender<bool> {
        self.state.gate.clone()
    }

    pub fn release(&self) {
        *self.state.gated.lock() = None;
        self.state.gate.send_replace(true);
    }

    /// Answers the next `count` requests with this status instead of passing them on.
    pub fn fail_next(&self, count: usize, status: u16) {
        *self.state.failures.lock() = (count, status);
    }

    /// Closes the connection on the next `count` requests.
    pub fn drop_next(&self, count: usize) {
        self.state.drops.store(count, Ordering::SeqCst);
    }

    /// Answers in the upstream's place if `hook` has an answer.
    pub fn answer(&self, hook: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) {
        *self.state.hook.lock() = Some(Box::new(hook));
    }

    /// Passes everything on again.
    pub fn behave(&self) {
        *self.state.hook.lock() = None;
        self.fail_next(0, 503);
        self.drop_next(0);
        self.delay(Duration::ZERO);
        self.trickle(Duration::ZERO);
        self.release();
    }
}

async fn pass(state: Arc<State>, request: Request) -> Answer {
    state.arrived.fetch_add(1, Ordering::SeqCst);
    state.changed.notify_waiters();
    tokio::time::sleep(Duration::from_millis(state.delay.load(Ordering::SeqCst))).await;
    if is_held(&state, &request) {
        state.held.lock().push(request.clone());
        // The sender is in the state, so this opens sooner or later.
        let _ = state.gate.subscribe().wait_for(|open| *open).await;
    }
    if take_one(&state.drops) {
        return Answer::Hang;
    }
    let hooked = state.hook.lock().as_ref().and_then(|hook| hook(&request));
    let answer = match hooked {
        Some(answer) => answer,
        None => match take_failure(&state) {
            Some(status) => Response::new(status).body("the proxy was told to fail").into(),
            None => forward(&state, &request).await.map_or(Answer::Hang, Answer::Reply),
        },
    };
    if let Answer::Reply(response) = &answer {
        let bodiless = request.method == "HEAD" || matches!(response.status, 204 | 304);
        let header = |name| request.header(name).map(str::to_owned);
        state.log.lock().push(Exchange {
            status: response.status,
            body_bytes: if bodiless { 0 } else { response.body.len() },
            authorization: header("authorization"),
            condition: header("if-none-match"),
            accept: header("accept"),
            range: header("range"),
            method: request.method.clone(),
            target: request.target.clone(),
        });
    }
    match (answer, Duration::from_millis(state.trickle.load(Ordering::SeqCst))) {
        (Answer::Reply(response), pause) if !pause.is_zero() && request.target.contains("/blobs/") => {
            Answer::Trickle(response, pause)
        }
        (answer, _) => answer,
    }
}

fn is_held(state: &State, request: &Request) -> bool {
    !*state.gate.borrow() && state.gated.lock().as_ref().is_none_or(|choice| choice(request))
}

async fn forward(state: &State, request: &Request) -> Option<Response> {
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).ok()?;
    let mut onward = state.http.request(method, format!("{}{}", state.upstream, request.target));
    // `Host` goes on unchanged: the registry writes it into the `Location` of uploads.
    for (name, value) in request.headers.iter().filter(|(name, _)| !is_hop(name)) {
        onward = onward.header(name, value);
    }
    let reply = onward.body(request.body.clone()).send().await.ok()?;
    let mut response = Response::new(reply.status().as_u16());
    for (name, value) in reply.headers().iter().filter(|(name, _)| !is_hop(name.as_str())) {
        response = response.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    if let Some(length) = reply.headers().get("content-length") {
        response = response.header("content-length", &String::from_utf8_lossy(length.as_bytes()));
    }
    Some(response.body(reply.bytes().await.ok()?))
}

/// Whether a header belongs to one connection, or is the length, which each side writes for itself.
fn is_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "transfer-encoding" | "content-length" | "expect" | "te")
}

fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn take_failure(state: &State) -> Option<u16> {
    let mut failures = state.failures.lock();
    let left = failures.0.checked_sub(1)?;
    failures.0 = left;
    Some(failures.1)
}
