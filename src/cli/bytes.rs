//! Amounts of bytes as people write them: `500MiB`, `50GiB`, `2TB`.

/// Reads a whole number and its unit.
///
/// # Errors
/// A sentence that says what is wrong, and what would be right.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is no amount such as 500MiB, 50GiB or 2TB");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default().trim_start() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ if text == "0" => 1,
        _ => return Err(refuse()),
    };
    let are_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| are_digits);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_amount_is_a_number_and_a_unit() {
        assert_eq!(parse("50GiB"), Ok(50 << 30));
        assert_eq!(parse("2TB"), Ok(2_000_000_000_000));
        assert_eq!(parse("500 MB"), Ok(500_000_000));
        assert_eq!(parse("0"), Ok(0));
        for wrong in ["", "50", "GiB", "1.5GiB", "-1GiB", "50G", "99999999999TiB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
