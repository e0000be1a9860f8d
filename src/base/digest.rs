//! Content digests, as the OCI image specification writes them.

use std::fs::File;
use std::hash;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::{fmt, str::FromStr};

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest: `sha256:` or `sha512:` and lower-case hex; any other algorithm or spelling is refused
/// (OCI image-spec, descriptor.md, "Registered algorithms").
/// Copies share the text: images, their contents and the agents that have them keep the same digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

/// How many characters of a digest a hash table uses: the algorithm and 128 bits. No attacker can make many contents
/// that share so much, and tables of digests are asked for every image of a list.
const TELLING: usize = "sha256:".len() + 32;

impl hash::Hash for Digest {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.as_bytes().get(..TELLING).unwrap_or_default().hash(state);
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected sha256:<64 hex digits> or sha512:<128 hex digits>, in lower case")]
pub struct InvalidDigest;

impl Digest {
    /// The SHA-256 digest of these bytes.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(&Sha256::digest(bytes))).into())
    }

    /// Whether this is the digest of these bytes.
    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        let actual = match self.algorithm() {
            "sha512" => hex(&Sha512::digest(bytes)),
            _ => hex(&Sha256::digest(bytes)),
        };
        self.hex() == actual
    }

    /// Whether this is the digest of all that the file holds. It waits for the disk.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(crate) fn matches_file(&self, mut file: File) -> io::Result<bool> {
        let (mut hasher, mut piece) = (self.hasher(), vec![0; 256 * 1024]);
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(hasher.matches(self));
            }
            hasher.update(piece.get(..read).unwrap_or_default());
        }
    }

    /// A hasher of the same algorithm, for bytes that come in pieces.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm() {
            "sha512" => Hasher::Sha512(Box::default()),
            _ => Hasher::Sha256(Box::default()),
        }
    }

    /// The algorithm: `sha256` or `sha512`.
    pub(crate) fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The 32 bytes of a SHA-256 digest.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut bytes = [0; 32];
        let pairs = self.hex().as_bytes().chunks_exact(2);
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = pair.iter().try_fold(0_u8, |sum, digit| Some(sum << 4 | nibble(digit)?))?;
        }
        (self.algorithm() == "sha256").then_some(bytes)
    }

    /// The digest as text: `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A digest that is being computed.
#[derive(Clone)]
pub(crate) enum Hasher {
    /// SHA-256.
    Sha256(Box<Sha256>),
    /// SHA-512.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Whether the bytes added so far have this digest.
    pub(crate) fn matches(&self, digest: &Digest) -> bool {
        let actual = match self {
            Self::Sha256(hasher) => hex(&hasher.as_ref().clone().finalize()),
            Self::Sha512(hasher) => hex(&hasher.as_ref().clone().finalize()),
        };
        digest.hex() == actual
    }
}

/// Lower-case hex digits of these bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|()| Self(text.into()))
    }
}

fn check(text: &str) -> Result<(), InvalidDigest> {
    let digits = match text.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 => hex,
        Some(("sha512", hex)) if hex.len() == 128 => hex,
        _ => return Err(InvalidDigest),
    };
    if digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) { Ok(()) } else { Err(InvalidDigest) }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

/// Reads a digest from borrowed text, without a copy.
struct Text;

impl Visitor<'_> for Text {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn only_known_algorithms_in_lower_case_hex_are_digests() {
        let good = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().as_str(), good);
        assert!(format!("sha512:{}", "0".repeat(128)).parse::<Digest>().is_ok());
        for bad in [
            "",
            "sha256:",
            "latest",
            &format!("sha256:{}", "A1".repeat(32)),
            &format!("sha256:{}", "a".repeat(63)),
            &format!("md5:{}", "a".repeat(32)),
            &format!("sha256:{}", "g".repeat(64)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_matches_only_its_own_bytes() {
        let digest = Digest::sha256_of(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.sha256().map(|bytes| super::hex(&bytes)).as_deref(), Some(digest.hex()));
        assert!(digest.matches(b"abc"));
        assert!(!digest.matches(b"abd"));
        let mut hasher = digest.hasher();
        hasher.update(b"a");
        assert!(!hasher.matches(&digest));
        hasher.update(b"bc");
        assert!(hasher.matches(&digest));
    }
}
