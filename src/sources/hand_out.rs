//! Answers a peer, or an engine of this machine, that asks for a part of an image: the read side of the OCI
//! distribution specification's HTTP, on whatever server carries it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use crate::base::digest::Digest;
use crate::base::reference::is_repository;
use crate::engine::fault::{Class, Fault};
use crate::engine::pull::Taken;
use crate::engine::source::{Document, Flow, Source};
use crate::sources::grants::{Access, Grants};
use crate::sources::verified::verified;

/// The user name that goes with a grant in Basic authentication.
pub(crate) const USER: &str = "grant";
/// Longest path, in bytes. A repository's name has at most 255, a digest 135.
const MAX_PATH: usize = 1_024;
/// The media type of a manifest that does not say its own. Docker's always do.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The parts of a request that matter here.
pub(crate) struct PeerRequest<'a> {
    /// The HTTP method.
    pub(crate) method: &'a str,
    /// The path, from `/v2/` on.
    pub(crate) path: &'a str,
    /// Where the grant is.
    pub(crate) grant: GrantPlace<'a>,
    /// The `Range` header.
    pub(crate) range: Option<&'a str>,
}

/// Where a request has its grant.
#[derive(Clone, Copy)]
pub(crate) enum GrantPlace<'a> {
    /// The password in this `Authorization` header, if there is one.
    Header(Option<&'a str>),
    /// The name of the repository: engines ask the [relay](crate::sources::relay) so, which have no other way to send
    /// it.
    Path,
}

/// The answer to a [`PeerRequest`].
pub(crate) struct PeerResponse {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers, by name.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body; none for HEAD.
    pub(crate) body: Option<BoxStream<'static, io::Result<Bytes>>>,
    /// Whether the request showed a valid grant.
    pub(crate) is_granted: bool,
}

impl PeerResponse {
    fn empty(status: u16) -> Self {
        Self { status, headers: vec![("content-length", "0".into())], body: None, is_granted: false }
    }
}

