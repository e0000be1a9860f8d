//! The admin UI's files, which the binary carries.

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

/// Everything that is no other route: a file of the UI by its exact name, or its page for a person who came by a link.
/// The root is the page for people and the version for programs, which say `Accept: */*`.
#[handler]
pub fn page(request: &Request) -> Result<Response, Problem> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::unknown_path());
    }
    let path = request.uri().path().trim_start_matches('/');
    if let Some(file) = Files::get(path) {
        let etag = etag(&file);
        let is_known = request.header(header::IF_NONE_MATCH).is_some_and(|known| known.contains(&etag));
        return Ok(if is_known { unchanged(&etag) } else { whole(path, file, &etag) });
    }
    if prefers_html(request.header(header::ACCEPT).unwrap_or_default()) {
        return Ok(index());
    }
    if path.is_empty() { Ok(hello::version(request)) } else { Err(Problem::unknown_path()) }
}

/// Browsers name `text/html` first; programs say `*/*` or nothing.
fn prefers_html(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default();
    first.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html")
}

/// The UI's page.
fn index() -> Response {
    match Files::get(INDEX) {
        Some(file) => {
            let etag = etag(&file);
            whole(INDEX, file, &etag)
        }
        None => Problem::unknown_path().response(),
    }
}

fn etag(file: &EmbeddedFile) -> String {
    format!("\"{}\"", hex(&file.metadata.sha256_hash()))
}

fn unchanged(etag: &str) -> Response {
    Response::builder().status(StatusCode::NOT_MODIFIED).header(header::ETAG, etag).finish()
}

fn whole(path: &str, file: EmbeddedFile, etag: &str) -> Response {
    let media_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        // Ask each time: the answer is 304 until a new version of wharf runs here.
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::ETAG, etag)
        .body(Body::from_vec(file.data.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::prefers_html;

    #[test]
    fn browsers_get_pages_and_programs_do_not() {
        assert!(prefers_html("text/html,application/xhtml+xml,*/*;q=0.8"));
        for accept in ["*/*", "", "application/json", "application/json, text/html"] {
            assert!(!prefers_html(accept), "{accept}");
        }
    }
}
