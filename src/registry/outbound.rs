//! The proxies behind which registries are, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, in capitals or small letters, read as curl reads them; or the one that a registry names for itself.
//!
//! A proxy resolves names itself, so that the address filter sees the proxy's addresses only, which the operator chose.
//! Targets are judged by their names and by addresses in URLs.

use std::{env, net::IpAddr};

use url::Url;

use crate::base::loopback;

/// How requests leave this machine: through which proxies, and to which hosts without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outbound {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<String>,
}

impl Outbound {
    /// The proxies that the environment of this process names.
    ///
    /// # Errors
    /// The name of a variable whose value is no proxy that can be used.
    pub(crate) fn of_environment() -> Result<Self, String> {
        Self::read(|name| env::var(name).ok())
    }

    /// Everything through this proxy, but for this machine.
    pub(crate) fn through(proxy: Url) -> Self {
        Self { http: Some(proxy.clone()), https: Some(proxy), direct: Vec::new() }
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name: &str| {
            let names = [name.to_ascii_lowercase(), name.to_owned()];
            let values = names.into_iter().filter_map(|name| Some((variable(&name)?, name)));
            values.map(|(value, name)| (value.trim().to_owned(), name)).find(|(value, _)| !value.is_empty())
        };
        let proxy = |name: &str| {
            let Some((value, name)) = given(name).or_else(|| given("ALL_PROXY")) else { return Ok(None) };
            let whole = if value.contains("://") { value } else { format!("http://{value}") };
            match Url::parse(&whole) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
                _ => Err(format!("{name} names no proxy that is spoken to by http:// or https://")),
            }
        };
        let direct = given("NO_PROXY").map(|(value, _)| value).unwrap_or_default();
        let direct = direct.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        let direct = direct.filter(|entry| !entry.is_empty()).collect();
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, direct })
    }

    /// The proxy for this URL; `None` for a direct connection.
    pub(crate) fn of(&self, url: &Url) -> Option<Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.clone().filter(|_| !loopback::is_url(url) && !self.is_direct(url))
    }

    /// Whether this is the host of a proxy, to which connections are made whatever its address.
    pub(crate) fn is_proxy(&self, host: &str) -> bool {
        let is = |proxy: &Url| proxy.host_str().is_some_and(|own| own.eq_ignore_ascii_case(host));
        self.http.iter().chain(&self.https).any(is)
    }

    fn is_direct(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.');
        let port = url.port_or_known_default().map(|port| port.to_string());
        self.direct.iter().any(|entry| {
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_matches(['[', ']']).trim_start_matches("*.").trim_start_matches('.');
            let below = || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
            let is_named = name == "*" || host == name || below() || is_within(host, name);
            is_named && (wanted.is_none() || wanted == port.as_deref())
        })
    }
}

/// Whether an address is in a network such as `10.0.0.0/8`.
fn is_within(host: &str, network: &str) -> bool {
    let parsed = network.split_once('/').and_then(|(base, length)| {
        Some((host.parse::<IpAddr>().ok()?, base.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?))
    });
    match parsed {
        Some((IpAddr::V4(host), IpAddr::V4(base), length @ 0..=32)) => {
            u32::MAX.checked_shl(32 - length).unwrap_or(0) & (u32::from(host) ^ u32::from(base)) == 0
        }
        Some((IpAddr::V6(host), IpAddr::V6(base), length @ 0..=128)) => {
            u128::MAX.checked_shl(128 - length).unwrap_or(0) & (u128::from(host) ^ u128::from(base)) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::Outbound;

    fn read(variables: &[(&str, &str)]) -> Result<Outbound, String> {
        Outbound::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    fn of(proxies: &Outbound, url: &str) -> Option<String> {
        proxies.of(&Url::parse(url).unwrap()).map(Into::into)
    }

    #[test]
    fn the_variable_for_the_scheme_counts_in_any_letter_case() {
        let (one, other) = (Some("http://proxy.lab:3128/".to_owned()), Some("https://other.lab/".to_owned()));
        for (variables, http, https) in [
            (&[("HTTP_PROXY", "http://proxy.lab:3128")][..], &one, &None),
            (&[("http_proxy", "proxy.lab:3128")], &one, &None),
            (&[("HTTPS_PROXY", " http://proxy.lab:3128\r\n")], &None, &one),
            (&[("all_proxy", "http://proxy.lab:3128")], &one, &one),
            (&[("ALL_PROXY", "http://proxy.lab:3128"), ("https_proxy", "https://other.lab")], &one, &other),
            (&[("HTTP_PROXY", ""), ("NO_PROXY", "")], &None, &None),
            (&[], &None, &None),
        ] {
            let proxies = read(variables).unwrap();
            assert_eq!(of(&proxies, "http://cr.test/v2/"), *http, "{variables:?}");
            assert_eq!(of(&proxies, "https://cr.test/v2/"), *https, "{variables:?}");
            // This machine is never asked of a proxy.
            for here in ["http://127.0.0.1:5000/", "http://localhost/", "http://[::1]:5000/"] {
                assert_eq!(of(&proxies, here), None, "{variables:?}");
            }
        }
        for value in ["socks5://proxy.lab", "ftp://x", "http://"] {
            let why = read(&[("HTTPS_PROXY", value)]).unwrap_err();
            assert!(why.starts_with("HTTPS_PROXY "), "{why}");
        }
        let proxies = read(&[("ALL_PROXY", "http://user:pw@proxy.lab")]).unwrap();
        assert!(proxies.is_proxy("PROXY.lab") && !proxies.is_proxy("cr.test"));
    }

    #[test]
    fn hosts_that_are_named_are_reached_directly() {
        for (direct, url) in [
            ("cr.test", "https://cr.test/"),
            ("a, cr.test ,b", "https://CR.test/"),
            (".cr.test", "https://deep.cr.test/"),
            (".cr.test", "https://cr.test/"),
            ("cr.test", "https://deep.cr.test/"),
            ("*.cr.test", "https://deep.cr.test/"),
            ("cr.test:5000", "https://cr.test:5000/"),
            ("cr.test:443", "https://cr.test/"),
            ("*", "https://anything.test/"),
            ("10.0.0.0/8", "https://10.1.2.3/"),
            ("10.1.2.3", "https://10.1.2.3/"),
            ("fd00::/8", "https://[fd12::1]/"),
            ("a b cr.test", "https://cr.test./"),
        ] {
            let proxies = read(&[("ALL_PROXY", "http://proxy.lab"), ("no_proxy", direct)]).unwrap();
            assert_eq!(of(&proxies, url), None, "{direct} {url}");
        }
        for (direct, url) in [
            ("cr.test", "https://evilcr.test/"),
            ("cr.test:5000", "https://cr.test/"),
            ("10.0.0.0/8", "https://11.1.2.3/"),
            ("10.0.0.0/99", "https://10.1.2.3/"),
            ("", "https://cr.test/"),
        ] {
            let proxies = read(&[("ALL_PROXY", "http://proxy.lab"), ("NO_PROXY", direct)]).unwrap();
            assert!(of(&proxies, url).is_some(), "{direct} {url}");
        }
    }
}
