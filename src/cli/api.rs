//! A client of the server's API: signed GraphQL requests and the stream of a task's events.

use std::{path::Path, time::Duration};

use clap::ArgMatches;
use jiff::Timestamp;
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use crate::{
    access::signature::{self, Authorization, Hash},
    base::{
        error::{Code, find_cause},
        ids::TaskId,
        loopback,
        secret::Secret,
    },
    cli::{
        connection::{Connection, read_file},
        failure::{Failure, Result},
        operation::Operation,
    },
};

/// The API version that this client speaks, as the newest official client states it.
const API_VERSION: &str = "v9.20250722";
/// Longest wait for a connection: longer than on any network that is usable at a prompt.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for a whole answer; the server's own limit for a query is shorter.
const ANSWER: Duration = Duration::from_mins(2);
/// Longest silence on an event stream until the client asks again; a live server sends something more often.
const SILENCE: Duration = Duration::from_mins(1);
/// Largest answer that is read, in bytes: 100,000 images with all their labels take a third of it.
const MAX_ANSWER: usize = 1 << 30;

/// A signing client of one server.
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    access_key: String,
    secret: Secret,
}

impl Client {
    /// Reads the keys and prepares the client; sends nothing yet.
    pub(crate) fn new(connection: &Connection, matches: &ArgMatches) -> Result<Self> {
        let (access_key, secret) = connection.keys(matches)?;
        Self::with_keys(&connection.endpoint, connection.endpoint_ca_file.as_deref(), access_key, secret)
    }

    /// Makes a client with these keys.
    pub(crate) fn with_keys(
        endpoint: &Url,
        ca: Option<&Path>,
        access_key: String,
        secret: Secret,
    ) -> Result<Self> {
        // reqwest uses the process's cryptography provider. An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            // A redirected request would carry a signature for another path or host.
            .redirect(reqwest::redirect::Policy::none());
        if loopback::is_url(endpoint) {
            builder = builder.no_proxy();
        }
        if let Some(path) = ca {
            let bundle = reqwest::Certificate::from_pem_bundle(read_file(path)?.as_bytes());
            let bundle = bundle
                .ok()
                .filter(|bundle| !bundle.is_empty())
                .ok_or_else(|| Failure::failed(path.display().to_string(), "no PEM certificate in it"))?;
            builder = builder.tls_certs_merge(bundle);
        }
        let http = builder.build().map_err(|error| Failure::failed("HTTP client", causes(&error)))?;
        Ok(Self { http, endpoint: endpoint.clone(), access_key, secret })
    }

