//! A request to a registry, as the transport sends it.

use std::time::Duration;

use reqwest::{Method, header::HeaderValue};
use url::Url;

/// A request to be made.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: Option<&'static str>,
    pub(crate) if_none_match: Option<HeaderValue>,
    /// The first byte wanted of the body, if not all of it is.
    pub(crate) from: Option<u64>,
    /// Largest body taken, inclusive.
    pub(crate) cap: usize,
    pub(crate) redirects: usize,
    pub(crate) header_deadline: Duration,
    /// Whether Docker Hub counts it as a pull.
    pub(crate) counted: bool,
    /// For messages: `manifest of lab/python:3.9`.
    pub(crate) doing: String,
}
