//! JSON in and out, for every route that takes or gives some.

use std::fmt::Display;

use bytes::Bytes;
use poem::http::{StatusCode, header};
use poem::{Body, FromRequest, Request, RequestBody, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http::browser;
use crate::http::problem::Problem;

/// Largest request body. The official clients' largest is 2 kB.
const MAX_BODY: usize = 256 * 1024;

/// How deep a body may nest. What is read into types of ours takes much of the stack for each level, more than
/// `serde_json` thinks of when it stops at 128; a filter within filters within filters needs 8.
const MAX_DEPTH: usize = 24;

/// The body of a request, read as JSON. What is wrong with it is said.
pub(crate) struct Sent<T>(pub T);

impl<'a, T: DeserializeOwned> FromRequest<'a> for Sent<T> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let bytes = read(request, body.take()?).await?;
        let wrong = |why: &dyn Display| Problem::bad_parameter(format!("the body can't be taken: {why}"));
        let value = shallow(&bytes).map_err(|why| wrong(&why))?;
        Ok(Self(T::deserialize(value).map_err(|why| wrong(&why))?))
    }
}

/// JSON that nests no deeper than what walks it can follow.
///
/// # Errors
/// Why it is none.
pub(crate) fn shallow(bytes: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    if depth(&value) > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
    }
    Ok(value)
}

/// How deep lists and objects lie in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The bytes of a body that says it is JSON.
pub(crate) async fn read(request: &Request, body: Body) -> Result<Vec<u8>, Problem> {
    // A browser sends other types across sites without asking first.
    if !browser::is_json(request) {
        return Err(Problem::wrong_type());
    }
    Ok(whole(body).await?.into())
}

/// The bytes of a body, no larger than any route takes.
pub(crate) async fn whole(body: Body) -> Result<Bytes, Problem> {
    body.into_bytes_limit(MAX_BODY).await.map_err(|error| Problem::unread(&error, MAX_BODY))
}

/// The answer that holds this.
pub(crate) fn answer(value: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_string(value).map_err(|_| Problem::internal())?;
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_string(text)))
}
