//! Lengths of time as people write them: `90s`, `30m`, `12h`, `7d`.

use std::time::Duration;

/// Longest time that makes sense for any flag.
const MAX: Duration = Duration::from_hours(365 * 24);

/// Reads a whole number and its unit.
///
/// # Errors
/// A sentence that says what is wrong, and what would be right.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no time such as 90s, 30m, 12h or 7d, from 1s to 365d");
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = found.ok_or_else(refuse)?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| digits).ok_or_else(refuse)?;
    let time = Duration::from_secs(number.saturating_mul(*seconds));
    if time.is_zero() || time > MAX { Err(refuse()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("30m"), Ok(Duration::from_mins(30)));
        assert_eq!(parse("12h"), Ok(Duration::from_hours(12)));
        assert_eq!(parse("7d"), Ok(Duration::from_hours(168)));
        for wrong in
            ["", "h", "12", "1.5h", "-1h", "+1h", "0s", "366d", "12 h", "99999999999999999999d", "12w"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