    /// Requests a path without a signature, and returns what the server answers to everyone.
    pub(crate) async fn look(&self, target: &str) -> Result<Response> {
        let request = self.http.get(format!("{}{target}", self.name())).timeout(ANSWER);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Sends an operation and returns its answer.
    pub(crate) async fn ask<V: Serialize, T: DeserializeOwned>(
        &self,
        operation: &Operation<V, T>,
        variables: V,
    ) -> Result<T> {
        self.ask_about(self.name(), operation, variables).await
    }

    /// Does what [`Client::ask`] does, for an operation on one thing: a refusal names `what`.
    pub(crate) async fn ask_about<V: Serialize, T: DeserializeOwned>(
        &self,
        what: &str,
        operation: &Operation<V, T>,
        variables: V,
    ) -> Result<T> {
        let field = operation.field();
        self.answer(operation, variables).await?.field(field).map_err(|refusal| refusal.about(what, field))
    }

    /// Does what [`Client::ask_about`] does, for a thing that may not exist.
    pub(crate) async fn find<V: Serialize, T: DeserializeOwned>(
        &self,
        what: &str,
        operation: &Operation<V, T>,
        variables: V,
    ) -> Result<Option<T>> {
        let (answer, field) = (self.answer(operation, variables).await?, operation.field());
        if answer.says_not_found() {
            return Ok(None);
        }
        answer.field(field).map_err(|refusal| refusal.about(what, field))
    }

    /// Sends a mutation; `ok: false` is a failure of `what`, with the server's reason.
    pub(crate) async fn change<V: Serialize, T: Payload>(
        &self,
        what: &str,
        operation: &Operation<V, T>,
        variables: V,
    ) -> Result<T> {
        let payload = self.ask_about(what, operation, variables).await?;
        let (ok, msg, code) = payload.outcome();
        if ok {
            return Ok(payload);
        }
        let why = msg.filter(|msg| !msg.is_empty()).unwrap_or("the server refused");
        Err(Refusal { why: why.into(), code: code.map(Into::into) }.about(what, operation.field()))
    }

    async fn answer<V: Serialize, T>(
        &self,
        operation: &Operation<V, T>,
        variables: V,
    ) -> Result<GraphqlResponse> {
        let variables = serde_json::to_value(variables)
            .map_err(|error| Failure::failed("variables", error.to_string()))?;
        let variables = if variables.is_null() { json!({}) } else { given(variables) };
        let body = json!({ "query": operation.document(), "variables": variables }).to_string();
        let request = self.signed(&Method::POST, "/admin/gql", "application/json");
        let request = request.header(CONTENT_TYPE, "application/json").timeout(ANSWER).body(body);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response).await);
        }
        serde_json::from_slice(&self.body(response).await?)
            .map_err(|_| self.foreign(&format!("answered HTTP {} with no GraphQL", status.as_u16())))
    }

    /// Opens a task's event stream, starting after this event.
    pub(crate) async fn events(
        &self,
        task: TaskId,
        last_event_id: Option<&str>,
    ) -> Result<Response, Unopened> {
        let target = format!("/events/background-task?task_id={task}");
        let mut request = self
            .signed(&Method::GET, &target, signature::Request::NO_CONTENT_TYPE)
            .header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = tokio::time::timeout(SILENCE, request.send()).await;
        let response = match response {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Unopened::Failed(self.unreachable(&error))),
            Err(_) => {
                return Err(Unopened::Failed(Failure::failed(self.name(), "no answer").passing()));
            }
        };
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Unopened::Unknown),
            _ => Err(Unopened::Failed(self.refused(response).await)),
        }
    }

    /// Has the server take a backup, and opens it. The answer begins when the backup is ready, which takes longer the
    /// larger the database is.
    pub(crate) async fn backup(&self) -> Result<Response> {
        let request = self.signed(&Method::POST, "/backup", "application/json");
        let sent = request.header(CONTENT_TYPE, "application/json").send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// The next piece of a backup's content; `None` at its end.
    pub(crate) async fn next_piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>> {
        let piece = tokio::time::timeout(SILENCE, response.chunk()).await;
        let piece = piece.map_err(|_| Failure::failed(self.name(), "it stopped sending").passing())?;
        piece.map_err(|error| self.unreachable(&error))
    }

    /// Longest silence on the stream of [`Client::events`].
    pub(crate) fn silence() -> Duration {
        SILENCE
    }

    fn signed(&self, method: &Method, target: &str, content_type: &str) -> reqwest::RequestBuilder {
        let now = Timestamp::now();
        let (date, day) = (now.to_string(), now.strftime("%Y%m%d").to_string());
        let host = authority(&self.endpoint);
        let request = signature::Request {
            method: method.as_str(),
            // A prefix in the endpoint's path belongs to a reverse proxy, which removes it: the server never sees it.
            target,
            date: &date,
            host: &host,
            content_type,
            version_header: ("x-backendai-version", API_VERSION),
        };
        let signature = signature::sign(&request, &day, Hash::Sha256, &self.secret);
        let authorization =
            Authorization { hash: Hash::Sha256, access_key: &self.access_key, signature: &signature };
        let url = format!("{}{target}", self.name());
        self.http
            .request(method.clone(), url)
            .header(DATE, &date)
            .header("X-BackendAI-Version", API_VERSION)
            .header(AUTHORIZATION, authorization.to_string())
    }

    pub(crate) fn name(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    pub(crate) async fn body(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.foreign("answered with more than 1 GiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = causes(error);
        if find_cause::<rustls::Error>(error).is_some() {
            // Trying again does not help: the user has to name the authority, or check which server answers there.
            return Failure::failed(self.name(), why)
                .remedy("name its authority's file with --endpoint-ca-file");
        }
        let failure = Failure::failed(self.name(), why).passing();
        if error.is_connect() {
            failure.remedy(
                "is the server running there? start it with wharf serve, or name another with --endpoint",
            )
        } else {
            failure
        }
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            return Failure::failed(self.name(), format!("redirects to {to}"))
                .remedy("name the final address with --endpoint");
        }
        let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let body = self.body(response).await.unwrap_or_default();
        let failure = self.explained(status, &body);
        if is_passing { failure.passing() } else { failure }
    }

    fn explained(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return self.foreign(&format!("answered HTTP {}", status.as_u16()));
        };
        let failure = Failure::failed(self.name(), problem.to_string());
        match status {
            _ if is(problem.code.as_deref(), Code::ClockSkew) => failure.remedy("set this machine's clock"),
            StatusCode::UNAUTHORIZED => failure.remedy("check WHARF_ACCESS_KEY and WHARF_SECRET_KEY"),
            StatusCode::FORBIDDEN => failure.remedy(NOT_SUPER_ADMIN),
            _ => failure,
        }
    }

    pub(crate) fn foreign(&self, why: &str) -> Failure {
        Failure::failed(self.name(), why).remedy("is it a wharf server? name another with --endpoint")
    }
}

