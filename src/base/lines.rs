//! A limit on log lines of one kind, where clients decide how often there is something to log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The span in which [`Lines`] are counted.
const SPAN: Duration = Duration::from_mins(1);

/// A limit on the log lines of one kind: so many a minute.
pub(crate) struct Lines {
    most: u32,
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// A limit of `most` lines a minute; none was written yet.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, began: None, written: 0, left_out: 0 }
    }

    /// Whether one more line may be written, and how many lines were left out in the span that is over now.
    pub(crate) fn turn(&mut self, now: Instant) -> (bool, u64) {
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

/// A limit on lines of one kind that are written from many places. Lines beyond it are only counted.
pub(crate) struct Limited(Mutex<Lines>);

impl Limited {
    /// A limit of `most` lines a minute.
    pub(crate) fn new(most: u32) -> Self {
        Self(Mutex::new(Lines::new(most)))
    }

    /// Calls `write` if a line may be written; `of` says what the lines that are left out are about.
    pub(crate) fn say(&self, of: &'static str, write: impl FnOnce()) {
        let (may_write, left_out) = self.0.lock().turn(Instant::now());
        if left_out > 0 {
            tracing::info!(left_out, of, "more happened than is listed");
        }
        if may_write {
            write();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Lines, SPAN};

    const MOST: u32 = 60;

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
