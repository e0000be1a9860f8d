//! Answers a peer that asks for a part of an image: the read side of the OCI distribution specification's HTTP, on
//! whatever server carries it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::base::digest::Digest;
use crate::base::reference::is_repository;
use crate::sources::grants::{Access, Grants};

/// The user name that goes with a grant in Basic authentication.
pub(crate) const USER: &str = "grant";
/// How many bytes are read from disk at once.
const PIECE: usize = 256 * 1024;
/// Longest path, in bytes. A repository's name has at most 255, a digest 135.
const MAX_PATH: usize = 1_024;
/// The media type of all manifests in a layout.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The parts of a request that matter here.
pub(crate) struct PeerRequest<'a> {
    /// The HTTP method.
    pub(crate) method: &'a str,
    /// The path, from `/v2/` on.
    pub(crate) path: &'a str,
    /// The `Authorization` header.
    pub(crate) authorization: Option<&'a str>,
    /// The `Range` header.
    pub(crate) range: Option<&'a str>,
}

/// The answer to a [`PeerRequest`].
pub(crate) struct PeerResponse {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers, by name.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body; none for HEAD.
    pub(crate) body: Option<BoxStream<'static, io::Result<Bytes>>>,
}

impl PeerResponse {
    fn empty(status: u16) -> Self {
        Self { status, headers: vec![("content-length", "0".into())], body: None }
    }

    /// Whether the request showed a valid grant.
    pub(crate) fn is_granted(&self) -> bool {
        self.status != 401
    }
}

/// Answers a request. A peer without a grant learns nothing about the images here.
pub(crate) async fn answer(grants: &Grants, wanted: &PeerRequest<'_>) -> PeerResponse {
    let Some(grant) = wanted.authorization.and_then(grant) else { return unauthorized() };
    let Some((kind, part)) = named(wanted.path) else {
        // The path names no part, so the grant can't be checked either.
        return unauthorized();
    };
    let export = match grants.access(&grant, &part, Instant::now()) {
        Access::Unknown => return unauthorized(),
        Access::Outside => return PeerResponse::empty(403),
        Access::Open(export) => export,
    };
    if !matches!(wanted.method, "GET" | "HEAD") {
        return PeerResponse::empty(405);
    }
    match export.open(&part).await {
        Ok(Some((file, size))) => sent(wanted, kind, &part, file, size),
        Ok(None) => PeerResponse::empty(404),
        Err(fault) => {
            tracing::warn!(%fault, "a part of an image can't be handed out");
            PeerResponse::empty(500)
        }
    }
}

fn unauthorized() -> PeerResponse {
    let mut answer = PeerResponse::empty(401);
    answer.headers.push(("www-authenticate", "Basic realm=\"wharf\"".into()));
    answer
}

