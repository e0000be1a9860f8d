//! The request signature of Backend.AI's keypair authentication: how a client proves that it holds a secret key.
//!
//! Pure functions over text; the clock window, the lookup of the key and the HTTP status belong to the callers.

use std::{fmt, str::FromStr};

use hmac::{
    Mac, SimpleHmac,
    digest::{Digest, FixedOutput, core_api::BlockSizeUser},
};
use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    fmt::{rfc2822, temporal::Pieces},
    tz::Offset,
};
use subtle::ConstantTimeEq;

use crate::base::secret::Secret;

/// How far a request's date may be from ours, to either side.
pub(crate) const WINDOW: SignedDuration = SignedDuration::from_mins(15);
/// Longest signature: a 512-bit hash in hex.
const MAX_HEX: usize = 128;
/// Longest date we look at; the longest that clients send (RFC 2822 with a comment) is half of it.
const MAX_DATE: usize = 80;

/// A hash the signature may be made with, by its name in Python's `hashlib`, which is what clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// `sha224`
    Sha224,
    /// `sha256`, what clients use unless told otherwise.
    Sha256,
    /// `sha384`
    Sha384,
    /// `sha512`
    Sha512,
    /// `sha3_224`
    Sha3_224,
    /// `sha3_256`
    Sha3_256,
    /// `sha3_384`
    Sha3_384,
    /// `sha3_512`
    Sha3_512,
    /// `blake2b`, 512 bits.
    Blake2b,
    /// `blake2s`, 256 bits.
    Blake2s,
}

/// Every hash with its name and the hex digest of no bytes at all, which ends each signed text
/// (the body is not signed since API v4.20181215).
const HASHES: [(Hash, &str, &str); 10] = [
    (Hash::Sha224, "sha224", "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"),
    (Hash::Sha256, "sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (
        Hash::Sha384,
        "sha384",
        "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
    ),
    (
        Hash::Sha512,
        "sha512",
        "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
         47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ),
    (Hash::Sha3_224, "sha3_224", "6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7"),
    (Hash::Sha3_256, "sha3_256", "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"),
    (
        Hash::Sha3_384,
        "sha3_384",
        "0c63a75b845e4f7d01107d852e4c2485c51a50aaaa94fc61995e71bbee983a2ac3713831264adb47fb6bd1e058d5f004",
    ),
    (
        Hash::Sha3_512,
        "sha3_512",
        "a69f73cca23a9ac5c8b567dc185a756e97c982164fe25859e0d1dcc1475c80a6\
         15b2123af1f5f94c11e3e9402c3ac558f500199d95b6d3e301758586281dcd26",
    ),
    (
        Hash::Blake2b,
        "blake2b",
        "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419\
         d25e1031afee585313896444934eb04b903a685b1448b755d56f701afe9be2ce",
    ),
    (Hash::Blake2s, "blake2s", "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9"),
];

impl Hash {
    /// The name, in lower case.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    fn of_nothing(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Hash, &'static str, &'static str) {
        // Every variant is in the table (a test checks it); the first row stands in to keep this total.
        const FALLBACK: (Hash, &str, &str) = (Hash::Sha256, "sha256", "");
        HASHES.iter().find(|(hash, ..)| *hash == self).unwrap_or(&FALLBACK)
    }
}

impl FromStr for Hash {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HASHES
            .iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(text))
            .map(|(hash, ..)| *hash)
            .ok_or(Malformed::Hash)
    }
}

/// Why authentication headers can't be read. The texts are those of Backend.AI's servers, which clients print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No scheme and parameters in the Authorization header.
    Header,
    /// A scheme other than `BackendAI` or `Sorna`.
    Scheme,
    /// `signMethod` or `credential` missing or broken.
    Parameters,
    /// A `signMethod` that is no HMAC.
    Mac,
    /// A hash that is unknown, no longer secure (MD5, SHA-1), or of no fixed length (SHAKE).
    Hash,
    /// A date that can't be read.
    Date,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "Malformed authorization header",
            Self::Scheme => "Invalid authorization type name",
            Self::Parameters => "Missing or malformed authorization parameters",
            Self::Mac => "Unsupported request signing method (MAC type)",
            Self::Date => "Date/time sync error",
            Self::Hash => {
                f.write_str("Unsupported request signing method (hash type); use one of")?;
                return HASHES.iter().enumerate().try_for_each(|(index, (_, name, _))| {
                    write!(f, "{} {name}", if index == 0 { "" } else { "," })
                });
            }
        })
    }
}

