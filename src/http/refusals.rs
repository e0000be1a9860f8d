//! Refused requests in the log: an operator sees forged, replayed and cross-site requests, and an attacker can't fill
//! the disk with them.

use std::net::IpAddr;
use std::sync::Arc;

use poem::Response;
use poem::http::{Method, StatusCode};

use crate::base::lines::Limited;
use crate::base::reference::shown;

/// The most refused requests logged in a minute; further ones are only counted. A line has some 200 bytes.
const MOST: u32 = 60;

/// Why a request was refused, on its way from the handler to the log.
#[derive(Debug, Clone)]
pub(crate) struct Reason(pub(crate) String);

/// Writes refused requests to the log. Clones share it.
#[derive(Clone)]
pub(crate) struct Refusals(Arc<Limited>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Limited::new(MOST)))
    }
}

impl Refusals {
    /// Writes a line if the response is a refusal.
    pub(crate) fn note(&self, response: &Response, address: Option<IpAddr>, method: &Method, path: &str) {
        let Some(Reason(why)) = response.extensions().get::<Reason>() else { return };
        self.0.say("refused requests", || {
            let address = address.map(tracing::field::display);
            let (status, path) = (response.status().as_u16(), shown(path));
            tracing::info!(address, %method, path, status, why, "a request was refused");
        });
    }
}

/// Whether a problem means that the caller may not do something, rather than a mere mistake.
pub(crate) fn is_refusal(status: StatusCode, slug: &str) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_MANY_REQUESTS
    ) || slug == "invalid-auth-params"
}
