//! How Podman is told from Docker Engine.
//!
//! Podman offers Docker's API with differences, each handled where it matters: names by digest that count as names, IDs
//! without their algorithm, an engine ID that changes with each answer, the config listed among the layers of a pull,
//! and no sum in its disk usage.

use hyper::HeaderMap;

use crate::engine::EngineKind;

/// The header with the version of Podman's own API, which it sends with every answer.
const OWN_API: &str = "libpod-api-version";

/// The kind of engine that sends these headers.
pub(crate) fn kind(headers: &HeaderMap) -> EngineKind {
    if headers.contains_key(OWN_API) { EngineKind::Podman } else { EngineKind::Docker }
}
