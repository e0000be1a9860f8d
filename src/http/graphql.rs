//! GraphQL over HTTP, in two dialects: the specification's (`{data, errors}`, in both of its media types), and the
//! bare data object that the oldest clients read.

use std::time::Duration;

use async_graphql::{Request as Question, Variables};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use crate::base::Error;
use crate::base::walk::Budget;
use crate::graphql::kit::answer::{self, Later};
use crate::graphql::spec::{Api, Outcome};
use crate::http::caller::Proved;
use crate::http::events::Streams;
use crate::http::problem::Problem;
use crate::http::{finish, json};

/// The longest time for one request. After that, changes it has begun continue, and reads end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request: a document with its variables and other members.
#[derive(Deserialize)]
struct Sent {
    query: Option<String>,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<Variables>,
    /// No extension has a meaning here; a value that is no object is refused.
    extensions: Option<Map<String, Value>>,
}

/// `POST /graphql`, `/admin/gql`: answers with `{data, errors}`.
#[handler]
pub(crate) async fn spec(
    request: &Request,
    caller: Proved,
    body: Body,
    api: Data<&Api>,
    streams: Data<&Streams>,
) -> Result<Response, Problem> {
    let sent = in_body(request, body).await?;
    let later = Later::default();
    let outcome = ask(request, sent, caller, &api, &streams.tracker, later.clone(), true).await?;
    Ok(Form::of(request).answer(&outcome, &later))
}

/// `GET /graphql`, `/admin/gql`: answers queries with `{data, errors}`; the request is in the address. A cookie
/// counts under the usual conditions.
#[handler]
pub(crate) async fn look(
    request: &Request,
    caller: Proved,
    api: Data<&Api>,
    streams: Data<&Streams>,
) -> Result<Response, Problem> {
    let sent = in_address(request)?;
    let later = Later::default();
    let outcome = ask(request, sent, caller, &api, &streams.tracker, later.clone(), false).await?;
    Ok(Form::of(request).answer(&outcome, &later))
}

/// `POST /admin/graphql`: answers with the data alone, or with 400 and a problem.
#[handler]
pub(crate) async fn bare(
    request: &Request,
    caller: Proved,
    body: Body,
    api: Data<&Api>,
    streams: Data<&Streams>,
) -> Result<Response, Problem> {
    let sent = in_body(request, body).await?;
    let later = Later::default();
    match ask(request, sent, caller, &api, &streams.tracker, later.clone(), true).await? {
        Outcome::Answered(answer) if answer.is_ok() => {
            Ok(streamed(StatusCode::OK, Form::Json, answer::bare(&answer, &later)))
        }
        Outcome::Answered(answer) => Err(failed(&answer.errors)),
        Outcome::Refused(errors) => Err(failed(&errors)),
        Outcome::MayNotChange => Err(Problem::wrong_method()),
    }
}

fn failed(errors: &[async_graphql::ServerError]) -> Problem {
    Problem::graphql(serde_json::to_value(errors).unwrap_or_default())
}

/// The media types of an answer, with their status codes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `application/json`, which all clients read: always 200.
    Json,
    /// `application/graphql-response+json`: 400 for a refused request.
    GraphQl,
}

