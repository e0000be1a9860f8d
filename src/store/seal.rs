//! Secrets at rest: sealed with a key that lies beside the database, not in it.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce. A secret's purpose is associated data, so a sealed text moved to
//! another record does not open there.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::secret::Secret;
use crate::base::{Error, Result};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// A secret as the database holds it: nonce, then ciphertext with its tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(Vec<u8>);

/// Seals and opens secrets with one key.
pub struct Seal {
    cipher: XChaCha20Poly1305,
}

impl Seal {
    /// Writes a new random key to a new file that only its owner can read.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        Self::from_key(bytes.as_ref())
    }

    /// A seal with these bytes as its key.
    pub(in crate::store) fn from_key(bytes: &[u8]) -> io::Result<Self> {
        if bytes.len() != KEY_BYTES {
            return Err(io::Error::other(format!("it has {} bytes instead of {KEY_BYTES}", bytes.len())));
        }
        let cipher = XChaCha20Poly1305::new_from_slice(bytes).map_err(io::Error::other)?;
        Ok(Self { cipher })
    }

    /// Seals a secret for one purpose, such as `registry/cr.example.org/password`.
    pub(crate) fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed> {
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let payload = Payload { msg: secret.expose().as_bytes(), aad: purpose.as_bytes() };
        let ciphertext = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| Error::internal("a secret could not be sealed"))?;
        Ok(Sealed([nonce.as_slice(), &ciphertext].concat()))
    }

    /// Opens a secret that [`Seal::seal`] sealed for the same purpose.
    ///
    /// # Errors
    /// If the key or the purpose is another, or the bytes were changed.
    pub fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret> {
        let unreadable =
            || Error::internal(format!("the sealed secret for {purpose} does not open with secret.key"));
        let (nonce, ciphertext) = sealed.0.split_at_checked(NONCE_BYTES).ok_or_else(unreadable)?;
        let payload = Payload { msg: ciphertext, aad: purpose.as_bytes() };
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| unreadable())?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| unreadable())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::Seal;
    use crate::base::secret::Secret;

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_for_its_purpose() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let seal = Seal::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let sealed = seal.seal("registry/a", &Secret::new("hunter2")).unwrap();
        assert!(!sealed.0.windows(7).any(|w| w == b"hunter2"));
        let again = Seal::from_key(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(again.open("registry/a", &sealed).unwrap().expose(), "hunter2");
        assert!(seal.open("registry/b", &sealed).is_err());
        let other = Seal::create(&directory.path().join("other.key")).unwrap();
        assert!(other.open("registry/a", &sealed).is_err());
        assert!(Seal::create(&path).is_err(), "a key that is there is never overwritten");
    }
}
