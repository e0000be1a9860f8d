//! How much one agent may send: enough for the largest node, too little to keep the manager busy.

use tokio::time::Instant;

/// Messages in one burst, and per second in the long run. Progress comes five times a second per pull, and two pulls
/// run.
const MESSAGES: Allowance = Allowance { at_once: 1_000.0, per_second: 100.0 };
/// Bytes in one burst, and per second in the long run: a full report of 20,000 images has some 8 MB.
const BYTES: Allowance = Allowance { at_once: 32.0 * 1024.0 * 1024.0, per_second: 1024.0 * 1024.0 };

#[derive(Debug, Clone, Copy)]
struct Allowance {
    at_once: f64,
    per_second: f64,
}

/// What an agent has left of its allowance.
#[derive(Debug)]
pub(in crate::fleet) struct Pace {
    messages: f64,
    bytes: f64,
    last: Instant,
}

impl Pace {
    /// The full allowance.
    pub(in crate::fleet) fn new(now: Instant) -> Self {
        Self { messages: MESSAGES.at_once, bytes: BYTES.at_once, last: now }
    }

    /// Accounts for a message of this many bytes; returns false if it exceeds the allowance.
    pub(in crate::fleet) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let passed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        let refill = |left: f64, of: Allowance| (left + passed * of.per_second).min(of.at_once);
        self.messages = refill(self.messages, MESSAGES) - 1.0;
        // The sizes are far below the limit up to which floats are exact.
        self.bytes = refill(self.bytes, BYTES) - f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.messages >= 0.0 && self.bytes >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;

    #[test]
    fn a_flood_is_too_much_and_a_steady_flow_is_not() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!((0..1_000).all(|_| pace.take(100, now)));
        assert!(!pace.take(100, now));
        let mut pace = Pace::new(now);
        assert!((0..32).all(|_| pace.take(1024 * 1024, now)));
        assert!(!pace.take(1024 * 1024, now));
        let mut pace = Pace::new(now);
        assert!((1..10_000).all(|step| pace.take(1_000, now + step * Duration::from_millis(20))));
    }
}
