//! Clients of the server under test: they sign as the official ones do, and can be made to send wrong requests.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::sign::{Keypair, Signature};
use super::sse::{Event, Events};
use super::wait::PATIENCE;

/// The user agent of a client of the latest generation, which reads `bgtask_*` events.
pub const MODERN: &str = "Backend.AI Client for Python 26.9.6";
/// The user agent of a client of the seed's era, which reads `task_*` events.
pub const SEED_ERA: &str = "Backend.AI Client for Python 20.03.10";

/// A plain HTTP client: no proxy from the environment, no redirects, no old connections.
///
/// Connections are not reused, because servers under test are killed and come back on the same port.
pub fn http_client() -> reqwest::Client {
    http_client_from(None)
}

/// Returns a plain HTTP client that sends from one of this machine's addresses.
fn http_client_from(address: Option<IpAddr>) -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .local_address(address)
        .build()
        .expect("an HTTP client")
}

/// A caller: with a keypair, or anonymous.
#[derive(Clone, Debug)]
pub struct Api {
    url: String,
    http: reqwest::Client,
    keypair: Option<Keypair>,
    user_agent: String,
    version: String,
    ahead: SignedDuration,
}

impl Api {
    pub fn new(url: &str, keypair: Option<Keypair>) -> Self {
        Self {
            url: url.to_owned(),
            http: http_client(),
            keypair,
            user_agent: MODERN.to_owned(),
            version: "v9.20250722".to_owned(),
            ahead: SignedDuration::ZERO,
        }
    }

    /// Returns the same caller with a clock that is this many seconds ahead.
    pub fn ahead(self, seconds: i64) -> Self {
        Self { ahead: SignedDuration::from_secs(seconds), ..self }
    }

    /// Returns the same caller for the server at another URL.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Returns the same caller at another address.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.http = http_client_from(Some(address));
        self
    }

    /// Returns the same caller with another client program.
    pub fn with_agent(mut self, user_agent: &str, version: &str) -> Self {
        user_agent.clone_into(&mut self.user_agent);
        version.clone_into(&mut self.version);
        self
    }

    /// Returns `127.0.0.1:PORT`, as it goes into `Host` and the signature.
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Returns a request of this caller, signed unless a test changes that.
    pub fn call(&self, method: &str, target: &str) -> Call {
        let now = Timestamp::now() + self.ahead;
        Call {
            api: self.clone(),
            method: method.to_owned(),
            target: target.to_owned(),
            signature: self.keypair.as_ref().map(|pair| Signature::new(pair, &self.version).at(now, 0)),
            content_type: Some("text/plain".to_owned()),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// Runs a document and returns the whole answer, `{data, errors}`.
    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables});
        let reply = self.call("POST", "/admin/gql").json(&body).send().await;
        assert_eq!(reply.status, 200, "{query}\n{}", reply.text());
        reply.json()
    }

    /// Runs a document that must succeed, and returns its `data`.
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        let answer = self.graphql(query, variables).await;
        assert!(answer["errors"].is_null(), "{query}\n{answer:#}");
        answer["data"].clone()
    }

    /// Runs a document that must fail, and returns the first error's message.
    pub async fn refused(&self, query: &str, variables: Value) -> String {
        let answer = self.graphql(query, variables).await;
        let message = answer["errors"][0]["message"].as_str();
        message.unwrap_or_else(|| panic!("an error was expected\n{query}\n{answer:#}")).to_owned()
    }

    /// Follows a task. Signed as the clients sign a stream: without a content type.
    pub async fn events(&self, task: &str) -> Events {
        self.events_after(task, None).await
    }

    /// Follows a task from the event after `last`.
    pub async fn events_after(&self, task: &str, last: Option<&str>) -> Events {
        let mut call = self.call("GET", &format!("/events/background-task?task_id={task}")).no_content_type();
        if let Some(last) = last {
            call = call.header("Last-Event-ID", last);
        }
        let response = call.response().await;
        assert_eq!(response.status(), 200, "the events of task {task}");
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap_or_default().to_owned());
        assert!(kind.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream")), "{kind:?}");
        Events::new(response)
    }

    /// Waits for the end of a task and returns its final event.
    pub async fn finish(&self, task: &str) -> Event {
        let wait = async {
            let mut events = self.events(task).await;
            while let Some(event) = events.next().await {
                if event.is_final() {
                    return event;
                }
            }
            panic!("the events of task {task} ended without a final one");
        };
        tokio::time::timeout(PATIENCE * 2, wait).await.unwrap_or_else(|_| panic!("task {task} does not end"))
    }
}

/// A request that is not sent yet.
#[derive(Clone, Debug)]
pub struct Call {
    api: Api,
    method: String,
    target: String,
    signature: Option<Signature>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    pub fn unsigned(mut self) -> Self {
        self.signature = None;
        self
    }

    /// Changes the signature.
    pub fn signed(mut self, change: impl FnOnce(Signature) -> Signature) -> Self {
        self.signature = self.signature.map(change);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn content_type(mut self, kind: &str) -> Self {
        self.content_type = Some(kind.to_owned());
        self
    }

    /// Sends no `Content-Type`; it is signed as `application/octet-stream`.
    pub fn no_content_type(mut self) -> Self {
        self.content_type = None;
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.content_type("application/json").body(body.to_string())
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(self) -> Reply {
        let response = self.response().await;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Reply { status, headers, body: response.bytes().await.expect("a complete answer") }
    }

    /// Sends the request and returns once the headers have come.
    pub async fn response(self) -> reqwest::Response {
        let what = format!("{} {}", self.method, self.target);
        match self.try_response().await {
            Ok(response) => response,
            Err(e) => panic!("{what}: {e:?}"),
        }
    }

    /// Sends the request to a server that may be down, and returns once the headers have come.
    pub async fn try_response(self) -> reqwest::Result<reqwest::Response> {
        let api = &self.api;
        let method = reqwest::Method::from_bytes(self.method.as_bytes()).expect("a method");
        let mut request = api.http.request(method, format!("{}{}", api.url, self.target));
        request = request.header("User-Agent", &api.user_agent);
        if let Some(signature) = &self.signature {
            let kind = self.content_type.as_deref().unwrap_or("application/octet-stream");
            let kind = kind.split(';').next().unwrap_or_default().trim();
            request = request
                .header(&signature.date_header, &signature.date)
                .header(&signature.version_header, &signature.version)
                .header("X-BackendAI-Domain", "default")
                .header(
                    "Authorization",
                    signature.authorization(&self.method, &self.target, api.host(), kind),
                );
        }
        if let Some(kind) = &self.content_type {
            request = request.header("Content-Type", kind);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(self.body.clone()).send().await
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// Checks that this is problem+json with that status and type; returns its `msg` (or an empty text).
    pub fn problem(&self, status: u16, slug: &str) -> String {
        let text = self.text();
        assert_eq!(self.status, status, "{text}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{kind}: {text}");
        let body = self.json();
        assert_eq!(body["type"], format!("https://api.backend.ai/probs/{slug}"), "{text}");
        assert!(body["title"].is_string(), "{text}");
        body["msg"].as_str().unwrap_or_default().to_owned()
    }
}
