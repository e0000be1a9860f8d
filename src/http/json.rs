//! JSON in requests and responses, for every route that uses it.

use std::fmt::Display;

use bytes::Bytes;
use poem::http::{StatusCode, header};
use poem::{Body, FromRequest, Request, RequestBody, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http::browser;
use crate::http::problem::Problem;

/// The largest request body. The official clients' largest is 2 kB.
const MAX_BODY: usize = 256 * 1024;

/// The deepest nesting of a body. Parsing into our types takes much of the stack for each level, more than
/// `serde_json` assumes when it stops at 128; a filter within filters within filters needs 8.
const MAX_DEPTH: usize = 24;

/// The body of a request, parsed as JSON. Errors say what is wrong with it.
pub(crate) struct Sent<T>(pub T);

impl<'a, T: DeserializeOwned> FromRequest<'a> for Sent<T> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let bytes = read(request, body.take()?).await?;
        let wrong = |why: &dyn Display| Problem::bad_parameter(format!("the body can't be taken: {why}"));
        let value = shallow(&bytes).map_err(|why| wrong(&why))?;
        Ok(Self(T::deserialize(value).map_err(|why| wrong(&why))?))
    }
}

/// Parses JSON, and refuses nesting that is too deep for the code that walks it.
///
/// # Errors
/// The reason why the bytes are refused.
pub(crate) fn shallow(bytes: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    if depth(&value) > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
    }
    Ok(value)
}

/// Returns how deep lists and objects nest.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Returns the bytes of a body whose content type is JSON.
pub(crate) async fn read(request: &Request, body: Body) -> Result<Vec<u8>, Problem> {
    // A browser sends other types to other sites without asking first.
    if !browser::is_json(request) {
        return Err(Problem::wrong_type());
    }
    Ok(whole(body).await?.into())
}

/// Returns the bytes of a body, up to the largest size that any route accepts.
pub(crate) async fn whole(body: Body) -> Result<Bytes, Problem> {
    body.into_bytes_limit(MAX_BODY).await.map_err(|error| Problem::unread(&error, MAX_BODY))
}

/// Returns the response that holds this value.
pub(crate) fn answer(value: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_string(value).map_err(|_| Problem::internal())?;
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_string(text)))
}
