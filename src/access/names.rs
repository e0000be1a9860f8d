//! Checks of the names of tenants and people.

use crate::base::reference::shown;
use crate::base::{Error, Result};

/// Longest name of a domain, group, scaling group or token, in characters (Backend.AI's columns).
pub(crate) const MAX_NAME: usize = 64;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 500;

/// The name without surrounding spaces.
///
/// # Errors
/// [`Error::Invalid`] for a name that is empty, longer than [`MAX_NAME`], or has invisible characters.
pub(crate) fn checked_name(field: &'static str, name: &str) -> Result<String> {
    let name = name.trim();
    let refuse = |why: &str| Err(Error::invalid(field, format!("{:?} {why}", shown(name))));
    if name.is_empty() {
        return Err(Error::invalid(field, "it is empty"));
    }
    if name.chars().count() > MAX_NAME {
        return refuse(&format!("is longer than {MAX_NAME} characters"));
    }
    if !name.chars().all(is_plain) {
        return refuse("has control characters or other characters that do not show");
    }
    Ok(name.into())
}

/// Checks a text for people: any visible characters, spaces and line breaks.
///
/// # Errors
/// [`Error::Invalid`] for a text that is too long or has control characters.
pub(crate) fn checked_text(field: &'static str, text: &str) -> Result<String> {
    if text.chars().count() > MAX_DESCRIPTION {
        return Err(Error::invalid(field, format!("it may have {MAX_DESCRIPTION} characters at most")));
    }
    if !text.chars().all(|c| is_plain(c) || c == '\n' || c == '\t') {
        return Err(Error::invalid(field, "it has control characters"));
    }
    Ok(text.into())
}

/// Checks an e-mail address, as far as possible without writing to it.
///
/// # Errors
/// [`Error::Invalid`] for a text that is not `name@host`.
pub(crate) fn checked_email(email: &str) -> Result<String> {
    let email = email.trim();
    let well_formed = email.len() <= 254
        && email.chars().all(|c| is_plain(c) && !c.is_whitespace())
        && email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if well_formed {
        return Ok(email.into());
    }
    Err(Error::invalid("e-mail", format!("{:?} is not name@host", shown(email))))
}

/// Whether this is neither a control character nor one that changes the direction of text or has no width: names with
/// those look like other names.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{MAX_NAME, checked_email, checked_name};

    #[test]
    fn names_that_mislead_or_do_not_end_are_refused() {
        assert_eq!(checked_name("name", " vision lab ").unwrap(), "vision lab");
        assert_eq!(checked_name("name", "연구실").unwrap(), "연구실");
        let long = "a".repeat(MAX_NAME + 1);
        for name in ["", "  ", "a\nb", "a\u{0}b", "a\u{202e}b", "a\u{200b}", &long] {
            assert!(checked_name("name", name).is_err(), "{name:?}");
        }
        assert!(checked_name("name", &"a".repeat(MAX_NAME)).is_ok());
    }

    #[test]
    fn an_address_is_a_name_at_a_host() {
        assert_eq!(checked_email(" a@b ").unwrap(), "a@b");
        for email in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\u{202e}c"] {
            assert!(checked_email(email).is_err(), "{email:?}");
        }
    }
}
