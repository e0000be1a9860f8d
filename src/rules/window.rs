//! The time of day in which a rule may begin something: `22:00-06:00`, in a time zone.
//!
//! The times are those of wall clocks. A window that begins at 02:30, on a day when clocks go from 02:00 to 03:00,
//! begins at that change; a window that begins at a time that occurs twice begins at the first.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

use crate::base::reference::shown;
use crate::base::{Error, Result};

/// A whole day, in minutes.
const DAY: u16 = 24 * 60;
/// How many days ahead the next opening is searched: a window that falls into a skipped hour exists on the next day.
const AHEAD: i64 = 3;
/// Longest name of a time zone, in bytes; the longest real one has 32.
const MAX_ZONE: usize = 64;

/// A part of the day, the same every day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// When the window opens, in minutes after midnight.
    opens: u16,
    /// When the window closes, in minutes after midnight; 1,440 for midnight itself. If it is not after `opens`, it
    /// is on the next day.
    closes: u16,
    /// An IANA time zone; `None` for the server's own.
    zone: Option<String>,
}

/// Whether a window is open at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowState {
    /// The window is open until this time.
    Open(Timestamp),
    /// The window is closed until this time; `None` if it does not open within days.
    Closed(Option<Timestamp>),
}

impl Window {
    /// Parses `HH:MM-HH:MM`, and the name of a time zone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, and for a time zone that this server does not know.
    pub(crate) fn parse(text: &str, zone: Option<&str>) -> Result<Self> {
        let text = text.trim();
        let refuse = |why: &str| Err(Error::invalid("window", format!("{:?} {why}", shown(text))));
        let parts = text.split_once('-').map(|(from, to)| (minutes(from), minutes(to)));
        let Some((Some(opens), Some(closes))) = parts else {
            return refuse("is no part of a day; write HH:MM-HH:MM, such as 22:00-06:00");
        };
        if opens == DAY {
            return refuse("begins at 24:00; write 00:00");
        }
        if opens == closes % DAY {
            return refuse("is empty, or the whole day; leave the window out for the whole day");
        }
        let zone = zone.map(str::trim).filter(|zone| !zone.is_empty());
        let window = Self { opens, closes, zone: zone.map(Into::into) };
        window.time_zone()?;
        Ok(window)
    }

    /// Its time zone as the admin gave it; `None` for the server's own.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The name of the time zone that applies to it.
    pub(crate) fn zone_name(&self) -> String {
        let own = || TimeZone::system().iana_name().unwrap_or("UTC").to_owned();
        self.zone.clone().unwrap_or_else(own)
    }

    fn time_zone(&self) -> Result<TimeZone> {
        let Some(name) = &self.zone else { return Ok(TimeZone::system()) };
        let unknown = || {
            let why = "is no time zone that this server knows; write an IANA name such as Asia/Seoul or UTC";
            Error::invalid("time_zone", format!("{:?} {why}", shown(name)))
        };
        if name.len() > MAX_ZONE || !name.is_ascii() {
            return Err(unknown());
        }
        TimeZone::get(name).map_err(|_| unknown())
    }

    /// Whether it is open now.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the server no longer knows the time zone.
    pub(crate) fn standing(&self, now: Timestamp) -> Result<WindowState> {
        let zone = self.time_zone()?;
        let today = zone.to_datetime(now).date();
        let mut opens = None;
        // A window that opened yesterday may still be open.
        for days in -1..=AHEAD {
            let Ok(date) = today.checked_add(days.days()) else { continue };
            match self.on(date, &zone) {
                Some((from, to)) if from <= now && now < to => return Ok(WindowState::Open(to)),
                Some((from, to)) if from > now && from < to => {
                    opens = Some(from);
                    break;
                }
                _ => {}
            }
        }
        Ok(WindowState::Closed(opens))
    }

    /// When the window that opens on this day opens and closes.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let last = if self.closes > self.opens && self.closes < DAY { date } else { date.tomorrow().ok()? };
        Some((moment(date, self.opens, zone)?, moment(last, self.closes % DAY, zone)?))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opens, closes, .. } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", opens / 60, opens % 60, closes / 60, closes % 60)
    }
}

/// The moment at which wall clocks show this time; if they skip it, the moment of the change.
fn moment(date: Date, minutes: u16, zone: &TimeZone) -> Option<Timestamp> {
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    let time = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
    let shown = zone.to_ambiguous_timestamp(time);
    let is_skipped = matches!(shown.offset(), AmbiguousOffset::Gap { .. });
    let moment = shown.compatible().ok()?;
    if !is_skipped {
        return Some(moment);
    }
    // The change that skipped the time is at this moment or before it.
    let after = moment.checked_add(1.second()).ok()?;
    zone.preceding(after).next().map(|change| change.timestamp())
}