/// Answers a request. A peer without a grant learns nothing about the images here.
pub(crate) async fn answer(grants: &Grants, wanted: &PeerRequest<'_>) -> PeerResponse {
    if matches!(wanted.grant, GrantPlace::Path) && wanted.path == "/v2/" {
        // Engines ask first whether this is a registry at all.
        let mut answer = PeerResponse::empty(200);
        answer.headers.push(("docker-distribution-api-version", "registry/2.0".into()));
        return answer;
    }
    let Some((name, kind, part)) = named(wanted.path) else {
        // The path names no part, so the grant can't be checked either.
        return unauthorized();
    };
    let grant = match wanted.grant {
        GrantPlace::Header(header) => header.and_then(grant),
        GrantPlace::Path => Some(name.to_owned()),
    };
    let Some(grant) = grant else { return unauthorized() };
    let (size, source, taken) = match grants.access(&grant, &part, Instant::now()) {
        Access::Unknown => return unauthorized(),
        Access::Outside => return PeerResponse { is_granted: true, ..PeerResponse::empty(404) },
        Access::Open { size, source, taken } => (size, source, taken),
    };
    if !matches!(wanted.method, "GET" | "HEAD") {
        return PeerResponse { is_granted: true, ..PeerResponse::empty(405) };
    }
    taken.note_request();
    let sent = match kind {
        ContentKind::Manifest => document(wanted, source.as_ref(), &part).await,
        ContentKind::Blob => blob(wanted, source, &part, size, taken).await,
    };
    let answer = sent.unwrap_or_else(|fault| {
        if fault.class == Class::NotFound {
            return PeerResponse::empty(404);
        }
        tracing::warn!(%fault, "a part of an image can't be handed out");
        PeerResponse::empty(502)
    });
    PeerResponse { is_granted: true, ..answer }
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

/// The repository and the part that `/v2/<name>/blobs/<digest>` or `/v2/<name>/manifests/<digest>` names.
fn named(path: &str) -> Option<(&str, ContentKind, Digest)> {
    let path = path.strip_prefix("/v2/").filter(|_| path.len() <= MAX_PATH)?;
    let (rest, digest) = path.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    let kind = match kind {
        "manifests" => ContentKind::Manifest,
        "blobs" => ContentKind::Blob,
        _ => return None,
    };
    let digest = digest.parse().ok().filter(|_| is_repository(name))?;
    Some((name, kind, digest))
}

/// Sends a manifest. It is read whole, since it must be checked, and says its type itself.
async fn document(
    wanted: &PeerRequest<'_>,
    source: &dyn Source,
    digest: &Digest,
) -> Result<PeerResponse, Fault> {
    let Document { media_type, bytes } = Document::of(source.manifest(digest.as_str()).await?.bytes);
    if !digest.matches(&bytes) {
        return Err(Fault::new(Class::Other, format!("what came as the manifest {digest} is another one")));
    }
    let headers = vec![
        ("content-length", bytes.len().to_string()),
        ("content-type", if media_type.is_empty() { MANIFEST.into() } else { media_type }),
        ("docker-content-digest", digest.to_string()),
    ];
    let body = (wanted.method == "GET").then(|| stream::iter([Ok(Bytes::from(bytes))]).boxed());
    Ok(PeerResponse { status: 200, headers, body, is_granted: true })
}

async fn blob(
    wanted: &PeerRequest<'_>,
    source: Arc<dyn Source>,
    digest: &Digest,
    size: u64,
    taken: Arc<Taken>,
) -> Result<PeerResponse, Fault> {
    let (first, last) = match wanted.range.and_then(|range| read_range(range, size)) {
        Some(Ok(range)) => range,
        Some(Err(())) => {
            let mut answer = PeerResponse::empty(416);
            answer.headers.push(("content-range", format!("bytes */{size}")));
            return Ok(answer);
        }
        None => (0, size.saturating_sub(1)),
    };
    let is_part = first > 0 || last.saturating_add(1) < size;
    let length = if size == 0 { 0 } else { last - first + 1 };
    let mut headers = vec![
        ("content-length", length.to_string()),
        ("content-type", "application/octet-stream".into()),
        ("accept-ranges", "bytes".into()),
        ("docker-content-digest", digest.to_string()),
    ];
    if is_part {
        headers.push(("content-range", format!("bytes {first}-{last}/{size}")));
    }
    let body = if wanted.method == "GET" {
        let flow = source.blob(digest, size, first).await?;
        // Peers verify what they get themselves; engines would only fail.
        let is_checked = !is_part && !flow.is_verified && matches!(wanted.grant, GrantPlace::Path);
        let whole = is_checked.then(|| (digest.clone(), source));
        let pieces = cut(flow, first, length, whole);
        let counted = pieces.inspect_ok(move |piece| taken.note_bytes(piece.len()));
        Some(counted.boxed())
    } else {
        None
    };
    Ok(PeerResponse { status: if is_part { 206 } else { 200 }, headers, body, is_granted: true })
}

/// The bytes of a flow from byte `first` on, `length` of them. A flow may begin before the byte that was asked for. A
/// whole blob is verified on the way.
fn cut(
    flow: Flow,
    first: u64,
    length: u64,
    whole: Option<(Digest, Arc<dyn Source>)>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let (mut skipped, mut left) = (first.saturating_sub(flow.from), length);
    let pieces = match whole {
        Some((digest, source)) if flow.from == 0 => {
            let doubted = digest.clone();
            verified(flow.pieces, digest, move || {
                let (source, doubted) = (Arc::clone(&source), doubted.clone());
                async move { source.doubt(&doubted).await }.map(|_| ()).boxed()
            })
        }
        _ => flow.pieces,
    };
    let pieces = pieces.map(move |piece| {
        let mut piece = piece.map_err(|fault| io::Error::other(fault.to_string()))?;
        let before = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
        skipped -= u64::try_from(before).unwrap_or(skipped);
        let mut piece = piece.split_off(before);
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= u64::try_from(piece.len()).unwrap_or(left);
        Ok(piece)
    });
    pieces.boxed()
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
            Some(("lab/python", ContentKind::Blob, digest.clone()))
        );
        assert_eq!(
            named(&format!("/v2/a/manifests/{digest}")),
            Some(("a", ContentKind::Manifest, digest.clone()))
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
