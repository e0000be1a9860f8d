//! The one error the services speak, and the code that a program can tell it by. Only `http` and `graphql` know which
//! status or payload it becomes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure something is, in a word that stays the same whatever the message says. The API has it as the
/// enum `ErrorCode`: in `code` of a mutation's payload, and in `extensions.code` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    /// Of [`Error::Unauthenticated`].
    Unauthenticated,
    /// Of a request whose date is too far from the server's time.
    ClockSkew,
    /// Of [`Error::Denied`].
    Denied,
    /// Of [`Error::Missing`].
    NotFound,
    /// Of [`Error::Ambiguous`].
    Ambiguous,
    /// Of [`Error::Exists`].
    AlreadyExists,
    /// Of [`Error::Conflict`].
    Conflict,
    /// Of [`Error::LimitReached`].
    LimitReached,
    /// Of [`Error::Invalid`], and of a document that the GraphQL specification refuses.
    Invalid,
    /// Of a removal that is too large to be made unasked.
    ConfirmationRequired,
    /// Of [`Error::Busy`].
    Busy,
    /// Of [`Error::Unreachable`].
    Unreachable,
    /// Of [`Error::Unavailable`].
    Unavailable,
    /// Of [`Error::Internal`].
    Internal,
}

impl Code {
    /// The word.
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

/// What went wrong, said once, in words the caller may see (except [`Error::Internal`]).
#[derive(Debug)]
pub enum Error {
    /// Nobody has proved who is asking.
    Unauthenticated,
    /// The caller may not do this; holds what was asked for.
    Denied(String),
    /// No such thing, or none the caller may know of.
    Missing {
        /// The kind of thing, as a user would call it (`image`, `registry`).
        kind: &'static str,
        /// What it was called by.
        id: String,
    },
    /// The name stands for several things; holds which.
    Ambiguous(String),
    /// There is one of that name already.
    Exists(String),
    /// The state of the thing does not allow it.
    Conflict(String),
    /// There are as many as we take.
    LimitReached(String),
    /// A value that can't be taken.
    Invalid {
        /// The argument or field.
        field: &'static str,
        /// The reason, and the remedy where there is one.
        why: String,
    },
    /// Too much at once; trying later may work.
    Busy(String),
    /// A registry or an engine does not answer as it should.
    Unreachable(String),
    /// We can't do it now: the disk is full or broken, or nobody waits for the answer any more.
    Unavailable(String),
    /// A fault of ours. It is logged with its causes and never shown to a caller.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// A result with [`Error`].
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What kind of failure it is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied(_) => Code::Denied,
            Self::Missing { .. } => Code::NotFound,
            Self::Ambiguous(_) => Code::Ambiguous,
            Self::Exists(_) => Code::AlreadyExists,
            Self::Conflict(_) => Code::Conflict,
            Self::LimitReached(_) => Code::LimitReached,
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

/// What is behind an error, if a cause of this type is. An [`std::io::Error`] hides what it wraps from `source()`, so it
/// is opened by hand.
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
