//! The one error the services speak. Only `http` and `graphql` know which status or code it becomes.

use std::fmt;

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
    /// It clashes with what is there.
    Conflict(String),
    /// A value that can't be taken.
    Invalid {
        /// The argument or field.
        field: &'static str,
        /// The reason, and the remedy where there is one.
        why: String,
    },
    /// Too much at once; trying later may work.
    Busy(String),
    /// Something outside does not answer.
    Unavailable(String),
    /// A fault of ours. It is logged with its causes and never shown to a caller.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// [`Error::Missing`] for a thing of this kind.
    pub fn missing(kind: &'static str, id: impl Into<String>) -> Self {
        Self::Missing { kind, id: id.into() }
    }

    /// [`Error::Invalid`] for this field.
    pub fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    /// [`Error::Internal`] around any cause.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated => f.write_str("Unauthorized access"),
            Self::Denied(what) => write!(f, "no permission to execute {what}"),
            Self::Missing { kind, id } => write!(f, "no such {kind}: {id}"),
            Self::Conflict(why) | Self::Busy(why) | Self::Unavailable(why) => f.write_str(why),
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
