//! What can go wrong between us and a registry, in classes that a ledger can count.

use std::fmt;

use crate::registry::pace::Pause;

/// A failed request: which registry, which request, and why. It prints as one line and carries neither credentials
/// nor text from a response body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    /// The catalog's name of the registry.
    pub(crate) host: String,
    /// The request, for instance `manifest of lab/python:3.9`.
    pub(crate) doing: String,
    /// The class, and what belongs to it.
    pub(crate) reason: Reason,
}

/// The classes of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No connection, or a broken one: the cause in the words of the operating system or the HTTP library.
    Unreachable(String),
    /// It took too long; says which deadline passed.
    Timeout(&'static str),
    /// The TLS handshake failed for a reason that trying again won't cure.
    Tls(String),
    /// Our credentials were not accepted, or no account may do this (Docker Hub also says so of repositories that
    /// don't exist).
    Unauthorized(&'static str),
    /// The credentials were accepted, but they don't allow this.
    Forbidden,
    /// No such repository, tag or blob.
    NotFound,
    /// The registry asked for a pause longer than a request should wait; nothing is sent before `until`.
    RateLimited {
        /// When to ask again, at most 15 minutes after the registry said it.
        until: Pause,
    },
    /// A host or address that must not be contacted on this registry's behalf. Nothing was sent to it.
    Blocked {
        /// The host as the registry named it.
        host: String,
        /// The rule it breaks, and the remedy.
        why: &'static str,
    },
    /// More bytes, pages or names than an honest registry needs.
    TooLarge {
        /// The limit that was passed, in units of `what`.
        limit: u64,
        /// The unit: `bytes`, `pages`, `names`.
        what: &'static str,
    },
    /// An answer that breaks the protocol.
    Invalid(String),
    /// A status that no other class covers.
    Status {
        /// The HTTP status.
        status: u16,
        /// The OCI error code of the body, when it is one of those the specification lists.
        code: Option<&'static str>,
    },
    /// Our own settings for this registry can't be used.
    Misconfigured(String),
}

impl Error {
    /// An error about this registry.
    pub(crate) fn new(host: &str, doing: &str, reason: Reason) -> Self {
        Self { host: host.into(), doing: doing.into(), reason }
    }

    /// Whether the same request may succeed later without any change of settings.
    pub(crate) fn is_transient(&self) -> bool {
        match &self.reason {
            Reason::Unreachable(_) | Reason::Timeout(_) | Reason::RateLimited { .. } => true,
            Reason::Status { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }
}

/// Whether this is a status that servers and proxies send in passing trouble.
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.host, self.doing, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Timeout(which) => write!(f, "timed out: {which}"),
            Self::Tls(why) => write!(f, "TLS refused: {why}"),
            Self::Unauthorized(why) => write!(f, "unauthorized (401): {why}"),
            Self::Forbidden => f.write_str("forbidden (403)"),
            Self::NotFound => f.write_str("not found (404)"),
            Self::RateLimited { until } => {
                write!(f, "rate limited (429) until {}", httpdate::fmt_http_date(until.until))
            }
            Self::Blocked { host, why } => write!(f, "blocked host {host}: {why}"),
            Self::TooLarge { limit, what } => write!(f, "too large: more than {limit} {what}"),
            Self::Invalid(why) => write!(f, "invalid response: {why}"),
            Self::Status { status, code: Some(code) } => write!(f, "server answered {status} ({code})"),
            Self::Status { status, code: None } => write!(f, "server answered {status}"),
            Self::Misconfigured(why) => write!(f, "misconfigured: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// Makes foreign text fit for one line of a log or ledger: at most 80 characters, nothing invisible, nothing that
/// moves the cursor.
pub(crate) fn visible(text: &str) -> String {
    let start: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    crate::base::reference::shown(&start)
}
