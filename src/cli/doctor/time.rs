//! Checks clocks: this machine's, and how far another one differs from it.

use jiff::{SignedDuration, Timestamp};

use crate::{access::signature::WINDOW, base::clock::Clock, cli::doctor::finding::Finding};

/// The beginning of 2026; no wharf is older.
const EARLIEST: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// A difference that does no harm: a machine that sets its clock by the network stays far below.
const SLACK: SignedDuration = SignedDuration::from_mins(1);
const REMEDY: &str = "set it, and keep it by NTP: timedatectl set-ntp true";

/// Checks this machine's clock against the last time that is recorded in the database.
pub(super) fn plausible(now: Timestamp, last: Option<Timestamp>) -> Finding {
    let shown = now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    if now < EARLIEST {
        return Finding::fail("clock", format!("{shown} is before there was a wharf"), REMEDY);
    }
    match last {
        Some(last) if last.duration_since(now) > SLACK => {
            let found = format!("{shown} is before the last row of the audit log, {last:.0}");
            Finding::fail("clock", found, REMEDY)
        }
        _ => Finding::ok("clock", shown),
    }
}

/// Checks whether a start would doubt this machine's clock, by when a server last ran.
pub(super) fn jumped(now: Timestamp, last: Timestamp) -> Option<Finding> {
    let clock = Clock::new(move || now);
    clock.go_on_from(last);
    let doubt = clock.doubt()?;
    let found = format!("a server last ran at {last:.0}; after a start {doubt}");
    Some(Finding::warn(
        "expiry",
        found,
        "if the server was off for so long there is nothing to do; else set the clock",
    ))
}

/// Compares what another clock said with the moments of asking and answering here.
pub(super) fn compared(said: Timestamp, asked: Timestamp, answered: Timestamp) -> Finding {
    const CHECK: &str = "server clock";
    // The other clock's time has no fraction of a second.
    let (earliest, latest) = (said, said + SignedDuration::from_secs(1));
    let difference =
        asked.duration_since(latest).max(earliest.duration_since(answered)).max(SignedDuration::ZERO);
    let found = format!("{} seconds from this machine's", difference.as_secs());
    let remedy = "compare both with a clock that is right; keep them by NTP: timedatectl set-ntp true";
    if difference >= WINDOW {
        let found = format!("{found}, and signed requests are refused from {} on", WINDOW.as_secs());
        Finding::fail(CHECK, found, remedy)
    } else if difference > SLACK {
        Finding::warn(CHECK, found, remedy)
    } else {
        Finding::ok(CHECK, "as this machine's")
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{EARLIEST, compared, jumped, plausible};

    #[test]
    fn a_clock_that_is_behind_what_was_written_is_wrong() {
        assert_eq!(EARLIEST.to_string(), "2026-01-01T00:00:00Z");
        let now: Timestamp = "2026-11-27T08:00:00Z".parse().unwrap();
        let at = |seconds| Some(now + SignedDuration::from_secs(seconds));
        for (last, expected) in [(None, "ok"), (at(-5), "ok"), (at(59), "ok"), (at(61), "fail")] {
            assert!(plausible(now, last).to_string().starts_with(expected), "{last:?}");
        }
        assert!(plausible(Timestamp::UNIX_EPOCH, None).to_string().starts_with("fail clock: 1970-01-01"));
    }

    #[test]
    fn a_clock_far_from_when_a_server_last_ran_is_told_of() {
        let now: Timestamp = "2026-11-27T08:00:00Z".parse().unwrap();
        let said =
            |hours| jumped(now, now - SignedDuration::from_hours(hours)).map(|found| found.to_string());
        assert_eq!((said(0), said(24), said(-24)), (None, None, None));
        let month = said(30 * 24).unwrap();
        assert!(month.starts_with("warn expiry: a server last ran at 2026-10-28T08:00:00Z"), "{month}");
        assert!(month.contains("30 days ahead") && said(-48).unwrap().contains("2 days back"), "{month}");
    }

    #[test]
    fn a_difference_is_told_from_the_way_there_and_back() {
        let asked: Timestamp = "2026-11-27T08:00:00.9Z".parse().unwrap();
        let answered = asked + SignedDuration::from_secs(30);
        let said =
            |seconds| compared(asked + SignedDuration::from_secs(seconds), asked, answered).to_string();
        for fine in [-61, 0, 30, 90] {
            assert_eq!(said(fine), "ok server clock: as this machine's", "{fine}");
        }
        assert!(said(-63).starts_with("warn server clock: 62 seconds"), "{}", said(-63));
        assert!(said(92).starts_with("warn server clock: 62 seconds"), "{}", said(92));
        assert!(said(930).starts_with("fail server clock: 900 seconds"), "{}", said(930));
        assert!(said(-901).starts_with("fail server clock: 900 seconds"), "{}", said(-901));
    }
}
