//! Keys, passwords and names that can't be guessed.

use crate::base::secret::Secret;
use crate::base::{Error, Result};

/// The letters of a generated access key: Backend.AI's keys look like this, and no two letters look alike.
const KEY_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A new access key.
pub(in crate::access) fn new_access_key() -> Result<String> {
    random_key(20)
}

/// A random text in capitals: five random bits in each character.
pub(in crate::access) fn random_key(length: usize) -> Result<String> {
    random_letters(KEY_LETTERS, length)
}

/// A new secret key.
pub(in crate::access) fn new_secret_key() -> Result<Secret> {
    random_text(40).map(Secret::new)
}

/// A random text of six random bits in each character, all of which may stand in a URL.
pub(crate) fn random_text(length: usize) -> Result<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    random_letters(LETTERS, length)
}

/// The alphabet's length is a power of two, so every letter is as likely as any other.
fn random_letters(alphabet: &[u8], length: usize) -> Result<String> {
    let mut bytes = vec![0_u8; length];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    let letter = |byte: &u8| alphabet.get(usize::from(*byte) % alphabet.len()).map(|b| char::from(*b));
    Ok(bytes.iter().filter_map(letter).collect())
}
