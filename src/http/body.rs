//! Small JSON bodies, in plain text or sealed by the official clients.

use aes::Aes256;
use aes::cipher::{BlockDecryptMut as _, KeyIvInit as _, block_padding::Pkcs7};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use poem::http::header;
use poem::{Body, Request};
use serde::de::DeserializeOwned;

use crate::http::browser;
use crate::http::problem::Problem;

/// The largest body. A sealed password of 1 KiB takes a tenth of it.
const MAX_BODY: usize = 16 * 1024;
const BLOCK: usize = 16;

/// Reads the body. It may hold a secret, so an error repeats nothing of it.
pub(crate) async fn read<T: DeserializeOwned>(request: &Request, body: Body) -> Result<T, Problem> {
    let bytes = body.into_bytes_limit(MAX_BODY).await.map_err(|error| Problem::unread(&error, MAX_BODY))?;
    let opened = if browser::is_encoded(request) {
        let host = request.header(header::HOST).unwrap_or_default();
        open(&bytes, &format!("http://{host}"))
    } else {
        Some(bytes.to_vec())
    };
    let read = opened.and_then(|text| serde_json::from_slice(&text).ok());
    read.ok_or_else(|| Problem::bad_request("the body is not the JSON object that is expected here"))
}

/// Opens a body that a client sealed for this endpoint: 16 letters, a colon, and base64 of AES-256-CBC. The key is
/// derived from the endpoint's address and those letters, so anyone who reads the body can open it. The seal only
/// keeps passwords out of plain sight.
fn open(sealed: &[u8], endpoint: &str) -> Option<Vec<u8>> {
    let (letters, rest) = sealed.split_first_chunk::<BLOCK>()?;
    let mut sealed = STANDARD.decode(rest.strip_prefix(b":")?.trim_ascii()).ok()?;
    let key: Vec<u8> = [STANDARD.encode(endpoint).as_bytes(), letters, letters].concat();
    let key: &[u8; 32] = key.first_chunk()?;
    let cipher = cbc::Decryptor::<Aes256>::new(key.into(), letters.into());
    cipher.decrypt_padded_mut::<Pkcs7>(&mut sealed).ok().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn what_a_client_sealed_is_opened_and_nothing_else() {
        // Sealed by the client of 26.9.6 for http://localhost:8090.
        let sealed = b"YbBqL0TabUyVThhu:Q/RB6B/rE1Q3b5RguSxnMLY7zOcuLTrQQbpIYLALKbpnORtolZUeCBQMlBEAS3c+";
        let text = br#"{"username": "a@b", "password": "pw"}"#;
        assert_eq!(open(sealed, "http://localhost:8090").unwrap(), text);
        assert!(open(sealed, "http://localhost:8091").is_none_or(|opened| opened != text));
        for wrong in [&b""[..], b":", b"0123456789abcdef", b"0123456789abcdef:", b"0123456789abcdef:!!!!"] {
            assert!(open(wrong, "http://localhost:8090").is_none_or(|opened| opened.is_empty()));
        }
    }
}