impl std::error::Error for Malformed {}

/// The parts of a request that are signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET`, `POST`; in any case.
    pub method: &'a str,
    /// Path and query exactly as on the request line.
    pub target: &'a str,
    /// The date header, verbatim.
    pub date: &'a str,
    /// The Host header: the port only if it was sent.
    pub host: &'a str,
    /// The Content-Type header; parameters are ignored. A request that carries none counts as
    /// [`Request::NO_CONTENT_TYPE`].
    pub content_type: &'a str,
    /// Name (in lower case) and value of the version header: `x-backendai-version`, or `x-sorna-version` of old.
    pub version_header: (&'a str, &'a str),
}

impl Request<'_> {
    /// What clients sign for a request without a Content-Type header.
    pub(crate) const NO_CONTENT_TYPE: &'static str = "application/octet-stream";
}

/// The signature in lower-case hex. `day` is the request date's `%Y%m%d`, in the offset it was sent with.
pub fn sign(request: &Request<'_>, day: &str, hash: Hash, secret: &Secret) -> String {
    signature(request, day, hash, secret).as_str().to_owned()
}

/// Whether `signature_hex` is the signature of this request; takes equally long either way.
pub fn verify(request: &Request<'_>, day: &str, hash: Hash, secret: &Secret, signature_hex: &str) -> bool {
    signature(request, day, hash, secret).as_str().as_bytes().ct_eq(signature_hex.as_bytes()).into()
}

fn signature(request: &Request<'_>, day: &str, hash: Hash, secret: &Secret) -> Hex {
    let make = match hash {
        Hash::Sha224 => signature_with::<sha2::Sha224>,
        Hash::Sha256 => signature_with::<sha2::Sha256>,
        Hash::Sha384 => signature_with::<sha2::Sha384>,
        Hash::Sha512 => signature_with::<sha2::Sha512>,
        Hash::Sha3_224 => signature_with::<sha3::Sha3_224>,
        Hash::Sha3_256 => signature_with::<sha3::Sha3_256>,
        Hash::Sha3_384 => signature_with::<sha3::Sha3_384>,
        Hash::Sha3_512 => signature_with::<sha3::Sha3_512>,
        Hash::Blake2b => signature_with::<blake2::Blake2b512>,
        Hash::Blake2s => signature_with::<blake2::Blake2s256>,
    };
    make(request, day, hash.of_nothing(), secret)
}

/// `HMAC(HMAC(HMAC(secret, day), host), text)`. `SimpleHmac`, because the BLAKE2 types have no other.
fn signature_with<D>(request: &Request<'_>, day: &str, of_nothing: &str, secret: &Secret) -> Hex
where
    D: Digest + BlockSizeUser + FixedOutput,
{
    let mac = |key: &[u8], text: &[&[u8]]| {
        // An HMAC key may have any length, so this never fails; an empty signature would match nothing anyway.
        <SimpleHmac<D> as Mac>::new_from_slice(key).ok().map(|mut mac| {
            for piece in text {
                mac.update(piece);
            }
            mac.finalize().into_bytes()
        })
    };
    let signed = || {
        let by_day = mac(secret.expose().as_bytes(), &[day.as_bytes()])?;
        let by_host = mac(&by_day, &[request.host.as_bytes()])?;
        let mut method = Small::default();
        let mut content_type = Small::default();
        let media_type = request.content_type.split(';').next().unwrap_or_default().trim();
        mac(
            &by_host,
            &[
                method.cased(request.method, u8::to_ascii_uppercase),
                b"\n",
                request.target.as_bytes(),
                b"\n",
                request.date.as_bytes(),
                b"\nhost:",
                request.host.as_bytes(),
                b"\ncontent-type:",
                content_type.cased(media_type, u8::to_ascii_lowercase),
                b"\n",
                request.version_header.0.as_bytes(),
                b":",
                request.version_header.1.as_bytes(),
                b"\n",
                of_nothing.as_bytes(),
            ],
        )
    };
    signed().map_or_else(Hex::default, |bytes| Hex::of(&bytes))
}

/// A changed copy of a short text, on the stack: every API request comes through here.
#[derive(Default)]
struct Small {
    short: [u8; 32],
    long: Vec<u8>,
}

impl Small {
    fn cased(&mut self, text: &str, case: fn(&u8) -> u8) -> &[u8] {
        let Some(short) = self.short.get_mut(..text.len()) else {
            self.long = text.bytes().map(|byte| case(&byte)).collect();
            return &self.long;
        };
        short.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = case(&from));
        short
    }
}

