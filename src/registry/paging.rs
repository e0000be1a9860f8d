//! Where the next page of a listing is: the `Link` header (RFC 8288) and its limits.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::registry::{address::same_origin, error::Reason};

/// Longest `Link` target we follow, in bytes; cursors are opaque, but not that long.
const MAX_TARGET: usize = 8192;

/// The next page according to `Link: <…>; rel="next"`, resolved against the page it came with.
///
/// # Errors
/// [`Reason::Invalid`] when it leads to another origin, carries user info, or is no URL: the listing is then
/// incomplete and must not be taken for a complete one.
pub(crate) fn next_link(headers: &HeaderMap, page: &Url) -> Result<Option<Url>, Reason> {
    let Some(target) = headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok()).find_map(next_target)
    else {
        return Ok(None);
    };
    let invalid = |why: &str| Err(Reason::Invalid(format!("the link to the next page {why}")));
    if target.len() > MAX_TARGET {
        return invalid("is too long");
    }
    let Ok(mut next) = page.join(target) else { return invalid("is not a URL") };
    if !same_origin(&next, page) {
        return invalid("leads to another origin");
    }
    if !next.username().is_empty() || next.password().is_some() {
        return invalid("carries a user name or password");
    }
    next.set_fragment(None);
    Ok(Some(next))
}

/// The target of the first link of this header line whose relations include `next`.
fn next_target(line: &str) -> Option<&str> {
    let mut rest = line;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let end = parameters_end(after);
        if after.get(..end).is_some_and(has_rel_next) {
            return Some(target.trim());
        }
        rest = after.get(end..)?;
    }
}

/// Where this link's parameters end: at a comma outside quotes.
fn parameters_end(text: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn has_rel_next(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(key, value)| {
        key.trim().eq_ignore_ascii_case("rel")
            && value.trim().trim_matches('"').split_ascii_whitespace().any(|r| r.eq_ignore_ascii_case("next"))
    })
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
    fn no_link_is_the_end() {
        for links in
            [&[][..], &[""], &["</x>"], &["</x>; rel=prev"], &["garbage"], &["<"], &["<x"], &["</x>; rel"]]
        {
            assert_eq!(next(links), Ok(None), "{links:?}");
        }
    }

    #[test]
    fn a_link_that_leaves_the_origin_is_an_error_not_an_end() {
        for target in [
            "https://evil.example/v2/a/tags/list",
            "//evil.example/v2/",
            "http://cr.example.org:5000/v2/a/tags/list",
            "https://cr.example.org/v2/a/tags/list",
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
