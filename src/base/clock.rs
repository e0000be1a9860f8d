//! The clock: a source of the time that tests can replace, and a check whether the time of day can be believed.
//!
//! Lengths of time are measured by [`Clock::steady`]. What is removed because of its age, or because its time is over,
//! is removed by [`Clock::calendar`]: one wrong moment, as when a machine's clock has no battery or its time server
//! lies, must not remove what can't be brought back. What is written in such a moment must not look old later either:
//! it is dated by [`Clock::stamp`]. Refusing a request for a moment is another matter, and goes by [`Clock::now`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// How far the time of day may be from where it is expected: no time zone, and no correction of a running clock, is
/// further off; and everything that is removed by age lives at least this long.
const MOST_OFF: SignedDuration = SignedDuration::from_hours(24);
/// How long the time of day must run evenly after a jump until it is believed again. Once a machine is up, it asks its
/// time servers every few minutes at most.
pub(crate) const PROBATION: Duration = Duration::from_mins(10);

/// A source of the present time. Clones share it.
#[derive(Clone)]
pub struct Clock {
    day: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steady: Arc<dyn Fn() -> Instant + Send + Sync>,
    course: Arc<Mutex<Course>>,
}

/// The course that the time of day is expected to take.
struct Course {
    /// When this clock was made.
    born: Instant,
    /// The time of day at `born`, once that is known.
    began: Option<Timestamp>,
    /// The time of day and the steady time at one moment: the last jump, or else the start.
    from: (Timestamp, Instant),
    /// The time of day and the steady time when the clock was last believed.
    sure: (Timestamp, Instant),
    doubt: Option<Jump>,
}

/// How far the time of day jumped, and when.
#[derive(Debug, Clone, Copy)]
struct Jump {
    by: Option<SignedDuration>,
    at: Instant,
}

