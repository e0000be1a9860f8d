//! Failures of the communication with Docker Engine, as faults.

use bollard::errors::Error;

use crate::engine::fault::{Class, Fault};

/// A fault for a failed request: in the engine's own words if it answered, else in ours.
pub(crate) fn failed(error: &Error) -> Fault {
    match error {
        Error::DockerResponseServerError { status_code, message } => refused(*status_code, message),
        Error::JsonDataError { message, .. } => unreadable(message),
        Error::JsonSerdeError { err } => unreadable(&err.to_string()),
        other => broken(other),
    }
}

/// A fault for an answer whose status is no success.
pub(crate) fn refused(status: u16, message: &str) -> Fault {
    if message.is_empty() {
        return Fault::new(Class::Other, format!("the engine answered {status} and gave no reason"));
    }
    Fault::told(message)
}

fn unreadable(why: &str) -> Fault {
    Fault::new(Class::Other, format!("the engine's answer can't be read: {why}"))
}

/// A fault for a connection that can't be made, or broke.
pub(crate) fn broken(error: &Error) -> Fault {
    match error {
        // It prints as its inner error, but does not name that as its cause.
        Error::IOError { err } => Fault::broken(err),
        other => Fault::broken(other),
    }
}
