//! Where the next page of a listing is: the `Link` header (RFC 8288) and its limits.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::registry::{
    address::{same_host, same_origin},
    error::Reason,
};

/// Longest `Link` target we follow, in bytes; cursors are opaque, but not that long.
const MAX_TARGET: usize = 8192;

/// The next page according to `Link: <…>; rel="next"`, resolved against the page it came with. A proxy in front of a
/// registry may hide from it that it is asked by https, or at which port: a link to the same host and path is taken to
/// our own origin.
///
/// # Errors
/// [`Reason::Invalid`] when it leads to another origin, carries user info, is no URL or can't be read: the listing is
/// then incomplete and must not be taken for a complete one.
pub(crate) fn next_link(headers: &HeaderMap, page: &Url) -> Result<Option<Url>, Reason> {
    let invalid = |why: &str| Err(Reason::Invalid(format!("the link to the next page {why}")));
    let mut found = None;
    for value in headers.get_all(LINK) {
        let line = String::from_utf8_lossy(value.as_bytes());
        match next_target(&line) {
            Ok(Some(target)) if found.is_none() => found = Some(target.to_owned()),
            Ok(_) => {}
            Err(Unreadable) => return invalid("can't be read"),
        }
    }
    let Some(target) = found else { return Ok(None) };
    if target.len() > MAX_TARGET {
        return invalid("is too long");
    }
    let Ok(mut next) = page.join(&target) else { return invalid("is not a URL") };
    if !next.username().is_empty() || next.password().is_some() {
        return invalid("carries a user name or password");
    }
    if !same_origin(&next, page) {
        if !same_host(&next, page) || next.path() != page.path() {
            return invalid("leads to another origin");
        }
        let mut own = page.clone();
        own.set_query(next.query());
        next = own;
    }
    next.set_fragment(None);
    Ok(Some(next))
}

/// A header line that is no list of links.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

/// The target of the first link of this header line whose relations include `next`. A link that does not name its
/// relation is taken for one to the next page: nothing else is linked from a page of names, and where it leads
/// elsewhere, the page that answers is none.
fn next_target(line: &str) -> Result<Option<&str>, Unreadable> {
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (target, after) = match rest.strip_prefix('<') {
            Some(inside) => inside.split_once('>').ok_or(Unreadable)?,
            // Quay once left the brackets out.
            None => rest.split_at_checked(rest.find(';').ok_or(Unreadable)?).ok_or(Unreadable)?,
        };
        let (parameters, behind) = cut(after, ',');
        if !parameters.trim_start().is_empty() && !parameters.trim_start().starts_with(';') {
            return Err(Unreadable);
        }
        if is_next(parameters)? {
            return Ok(Some(target.trim()));
        }
        rest = behind.trim_start_matches([',', ' ', '\t']);
    }
    Ok(None)
}

/// Cuts a text at the first such mark outside quotes; the mark stays with the rest.
fn cut(text: &str, mark: char) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == mark && !quoted => return text.split_at_checked(at).unwrap_or((text, "")),
            _ => {}
        }
    }
    (text, "")
}

