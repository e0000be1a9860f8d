//! Failures of talking to Docker Engine, as faults.

use std::error::Error as _;
use std::io;

use bollard::errors::Error;

use crate::engine::fault::{Class, Fault};

/// A failed request: the engine's own words if it answered, ours if it didn't.
pub(crate) fn failed(error: &Error) -> Fault {
    match error {
        Error::DockerResponseServerError { status_code, message } => refused(*status_code, message),
        Error::JsonDataError { message, .. } => unreadable(message),
        Error::JsonSerdeError { err } => unreadable(&err.to_string()),
        other => broken(other),
    }
}

/// An answer with a status that is no success.
pub(crate) fn refused(status: u16, message: &str) -> Fault {
    if message.is_empty() {
        return Fault::new(Class::Other, format!("the engine answered {status} and gave no reason"));
    }
    Fault::told(message)
}

fn unreadable(why: &str) -> Fault {
    Fault::new(Class::Other, format!("the engine's answer can't be read: {why}"))
}

/// A connection that can't be made, or broke.
pub(crate) fn broken(error: &Error) -> Fault {
    let mut text = error.to_string();
    let mut cause = error.source();
    let mut system = match error {
        Error::IOError { err } => Some(err.kind()),
        _ => None,
    };
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            system = Some(error.kind());
        }
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    match system {
        Some(io::ErrorKind::FileTooLarge) => Fault::new(Class::Other, text),
        Some(io::ErrorKind::PermissionDenied) => Fault::new(
            Class::EngineGone,
            format!(
                "{text}; the user wharf runs as must be allowed to use the engine's socket (group docker)"
            ),
        ),
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Fault::new(Class::EngineGone, format!("{text}; is the engine running there?"))
        }
        _ => Fault::new(Class::EngineGone, text),
    }
}

/// The engine let a deadline pass.
pub(crate) fn silent(doing: &str, limit: std::time::Duration) -> Fault {
    Fault::new(Class::EngineGone, format!("the engine did not answer within {limit:?}: {doing}"))
}