/// Why the time of day is not believed at the moment. It prints as a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// How far it jumped; `None` if it was never seen before.
    pub(crate) by: Option<SignedDuration>,
    /// How long until it is believed, if it does not jump again.
    pub(crate) left: Duration,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock that takes the time of day from `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::of(Arc::new(now), Arc::new(Instant::now))
    }

    /// This clock with another steady time.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_steady(self, steady: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self::of(self.day, Arc::new(steady))
    }

    fn of(
        day: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        steady: Arc<dyn Fn() -> Instant + Send + Sync>,
    ) -> Self {
        let from = (day(), steady());
        let course = Course { born: from.1, began: None, from, sure: from, doubt: None };
        Self { day, steady, course: Arc::new(Mutex::new(course)) }
    }

    /// This clock with no known time before: it is believed only after [`PROBATION`].
    #[must_use]
    pub(crate) fn unproven(self) -> Self {
        let at = self.steady();
        self.course.lock().doubt = Some(Jump { by: None, at });
        self
    }

    /// Compares the clock with the last time of day that was believed before this process began. Call this before
    /// anything else reads the clock.
    pub(crate) fn go_on_from(&self, last: Timestamp) {
        let mut course = self.course.lock();
        let by = course.from.0.duration_since(last);
        if by.abs() > MOST_OFF {
            course.sure = (last, course.born);
            course.doubt = Some(Jump { by: Some(by), at: course.born });
        }
    }

    /// The time of day, which may be set forward or back.
    pub(crate) fn now(&self) -> Timestamp {
        (self.day)()
    }

    /// A time that only moves on, at its own pace: for measuring lengths of time within this process.
    pub(crate) fn steady(&self) -> Instant {
        (self.steady)()
    }

    /// The time of day for dating what is removed later because of its age or because its time is over. While the time
    /// of day is not believed, this is never earlier than what was expected: otherwise a record that is made while the
    /// clock is years behind would be removed as soon as the clock is right.
    pub(crate) fn stamp(&self) -> Timestamp {
        let (course, now) = self.look();
        let (day, since) = course.sure;
        let expected =
            day.checked_add(self.steady().saturating_duration_since(since)).unwrap_or(Timestamp::MAX);
        if course.doubt.is_some() { now.max(expected) } else { now }
    }

    /// The time of day for removing by age. `None` while it is not believed: then nothing is removed.
    pub(crate) fn calendar(&self) -> Option<Timestamp> {
        let (course, now) = self.look();
        course.doubt.is_none().then_some(now)
    }

    /// Why the time of day is not believed, if it is not.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        let (course, _) = self.look();
        let jump = course.doubt?;
        let passed = self.steady().saturating_duration_since(jump.at);
        Some(Doubt { by: jump.by, left: PROBATION.saturating_sub(passed) })
    }

    /// The time of day at which this process began. It may change only until the time of day was first believed.
    pub(crate) fn began(&self) -> Timestamp {
        let (course, now) = self.look();
        course.began.unwrap_or_else(|| before(now, self.steady().saturating_duration_since(course.born)))
    }

    /// Compares the time of day with the steady time, and notes a jump.
    fn look(&self) -> (parking_lot::MutexGuard<'_, Course>, Timestamp) {
        let mut course = self.course.lock();
        let (now, steady) = (self.now(), self.steady());
        let (day, since) = course.from;
        let passed = SignedDuration::try_from(steady.saturating_duration_since(since)).unwrap_or_default();
        let by = now.duration_since(day) - passed;
        if by.abs() > MOST_OFF {
            course.from = (now, steady);
            course.doubt = Some(Jump { by: Some(by), at: steady });
        } else if course.doubt.is_some_and(|jump| steady.saturating_duration_since(jump.at) >= PROBATION) {
            course.doubt = None;
        }
        if course.doubt.is_none() {
            course.sure = (now, steady);
            let born = course.born;
            course.began.get_or_insert_with(|| before(now, steady.saturating_duration_since(born)));
        }
        (course, now)
    }
}

/// The moment that lies this long before `moment`.
fn before(moment: Timestamp, passed: Duration) -> Timestamp {
    moment.checked_sub(passed).unwrap_or(Timestamp::MIN)
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            Some(by) => {
                let (days, way) =
                    ((by.as_hours().abs() + 12) / 24, if by.is_negative() { "back" } else { "ahead" });
                write!(f, "the clock jumped {days} days {way}")?;
            }
            None => f.write_str("nobody knows what time it was before")?,
        }
        let minutes = self.left.as_secs().div_ceil(60);
        write!(
            f,
            ", so nothing that is old or expired is removed before it has run evenly for {minutes} more min"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{Clock, PROBATION};

    const DAY: i64 = 86_400;
    const YEARS: i64 = 3_650 * DAY;

    struct Hands {
        clock: Clock,
        day: Arc<AtomicI64>,
        steady: Arc<AtomicU64>,
    }

    impl Hands {
        fn new() -> Self {
            let (day, steady) = (Arc::new(AtomicI64::new(1_700_000_000)), Arc::new(AtomicU64::new(0)));
            let (shown, passed, start) = (Arc::clone(&day), Arc::clone(&steady), Instant::now());
            let clock = Clock::new(move || Timestamp::from_second(shown.load(Ordering::Relaxed)).unwrap())
                .with_steady(move || start + Duration::from_secs(passed.load(Ordering::Relaxed)));
            Self { clock, day, steady }
        }

        /// Lets time pass on both clocks.
        fn pass(&self, seconds: u64) {
            self.steady.fetch_add(seconds, Ordering::Relaxed);
            self.set(i64::try_from(seconds).unwrap());
        }

        /// Sets the time of day.
        fn set(&self, seconds: i64) {
            self.day.fetch_add(seconds, Ordering::Relaxed);
        }

        fn is_believed(&self) -> bool {
            self.clock.calendar().is_some()
        }
    }

    #[test]
    fn a_clock_that_jumps_at_work_is_believed_again_when_it_has_run_evenly() {
        for jump in [YEARS, -YEARS, DAY + 1, -DAY - 1] {
            let hands = Hands::new();
            hands.pass(1_000_000);
            assert!(hands.is_believed());
            hands.set(jump);
            assert!(!hands.is_believed(), "{jump}");
            hands.pass(PROBATION.as_secs() - 1);
            hands.set(-jump);
            assert!(!hands.is_believed(), "{jump}: the way back is a jump too");
            hands.pass(PROBATION.as_secs() - 1);
            assert!(!hands.is_believed());
            hands.pass(1);
            assert_eq!(hands.clock.calendar(), Some(hands.clock.now()));
            assert_eq!(hands.clock.began().as_second(), 1_700_000_000, "as before, whatever it says since");
        }
    }

    #[test]
    fn a_clock_that_is_set_right_by_hours_is_believed_and_many_such_steps_are_a_jump() {
        let hands = Hands::new();
        for _ in 0..4 {
            hands.set(DAY / 4);
            assert!(hands.is_believed());
        }
        hands.set(2);
        assert!(!hands.is_believed());
    }

    #[test]
    fn a_start_is_compared_with_the_last_time_that_was_believed() {
        let at = |seconds| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        for (last, is_believed) in
            [(0, true), (-DAY, true), (DAY, true), (-DAY - 1, false), (30 * DAY, false)]
        {
            let hands = Hands::new();
            hands.clock.go_on_from(at(last));
            assert_eq!(hands.is_believed(), is_believed, "{last}");
            hands.pass(PROBATION.as_secs());
            assert!(hands.is_believed(), "{last}: a machine that was off for a month");
        }
    }

    #[test]
    fn what_is_dated_while_the_clock_is_behind_does_not_look_old_later() {
        let hands = Hands::new();
        hands.pass(1_000);
        assert_eq!(hands.clock.stamp(), hands.clock.now());
        hands.set(-YEARS);
        hands.pass(60);
        assert_eq!(hands.clock.stamp().as_second(), 1_700_001_060, "as if it had not jumped");
        hands.set(2 * YEARS);
        assert_eq!(hands.clock.stamp(), hands.clock.now(), "ahead: nothing is removed too early");
        hands.pass(PROBATION.as_secs());
        hands.set(-DAY / 2);
        assert_eq!(hands.clock.stamp(), hands.clock.now(), "it is believed");
        let late = Hands::new();
        late.clock.go_on_from(Timestamp::from_second(1_700_000_000 + YEARS).unwrap());
        late.pass(7);
        assert_eq!(late.clock.stamp().as_second(), 1_700_000_007 + YEARS, "a start in the past");
    }

    #[test]
    fn when_it_began_is_known_once_the_clock_is_believed() {
        let hands = Hands::new();
        hands.clock.go_on_from(Timestamp::from_second(1_700_000_000 - YEARS).unwrap());
        assert_eq!(hands.clock.began().as_second(), 1_700_000_000);
        hands.pass(5);
        hands.set(-YEARS);
        assert_eq!(hands.clock.began().as_second(), 1_700_000_000 - YEARS, "it is set right");
        hands.pass(PROBATION.as_secs());
        assert!(hands.is_believed());
        hands.set(YEARS);
        assert_eq!(hands.clock.began().as_second(), 1_700_000_000 - YEARS);
    }

    #[test]
    fn a_doubt_says_how_far_and_for_how_long() {
        let hands = Hands::new();
        assert_eq!(hands.clock.doubt(), None);
        hands.set(YEARS);
        let said = hands.clock.doubt().unwrap().to_string();
        assert!(
            said.starts_with("the clock jumped 3650 days ahead") && said.ends_with("10 more min"),
            "{said}"
        );
        hands.pass(PROBATION.as_secs() - 30);
        let said = hands.clock.doubt().unwrap().to_string();
        assert!(said.ends_with("1 more min"), "{said}");
        hands.set(-YEARS);
        assert_eq!(hands.clock.doubt().unwrap().by, Some(SignedDuration::from_secs(-YEARS)));
        let unproven = Hands::new().clock.unproven();
        assert!(
            unproven.calendar().is_none()
                && unproven.doubt().unwrap().to_string().starts_with("nobody knows")
        );
    }
}
