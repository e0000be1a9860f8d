//! What every request passes: the check of its host, the headers that keep browsers safe, the counters and the log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use poem::http::uri::Authority;
use poem::http::{HeaderName, HeaderValue, header};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};

use crate::access::rates::{self, RateStatus};
use crate::base::loopback;
use crate::base::reference::shown;
use crate::http::caller::Tally;
use crate::http::health::Requests;
use crate::http::peer::Proxies;
use crate::http::problem::{self, Problem};
use crate::http::refusals::Refusals;

/// The headers of every response. Pages may load from this server only, and run no script that is not one of its
/// files.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::SERVER, "wharf"),
    // An answer is for its caller only. Responses that may be cached say so themselves.
    (header::CACHE_CONTROL, "no-store"),
];

/// Also sent where a browser sees TLS: for a year, the browser uses only TLS.
const OVER_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The names of this server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Returns these names, besides `localhost` and every IP address, which always count.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a `Host` header names this server. With DNS rebinding, where another site's name points here, the
    /// header has that site's name. A page can have an IP address as its host only if it comes from the server at
    /// that address.
    fn know(&self, header: &str) -> bool {
        let name = name_in(header);
        address_in(&name).is_some() || loopback::is_host(header) || self.0.contains(&name)
    }

    /// Whether the request is for this server. It must name a single host, once: if it names two, a proxy in front
    /// may have believed the other.
    fn check(&self, request: &Request) -> Result<(), Problem> {
        let mut given = request.headers().get_all(header::HOST).iter();
        let host = given.next().map_or(Ok(""), HeaderValue::to_str).unwrap_or_default();
        let in_target = request.original_uri().authority().map(Authority::as_str);
        if given.next().is_some() || in_target.is_some_and(|other| !other.eq_ignore_ascii_case(host)) {
            return Err(Problem::bad_request("the request names more than one host; send one Host header"));
        }
        if self.know(host) {
            return Ok(());
        }
        let shown = shown(host);
        Err(Problem::misdirected(format!(
            "this server does not go by the name {shown:?}; if it should, start it with --host and that name"
        )))
    }
}

/// Returns the name in a `Host` header, without the port.
fn name_in(header: &str) -> String {
    let name = match header.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => header,
    };
    name.to_ascii_lowercase()
}

fn address_in(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The layer around all routes.
pub(crate) struct Guard {
    hosts: Arc<Hosts>,
    requests: Requests,
    proxies: Proxies,
    refusals: Refusals,
}

impl Guard {
    /// Returns a guard for a server of these names behind these proxies; it counts into `requests`.
    pub(crate) fn new(hosts: Hosts, requests: Requests, proxies: Proxies) -> Self {
        Self { hosts: Arc::new(hosts), requests, proxies, refusals: Refusals::default() }
    }
}

impl<E: Endpoint> Middleware<E> for Guard {
    type Output = Guarded<E>;

    fn transform(&self, inner: E) -> Guarded<E> {
        Guarded {
            inner,
            hosts: Arc::clone(&self.hosts),
            requests: self.requests.clone(),
            proxies: self.proxies.clone(),
            refusals: self.refusals.clone(),
        }
    }
}

/// An endpoint behind the guard.
pub(crate) struct Guarded<E> {
    inner: E,
    hosts: Arc<Hosts>,
    requests: Requests,
    proxies: Proxies,
    refusals: Refusals,
}

impl<E: Endpoint> Endpoint for Guarded<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let begun = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let peer = self.proxies.peer(&request);
        let tally = Tally::default();
        request.extensions_mut().insert(tally.clone());
        let mut response = match self.hosts.check(&request) {
            Err(problem) => problem.response(),
            Ok(()) => match self.inner.call(request).await {
                Ok(response) => response.into_response(),
                Err(error) => problem::of(&error),
            },
        };
        for (name, value) in HEADERS {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        if peer.is_secure {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, OVER_TLS);
        }
        if let Some(standing) = tally.standing() {
            tell(&mut response, standing);
        }
        self.requests.count(response.status());
        self.refusals.note(&response, peer.address, &method, &path);
        tracing::debug!(
            %method,
            path,
            status = response.status().as_u16(),
            milliseconds = begun.elapsed().as_millis(),
            "answered"
        );
        Ok(response)
    }
}

/// Reports how many more requests the sender may make, in Backend.AI's headers for this.
fn tell(response: &mut Response, standing: RateStatus) {
    let window = u32::try_from(rates::WINDOW.as_secs()).unwrap_or(u32::MAX);
    for (name, value) in [
        ("x-ratelimit-limit", standing.limit),
        ("x-ratelimit-remaining", standing.remaining),
        ("x-ratelimit-window", window),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    #[test]
    fn only_known_names_and_addresses_are_answered_to() {
        let hosts = Hosts::new(["Wharf.lab".to_owned()]);
        for host in ["127.0.0.1:8090", "10.1.2.3", "[::1]:80", "localhost:1", "a.localhost", "wharf.LAB:8090"]
        {
            assert!(hosts.know(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:8090", "127.0.0.1.evil.example", "lab", "localhost.evil"]
        {
            assert!(!hosts.know(host), "{host}");
        }
    }
}
