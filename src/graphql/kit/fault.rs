//! What a client is told when something goes wrong.
//!
//! async-graphql turns any error behind a `?` into text for the client. [`Fault`] has no `Display`, so the only way
//! from one of ours to the client is the conversion here, which keeps internal causes in the log.

use async_graphql::ErrorExtensions as _;

use crate::base::Error;

/// An error on its way to a client.
pub struct Fault(Error);

/// A resolver's result.
pub type Answer<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Internal(cause) = &error {
            tracing::error!(cause = ?cause, "a request failed inside");
        }
        Self(error)
    }
}

impl Fault {
    /// The text for `msg` of a mutation that answers `ok: false`.
    pub fn message(&self) -> String {
        self.0.to_string()
    }

    fn code(&self) -> &'static str {
        match self.0 {
            Error::Unauthenticated => "unauthenticated",
            Error::Denied(_) => "denied",
            Error::Missing { .. } => "not-found",
            Error::Conflict(_) => "conflict",
            Error::Invalid { .. } => "invalid",
            Error::Busy(_) => "busy",
            Error::Unavailable(_) => "unavailable",
            Error::Internal(_) => "internal",
        }
    }
}

impl From<Fault> for async_graphql::Error {
    fn from(fault: Fault) -> Self {
        Self::new(fault.message()).extend_with(|_, extensions| extensions.set("code", fault.code()))
    }
}
