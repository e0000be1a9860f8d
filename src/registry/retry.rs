//! When to ask again: as `Retry-After` says, or after a wait that grows.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::base::backoff::{Backoff, chance};

/// The longest pause a registry can impose at once. Servers that name hours mean "not now"; asking again after this
/// long costs them one request.
pub(crate) const MAX_PAUSE: Duration = Duration::from_mins(15);

/// From this number on, a `Retry-After` in digits is no wait but a time of day, in seconds since 1970; from the next one
/// on in milliseconds. The first is a wait of 31 years.
const TIME_OF_DAY: f64 = 1e9;
const TIME_OF_DAY_IN_MILLISECONDS: f64 = 1e12;
/// No time of day has this many seconds: a number beyond it is a long wait.
const LAST_TIME_OF_DAY: f64 = 1e10;

/// The pause that `Retry-After` asks for, at most [`MAX_PAUSE`]: in seconds or as a date (RFC 9110, 10.2.3), or as
/// registries and the proxies before them write it: with a fraction, with a unit, as a Unix time or a timestamp, in
/// `X-Retry-After`. A date in the past means no pause. Any other value, including a negative number, counts as no
/// header. A date is counted from the answer's own `Date`, because either clock may be wrong; from `now` if there is
/// none.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let mut values = [RETRY_AFTER.as_str(), "x-retry-after"].into_iter().filter_map(|name| headers.get(name));
    let said = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let asked = values.find_map(|value| asked(value.to_str().ok()?.trim(), said.unwrap_or(now)))?;
    Some(asked.min(MAX_PAUSE))
}

fn asked(text: &str, now: SystemTime) -> Option<Duration> {
    let until = |time: SystemTime| time.duration_since(now).unwrap_or_default();
    let is_number = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let (digits, unit) =
        text.split_at_checked(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))?;
    let number = digits.parse::<f64>().ok().filter(|_| is_number);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" => Some(0.001),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3600.0),
        _ => None,
    };
    let seconds = |number: f64| Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX);
    match (number, scale) {
        (Some(number), Some(_)) if unit.is_empty() && (TIME_OF_DAY..LAST_TIME_OF_DAY).contains(&number) => {
            Some(until(SystemTime::UNIX_EPOCH + seconds(number)))
        }
        (Some(number), Some(_))
            if unit.is_empty()
                && (TIME_OF_DAY_IN_MILLISECONDS..LAST_TIME_OF_DAY * 1000.0).contains(&number) =>
        {
            Some(until(SystemTime::UNIX_EPOCH + seconds(number / 1000.0)))
        }
        (Some(number), Some(scale)) => Some(seconds(number * scale)),
        _ => {
            let date = httpdate::parse_http_date(text).ok();
            let date = date.or_else(|| text.parse::<Timestamp>().ok().map(SystemTime::from));
            date.map(until)
        }
    }
}

/// The wait before try `attempt` + 1 (counted from 1): it doubles from `base`, with random spread.
pub(crate) fn wait(base: Duration, attempt: u32) -> Duration {
    Backoff::doubling(base, MAX_PAUSE).spread(attempt, chance())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

    use super::{MAX_PAUSE, retry_after};

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date_and_capped() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let date = |seconds| httpdate::fmt_http_date(now + Duration::from_secs(seconds));
        let past = httpdate::fmt_http_date(now - Duration::from_mins(1));
        for (text, expected) in [
            ("30", Some(Duration::from_secs(30))),
            (" 30 ", Some(Duration::from_secs(30))),
            ("0", Some(Duration::ZERO)),
            ("999999", Some(MAX_PAUSE)),
            ("99999999999999999999999", Some(MAX_PAUSE)),
            (&date(90), Some(Duration::from_secs(90))),
            (&date(90_000), Some(MAX_PAUSE)),
            (&past, Some(Duration::ZERO)),
            ("-5", None),
            ("+5", None),
            ("1.5", Some(Duration::from_millis(1500))),
            ("3s", Some(Duration::from_secs(3))),
            ("250 ms", Some(Duration::from_millis(250))),
            ("2 minutes", Some(Duration::from_mins(2))),
            ("3 moons", None),
            // A time of day: in seconds, with a fraction, in milliseconds, as a timestamp.
            ("1700000003", Some(Duration::from_secs(3))),
            ("1700000003.5", Some(Duration::from_millis(3500))),
            ("1700000003000", Some(Duration::from_secs(3))),
            ("1699999999", Some(Duration::ZERO)),
            ("2023-11-14T22:13:23Z", Some(Duration::from_secs(3))),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let other: HeaderMap = [("x-retry-after", "1700000003")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        assert_eq!(retry_after(&other, now), Some(Duration::from_secs(3)));
        // Our clock is a day ahead, or behind.
        for ours in [now - Duration::from_hours(24), now, now + Duration::from_hours(24)] {
            let headers = [(DATE, date(0)), (RETRY_AFTER, date(90))];
            let headers = headers.map(|(name, value)| (name, value.parse().unwrap())).into_iter().collect();
            assert_eq!(retry_after(&headers, ours), Some(Duration::from_secs(90)));
        }
    }
}