impl Form {
    /// Returns the form that the client prefers; JSON if it does not say.
    fn of(request: &Request) -> Self {
        let accept = request.header(header::ACCEPT).unwrap_or_default();
        let weight = |wanted: &str| {
            let mut ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            ranges.find_map(|mut parts| {
                let is_it = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
                let weight =
                    parts.find_map(|part| part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()));
                is_it.then(|| weight.unwrap_or(1.0))
            })
        };
        let first = |a: &str, b: &str| accept.find(a) < accept.find(b);
        let (graphql, json) = (weight(Self::GraphQl.kind()), weight(Self::Json.kind()));
        match (graphql, json) {
            (Some(graphql), None) if graphql > 0.0 => Self::GraphQl,
            (Some(graphql), Some(json)) if graphql > json => Self::GraphQl,
            (Some(graphql), Some(json)) if graphql.total_cmp(&json).is_eq() => {
                if first(Self::GraphQl.kind(), Self::Json.kind()) { Self::GraphQl } else { Self::Json }
            }
            _ => Self::Json,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GraphQl => "application/graphql-response+json",
        }
    }

    fn answer(self, outcome: &Outcome, later: &Later) -> Response {
        match outcome {
            Outcome::Answered(answer) => streamed(StatusCode::OK, self, answer::envelope(answer, later)),
            Outcome::Refused(errors) => {
                let status = if self == Self::Json { StatusCode::OK } else { StatusCode::BAD_REQUEST };
                streamed(status, self, std::iter::once(answer::refusal(errors)))
            }
            Outcome::MayNotChange => {
                let mut response = Problem::wrong_method().response();
                response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
                response
            }
        }
    }
}

fn streamed(
    status: StatusCode,
    form: Form,
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response {
    // Each piece is written while the one before it is sent. Without a pause, a fast reader would get a whole catalog
    // in one go while all other clients wait.
    let in_turn = stream::iter(pieces).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, std::io::Error>(piece)
    });
    let body = Body::from_bytes_stream(in_turn);
    let kind = format!("{}; charset=utf-8", form.kind());
    Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body)
}

fn unreadable(why: &str) -> Problem {
    Problem::bad_request(format!("the body is no GraphQL request: {why}"))
}

async fn in_body(request: &Request, body: Body) -> Result<Sent, Problem> {
    let bytes = json::read(request, body).await?;
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Problem::bad_request("batches of operations are not taken; send them one by one"));
    }
    let value = json::shallow(&bytes).map_err(|why| unreadable(&why))?;
    Sent::deserialize(value).map_err(|why| unreadable(&why.to_string()))
}

/// Reads the request from the address, whose length the limit on heads bounds.
fn in_address(request: &Request) -> Result<Sent, Problem> {
    let wrong =
        |name: &str, why: &str| Problem::bad_request(format!("{name} in the address is no object: {why}"));
    let mut sent = Sent { query: None, operation_name: None, variables: None, extensions: None };
    let query = request.original_uri().query().unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "query" => sent.query = Some(value.into_owned()),
            "operationName" => sent.operation_name = Some(value.into_owned()).filter(|name| !name.is_empty()),
            "variables" | "extensions" => {
                let object = json::shallow(value.as_bytes()).map_err(|why| wrong(&name, &why))?;
                let wrong = |why: serde_json::Error| wrong(&name, &why.to_string());
                if name == "variables" {
                    sent.variables = Option::deserialize(object).map_err(wrong)?;
                } else {
                    sent.extensions = Option::deserialize(object).map_err(wrong)?;
                }
            }
            _ => {}
        }
    }
    Ok(sent)
}

async fn ask(
    request: &Request,
    sent: Sent,
    caller: Proved,
    api: &Api,
    tracker: &TaskTracker,
    later: Later,
    may_change: bool,
) -> Result<Outcome, Problem> {
    let query =
        sent.query.filter(|query| !query.trim().is_empty()).ok_or_else(|| unreadable("query is missing"))?;
    let ended = finish::abandoned(request).child_token();
    let _until_this_is_dropped = ended.clone().drop_guard();
    let mut question = Question::new(query).variables(sent.variables.unwrap_or_default());
    question.operation_name = sent.operation_name;
    let question = question.data(caller.0).data(later).data(Budget::new(ended));
    let api = api.clone();
    let answer = tracker.spawn(async move { api.ask(question, may_change).await });
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => Ok(answer.map_err(Error::internal)?),
        Err(_) => Err(Problem::unavailable(format!(
            "the request took more than {} s; what it changes may still be under way",
            TIMEOUT.as_secs()
        ))),
    }
}
