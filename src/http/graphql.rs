//! GraphQL over HTTP, in two dialects: the specification's `{data, errors}`, and the bare data object that the oldest
//! clients index.

use std::time::Duration;

use async_graphql::{Request as Operation, Response as Answer};
use bytes::Bytes;
use futures_util::stream;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use tokio_util::task::TaskTracker;

use crate::base::Error;
use crate::graphql::kit::answer::{self, Later};
use crate::graphql::schema::Schema;
use crate::http::caller::Proved;
use crate::http::events::Streams;
use crate::http::json;
use crate::http::problem::Problem;

/// Longest time one request may take; what it has started goes on.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `POST /graphql`, `/admin/gql`: `{data, errors}`.
#[handler]
pub async fn spec(
    request: &Request,
    body: Body,
    caller: Proved,
    schema: Data<&Schema>,
    streams: Data<&Streams>,
) -> Result<Response, Problem> {
    let later = Later::default();
    let answer = execute(request, body, caller, schema.0, &streams.tracker, later.clone()).await?;
    Ok(streamed(answer::envelope(&answer, &later)))
}

/// `POST /admin/graphql`: the data alone, or 400 and a problem.
#[handler]
pub async fn bare(
    request: &Request,
    body: Body,
    caller: Proved,
    schema: Data<&Schema>,
    streams: Data<&Streams>,
) -> Result<Response, Problem> {
    let later = Later::default();
    let answer = execute(request, body, caller, schema.0, &streams.tracker, later.clone()).await?;
    if answer.is_ok() {
        return Ok(streamed(answer::bare(&answer, &later)));
    }
    Err(Problem::graphql(serde_json::to_value(&answer.errors).unwrap_or_default()))
}

fn streamed(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_bytes_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, "application/json").body(body)
}

async fn execute(
    request: &Request,
    body: Body,
    caller: Proved,
    schema: &Schema,
    tracker: &TaskTracker,
    later: Later,
) -> Result<Answer, Problem> {
    let bytes = json::read(request, body).await?;
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Problem::bad_request("batches of operations are not taken; send them one by one"));
    }
    let operation: Operation = serde_json::from_slice(&bytes)
        .map_err(|why| Problem::bad_request(format!("the body is no GraphQL request: {why}")))?;
    if operation.query.trim().is_empty() {
        return Err(Problem::bad_request("the body is no GraphQL request: query is missing"));
    }
    let (schema, operation) = (schema.clone(), operation.data(caller.0).data(later));
    let answer = tracker.spawn(async move { schema.execute(operation).await });
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => Ok(answer.map_err(Error::internal)?),
        Err(_) => Err(Problem::unavailable(format!(
            "the request took more than {} s; what it changes may still be under way",
            TIMEOUT.as_secs()
        ))),
    }
}
