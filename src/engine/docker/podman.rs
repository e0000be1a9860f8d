//! How Podman is told from Docker Engine.
//!
//! It speaks Docker's API with differences, each dealt with where it shows: names by digest that count as names, IDs
//! without their algorithm, an ID of the engine that is another one in each answer, the config listed among the layers
//! of a pull, no sum in its disk usage.

use hyper::HeaderMap;

use crate::engine::EngineKind;

/// The header with the version of its own API, which Podman sends with every answer.
const OWN_API: &str = "libpod-api-version";

/// Who answers with these headers.
pub(crate) fn kind(headers: &HeaderMap) -> EngineKind {
    if headers.contains_key(OWN_API) { EngineKind::Podman } else { EngineKind::Docker }
}
