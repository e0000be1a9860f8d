//! Which attempts the throttle admits when, on a clock of the tests' own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use jiff::Timestamp;

use crate::access::shares::Shares;
use crate::access::throttle::{Attempt, Denial, STRANGERS_EVERY, Throttle};
use crate::base::clock::Clock;
use crate::store::Store;

const START: i64 = 1_700_000_000;

struct Bench {
    throttle: Throttle,
    store: Store,
    day: Arc<AtomicI64>,
    passed: Arc<AtomicU64>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (day, passed) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicU64::new(0)));
        let (shown, steady, start) = (Arc::clone(&day), Arc::clone(&passed), Instant::now());
        let clock = Clock::new(move || Timestamp::from_second(shown.load(Ordering::Relaxed)).unwrap())
            .with_steady(move || start + Duration::from_secs(steady.load(Ordering::Relaxed)));
        let throttle = Throttle::load(&store, clock).unwrap();
        Self { throttle, store, day, passed, _directory: directory }
    }

    /// The answer to an attempt; `None` if it has to wait for another attempt.
    fn try_to(&self, email: &str, address: &str) -> Option<Result<Attempt, Denial>> {
        self.throttle.admit(email, Some(address.parse::<IpAddr>().unwrap())).now_or_never()
    }

    fn admit(&self, email: &str, address: &str) -> Result<Attempt, Duration> {
        match self.try_to(email, address).expect("nobody to wait for") {
            Ok(attempt) => Ok(attempt),
            Err(Denial::Wait(wait)) => Err(wait),
            Err(Denial::Busy) => panic!("nobody waits"),
        }
    }

    fn fail(&self, email: &str, address: &str) -> Result<(), Duration> {
        let attempt = self.admit(email, address)?;
        self.store.write_now(|w| attempt.failed(w)).unwrap();
        Ok(())
    }

    fn succeed(&self, email: &str, address: &str) -> Result<(), Duration> {
        let attempt = self.admit(email, address)?;
        self.store.write_now(|w| attempt.succeeded(w)).unwrap();
        Ok(())
    }

    /// The throttle after a restart.
    fn again(&self) -> Throttle {
        Throttle::load(&self.store, self.throttle.clock.clone()).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.passed.fetch_add(seconds, Ordering::Relaxed);
        self.set_clock(i64::try_from(seconds).unwrap());
    }

    fn set_clock(&self, seconds: i64) {
        self.day.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[test]
fn the_wait_doubles_up_to_a_quarter_of_an_hour() {
    let bench = Bench::new();
    let mut waits = Vec::new();
    for _ in 0..17 {
        while bench.fail("a@lab", "192.0.2.1").is_ok() {}
        let wait = bench.fail("a@lab", "192.0.2.1").unwrap_err().as_secs();
        waits.push(wait);
        bench.pass(wait);
    }
    assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    assert!(waits[10..].iter().all(|wait| *wait <= 900), "{waits:?}");
    assert!(waits[10..].contains(&900) || waits[10..].contains(&512), "{waits:?}");
}

#[test]
fn a_clock_that_jumps_makes_nobody_wait_longer() {
    let bench = Bench::new();
    for _ in 0..5 {
        bench.fail("a@lab", "192.0.2.1").unwrap();
    }
    for jump in [-86_400 * 3_650, 86_400 * 7_300] {
        bench.set_clock(jump);
        assert_eq!(bench.fail("a@lab", "192.0.2.1"), Err(Duration::from_secs(1)));
    }
    bench.pass(1);
    bench.fail("a@lab", "192.0.2.1").unwrap();
    bench.set_clock(-86_400);
    bench.pass(2);
    bench.fail("a@lab", "192.0.2.1").unwrap();
}

#[tokio::test]
async fn a_start_with_a_clock_that_is_far_ahead_forgets_no_failure() {
    let bench = Bench::new();
    for _ in 0..6 {
        while bench.fail("a@lab", "192.0.2.1").is_err() {
            bench.pass(1);
        }
    }
    bench.pass(900);
    assert_eq!(bench.again().state.lock().counts.len(), 3, "what passed counts");
    bench.set_clock(86_400 * 3_650);
    let again = bench.again();
    again.tidy().await.unwrap();
    assert_eq!(again.state.lock().counts.len(), 3);
    assert!(again.state.lock().counts.values().any(|count| count.failures.is_some_and(|f| f.count == 6)));
}

#[test]
fn an_address_the_owner_has_used_answers_for_itself_alone() {
    let bench = Bench::new();
    bench.succeed("a@lab", "192.0.2.1").unwrap();
    let mut refused = 0;
    for n in 0..200 {
        refused += u32::from(bench.fail("a@lab", &format!("198.51.100.{n}")).is_err());
        refused += u32::from(bench.fail(&format!("u{n}@lab"), "192.0.2.1").is_err());
    }
    assert!(refused > 300, "{refused}");
    bench.succeed("a@lab", "192.0.2.1").unwrap();
    bench.succeed("A@LAB ", "192.0.2.1").unwrap();
}

#[test]
fn the_addresses_of_a_household_are_one() {
    let bench = Bench::new();
    for n in 0..5 {
        bench.fail("a@lab", &format!("2001:db8:1:1::{n}")).unwrap();
    }
    assert!(bench.fail("a@lab", "2001:db8:1:1:ffff::1").is_err());
    bench.fail("a@lab", "2001:db8:1:2::1").unwrap();
    for _ in 0..4 {
        bench.fail("b@lab", "192.0.2.1").unwrap();
    }
    bench.fail("b@lab", "::ffff:192.0.2.1").unwrap();
    assert!(bench.fail("b@lab", "192.0.2.1").is_err());
}

#[tokio::test]
async fn what_is_forgotten_is_taken_away() {
    let bench = Bench::new();
    bench.fail("a@lab", "192.0.2.1").unwrap();
    bench.throttle.tidy().await.unwrap();
    assert_eq!(bench.throttle.state.lock().counts.len(), 3);
    bench.pass(900);
    bench.throttle.tidy().await.unwrap();
    assert_eq!(bench.throttle.state.lock().counts.len(), 0);
    let again = bench.again();
    assert_eq!(again.state.lock().counts.len(), 0);
}

#[test]
fn what_is_kept_has_an_end_and_the_worst_stay() {
    let mut bench = Bench::new();
    bench.throttle.most = 20;
    for _ in 0..5 {
        bench.fail("victim@lab", "192.0.2.1").unwrap();
    }
    for n in 0..40 {
        bench.fail(&format!("u{n}@lab"), &format!("198.51.100.{n}")).unwrap();
    }
    assert!(bench.throttle.state.lock().counts.len() <= 20);
    let kept = bench.again();
    assert!(kept.state.lock().counts.len() <= 20, "in the store too");
    assert!(bench.fail("victim@lab", "192.0.2.1").is_err(), "many others push nobody out who has to wait");
}

#[tokio::test]
async fn an_attempt_that_came_to_nothing_counts_for_nothing() {
    let bench = Bench::new();
    for _ in 0..100 {
        drop(bench.admit("a@lab", "192.0.2.1").unwrap());
    }
    assert_eq!(bench.throttle.state.lock().counts.len(), 0);
    let open: Vec<_> = (0..5).map(|_| bench.admit("a@lab", "192.0.2.1").unwrap()).collect();
    assert!(bench.try_to("a@lab", "192.0.2.1").is_none(), "five are on their way");
    drop(open);
    assert!(bench.admit("a@lab", "192.0.2.1").is_ok());
}

#[tokio::test]
async fn those_at_once_wait_for_each_other_and_only_failures_turn_them_away() {
    let bench = Bench::new();
    for is_right in [true, false] {
        let open: Vec<_> = (0..50).map(|n| bench.admit(&format!("u{n}@lab"), "192.0.2.1").unwrap()).collect();
        let late = bench.throttle.admit("late@lab", Some("192.0.2.1".parse().unwrap()));
        let ends = async {
            for attempt in open {
                let write = |w: &mut _| if is_right { attempt.succeeded(w) } else { attempt.failed(w) };
                bench.store.write_now(write).unwrap();
                drop(attempt);
                tokio::task::yield_now().await;
            }
        };
        let (late, ()) = tokio::join!(late, ends);
        assert_eq!(late.is_ok(), is_right);
        // Otherwise the accounts of the first round would be known there.
        bench.throttle.state.lock().known.clear();
    }
}

#[tokio::test]
async fn who_waits_takes_no_more_than_a_share_of_the_places() {
    let mut bench = Bench::new();
    bench.throttle.waiting = Shares::new(2, 3);
    let _open: Vec<_> = (0..5).map(|_| bench.admit("a@lab", "192.0.2.1").unwrap()).collect();
    let address = Some("192.0.2.1".parse().unwrap());
    let mut line: Vec<_> = (0..3).map(|_| Box::pin(bench.throttle.admit("a@lab", address))).collect();
    let answers: Vec<_> = line.iter_mut().map(|one| one.as_mut().now_or_never()).collect();
    assert!(answers[0].is_none() && answers[1].is_none());
    assert!(matches!(answers[2], Some(Err(Denial::Busy))));
}

#[test]
fn all_strangers_together_have_a_ceiling_that_is_no_concern_of_those_who_are_known() {
    let mut bench = Bench::new();
    bench.throttle.strangers = 10;
    bench.succeed("a@lab", "192.0.2.1").unwrap();
    for n in 0..10 {
        bench.fail(&format!("u{n}@lab"), &format!("198.51.100.{n}")).unwrap();
    }
    let wait = bench.fail("another@lab", "203.0.113.1").unwrap_err();
    assert!(wait > Duration::ZERO && wait <= STRANGERS_EVERY, "{wait:?}");
    bench.succeed("a@lab", "192.0.2.1").unwrap();
    bench.fail("a@lab", "192.0.2.1").unwrap();
}
