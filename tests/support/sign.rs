//! The request signature of Backend.AI's keypairs, written from its description and not from our server's code, so
//! that it checks the server.

use hmac::digest::Digest;
use hmac::digest::core_api::BlockSizeUser;
use hmac::{Mac, SimpleHmac};
use jiff::Timestamp;
use jiff::tz::Offset;

/// An access key and its secret.
#[derive(Clone, Debug)]
pub struct Keypair {
    pub access: String,
    pub secret: String,
}

impl Keypair {
    pub fn new(access: &str, secret: &str) -> Self {
        Self { access: access.to_owned(), secret: secret.to_owned() }
    }
}

/// The hash functions a client may name, sound or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_256,
    Sha3_512,
    Blake2b,
    Blake2s,
}

impl Hash {
    /// Returns the name in capitals as Python's `hashlib` spells it, which the clients put after `HMAC-`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
            Self::Sha3_256 => "SHA3_256",
            Self::Sha3_512 => "SHA3_512",
            Self::Blake2b => "BLAKE2B",
            Self::Blake2s => "BLAKE2S",
        }
    }

    fn signature(self, secret: &str, day: &str, host: &str, text: &str) -> String {
        match self {
            Self::Md5 => chain::<md5::Md5>(secret, day, host, text),
            Self::Sha1 => chain::<sha1::Sha1>(secret, day, host, text),
            Self::Sha224 => chain::<sha2::Sha224>(secret, day, host, text),
            Self::Sha256 => chain::<sha2::Sha256>(secret, day, host, text),
            Self::Sha384 => chain::<sha2::Sha384>(secret, day, host, text),
            Self::Sha512 => chain::<sha2::Sha512>(secret, day, host, text),
            Self::Sha3_256 => chain::<sha3::Sha3_256>(secret, day, host, text),
            Self::Sha3_512 => chain::<sha3::Sha3_512>(secret, day, host, text),
            Self::Blake2b => chain::<blake2::Blake2b512>(secret, day, host, text),
            Self::Blake2s => chain::<blake2::Blake2s256>(secret, day, host, text),
        }
    }
}

/// Everything that goes into one signature. The fields are public, so that a test may spoil any of them.
#[derive(Clone, Debug)]
pub struct Signature {
    pub keypair: Keypair,
    pub hash: Hash,
    /// `BackendAI`, or the older `Sorna`.
    pub scheme: String,
    /// The `Date` header, verbatim.
    pub date: String,
    /// The day in the offset the date was sent with, as `YYYYMMDD`.
    pub day: String,
    pub version: String,
    /// `Date`, or one of the two names that stand in for it.
    pub date_header: String,
    /// `X-BackendAI-Version`, or the older `X-Sorna-Version`.
    pub version_header: String,
    /// Values to sign instead of the values sent: method, target, host.
    pub pretend: [Option<String>; 3],
}

impl Signature {
    /// Returns the signature of a current client, dated now.
    pub fn new(keypair: &Keypair, version: &str) -> Self {
        Self {
            keypair: keypair.clone(),
            hash: Hash::Sha256,
            scheme: "BackendAI".to_owned(),
            date: String::new(),
            day: String::new(),
            version: version.to_owned(),
            date_header: "Date".to_owned(),
            version_header: "X-BackendAI-Version".to_owned(),
            pretend: [None, None, None],
        }
        .at(Timestamp::now(), 0)
    }

    /// Dates it at this moment, in an offset of so many hours, as Python's `isoformat()` writes it.
    pub fn at(mut self, moment: Timestamp, hours: i8) -> Self {
        let local = Offset::constant(hours).to_datetime(moment);
        let sign = if hours < 0 { '-' } else { '+' };
        self.date =
            format!("{}{sign}{:02}:00", local.strftime("%Y-%m-%dT%H:%M:%S%.6f"), hours.unsigned_abs());
        self.day = local.strftime("%Y%m%d").to_string();
        self
    }

    /// Returns the `Authorization` header for a request.
    pub fn authorization(&self, method: &str, target: &str, host: &str, content_type: &str) -> String {
        let empty = match self.hash {
            Hash::Md5 => hex::<md5::Md5>(b""),
            Hash::Sha1 => hex::<sha1::Sha1>(b""),
            Hash::Sha224 => hex::<sha2::Sha224>(b""),
            Hash::Sha256 => hex::<sha2::Sha256>(b""),
            Hash::Sha384 => hex::<sha2::Sha384>(b""),
            Hash::Sha512 => hex::<sha2::Sha512>(b""),
            Hash::Sha3_256 => hex::<sha3::Sha3_256>(b""),
            Hash::Sha3_512 => hex::<sha3::Sha3_512>(b""),
            Hash::Blake2b => hex::<blake2::Blake2b512>(b""),
            Hash::Blake2s => hex::<blake2::Blake2s256>(b""),
        };
        let [other_method, other_target, other_host] = &self.pretend;
        let method = other_method.as_deref().unwrap_or(method);
        let target = other_target.as_deref().unwrap_or(target);
        let host = other_host.as_deref().unwrap_or(host);
        let text = [
            method,
            target,
            &self.date,
            &format!("host:{host}"),
            &format!("content-type:{}", content_type.to_lowercase()),
            &format!("{}:{}", self.version_header.to_lowercase(), self.version),
            &empty,
        ]
        .join("\n");
        let signature = self.hash.signature(&self.keypair.secret, &self.day, host, &text);
        let (scheme, hash, access) = (&self.scheme, self.hash.name(), &self.keypair.access);
        format!("{scheme} signMethod=HMAC-{hash}, credential={access}:{signature}")
    }
}

fn chain<D: Digest + BlockSizeUser>(secret: &str, day: &str, host: &str, text: &str) -> String {
    let by_day = hmac::<D>(secret.as_bytes(), day);
    let by_host = hmac::<D>(&by_day, host);
    to_hex(&hmac::<D>(&by_host, text))
}

fn hmac<D: Digest + BlockSizeUser>(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = SimpleHmac::<D>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex<D: Digest>(bytes: &[u8]) -> String {
    to_hex(&D::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