/// Hex digits on the stack.
struct Hex {
    digits: [u8; MAX_HEX],
    length: usize,
}

impl Default for Hex {
    fn default() -> Self {
        Self { digits: [0; MAX_HEX], length: 0 }
    }
}

impl Hex {
    fn of(bytes: &[u8]) -> Self {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        let mut hex = Self::default();
        for (pair, byte) in hex.digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        hex.length = (bytes.len() * 2).min(MAX_HEX);
        hex
    }

    fn as_str(&self) -> &str {
        self.digits.get(..self.length).and_then(|digits| str::from_utf8(digits).ok()).unwrap_or_default()
    }
}

/// The Authorization header, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// What the signature was made with.
    pub hash: Hash,
    /// The public half of the keypair.
    pub(crate) access_key: &'a str,
    /// The signature, as sent.
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads `BackendAI signMethod=HMAC-SHA256, credential=<access key>:<signature>`; `Sorna` is the scheme's old name.
    ///
    /// # Errors
    /// The first part that can't be read.
    pub fn parse(header: &'a str) -> Result<Self, Malformed> {
        let (scheme, parameters) = header.trim().split_once(' ').ok_or(Malformed::Header)?;
        if !matches!(scheme, "BackendAI" | "Sorna") {
            return Err(Malformed::Scheme);
        }
        let (mut method, mut credential) = (None, None);
        for parameter in parameters.split(',') {
            match parameter.split_once('=').ok_or(Malformed::Parameters)? {
                (key, value) if key.trim() == "signMethod" => method = Some(value.trim()),
                (key, value) if key.trim() == "credential" => credential = Some(value.trim()),
                _ => {}
            }
        }
        let (mac, hash) = method.ok_or(Malformed::Parameters)?.split_once('-').ok_or(Malformed::Mac)?;
        if !mac.eq_ignore_ascii_case("hmac") {
            return Err(Malformed::Mac);
        }
        let (access_key, signature) =
            credential.and_then(|text| text.split_once(':')).ok_or(Malformed::Parameters)?;
        Ok(Self { hash: hash.parse()?, access_key, signature })
    }
}

impl fmt::Display for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.hash.name().to_ascii_uppercase();
        write!(f, "BackendAI signMethod=HMAC-{hash}, credential={}:{}", self.access_key, self.signature)
    }
}

/// When a client says that it sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The moment, to compare with the clock.
    pub(crate) at: Timestamp,
    /// The date as `%Y%m%d` in the offset it was sent with: the innermost key is made from it.
    pub day: String,
}

/// Reads a date header: ISO 8601 as the clients send it, or RFC 2822 / RFC 1123; without an offset it is UTC.
///
/// # Errors
/// [`Malformed::Date`].
pub fn parse_date(text: &str) -> Result<Sent, Malformed> {
    let text = text.trim();
    if text.len() > MAX_DATE {
        return Err(Malformed::Date);
    }
    iso_8601(text).or_else(|| rfc_2822(text)).ok_or(Malformed::Date)
}

fn iso_8601(text: &str) -> Option<Sent> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    let local = pieces.date().to_datetime(pieces.time()?);
    Some(Sent { at: offset.to_timestamp(local).ok()?, day: day(local) })
}

fn rfc_2822(text: &str) -> Option<Sent> {
    let zoned = rfc2822::parse(text).ok()?;
    Some(Sent { at: zoned.timestamp(), day: day(zoned.datetime()) })
}

fn day(local: DateTime) -> String {
    format!("{:04}{:02}{:02}", local.year(), local.month(), local.day())
}

#[cfg(test)]
mod tests {
    use super::{Authorization, HASHES, Hash, Malformed, Request, parse_date, sign, verify};
    use crate::base::secret::Secret;

