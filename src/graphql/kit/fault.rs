//! The error that a client sees when something goes wrong.
//!
//! async-graphql turns any error behind a `?` into text for the client. [`Fault`] has no `Display`, so one of our
//! errors can reach the client only through the conversion here, which keeps internal causes in the log.

use async_graphql::ErrorExtensions as _;

use crate::base::Error;
use crate::base::error::Code;

/// An error on its way to a client.
#[derive(Clone)]
pub(crate) struct Fault {
    message: String,
    code: Code,
}

/// A resolver's result.
pub(crate) type FieldResult<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Internal(cause) = &error {
            tracing::error!(?cause, "a request failed inside");
        }
        Self { message: error.to_string(), code: error.code() }
    }
}

impl Fault {
    /// Returns what kind of failure it is.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Returns the text for `msg` of a mutation that answers `ok: false`.
    pub(crate) fn message(self) -> String {
        self.message
    }
}

impl From<Fault> for async_graphql::Error {
    fn from(fault: Fault) -> Self {
        Self::new(fault.message).extend_with(|_, extensions| extensions.set("code", fault.code.as_str()))
    }
}