const NOT_SUPER_ADMIN: &str = "use a super-admin's key pair";

/// Whether a server's answer has this code. Codes are kept as text, because a newer server may have others.
fn is(given: Option<&str>, code: Code) -> bool {
    given == Some(code.as_str())
}

/// The API's reasons for refusing a request.
struct Refusal {
    why: String,
    code: Option<String>,
}

impl Refusal {
    /// The refusal as a failure of `what`; `field` is the field of the schema that was asked.
    fn about(self, what: &str, field: &str) -> Failure {
        let failure = match with_caret(&self.why) {
            Some((why, block)) => Failure::about(what, why).below(block),
            None => Failure::about(what, &*self.why),
        };
        let code = self.code.as_deref();
        let remedy = if is(code, Code::Denied) {
            Some(NOT_SUPER_ADMIN)
        } else if is(code, Code::NotFound) {
            where_listed(field)
        } else {
            None
        };
        remedy.into_iter().fold(failure, Failure::remedy)
    }
}

/// The command that lists the things that a field of the schema is about.
fn where_listed(field: &str) -> Option<&'static str> {
    let has = |word| field.contains(word);
    if matches!(field, "preload_image" | "unload_image" | "preload_plan" | "image_presence") {
        Some("see wharf image list and wharf agent list")
    } else if field == "rescan_images" {
        Some("see wharf registry list")
    } else if has("preload_rule") {
        Some("see wharf rule list")
    } else if has("image") {
        Some("see wharf image list")
    } else if has("agent_token") {
        Some("see wharf agent token list")
    } else if has("agent") {
        Some("see wharf agent list")
    } else if has("scaling_group") {
        Some("see wharf scaling-group list")
    } else if has("container_registry") {
        Some("see wharf registry list")
    } else if has("task") {
        Some("see wharf task list")
    } else {
        None
    }
}

/// Splits a complaint about an expression into the message and the two lines that show the place: the expression and a
/// caret.
fn with_caret(why: &str) -> Option<(&str, &str)> {
    let (rest, caret) = why.trim_end().rsplit_once('\n')?;
    let (message, _) = rest.rsplit_once('\n')?;
    (caret.trim_start() == "^").then(|| (message, why.get(message.len() + 1..).unwrap_or_default()))
}

/// Why an event stream did not open.
#[derive(Debug)]
pub(crate) enum Unopened {
    /// The server knows no such task, or the caller may not follow it.
    Unknown,
    /// The server did not answer, or refused.
    Failed(Failure),
}

/// The answer to a mutation.
pub(crate) trait Payload: DeserializeOwned + Serialize {
    /// Whether the mutation was done; the reason if not, or perhaps a remark if it was; the kind of failure, if it
    /// failed.
    fn outcome(&self) -> (bool, Option<&str>, Option<&str>);
}

/// The answer to a mutation that is finished when the server answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// Whether the mutation was done.
    pub(crate) ok: bool,
    /// The reason if it was not done; perhaps a remark if it was.
    #[serde(default)]
    pub(crate) msg: Option<String>,
    /// The kind of failure, if the mutation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
}

impl Payload for Outcome {
    fn outcome(&self) -> (bool, Option<&str>, Option<&str>) {
        (self.ok, self.msg.as_deref(), self.code.as_deref())
    }
}

/// The answer to a mutation that starts a task.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Started {
    ok: bool,
    /// The reason if the task did not start; perhaps a remark if it did.
    #[serde(default)]
    pub(crate) msg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The background task; `None` if there was nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task_id: Option<TaskId>,
}

impl Payload for Started {
    fn outcome(&self) -> (bool, Option<&str>, Option<&str>) {
        (self.ok, self.msg.as_deref(), self.code.as_deref())
    }
}

#[derive(Deserialize)]
struct GraphqlResponse {
    #[serde(default)]
    data: Value,
    #[serde(default, deserialize_with = "crate::cli::json::list")]
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
    #[serde(default)]
    extensions: Option<Extensions>,
}

impl Complaint {
    fn code(&self) -> Option<&str> {
        self.extensions.as_ref()?.code.as_deref()
    }
}

#[derive(Deserialize)]
struct Extensions {
    #[serde(default)]
    code: Option<String>,
}

