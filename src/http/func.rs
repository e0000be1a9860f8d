//! `/func/<path>`: where clients in session mode expect `<path>`.

use poem::Request;
use poem::http::Uri;
use poem::http::uri::PathAndQuery;

/// Removes the prefix before routing. A signature is still checked over the path as it was sent.
pub(crate) fn strip(request: &mut Request) {
    if let Some(uri) = stripped(request.uri()) {
        *request.uri_mut() = uri;
    }
}

fn stripped(uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix("/func/")?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("/{rest}")).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use poem::http::Uri;

    use super::stripped;

    #[test]
    fn only_the_prefix_goes() {
        let strip = |uri: &'static str| stripped(&Uri::from_static(uri)).map(|uri| uri.to_string());
        assert_eq!(strip("/func/").unwrap(), "/");
        assert_eq!(strip("/func/admin/gql?a=b%2F").unwrap(), "/admin/gql?a=b%2F");
        for other in ["/func", "/function/x", "/admin/func/x", "/"] {
            assert_eq!(strip(other), None, "{other}");
        }
    }
}
