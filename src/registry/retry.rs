//! When to ask again: as `Retry-After` says, or after a wait that grows.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::base::backoff::{Backoff, chance};

/// The longest pause a registry can impose at once. Servers that name hours mean "not now"; asking again after this
/// long costs them one request.
pub(crate) const MAX_PAUSE: Duration = Duration::from_mins(15);

/// The pause that `Retry-After` asks for (RFC 9110, 10.2.3: seconds or a date), at most [`MAX_PAUSE`]. A date in the
/// past means no pause. Any other value, including a negative number, counts as no header. A date is counted from the
/// answer's own `Date`, because either clock may be wrong; from `now` if there is none.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number with too many digits still means a long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let said = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        httpdate::parse_http_date(text).ok()?.duration_since(said.unwrap_or(now)).unwrap_or_default()
    };
    Some(asked.min(MAX_PAUSE))
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
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        // Our clock is a day ahead, or behind.
        for ours in [now - Duration::from_hours(24), now, now + Duration::from_hours(24)] {
            let headers = [(DATE, date(0)), (RETRY_AFTER, date(90))];
            let headers = headers.map(|(name, value)| (name, value.parse().unwrap())).into_iter().collect();
            assert_eq!(retry_after(&headers, ours), Some(Duration::from_secs(90)));
        }
    }
}