/// Whether the relations that these parameters name include `next`, or none is named. Of several `rel`, the first
/// counts (RFC 8288, 3.3).
fn is_next(parameters: &str) -> Result<bool, Unreadable> {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, behind) = cut(rest.trim_start_matches(';'), ';');
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key.trim().eq_ignore_ascii_case("rel") {
            let names = value.trim().trim_matches(['"', '\'']);
            let is_next = names.split_ascii_whitespace().any(|name| name.eq_ignore_ascii_case("next"));
            return if names.is_empty() { Err(Unreadable) } else { Ok(is_next) };
        }
        rest = behind;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, LINK};
    use url::Url;

    use super::next_link;

    fn next(links: &[&str]) -> Result<Option<String>, String> {
        let page = Url::parse("https://cr.example.org:5000/v2/a/tags/list?n=10").unwrap();
        let headers: HeaderMap = links.iter().map(|link| (LINK, link.parse().unwrap())).collect();
        next_link(&headers, &page).map(|n| n.map(Into::into)).map_err(|reason| reason.to_string())
    }

    #[test]
    fn the_next_page_is_found_in_every_legal_spelling() {
        let expected = Ok(Some("https://cr.example.org:5000/v2/a/tags/list?last=x&n=10".to_owned()));
        for link in [
            r#"</v2/a/tags/list?last=x&n=10>; rel="next""#,
            "</v2/a/tags/list?last=x&n=10>;rel=next",
            r#"<list?last=x&n=10>; title="a, b; rel=\"prev\""; REL="last NEXT""#,
            r#"<?last=x&n=10#part>; rel="next""#,
            "<../../a/tags/list?last=x&n=10>; rel=next",
            r#"<https://CR.example.org:5000/v2/a/tags/list?last=x&n=10>; rel="next""#,
            r#"</v2/first>; rel="prev", </v2/a/tags/list?last=x&n=10>; rel="next", </other>; rel="next""#,
        ] {
            assert_eq!(next(&[link]), expected, "{link}");
        }
        assert_eq!(next(&["</x>; rel=prev", "</v2/a/tags/list?last=x&n=10>; rel=next"]), expected);
    }

    #[test]
    fn the_next_page_is_found_however_carelessly_the_link_is_written() {
        let expected = Ok(Some("https://cr.example.org:5000/v2/a/tags/list?last=x&n=10".to_owned()));
        for link in [
            r#"/v2/a/tags/list?last=x&n=10; rel="next""#,
            "https://cr.example.org:5000/v2/a/tags/list?last=x&n=10;rel=next",
            "</v2/a/tags/list?last=x&n=10>; rel='next'",
            "</v2/a/tags/list?last=x&n=10>",
            "</v2/a/tags/list?last=x&n=10>; type=\"application/json\"",
            r#"</v2/a/tags/list?last=x&n=10> ; rel=next;rel="prev""#,
            r#"</first>; rel=first,,</v2/a/tags/list?last=x&n=10>; rel="next""#,
        ] {
            assert_eq!(next(&[link]), expected, "{link}");
        }
    }

    #[test]
    fn a_link_that_lost_its_scheme_or_port_on_the_way_leads_to_our_own_origin() {
        let expected = Ok(Some("https://cr.example.org:5000/v2/a/tags/list?last=x".to_owned()));
        for target in [
            "http://cr.example.org:5000/v2/a/tags/list?last=x",
            "http://cr.example.org/v2/a/tags/list?last=x",
            "https://cr.example.org/v2/a/tags/list?last=x",
            "http://CR.example.org:8080/v2/a/tags/list?last=x",
        ] {
            assert_eq!(next(&[&format!("<{target}>; rel=\"next\"")]), expected, "{target}");
        }
    }

    #[test]
    fn no_link_to_the_next_page_is_the_end() {
        for links in [&[][..], &[""], &["</x>; rel=prev"], &["</x>; rel=\"first last\", </y>; rel=up"]] {
            assert_eq!(next(links), Ok(None), "{links:?}");
        }
    }

    #[test]
    fn a_link_that_cannot_be_read_is_an_error_not_an_end() {
        for link in ["garbage", "<", "<x", "</x>; rel", "</x>; rel=", "</x> rel=next", "</x>; rel=prev, <"] {
            assert!(next(&[link]).is_err(), "{link}");
        }
    }

    #[test]
    fn a_link_that_leaves_the_origin_is_an_error_not_an_end() {
        for target in [
            "https://evil.example/v2/a/tags/list",
            "//evil.example/v2/",
            "http://cr.example.org:5000/v2/b/tags/list",
            "https://cr.example.org/v2/b/tags/list",
            "https://cr.example.org:5001/",
            "https://user:pw@cr.example.org:5000/v2/",
            "https://cr.example.org:5000@evil.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://",
            r"\\evil.example\v2",
        ] {
            let result = next(&[&format!("<{target}>; rel=\"next\"")]);
            assert!(result.is_err(), "{target}: {result:?}");
        }
        assert!(next(&[&format!("</{}>; rel=next", "a".repeat(9000))]).is_err());
    }
}
