//! A request to a registry, as the transport sends it.

use std::time::Duration;

use reqwest::{Method, header::HeaderValue};
use url::Url;

/// A request to be made.
pub(crate) struct Ask {
    /// `GET` or `HEAD`.
    pub(crate) method: Method,
    /// Where it goes first.
    pub(crate) url: Url,
    /// Which media types are taken, if not any.
    pub(crate) accept: Option<&'static str>,
    /// What is known already: an answer 304 says that it still holds.
    pub(crate) if_none_match: Option<HeaderValue>,
    /// The first byte wanted of the body, if not all of it is.
    pub(crate) from: Option<u64>,
    /// Largest body taken, inclusive.
    pub(crate) cap: usize,
    /// How many redirects are followed.
    pub(crate) redirects: usize,
    /// How long the whole head of an answer may take.
    pub(crate) header_deadline: Duration,
    /// Whether Docker Hub counts it as a pull.
    pub(crate) counted: bool,
    /// For messages: `manifest of lab/python:3.9`.
    pub(crate) doing: String,
}