/// Parses `HH:MM` into minutes after midnight.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str| {
        let is_two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        is_two.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::{Window, WindowState};

    fn at(text: &str, zone: &str, now: &str) -> String {
        match Window::parse(text, Some(zone)).unwrap().standing(now.parse().unwrap()).unwrap() {
            WindowState::Open(until) => format!("open until {until}"),
            WindowState::Closed(Some(opens)) => format!("opens {opens}"),
            WindowState::Closed(None) => "closed".into(),
        }
    }

    #[test]
    fn a_window_is_open_between_its_ends() {
        let at = |now| at("09:00-17:30", "UTC", now);
        assert_eq!(at("2026-05-04T08:59:59Z"), "opens 2026-05-04T09:00:00Z");
        assert_eq!(at("2026-05-04T09:00:00Z"), "open until 2026-05-04T17:30:00Z");
        assert_eq!(at("2026-05-04T17:29:59Z"), "open until 2026-05-04T17:30:00Z");
        assert_eq!(at("2026-05-04T17:30:00Z"), "opens 2026-05-05T09:00:00Z");
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let over = |now| at("22:00-06:00", "Asia/Seoul", now);
        assert_eq!(over("2026-05-04T12:59:00Z"), "opens 2026-05-04T13:00:00Z");
        assert_eq!(over("2026-05-04T14:00:00Z"), "open until 2026-05-04T21:00:00Z", "before midnight");
        assert_eq!(over("2026-05-04T20:59:00Z"), "open until 2026-05-04T21:00:00Z", "after it");
        assert_eq!(over("2026-05-04T21:00:00Z"), "opens 2026-05-05T13:00:00Z");
        for midnight in ["22:00-00:00", "22:00-24:00"] {
            assert_eq!(at(midnight, "UTC", "2026-05-04T23:59:00Z"), "open until 2026-05-05T00:00:00Z");
            assert_eq!(at(midnight, "UTC", "2026-05-05T00:00:00Z"), "opens 2026-05-05T22:00:00Z");
        }
    }

    #[test]
    fn a_time_that_clocks_skip_is_the_moment_they_skip_it() {
        // Berlin, 2026-03-29: 01:59 is followed by 03:00, at 01:00 UTC.
        let berlin = |window, now| at(window, "Europe/Berlin", now);
        for skipped in ["02:00-05:00", "02:30-05:00"] {
            assert_eq!(berlin(skipped, "2026-03-29T00:59:00Z"), "opens 2026-03-29T01:00:00Z");
        }
        assert_eq!(berlin("02:30-03:30", "2026-03-29T01:00:00Z"), "open until 2026-03-29T01:30:00Z");
        assert_eq!(berlin("01:00-02:30", "2026-03-29T00:30:00Z"), "open until 2026-03-29T01:00:00Z");
        assert_eq!(
            berlin("02:10-02:50", "2026-03-29T00:30:00Z"),
            "opens 2026-03-30T00:10:00Z",
            "not that day"
        );
        assert_eq!(berlin("22:00-06:00", "2026-03-28T23:00:00Z"), "open until 2026-03-29T04:00:00Z");
    }

    #[test]
    fn a_time_that_comes_twice_is_the_first() {
        // Berlin, 2026-10-25: 02:59 is followed by 02:00, at 01:00 UTC.
        let berlin = |window, now| at(window, "Europe/Berlin", now);
        assert_eq!(berlin("02:30-04:00", "2026-10-25T00:29:00Z"), "opens 2026-10-25T00:30:00Z");
        assert_eq!(berlin("02:30-04:00", "2026-10-25T01:10:00Z"), "open until 2026-10-25T03:00:00Z");
        assert_eq!(berlin("01:00-02:30", "2026-10-25T00:40:00Z"), "opens 2026-10-26T00:00:00Z", "not again");
    }

    #[test]
    fn what_is_no_window_says_what_is_one() {
        for (text, words) in [
            ("", "HH:MM-HH:MM"),
            ("22:00", "HH:MM-HH:MM"),
            ("22:00-6:00", "HH:MM-HH:MM"),
            ("22:60-06:00", "HH:MM-HH:MM"),
            ("22:00-24:01", "HH:MM-HH:MM"),
            ("22:00-+6:00", "HH:MM-HH:MM"),
            ("24:00-06:00", "write 00:00"),
            ("06:00-06:00", "leave the window out"),
            ("00:00-24:00", "leave the window out"),
        ] {
            let error = Window::parse(text, None).unwrap_err().to_string();
            assert!(error.starts_with("window: ") && error.contains(words), "{text}: {error}");
        }
        for zone in ["Mars/Olympus", "../../etc/passwd", &"a".repeat(100), "é"] {
            let error = Window::parse("22:00-06:00", Some(zone)).unwrap_err().to_string();
            assert!(error.starts_with("time_zone: ") && error.contains("Asia/Seoul"), "{zone}: {error}");
        }
    }

    #[test]
    fn a_window_is_written_as_it_was_read() {
        let window = Window::parse(" 22:05-06:00 ", Some("")).unwrap();
        assert_eq!((window.to_string().as_str(), window.zone()), ("22:05-06:00", None));
        assert!(!window.zone_name().is_empty());
    }
}
