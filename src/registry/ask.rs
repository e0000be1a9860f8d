//! A request to a registry, as the transport sends it.

use std::time::Duration;

use reqwest::{Method, header::HeaderValue};
use url::Url;

/// A request to make.
#[derive(Clone)]
pub(crate) struct Ask {
    /// `GET` or `HEAD`.
    pub(crate) method: Method,
    /// The URL it goes to first.
    pub(crate) url: Url,
    /// The media types accepted; `None` for any.
    pub(crate) accept: Option<&'static str>,
    /// The entity tag that is already known: the answer 304 says that it is still current.
    pub(crate) if_none_match: Option<HeaderValue>,
    /// The first byte wanted of the body; `None` for the whole body.
    pub(crate) from: Option<u64>,
    /// The largest body accepted, in bytes, inclusive.
    pub(crate) cap: usize,
    /// The most redirects followed.
    pub(crate) redirects: usize,
    /// Whether it is sent only once, because another request follows where this one fails.
    pub(crate) once: bool,
    /// How long the whole head of an answer may take.
    pub(crate) header_deadline: Duration,
    /// Whether Docker Hub counts it as a pull.
    pub(crate) counted: bool,
    /// What the request is for, in messages: `manifest of lab/python:3.9`.
    pub(crate) doing: String,
}
