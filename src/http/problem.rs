//! Failures as RFC 7807 JSON, with the types, titles and `msg` that Backend.AI's clients know.

use std::io;
use std::time::Duration;

use poem::error::{ReadBodyError, ResponseError};
use poem::http::{StatusCode, header};
use poem::{Body, Response};
use serde::Serialize;
use serde_json::Value;

use crate::access::signature::Malformed;
use crate::base::Error;
use crate::base::error::Code;
use crate::http::refusals::{self, Reason};

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{slug}: {}", msg.as_deref().unwrap_or(title))]
pub(crate) struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    msg: Option<String>,
    data: Option<Value>,
    code: Code,
    retry_after: Option<Duration>,
}

/// The body of the response.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    /// Our own member: what kind of failure it is, in the words of the API's `ErrorCode`.
    code: Code,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        let code = match status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::Denied,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Code::Busy,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
            _ => Code::Invalid,
        };
        Self { status, slug, title, msg: None, data: None, code, retry_after: None }
    }

    fn saying(self, msg: impl Into<String>) -> Self {
        Self { msg: Some(msg.into()), ..self }
    }

    /// Replaces the code that goes with the status.
    #[must_use]
    pub(crate) fn coded(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// 401: the signature is missing or wrong.
    pub(crate) fn unauthorized(msg: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "auth-failed", "Credential/signature mismatch.").saying(msg)
    }

    /// 400: the signature can't be parsed.
    pub(crate) fn malformed(why: Malformed) -> Self {
        let title = "Missing or invalid authorization parameters.";
        Self::new(StatusCode::BAD_REQUEST, "invalid-auth-params", title).saying(why.to_string())
    }

    /// 400: the request's date is too far from ours.
    pub(crate) fn out_of_time() -> Self {
        let title = "Missing or invalid authorization parameters.";
        Self::new(StatusCode::BAD_REQUEST, "invalid-auth-params", title)
            .saying("Date/time sync error")
            .coded(Code::ClockSkew)
    }

    /// 400: the request is wrong in some other way.
    pub(crate) fn bad_request(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "generic-bad-request", "Bad request.").saying(msg)
    }

    /// 400: a parameter is wrong.
    pub(crate) fn bad_parameter(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-api-params", "Missing or invalid API parameters.")
            .saying(msg)
    }

    /// 400: GraphQL errors, for clients that otherwise want the bare data.
    pub(crate) fn graphql(errors: Value) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, "graphql-error", "GraphQL-generated error.");
        let first =
            errors.get(0).and_then(|error| error.get("message")).and_then(Value::as_str).map(str::to_owned);
        Self { data: Some(errors), msg: first, ..problem }
    }

    /// 403: the caller may not do this.
    pub(crate) fn forbidden(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "generic-forbidden", "Forbidden operation.").saying(msg)
    }

    /// 404: the path does not exist.
    pub(crate) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "generic-not-found", "Unknown URL path.")
    }

    /// 404: the thing does not exist.
    pub(crate) fn not_found(title: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "generic-not-found", title)
    }

    /// 405: the path does not support the method.
    pub(crate) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "HTTP Method Not Allowed.")
    }

    /// Returns the problem for a body that could not be read whole; at most `limit` bytes are allowed.
    pub(crate) fn unread(error: &ReadBodyError, limit: usize) -> Self {
        match error {
            ReadBodyError::PayloadTooLarge => Self::too_large(limit),
            ReadBodyError::Io(why) if is_late(why) => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The request took too long to come.",
            )
            .saying("the body stopped on its way; send the request again"),
            _ => Self::bad_request("the body ended early"),
        }
    }

    /// 413: the body has more than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "content-too-large", "The request is too large.")
            .saying(format!("the body may have {limit} bytes at most"))
    }

    /// 415: the body's type is not supported.
    pub(crate) fn wrong_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported content type.")
            .saying("send application/json")
    }

    /// 421: the request is for another host.
    pub(crate) fn misdirected(msg: impl Into<String>) -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected-request",
            "This is not the host you look for.",
        )
        .saying(msg)
    }

    /// 426: the path is no page; it needs another protocol.
    pub(crate) fn upgrade_required(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", "Upgrade required.").saying(msg)
    }

    /// 429: too many wrong passwords.
    pub(crate) fn too_many_attempts(wait: Duration) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many attempts to sign in have failed.",
        );
        problem.saying(format!("the next may be made in {} s", seconds(wait))).after(wait)
    }

    /// 429: too many requests with one credential.
    pub(crate) fn over_rate_limit(wait: Duration) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limit-exceeded",
            "You have reached your API query rate limit.",
        );
        problem.saying(format!("the next request may be made in {} s", seconds(wait))).after(wait)
    }

    fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// 500: an internal error, whose cause is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-server-error", "Internal server error.")
    }

    /// 503: the server can't do it now.
    pub(crate) fn unavailable(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service-unavailable", "Service unavailable.").saying(msg)
    }

    /// Returns the response.
    pub(crate) fn response(&self) -> Response {
        let body = Said {
            kind: format!("https://api.backend.ai/probs/{}", self.slug),
            title: self.title,
            msg: self.msg.as_deref(),
            data: self.data.as_ref(),
            code: self.code,
        };
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, "application/problem+json; charset=utf-8");
        if refusals::is_refusal(self.status, self.slug) {
            response = response.extension(Reason(self.msg.as_deref().unwrap_or(self.title).into()));
        }
        if let Some(wait) = self.retry_after {
            response = response.header(header::RETRY_AFTER, seconds(wait));
        }
        response.body(Body::from_string(serde_json::to_string(&body).unwrap_or_default()))
    }
}

/// Whether time was up, in whichever layer the error arose.
fn is_late(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::TimedOut || inner.is_some_and(is_late)
}

/// Returns whole seconds, rounded up, so that a client that waits does not come back too early.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn as_response(&self) -> Response {
        self.response()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = error.code();
        let problem = match error {
            Error::Unauthenticated => Self::unauthorized("Unauthorized access"),
            Error::Denied(_) => Self::forbidden(error.to_string()),
            Error::Missing { .. } => Self::not_found("Not found.").saying(error.to_string()),
            Error::Ambiguous(_)
            | Error::Exists(_)
            | Error::Conflict(_)
            | Error::LimitReached(_)
            | Error::Unconfirmed(_)
            | Error::Invalid { .. } => Self::bad_parameter(error.to_string()),
            Error::Busy(_) | Error::Unreachable(_) | Error::Unavailable(_) => {
                Self::unavailable(error.to_string())
            }
            Error::Internal(cause) => {
                tracing::error!(?cause, "a request failed inside");
                Self::internal()
            }
        };
        problem.coded(code)
    }
}

/// Returns poem's own errors (no such route, wrong method, a panic) as problems.
pub(crate) fn of(error: &poem::Error) -> Response {
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return problem.response();
    }
    match error.status() {
        StatusCode::NOT_FOUND => Problem::unknown_path().response(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::wrong_method().response(),
        status if status.is_client_error() => Problem::bad_request(error.to_string()).response(),
        _ => {
            tracing::error!(%error, "a request failed inside");
            Problem::internal().response()
        }
    }
}