/// Reads the grant from `Basic …`.
fn grant(authorization: &str) -> Option<String> {
    let (scheme, text) = authorization.split_once(' ')?;
    let text = STANDARD.decode(text.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(text).ok()?;
    text.split_once(':').filter(|(user, _)| *user == USER).map(|(_, grant)| grant.into())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ContentKind {
    Manifest,
    Blob,
}

/// The part that `/v2/<name>/blobs/<digest>` or `/v2/<name>/manifests/<digest>` names. The repository's name does not
/// matter: the grant decides.
fn named(path: &str) -> Option<(ContentKind, Digest)> {
    let path = path.strip_prefix("/v2/").filter(|_| path.len() <= MAX_PATH)?;
    let (rest, digest) = path.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    let kind = match kind {
        "manifests" => ContentKind::Manifest,
        "blobs" => ContentKind::Blob,
        _ => return None,
    };
    let digest = digest.parse().ok().filter(|_| is_repository(name))?;
    Some((kind, digest))
}

fn sent(wanted: &PeerRequest<'_>, kind: ContentKind, part: &Digest, file: File, size: u64) -> PeerResponse {
    let (first, last) = match wanted.range.and_then(|range| read_range(range, size)) {
        Some(Ok(range)) => range,
        Some(Err(())) => {
            let mut answer = PeerResponse::empty(416);
            answer.headers.push(("content-range", format!("bytes */{size}")));
            return answer;
        }
        None => (0, size.saturating_sub(1)),
    };
    let is_part = first > 0 || last.saturating_add(1) < size;
    let length = if size == 0 { 0 } else { last - first + 1 };
    let content_type = if kind == ContentKind::Manifest { MANIFEST } else { "application/octet-stream" };
    let mut headers = vec![
        ("content-length", length.to_string()),
        ("content-type", content_type.into()),
        ("accept-ranges", "bytes".into()),
        ("docker-content-digest", part.to_string()),
    ];
    if is_part {
        headers.push(("content-range", format!("bytes {first}-{last}/{size}")));
    }
    let body = (wanted.method == "GET").then(|| pieces(file, first, length));
    PeerResponse { status: if is_part { 206 } else { 200 }, headers, body }
}

/// Parses `bytes=5-` or `bytes=5-9` (RFC 9110, 14.1.2) into the first and last byte. `None` for text that is no such
/// range, which is ignored; an error for a range that begins after the end.
fn read_range(text: &str, size: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = size.saturating_sub(1);
    let last = if last.is_empty() { end } else { last.parse::<u64>().ok()?.min(end) };
    if first >= size {
        return Some(Err(()));
    }
    (first <= last).then_some(Ok((first, last)))
}

/// Streams `length` bytes of a file from byte `first` on, read as they are needed.
pub(crate) fn pieces(file: File, first: u64, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
    struct Reading {
        file: File,
        seek: Option<u64>,
        left: u64,
    }
    let begun = Reading { file, seek: (first > 0).then_some(first), left: length };
    stream::unfold(Some(begun), async |reading| {
        let mut reading = reading.filter(|reading| reading.left > 0)?;
        let read = tokio::task::spawn_blocking(move || {
            if let Some(first) = reading.seek.take() {
                reading.file.seek(SeekFrom::Start(first))?;
            }
            let most = usize::try_from(reading.left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; most];
            reading.file.read_exact(&mut piece)?;
            reading.left -= u64::try_from(most).unwrap_or(reading.left);
            Ok((Bytes::from(piece), reading))
        });
        match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((piece, reading)) => Some((Ok(piece), Some(reading))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::{ContentKind, grant, named, read_range};
    use crate::base::digest::Digest;

    #[test]
    fn a_path_names_a_part_or_nothing() {
        let digest = Digest::sha256_of(b"x");
        assert_eq!(
            named(&format!("/v2/lab/python/blobs/{digest}")),
            Some((ContentKind::Blob, digest.clone()))
        );
        assert_eq!(
            named(&format!("/v2/a/manifests/{digest}")),
            Some((ContentKind::Manifest, digest.clone()))
        );
        for path in [
            "/v2/".to_owned(),
            "/v2/a/blobs/latest".to_owned(),
            format!("/v2/blobs/{digest}"),
            format!("/v2/../etc/blobs/{digest}"),
            format!("/v2/a/tags/{digest}"),
            format!("/v2/a/blobs/{digest}/"),
            format!("/v1/a/blobs/{digest}"),
            format!("/v2/{}/blobs/{digest}", "a/".repeat(600)),
        ] {
            assert_eq!(named(&path), None, "{path}");
        }
    }

    #[test]
    fn a_range_is_a_part_of_what_there_is() {
        for (text, expected) in [
            ("bytes=5-", Some(Ok((5, 9)))),
            ("bytes=0-", Some(Ok((0, 9)))),
            ("bytes=2-3", Some(Ok((2, 3)))),
            ("bytes=2-99", Some(Ok((2, 9)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=3-2", None),
            ("bytes=-5", None),
            ("bytes=1-2,4-5", None),
            ("lines=1-", None),
            ("", None),
        ] {
            assert_eq!(read_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn a_grant_is_the_password_of_one_user() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(grant(&basic("grant:abc:d")).as_deref(), Some("abc:d"));
        for text in [basic("user:abc"), basic("grant"), "Basic %%".into(), "Bearer abc".into(), String::new()]
        {
            assert_eq!(grant(&text), None, "{text}");
        }
    }
}