    /// Made by `generate_signature` of backend.ai-client 22.3.2 and 26.9.6, which agree.
    const BY_THE_CLIENTS: [(&str, &str); 10] = [
        ("sha224", "b5518b9a7416090c8557c8b2e66d1547fe5a63d8ebe8762a3074f380"),
        ("sha256", "8d6a2b7c25d280c308a5f4d7dc4a57338a41d301ff01804b905e0d4fcad9041e"),
        (
            "sha384",
            "302c0894e4257c83e72eaf6d54f4fdb5325a636bbcb1ef42839167cb82850073866e60c4220227da1d6e86393dc76fb2",
        ),
        (
            "sha512",
            "1982dcd892651e6e6bbd0169b4d47065c1d253fda3b2fa56a0fcfb94642fbcba\
                 b1b1e755657383f7e0b3592123510d875545dbca3b4ed784113dbb0d438e8cb2",
        ),
        ("sha3_224", "98f8fc62494a18268f8e9f8da8b2717b611594f80c14947a9c025d48"),
        ("sha3_256", "3d2d5891579c5bcb5c2dfa624dde89fe91fdbd942252a0dec8057c9923376b59"),
        (
            "sha3_384",
            "a1a0450353eb95a0d22ead73749bee52465aaebe8320cc4f8ffad929d11bf9b2bf580583270e4739f604b1dae20de489",
        ),
        (
            "sha3_512",
            "b99bc65da0b4e319f7f2ae9f43f9d3f127dce56a8438ae609e4a9376fae65847\
                 526e1203ef17e47217e8f95e43096d34ca35e28f7c79c5f0356a8f0b55693f89",
        ),
        (
            "blake2b",
            "7128ee9561dc74b4be2b8afbf3062080b53eb6e152e337ce71b7d10a5583453d\
                 2e8e6faf0a2c6285f77fef13a5cd6bfc6a1f4149c50b07381f9b99ecd84b5fa8",
        ),
        ("blake2s", "7ce79105752fa76de5713fb980ec7f445ca3b32279b0ca9e708b2c90fc47537b"),
    ];

    fn example() -> (Request<'static>, Secret) {
        let request = Request {
            method: "post",
            target: "/admin/gql?x=a%20b",
            date: "2026-11-23T23:24:00.552868-05:00",
            host: "127.0.0.1:8090",
            content_type: "application/JSON",
            version_header: ("x-backendai-version", "v6.20220315"),
        };
        (request, Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
    }

    #[test]
    fn every_hash_signs_as_the_official_clients_do() {
        let (request, secret) = example();
        let day = parse_date(request.date).unwrap().day;
        for (name, expected) in BY_THE_CLIENTS {
            let hash = name.parse().unwrap();
            assert_eq!(sign(&request, &day, hash, &secret), expected, "{name}");
            assert!(verify(&request, &day, hash, &secret, expected), "{name}");
        }
    }

    #[test]
    fn a_stream_request_is_signed_as_octets_though_it_has_no_content_type() {
        let request = Request {
            method: "GET",
            target: "/events/background-task?task_id=6b1f27e4-0c0d-4d0e-9f35-6d5f77686172",
            date: "2026-11-23T13:24:00+00:00",
            host: "wharf.example.org",
            content_type: Request::NO_CONTENT_TYPE,
            version_header: ("x-backendai-version", "v9.20250722"),
        };
        let signature = sign(&request, "20261123", Hash::Sha256, &Secret::new("k".repeat(150)));
        assert_eq!(signature, "988f47d738509cb764551dfc66f4c0a65ccf00ba336bbd118acd31ca810a6647");
    }

    #[test]
    fn a_signature_holds_for_nothing_but_its_request() {
        let (request, secret) = example();
        let good = sign(&request, "20261123", Hash::Sha256, &secret);
        let holds = |request: &Request<'_>, day, secret: &Secret, hex: &str| {
            verify(request, day, Hash::Sha256, secret, hex)
        };
        assert!(holds(&request, "20261123", &secret, &good));
        assert!(holds(
            &Request { content_type: "application/json; charset=utf-8", ..request },
            "20261123",
            &secret,
            &good
        ));
        assert!(!holds(&request, "20261124", &secret, &good));
        assert!(!holds(&request, "20261123", &Secret::new("other"), &good));
        assert!(!holds(&Request { target: "/admin/gql", ..request }, "20261123", &secret, &good));
        assert!(!holds(&Request { host: "127.0.0.1", ..request }, "20261123", &secret, &good));
        assert!(!holds(&Request { method: "GET", ..request }, "20261123", &secret, &good));
        let sorna = Request { version_header: ("x-sorna-version", "v6.20220315"), ..request };
        assert!(!holds(&sorna, "20261123", &secret, &good));
        for bad in ["", &good[1..], &good.to_uppercase(), &format!("{good}0"), &"0".repeat(5000)] {
            assert!(!holds(&request, "20261123", &secret, bad), "{bad}");
        }
    }

