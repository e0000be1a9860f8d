//! What can go wrong between us and a registry, in classes a ledger can count.

use std::fmt;

use crate::registry::pace::Pause;

/// A failed request: with whom, doing what, and why. It prints as one line and carries neither credentials nor text
/// from a response body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    /// The catalog's name of the registry.
    pub(crate) host: String,
    /// What was being done, for instance `manifest of lab/python:3.9`.
    pub(crate) doing: String,
    /// The class, and what belongs to it.
    pub(crate) reason: Reason,
}

/// The classes of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No connection, or it broke: the cause as the operating system or the HTTP library words it.
    Unreachable(String),
    /// It took too long; holds which deadline passed.
    Timeout(&'static str),
    /// The TLS handshake failed for a reason that trying again won't cure.
    Tls(String),
    /// Who we are was not accepted, or nobody may do this (Docker Hub also says so of repositories that don't exist).
    Unauthorized(&'static str),
    /// Known, but not allowed.
    Forbidden,
    /// No such repository, tag or blob.
    NotFound,
    /// Asked to slow down for longer than a request should wait; nothing is sent before `until`.
    RateLimited {
        /// When to come back, at most 15 minutes from when it was said.
        until: Pause,
    },
    /// A host or address that must not be spoken to on this registry's behalf. Nothing was sent to it.
    Blocked {
        /// The host as the registry named it.
        host: String,
        /// The rule it breaks, and the remedy.
        why: &'static str,
    },
    /// More bytes, pages or names than anyone honest needs.
    TooLarge {
        /// The limit that was passed, in units of `what`.
        limit: u64,
        /// The unit: `bytes`, `pages`, `names`.
        what: &'static str,
    },
    /// An answer that breaks the protocol.
    Invalid(String),
    /// A status nothing else covers.
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

    /// Whether the same request may succeed later without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match &self.reason {
            Reason::Unreachable(_) | Reason::Timeout(_) | Reason::RateLimited { .. } => true,
            Reason::Status { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }
}

/// Statuses of servers and proxies in passing trouble.
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

/// Foreign text made fit for one line of a log or ledger: at most 80 characters, nothing invisible, nothing that moves
/// the cursor.
pub(crate) fn visible(text: &str) -> String {
    let start: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    crate::base::reference::shown(&start)
}
