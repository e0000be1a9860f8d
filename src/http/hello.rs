//! The requests that the official clients send before anything else, signed or not.

use poem::http::{StatusCode, header};
use poem::{Body, Request, Response, handler};
use serde_json::{Value, json};

/// The newest API version we speak; a client uses the lower of this and its own version.
const NEWEST: &str = "v9.20250722";

/// The version of each generation of clients, by the year and month of its release. A client that is told a higher
/// version than its own warns at every command.
const BY_CLIENT: [(&str, &str); 7] = [
    ("20.", "v5.20191215"),
    ("21.", "v6.20210815"),
    ("22.", "v6.20220315"),
    ("23.", "v7.20230615"),
    ("24.", "v8.20240915"),
    ("25.", NEWEST),
    ("26.", NEWEST),
];

/// `GET /` for programs: the version.
pub(crate) fn version(request: &Request) -> Response {
    json_response(&json!({
        "version": version_for(request.header(header::USER_AGENT).unwrap_or_default()),
        "manager": env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET /manager/status`.
#[handler]
pub(crate) fn status() -> Response {
    json_response(&json!({
        "status": "running",
        "active_sessions": 0,
        "manager": { "version": env!("CARGO_PKG_VERSION"), "status": "running" },
    }))
}

/// `GET /manager/announcement`.
#[handler]
pub(crate) fn announcement() -> Response {
    json_response(&json!({ "enabled": false, "message": "" }))
}

fn json_response(value: &Value) -> Response {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_string(value.to_string()))
}

fn version_for(user_agent: &str) -> &'static str {
    let client = user_agent.strip_prefix("Backend.AI Client for Python ").unwrap_or_default();
    BY_CLIENT.iter().find(|(release, _)| client.starts_with(release)).map_or(NEWEST, |(_, version)| version)
}

#[cfg(test)]
mod tests {
    use super::version_for;

    #[test]
    fn no_client_is_told_a_version_above_its_own() {
        assert_eq!(version_for("Backend.AI Client for Python 22.03.2"), "v6.20220315");
        assert_eq!(version_for("Backend.AI Client for Python 20.03.10"), "v5.20191215");
        assert_eq!(version_for("curl/8.0"), "v9.20250722");
    }
}
