//! A request to a registry, as the transport sends it.

use std::time::Duration;

use reqwest::{Method, header::HeaderValue};
use url::Url;

use crate::base::secret::Secret;

/// A request to make.
#[derive(Clone)]
pub(crate) struct Ask {
    /// `GET`, `HEAD`, `DELETE`, or `POST` of a form.
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
    /// A form to send, with what is secret in it.
    pub(crate) form: Option<Secret>,
    /// Whether redirects may lead to its own origin only.
    pub(crate) within: bool,
    /// What follows where it fails.
    pub(crate) failing: Failing,
    /// How long the whole head of an answer may take.
    pub(crate) header_deadline: Duration,
    /// Whether Docker Hub counts it as a pull.
    pub(crate) counted: bool,
    /// What the request is for, in messages: `manifest of lab/python:3.9`.
    pub(crate) doing: String,
}

/// What follows where a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// The same request again, as long as that may help.
    Again,
    /// A plainer request where it is refused. So 500 is a refusal, too, and it is not tried again.
    Plainer,
    /// Nothing: it is sent only once.
    Nothing,
}
