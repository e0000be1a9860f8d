//! Refused requests in the log: an operator sees who forges, replays or sends what another site made, and nobody fills the
//! disk by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use poem::Response;
use poem::http::{Method, StatusCode};

use crate::base::reference::shown;

/// Refused requests that are written in a [`SPAN`]: what is more is counted only. A line is some 200 bytes.
const MOST: u32 = 60;
/// See [`Lines`].
const SPAN: Duration = Duration::from_mins(1);

/// Why a request was refused, on its way from the handler to the log.
#[derive(Debug, Clone)]
pub struct Reason(pub String);

/// What is written of refused requests. Clones share it.
#[derive(Clone)]
pub struct Refusals(Arc<Mutex<Lines>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Lines::new(MOST))))
    }
}

/// How many lines of one kind the log gets: so many a minute.
pub(in crate::http) struct Lines {
    most: u32,
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// None was written yet.
    pub(in crate::http) fn new(most: u32) -> Self {
        Self { most, began: None, written: 0, left_out: 0 }
    }

    /// Whether one more line may be written, and how many were not in the span that is over now.
    pub(in crate::http) fn turn(&mut self, now: Instant) -> (bool, u64) {
        let mut left_out = 0;
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= SPAN) {
            left_out = self.left_out;
            *self = Self { began: Some(now), ..Self::new(self.most) };
        }
        let may_write = self.written < self.most;
        if may_write {
            self.written += 1;
        } else {
            self.left_out += 1;
        }
        (may_write, left_out)
    }
}

impl Refusals {
    /// Writes a line, if the response is a refusal.
    pub fn note(&self, response: &Response, address: Option<IpAddr>, method: &Method, path: &str) {
        let Some(Reason(why)) = response.extensions().get::<Reason>() else { return };
        let (may_write, left_out) = self.0.lock().turn(Instant::now());
        if left_out > 0 {
            tracing::info!(left_out, "more requests were refused than are listed");
        }
        if may_write {
            let address = address.map(tracing::field::display);
            let (status, path) = (response.status().as_u16(), shown(path));
            tracing::info!(address, %method, path, status, why, "a request was refused");
        }
    }
}

/// Whether a problem is that somebody may not do what they try, and is no mere mistake.
pub fn is_refusal(status: StatusCode, slug: &str) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_MANY_REQUESTS
    ) || slug == "invalid-auth-params"
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Lines, MOST, SPAN};

    #[test]
    fn a_flood_is_counted_and_the_next_minute_has_lines_again() {
        let (mut span, begun) = (Lines::new(MOST), Instant::now());
        let written = (0..1_000).filter(|_| span.turn(begun).0).count();
        assert_eq!(written, MOST as usize);
        assert_eq!(span.turn(begun + SPAN.mul_f64(0.99)), (false, 0));
        assert_eq!(span.turn(begun + SPAN), (true, 1_001 - u64::from(MOST)));
        assert_eq!(span.turn(begun + SPAN), (true, 0), "told once");
    }
}
