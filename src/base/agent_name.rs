//! The names that agents may have.
//!
//! Expressions (`gpu[01-16]!gpu03`) name agents without quotes. So a name consists of characters that have no other
//! meaning there, and no word with a meaning in expressions is a name.

use crate::base::reference::shown;
use crate::base::{Error, Result};

/// The word for every agent.
pub(crate) const ALL: &str = "all";
/// The words that have a meaning in expressions.
pub const RESERVED: [&str; 1] = [ALL];
/// Longest name, in bytes.
pub(crate) const MAX_NAME: usize = 64;
/// The start of every name that wharf makes.
const PREFIX: &str = "i-";
/// The room for the number at the end of such a name: a hyphen and seven digits.
const NUMBER: usize = 8;

/// Whether a name may contain this character.
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The name, if an agent may have it.
///
/// # Errors
/// [`Error::Invalid`] for any other name.
pub fn checked(field: &'static str, name: &str) -> Result<String> {
    if RESERVED.contains(&name) {
        let why =
            format!("{name:?} means every agent where agents are named, so none has this id; choose another");
        return Err(Error::invalid(field, why));
    }
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= MAX_NAME && name.bytes().all(is_name_byte) {
        return Ok(name.into());
    }
    let why = "an id has up to 64 letters, digits, '-', '_' and '.', and begins with one of the first two";
    Err(Error::invalid(field, format!("{:?}: {why}", shown(name))))
}

/// The name of an agent that did not choose one: `i-` and the name of its host, and a number at the end if that is
/// taken. Characters of the host's name that a name can't have are left out.
pub(crate) fn of_host(hostname: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let room = MAX_NAME - PREFIX.len() - NUMBER;
    let host: String =
        hostname.chars().filter(|c| u8::try_from(*c).is_ok_and(is_name_byte)).take(room).collect();
    let host = if host.is_empty() { "node".into() } else { host.to_ascii_lowercase() };
    let name = format!("{PREFIX}{host}");
    let mut numbered = (2..).map(|number| format!("{name}-{number}"));
    if is_taken(&name) { numbered.find(|name| !is_taken(name)).unwrap_or(name) } else { name }
}

#[cfg(test)]
mod tests {
    use super::{RESERVED, checked, of_host};

    #[test]
    fn a_name_is_what_an_expression_can_name() {
        for name in ["i-gpu01", "gpu01.lab_2", "7", "All", "all-1"] {
            assert!(checked("id", name).is_ok(), "{name}");
        }
        for name in ["", "-a", ".a", "a b", "a,b", "gpu[1-2]", "é", "*", "@a", "a!b", &"a".repeat(65)] {
            assert!(checked("id", name).is_err(), "{name}");
        }
    }

    #[test]
    fn no_agent_is_called_by_a_word_that_means_something_else() {
        for word in RESERVED {
            let why = checked("id", word).unwrap_err().to_string();
            assert!(why.starts_with("id: ") && why.contains(word) && why.contains("choose another"), "{why}");
        }
    }

    #[test]
    fn whatever_a_host_is_called_its_agent_has_a_name_that_an_agent_may_have() {
        for (hostname, name) in [
            ("gpu01.lab", "i-gpu01.lab"),
            ("GPU 01!", "i-gpu01"),
            ("", "i-node"),
            ("é", "i-node"),
            ("all", "i-all"),
            ("*", "i-node"),
        ] {
            assert_eq!(of_host(hostname, |_| false), name, "{hostname}");
        }
        let taken = |name: &str| !name.ends_with("-1234567");
        for hostname in ["all", &"a".repeat(64), &"-".repeat(64)] {
            for name in [of_host(hostname, |_| false), of_host(hostname, taken)] {
                assert!(checked("id", &name).is_ok(), "{name}");
            }
        }
        assert_eq!(of_host("gpu01", |name| name == "i-gpu01"), "i-gpu01-2");
    }
}
