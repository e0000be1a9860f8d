//! The error type of all services, and the code by which a program recognizes an error. Only `http` and `graphql` know
//! the status or payload that it becomes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a failure, as a word that stays the same whatever the message says. In the API it is the enum
/// `ErrorCode`: in `code` of a mutation's payload, and in `extensions.code` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    /// The code of [`Error::Unauthenticated`].
    Unauthenticated,
    /// The code for a request whose date is too far from the server's time.
    ClockSkew,
    /// The code of [`Error::Denied`].
    Denied,
    /// The code of [`Error::Missing`].
    NotFound,
    /// The code of [`Error::Ambiguous`].
    Ambiguous,
    /// The code of [`Error::Exists`].
    AlreadyExists,
    /// The code of [`Error::Conflict`].
    Conflict,
    /// The code of [`Error::LimitReached`].
    LimitReached,
    /// The code of [`Error::Invalid`], and for a document that the GraphQL specification refuses.
    Invalid,
    /// The code for a removal so large that the caller must confirm it.
    ConfirmationRequired,
    /// The code of [`Error::Busy`].
    Busy,
    /// The code of [`Error::Unreachable`].
    Unreachable,
    /// The code of [`Error::Unavailable`].
    Unavailable,
    /// The code of [`Error::Internal`].
    Internal,
}

impl Code {
    /// The code as the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::ClockSkew => "CLOCK_SKEW",
            Self::Denied => "DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::Ambiguous => "AMBIGUOUS",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Conflict => "CONFLICT",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Invalid => "INVALID",
            Self::ConfirmationRequired => "CONFIRMATION_REQUIRED",
            Self::Busy => "BUSY",
            Self::Unreachable => "UNREACHABLE",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An error, worded once, in words that the caller may see (except [`Error::Internal`]).
#[derive(Debug)]
pub enum Error {
    /// The request does not prove who sent it.
    Unauthenticated,
    /// The caller may not do this; holds what the request was for.
    Denied(String),
    /// There is no such thing, or none that the caller may know of.
    Missing {
        /// The kind of thing, as a user would call it (`image`, `registry`).
        kind: &'static str,
        /// The name that the caller used for it.
        id: String,
    },
    /// The name stands for several things; holds which.
    Ambiguous(String),
    /// There is a thing of that name already.
    Exists(String),
    /// The state of the thing does not allow this.
    Conflict(String),
    /// The server takes no more things of this kind.
    LimitReached(String),
    /// It would remove so much that the caller must confirm it.
    Unconfirmed(String),
    /// A value is not acceptable.
    Invalid {
        /// The argument or field.
        field: &'static str,
        /// The reason, and the remedy where there is one.
        why: String,
    },
    /// There is too much work at once; trying later may help.
    Busy(String),
    /// A registry or an engine does not answer as it should.
    Unreachable(String),
    /// The server can't do it now: the disk is full or broken, or the client no longer waits for the answer.
    Unavailable(String),
    /// A fault of the server itself. It is logged with its causes and never shown to a caller.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// A result whose error is [`Error`].
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind of failure this is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied(_) => Code::Denied,
            Self::Missing { .. } => Code::NotFound,
            Self::Ambiguous(_) => Code::Ambiguous,
            Self::Exists(_) => Code::AlreadyExists,
            Self::Conflict(_) => Code::Conflict,
            Self::LimitReached(_) => Code::LimitReached,
            Self::Unconfirmed(_) => Code::ConfirmationRequired,
            Self::Invalid { .. } => Code::Invalid,
            Self::Busy(_) => Code::Busy,
            Self::Unreachable(_) => Code::Unreachable,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// [`Error::Missing`] for a thing of this kind.
    pub(crate) fn missing(kind: &'static str, id: impl Into<String>) -> Self {
        Self::Missing { kind, id: id.into() }
    }

    /// [`Error::Invalid`] for this field.
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    /// [`Error::Internal`] around any cause.
    pub(crate) fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}

/// The cause of this type behind an error, if there is one. An [`std::io::Error`] hides the error that it wraps from
/// `source()`, so it is unwrapped by hand.
pub(crate) fn find_cause<T: std::error::Error + 'static>(error: &dyn std::error::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated => f.write_str("Unauthorized access"),
            Self::Denied(what) => write!(f, "no permission to execute {what}"),
            Self::Missing { kind, id } => write!(f, "no such {kind}: {id}"),
            Self::Ambiguous(why)
            | Self::Exists(why)
            | Self::Conflict(why)
            | Self::LimitReached(why)
            | Self::Unconfirmed(why)
            | Self::Busy(why)
            | Self::Unreachable(why)
            | Self::Unavailable(why) => f.write_str(why),
            Self::Invalid { field, why } => write!(f, "{field}: {why}"),
            Self::Internal(_) => f.write_str("internal error; the server's log has the cause"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Internal(cause) => Some(cause.as_ref()),
            _ => None,
        }
    }
}
