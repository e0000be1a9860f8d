//! What a browser sends by itself, and how far the server may believe it: the session's cookie, and the page that a
//! request comes from.

use poem::Request;
use poem::http::{Method, header};

use crate::base::secret::Secret;
use crate::http::peer::Peer;
use crate::http::problem::Problem;

/// The cookie's name over TLS: a browser accepts it only from this very host, marked as secure, and for all its
/// paths.
const SECURE_COOKIE: &str = "__Host-wharf-session";
/// The cookie's name without TLS, where browsers do not accept the other one.
const PLAIN_COOKIE: &str = "wharf-session";
/// A header that no form can set, and no page of another site without asking first.
const ENCODED: &str = "X-BackendAI-Encoded";

/// Returns the session key that came with the request.
pub(crate) fn session_key(request: &Request, peer: Peer) -> Option<&str> {
    let lines = request.headers().get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies =
        lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, _)| *name == name_for(peer)).map(|(_, value)| value.trim_matches('"'))
}

/// Returns the cookie that makes the browser keep the key. It lasts as long as the browser's own session; how long
/// the key may be used is decided here, not there.
pub(crate) fn keep(key: &Secret, peer: Peer) -> String {
    cookie(key.expose(), peer, "")
}

/// Returns the cookie that makes the browser forget the key.
pub(crate) fn forget(peer: Peer) -> String {
    cookie("", peer, "; Max-Age=0")
}

fn cookie(value: &str, peer: Peer, more: &str) -> String {
    let secure = if peer.is_secure { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", name_for(peer))
}

fn name_for(peer: Peer) -> &'static str {
    if peer.is_secure { SECURE_COOKIE } else { PLAIN_COOKIE }
}

/// Refuses a request that a page of another site made the browser send. Programs name no page and pass.
pub(crate) fn check_page(request: &Request) -> Result<(), Problem> {
    let refused = |why: &str| Err(Problem::forbidden(format!("this request comes from another site: {why}")));
    if let Some(origin) = request.header(header::ORIGIN) {
        let host = request.header(header::HOST).unwrap_or_default();
        if !is_same_host(origin, host) {
            return refused("its Origin is not this server's");
        }
    }
    match request.header("Sec-Fetch-Site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => refused("the browser says so"),
    }
}

/// Does [`check_page`], and for changes also requires a content type that pages can't send to other sites without
/// asking.
pub(crate) fn check(request: &Request) -> Result<(), Problem> {
    check_page(request)?;
    if matches!(*request.method(), Method::GET | Method::HEAD) || is_encoded(request) || is_json(request) {
        Ok(())
    } else {
        Err(Problem::wrong_type())
    }
}

/// Whether the content type says that the body is JSON.
pub(crate) fn is_json(request: &Request) -> bool {
    let given = request.content_type().map(|given| given.split(';').next().unwrap_or_default().trim());
    given.is_some_and(|given| given.eq_ignore_ascii_case("application/json"))
}

/// Whether the body is sealed in the way of clients from 24.9 on.
pub(crate) fn is_encoded(request: &Request) -> bool {
    request.header(ENCODED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Whether an origin names this host. It ignores the scheme, because an untrusted proxy may have ended TLS.
fn is_same_host(origin: &str, host: &str) -> bool {
    let (host_part, default) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, ":80"),
        Some(("https", rest)) => (rest, ":443"),
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(default).unwrap_or(name).to_ascii_lowercase();
    !host.is_empty() && bare(host_part) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::is_same_host;

    #[test]
    fn a_page_is_ours_by_its_host_and_port() {
        assert!(is_same_host("http://127.0.0.1:8090", "127.0.0.1:8090"));
        assert!(is_same_host("https://wharf.lab", "wharf.lab"));
        assert!(is_same_host("https://Wharf.lab", "wharf.lab:443"));
        for (origin, host) in [
            ("null", "wharf.lab"),
            ("", ""),
            ("http://", ""),
            ("https://wharf.lab.evil.example", "wharf.lab"),
            ("https://evil.example", "wharf.lab"),
            ("http://127.0.0.1:8091", "127.0.0.1:8090"),
            ("http://wharf.lab:443", "wharf.lab"),
            ("file://wharf.lab", "wharf.lab"),
        ] {
            assert!(!is_same_host(origin, host), "{origin} is not {host}");
        }
    }
}
