//! The way to one registry, where it is another than the environment names.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::registry::address::AddressClass;
use crate::store::seal::Sealed;

/// What an admin writes for no proxy.
const DIRECT: &str = "direct";
/// Longest address of a proxy, in bytes.
const MAX_ADDRESS: usize = 2048;

/// How a registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proxy {
    /// Without a proxy, whatever the environment names.
    Direct,
    /// Through this proxy.
    Through {
        /// Its address, with the user's name if it wants one.
        url: Url,
        /// That user's password.
        #[serde(default)]
        password: Option<Sealed>,
    },
}

impl Proxy {
    /// The way that an admin wrote, without the password in it, which the caller seals; `None` for the way that the
    /// environment names.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no address of a proxy. It does not repeat the text, which may have a password.
    pub(in crate::catalog) fn typed(text: &Secret) -> Result<Option<(Self, Option<Secret>)>> {
        let text = text.expose().trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text == DIRECT {
            return Ok(Some((Self::Direct, None)));
        }
        let wrong = || Error::invalid("proxy", "it must be http://HOST:PORT, https://HOST:PORT or direct");
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&whole).map_err(|_| wrong())?;
        let is_sound = text.len() <= MAX_ADDRESS
            && matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        if !is_sound {
            return Err(wrong());
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        if address.is_some_and(|address| AddressClass::of(address) == AddressClass::Never) {
            return Err(Error::invalid("proxy", "no proxy is at such an address; name one of a machine"));
        }
        // The text of a URL's password is encoded, and is taken as it is.
        let password = url.password().filter(|password| !password.is_empty()).map(Secret::new);
        url.set_password(None).map_err(|()| wrong())?;
        Ok(Some((Self::Through { url, password: None }, password)))
    }

    /// The way as an admin writes it, without the password.
    pub(crate) fn written(&self) -> &str {
        match self {
            Self::Direct => DIRECT,
            Self::Through { url, .. } => url.as_str().trim_end_matches('/'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Proxy;
    use crate::base::secret::Secret;

    #[test]
    fn a_proxy_is_a_host_and_its_password_is_not_shown() {
        let typed = |text: &str| Proxy::typed(&Secret::new(text));
        for (text, written, password) in [
            ("http://proxy.lab:3128", "http://proxy.lab:3128", None),
            (" proxy.lab:3128 ", "http://proxy.lab:3128", None),
            ("https://ann:p%40w@proxy.lab/", "https://ann@proxy.lab", Some("p%40w")),
            ("direct", "direct", None),
        ] {
            let (proxy, found) = typed(text).unwrap().unwrap();
            assert_eq!(proxy.written(), written);
            assert_eq!(found.as_ref().map(Secret::expose), password);
        }
        assert!(typed(" ").unwrap().is_none());
        let none =
            ["socks5://u:planted@x", "http://u:planted@", "http://u:planted@x/path", "http://x?planted"];
        for text in none.into_iter().chain(["http://u:planted@169.254.169.254", "[fe80::1]:80", "0.0.0.0:80"])
        {
            let error = typed(text).unwrap_err().to_string();
            assert!(error.starts_with("proxy") && !error.contains("planted"), "{error}");
        }
    }
}
