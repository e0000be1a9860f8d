//! Passwords at rest: argon2id.

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};

use crate::base::secret::Secret;
use crate::base::{Error, Result};

/// Longest password we hash; argon2 would take any length, an attacker's megabytes too.
pub const MAX_PASSWORD: usize = 1024;
/// Shortest password we take (NIST SP 800-63B).
pub const MIN_PASSWORD: usize = 8;

/// OWASP's first recommendation for argon2id: 19 MiB, 2 passes, 1 lane.
fn hasher() -> Result<Argon2<'static>> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|e| Error::internal(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, in PHC string format with its own salt. Takes tens of milliseconds.
///
/// # Errors
/// [`Error::Invalid`] when the password is too short or too long.
pub fn hash(password: &Secret) -> Result<String> {
    let length = password.expose().len();
    if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&length) {
        return Err(Error::invalid(
            "password",
            format!("it must have {MIN_PASSWORD} to {MAX_PASSWORD} bytes"),
        ));
    }
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(Error::internal)?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| Error::internal(e.to_string()))?;
    let hash = hasher()?.hash_password(password.expose().as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|e| Error::internal(e.to_string()))
}

/// Whether the password is the one the hash was made of.
pub fn matches(password: &Secret, hash: &str) -> Result<bool> {
    if password.expose().len() > MAX_PASSWORD {
        return Ok(false);
    }
    let hash = PasswordHash::new(hash).map_err(|e| Error::internal(e.to_string()))?;
    Ok(hasher()?.verify_password(password.expose().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{MAX_PASSWORD, hash, matches};
    use crate::base::secret::Secret;

    #[test]
    fn a_password_matches_only_its_own_hash() {
        let stored = hash(&Secret::new("correct horse")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(matches(&Secret::new("correct horse"), &stored).unwrap());
        assert!(!matches(&Secret::new("correct horsf"), &stored).unwrap());
        assert_ne!(stored, hash(&Secret::new("correct horse")).unwrap(), "each hash has its own salt");
    }

    #[test]
    fn passwords_that_are_too_short_or_too_long_are_refused() {
        assert!(hash(&Secret::new("1234567")).is_err());
        assert!(hash(&Secret::new("a".repeat(MAX_PASSWORD + 1))).is_err());
    }
}