impl GraphqlResponse {
    /// Whether the only error is that the requested thing does not exist.
    fn says_not_found(&self) -> bool {
        !self.errors.is_empty() && self.errors.iter().all(|error| is(error.code(), Code::NotFound))
    }

    fn field<T: DeserializeOwned>(mut self, name: &str) -> Result<T, Refusal> {
        if let Some(first) = self.errors.first() {
            let code = first.code().map(str::to_owned);
            let messages: Vec<_> = self.errors.into_iter().map(|error| error.message).collect();
            return Err(Refusal { why: messages.join("; "), code });
        }
        let value = self.data.get_mut(name).map(Value::take).unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|error| Refusal { why: format!("unexpected answer in {name}: {error}"), code: None })
    }
}

/// An RFC 7807 body, with the members that Backend.AI's servers fill.
#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title.trim_end_matches('.'))?;
        match self.msg.as_deref() {
            Some(msg) if !msg.is_empty() && msg != self.title => write!(f, ": {msg}"),
            _ => Ok(()),
        }
    }
}

fn authority(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An error with its causes: reqwest's own text is only "error sending request".
fn causes(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// GraphQL variables without the null ones: leaving an argument out and passing null may mean two things.
pub(crate) fn given(mut variables: Value) -> Value {
    if let Some(variables) = variables.as_object_mut() {
        variables.retain(|_, value| !value.is_null());
    }
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use url::Url;

    use crate::{
        access::signature::{Authorization, Request, parse_date, verify},
        base::secret::Secret,
        cli::{
            api::{Client, Outcome, Unopened, authority, given},
            operation::Operation,
            scripted::{Answer, Asked, Server, client},
        },
    };

    const COUNTS: Operation<(), Vec<u32>> = Operation::new("query Images { images }", "Images", "images");
    const COUNT: Operation<(), u32> = Operation::new("query X { x }", "X", "x");
    const FORGET: Operation<(), Outcome> = Operation::new("", "ForgetImage", "forget_image");
    const F: Operation<(), Outcome> = Operation::new("", "F", "f");

    fn holds(asked: &Asked, endpoint: &Url, content_type: &str) -> bool {
        let date = asked.header("date").unwrap();
        let authorization = Authorization::parse(asked.header("authorization").unwrap()).unwrap();
        let request = Request {
            method: asked.method(),
            target: asked.target(),
            date,
            host: &authority(endpoint),
            content_type,
            version_header: ("x-backendai-version", asked.header("x-backendai-version").unwrap()),
        };
        assert_eq!(asked.header("host"), Some(authority(endpoint).as_str()));
        let day = parse_date(date).unwrap().day;
        verify(&request, &day, authorization.hash, &Secret::new("secret"), authorization.signature)
    }

    #[tokio::test]
    async fn queries_and_streams_are_signed_as_the_server_checks_them() {
        let server = Server::start(vec![
            Answer::json(200, r#"{"data": {"images": [1, 2]}}"#),
            Answer::json(404, r#"{"type": "x", "title": "y"}"#),
        ])
        .await;
        let client = client(&server);
        let images = client.ask(&COUNTS, ()).await.unwrap();
        assert_eq!(images, [1, 2]);
        let id = "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172".parse().unwrap();
        assert!(matches!(client.events(id, Some("7")).await, Err(Unopened::Unknown)));
        let asked = server.asked();
        assert!(holds(&asked[0], &server.endpoint, "application/json"));
        assert_eq!((asked[0].method(), asked[0].target()), ("POST", "/admin/gql"));
        let body: Value = serde_json::from_str(&asked[0].body).unwrap();
        assert_eq!(body, json!({"query": "query Images { images }\n", "variables": {}}));
        assert!(holds(&asked[1], &server.endpoint, Request::NO_CONTENT_TYPE));
        assert_eq!(asked[1].header("last-event-id"), Some("7"));
        assert_eq!(asked[1].header("content-type"), None);
    }

    #[tokio::test]
    async fn a_refusal_says_the_reason_and_the_remedy() {
        for (answer, expected) in [
            (
                Answer::json(
                    401,
                    r#"{"title": "Credential/signature mismatch.", "msg": "Access key not found"}"#,
                ),
                "Credential/signature mismatch: Access key not found; check WHARF_ACCESS_KEY and WHARF_SECRET_KEY",
            ),
            (
                Answer::json(
                    400,
                    r#"{"title": "Missing or invalid.", "msg": "Date/time sync error", "code": "CLOCK_SKEW"}"#,
                ),
                "Missing or invalid: Date/time sync error; set this machine's clock",
            ),
            (
                Answer::json(502, "<html>bad gateway</html>"),
                "answered HTTP 502; is it a wharf server? name another with --endpoint",
            ),
            (
                Answer::json(200, "hello"),
                "answered HTTP 200 with no GraphQL; is it a wharf server? name another with --endpoint",
            ),
            (Answer::json(301, ""), "redirects to elsewhere; name the final address with --endpoint"),
            (
                Answer::json(
                    200,
                    r#"{"data": null, "errors": [{"message": "no such\u001b[2J"}, {"message": "b"}]}"#,
                ),
                "no such\\u{1b}[2J; b",
            ),
            (
                Answer::json(
                    200,
                    r#"{"data": null, "errors": [{"message": "no", "extensions": {"code": "DENIED"}}]}"#,
                ),
                "no; use a super-admin's key pair",
            ),
            (Answer::json(200, r#"{"data": {"x": "y"}}"#), "unexpected answer in x: "),
        ] {
            let server = Server::start(vec![answer]).await;
            let failure = client(&server).ask(&COUNT, ()).await.unwrap_err().to_string();
            let place = server.endpoint.as_str().trim_end_matches('/');
            assert!(failure.starts_with(&format!("{place}: {expected}")), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_mutation_that_is_not_ok_is_a_failure_of_what_it_was_about() {
        let server = Server::start(vec![
            Answer::json(200, r#"{"data": {"forget_image": {"ok": false, "msg": "no such image.", "code": "NOT_FOUND", "task_id": null}}}"#),
            Answer::json(200, r#"{"data": {"forget_image": {"ok": false, "msg": "no permission to execute f", "code": "DENIED"}}}"#),
            Answer::json(200, r#"{"data": {"forget_image": {"ok": true, "msg": null}}}"#),
        ])
        .await;
        let client = client(&server);
        let failure = client.change("a:1", &FORGET, ()).await.unwrap_err();
        assert_eq!(failure.to_string(), "a:1: no such image; see wharf image list");
        let failure = client.change("a:1", &FORGET, ()).await.unwrap_err();
        assert_eq!(failure.to_string(), "a:1: no permission to execute f; use a super-admin's key pair");
        assert!(client.change("a:1", &FORGET, ()).await.unwrap().ok);
    }

    #[tokio::test]
    async fn a_mistake_in_an_expression_is_shown_where_it_is() {
        let msg = "SYNTAX at 5: a blank needs quotes\\ngpu01 x\\n     ^";
        let answer = format!(r#"{{"data": {{"f": {{"ok": false, "msg": "{msg}", "task_id": null}}}}}}"#);
        let server = Server::start(vec![Answer::json(200, &answer)]).await;
        let failure = client(&server).change("a:1", &F, ()).await.unwrap_err();
        assert_eq!(failure.to_string(), "a:1: SYNTAX at 5: a blank needs quotes\n  gpu01 x\n       ^");
        assert_eq!(super::with_caret("two\nlines"), None);
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_from_what_went_wrong() {
        let missing =
            r#"{"data": null, "errors": [{"message": "no such x", "extensions": {"code": "NOT_FOUND"}}]}"#;
        let wrong =
            r#"{"data": null, "errors": [{"message": "broken", "extensions": {"code": "INTERNAL"}}]}"#;
        let server = Server::start(vec![Answer::json(200, missing), Answer::json(200, wrong)]).await;
        let client = client(&server);
        assert_eq!(client.find("y", &COUNT, ()).await.unwrap(), None);
        let failure = client.find("y", &COUNT, ()).await.unwrap_err();
        assert_eq!(failure.to_string(), "y: broken");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let server = Server::start(vec![]).await;
        let failure = client(&server).ask(&COUNT, ()).await.unwrap_err();
        assert!(failure.may_pass());
        assert!(failure.to_string().contains("start it with wharf serve"), "{failure}");
    }

    #[test]
    fn a_prefix_in_the_endpoint_is_the_proxys() {
        let endpoint: Url = "https://example.org:8443/wharf/".parse().unwrap();
        let client = Client::with_keys(&endpoint, None, "AK".into(), Secret::new("secret")).unwrap();
        let request = client.signed(&reqwest::Method::GET, "/x", "text/plain").build().unwrap();
        assert_eq!(request.url().as_str(), "https://example.org:8443/wharf/x");
        assert_eq!(authority(&endpoint), "example.org:8443");
    }

    #[test]
    fn arguments_that_are_null_are_left_out() {
        assert_eq!(given(json!({"a": null, "b": false})), json!({"b": false}));
    }
}
