//! The admin UI's files, which are part of the binary.

use std::borrow::Cow;

use bytes::Bytes;
use poem::http::{Method, StatusCode, header};
use poem::{Body, Request, Response, handler};
use rust_embed::{Embed, EmbeddedFile};

use crate::base::digest::hex;
use crate::http::hello;
use crate::http::problem::Problem;

#[derive(Embed)]
#[folder = "ui/dist"]
struct Files;

const INDEX: &str = "index.html";
/// The suffix of a file's brotli twin, which the build makes.
const PACKED: &str = ".br";

/// Answers every path that is no other route: with a file of the UI by its exact name, or with the UI's page for a
/// user who followed a link. The root is the page for users and the version for programs, which send `Accept: */*`.
#[handler]
pub(crate) fn page(request: &Request) -> Result<Response, Problem> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::unknown_path());
    }
    let path = request.uri().path().trim_start_matches('/');
    let found = if path.ends_with(PACKED) { None } else { file(request, path) };
    if let Some(answer) = found {
        return Ok(answer);
    }
    if prefers_html(request.header(header::ACCEPT).unwrap_or_default()) {
        return file(request, INDEX).ok_or_else(Problem::unknown_path);
    }
    if path.is_empty() { Ok(hello::version(request)) } else { Err(Problem::unknown_path()) }
}

/// Returns a file of the UI, compressed if the browser supports it; only its tag if the browser already has it.
fn file(request: &Request, path: &str) -> Option<Response> {
    let unpacks = takes_brotli(request.header(header::ACCEPT_ENCODING).unwrap_or_default());
    let packed = if unpacks { Files::get(&format!("{path}{PACKED}")) } else { None };
    let is_packed = packed.is_some();
    let file = packed.or_else(|| Files::get(path))?;
    let etag = etag(&file);
    let is_known = request.header(header::IF_NONE_MATCH).is_some_and(|known| known.contains(&etag));
    Some(if is_known { unchanged(&etag) } else { whole(path, file, &etag, is_packed) })
}

/// Whether `Accept-Encoding` accepts brotli.
fn takes_brotli(accept: &str) -> bool {
    accept.split(',').any(|one| {
        let (name, quality) = one.split_once(';').unwrap_or((one, ""));
        let refused = matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case("br") && !refused
    })
}

/// Whether the client is a browser: browsers name `text/html` first, programs send `*/*` or nothing.
fn prefers_html(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default();
    first.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html")
}

fn etag(file: &EmbeddedFile) -> String {
    format!("\"{}\"", hex(&file.metadata.sha256_hash()))
}

fn unchanged(etag: &str) -> Response {
    Response::builder()
        .status(StatusCode::NOT_MODIFIED)
        .header(header::ETAG, etag)
        .header(header::VARY, "Accept-Encoding")
        .finish()
}

fn whole(path: &str, file: EmbeddedFile, etag: &str, is_packed: bool) -> Response {
    let media_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::VARY, "Accept-Encoding")
        // The browser asks each time: the answer is 304 until a new version of wharf runs here.
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::ETAG, etag);
    if is_packed {
        response = response.header(header::CONTENT_ENCODING, "br");
    }
    // The file is sent straight from the binary: a copy for each answer would take as much memory as a client leaves
    // unread.
    response.body(Body::from_bytes(match file.data {
        Cow::Borrowed(carried) => Bytes::from_static(carried),
        Cow::Owned(read) => read.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{prefers_html, takes_brotli};

    #[test]
    fn brotli_is_for_those_who_ask_for_it() {
        for accept in ["br", "gzip, deflate, br, zstd", "gzip;q=0.5, BR;q=1.0"] {
            assert!(takes_brotli(accept), "{accept}");
        }
        for accept in ["", "gzip, deflate", "*", "br;q=0", "brotli"] {
            assert!(!takes_brotli(accept), "{accept}");
        }
    }

    #[test]
    fn browsers_get_pages_and_programs_do_not() {
        assert!(prefers_html("text/html,application/xhtml+xml,*/*;q=0.8"));
        for accept in ["*/*", "", "application/json", "application/json, text/html"] {
            assert!(!prefers_html(accept), "{accept}");
        }
    }
}