    #[test]
    fn the_digests_of_nothing_are_those() {
        use sha2::Digest as _;
        for (hash, name, of_nothing) in HASHES {
            let actual = match hash {
                Hash::Sha224 => sha2::Sha224::digest(b"").to_vec(),
                Hash::Sha256 => sha2::Sha256::digest(b"").to_vec(),
                Hash::Sha384 => sha2::Sha384::digest(b"").to_vec(),
                Hash::Sha512 => sha2::Sha512::digest(b"").to_vec(),
                Hash::Sha3_224 => sha3::Sha3_224::digest(b"").to_vec(),
                Hash::Sha3_256 => sha3::Sha3_256::digest(b"").to_vec(),
                Hash::Sha3_384 => sha3::Sha3_384::digest(b"").to_vec(),
                Hash::Sha3_512 => sha3::Sha3_512::digest(b"").to_vec(),
                Hash::Blake2b => blake2::Blake2b512::digest(b"").to_vec(),
                Hash::Blake2s => blake2::Blake2s256::digest(b"").to_vec(),
            };
            assert_eq!(crate::base::digest::hex(&actual), of_nothing, "{name}");
            assert_eq!(hash.name(), name);
        }
    }

    #[test]
    fn an_authorization_header_comes_apart() {
        let parsed = Authorization::parse("BackendAI signMethod=HMAC-SHA3_256, credential=AK:ab12").unwrap();
        assert_eq!(parsed, Authorization { hash: Hash::Sha3_256, access_key: "AK", signature: "ab12" });
        assert_eq!(Authorization::parse(&parsed.to_string()), Ok(parsed));
        assert!(Authorization::parse("Sorna  credential = AK:x ,signMethod=hmac-sha256").is_ok());
        for (header, expected) in [
            ("", Malformed::Header),
            ("BackendAI", Malformed::Header),
            ("Bearer x", Malformed::Scheme),
            ("backendai signMethod=HMAC-SHA256, credential=a:b", Malformed::Scheme),
            ("BackendAI signMethod", Malformed::Parameters),
            ("BackendAI signMethod=HMAC-SHA256", Malformed::Parameters),
            ("BackendAI credential=a:b", Malformed::Parameters),
            ("BackendAI signMethod=HMAC-SHA256, credential=ab", Malformed::Parameters),
            ("BackendAI signMethod=CMAC-AES, credential=a:b", Malformed::Mac),
            ("BackendAI signMethod=SHA256, credential=a:b", Malformed::Mac),
            ("BackendAI signMethod=HMAC-MD5, credential=a:b", Malformed::Hash),
            ("BackendAI signMethod=HMAC-SHA1, credential=a:b", Malformed::Hash),
            ("BackendAI signMethod=HMAC-SHAKE_128, credential=a:b", Malformed::Hash),
        ] {
            assert_eq!(Authorization::parse(header), Err(expected), "{header}");
        }
        let message = Malformed::Hash.to_string();
        assert!(message.ends_with("use one of sha224, sha256, sha384, sha512, sha3_224, sha3_256, sha3_384, sha3_512, blake2b, blake2s"), "{message}");
    }

    #[test]
    fn a_date_keeps_the_day_of_its_own_offset() {
        for (text, at, day) in [
            ("2026-11-23T13:24:00.552868+00:00", "2026-11-23T13:24:00.552868Z", "20261123"),
            ("2026-11-23T23:24:00-05:00", "2026-11-24T04:24:00Z", "20261123"),
            ("2026-11-24T01:00:00+09:00", "2026-11-23T16:00:00Z", "20261124"),
            ("2026-11-23T13:24:00Z", "2026-11-23T13:24:00Z", "20261123"),
            ("2026-11-23 13:24:00", "2026-11-23T13:24:00Z", "20261123"),
            ("20261123T132400Z", "2026-11-23T13:24:00Z", "20261123"),
            ("Mon, 23 Nov 2026 13:24:00 GMT", "2026-11-23T13:24:00Z", "20261123"),
            ("Mon, 23 Nov 2026 23:24:00 -0500", "2026-11-24T04:24:00Z", "20261123"),
        ] {
            let sent = parse_date(text).unwrap();
            assert_eq!((sent.at.to_string().as_str(), sent.day.as_str()), (at, day), "{text}");
        }
        for bad in ["", "now", "2026-11-23", "2026-13-01T00:00:00Z", "1764000000", &"2".repeat(200)] {
            assert_eq!(parse_date(bad), Err(Malformed::Date), "{bad}");
        }
    }
}
