//! Which machines a registry may make us connect to.
//!
//! A registry names other hosts in token realms and redirects, and DNS can name any address. Three checks come before
//! any packet: the URL (scheme, user info), the host if it is an address, and, for names, every address the resolver
//! returns. The connection goes to the address that was checked, so DNS can't give a different answer the second
//! time.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use async_trait::async_trait;
use url::{Host, Url};

use crate::base::{docker_hub, loopback};
use crate::registry::{error::Reason, outbound::Outbound};

/// Turns names into addresses.
#[async_trait]
pub(crate) trait Resolver: Send + Sync {
    /// Returns the addresses of this host name.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;

    /// The address to dial for one that passed the rules: the address itself. Tests put the internet on loopback
    /// here.
    fn route(&self, address: IpAddr) -> IpAddr {
        address
    }
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The kind of network an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressClass {
    /// The internet.
    Public,
    /// A site's own network: RFC 1918, carrier NAT, unique local.
    Private,
    /// This machine.
    Loopback,
    /// Never a registry: unspecified, multicast, broadcast, reserved, link-local, cloud metadata.
    Never,
}

impl AddressClass {
    /// The class of an address, however it is wrapped.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // 100.100.100.200 is Alibaba's metadata service; 192.0.0.0/24 holds Oracle's (192.0.0.192);
            // 169.254.169.254, which everyone else uses, is link-local.
            [0 | 224..=255, ..] | [169, 254, ..] | [100, 100, 100, 200] | [192, 0, 0, _] => Self::Never,
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => {
                Self::Private
            }
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address.is_loopback() {
            return Self::Loopback;
        }
        if let Some(inner) = inner_v4(address) {
            return Self::of_v4(inner);
        }
        match address.segments() {
            // NAT64's local prefix (RFC 8215) hides an IPv4 address at a position that only the site knows.
            [0, 0, 0, 0, 0, 0, 0, 0]
            | [0xff00..=0xffff | 0xfe80..=0xfebf, ..]
            | [0x64, 0xff9b, 1, ..]
            // Amazon's metadata service over IPv6.
            | [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Self::Never,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            _ => Self::Public,
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, NAT64, 6to4, Teredo, ISATAP.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x2002, a, b, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, a, b] => Some(v4(a, b)),
        [0x2001, 0, .., a, b] => Some(v4(!a, !b)),
        _ => None,
    }
}

/// How far a registry's administrator has vouched for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The configured registry itself.
    Home,
    /// Approved by an administrator.
    Trusted,
    /// Named only by the registry.
    Foreign,
}

/// The rules on hosts and addresses for one registry.
#[derive(Debug)]
pub(crate) struct Policy {
    home: Url,
    home_host: String,
    trusted: Vec<Approved>,
    at_home: AtomicU8,
}

/// A host that an administrator approved: at one port, or at any port.
#[derive(Debug)]
struct Approved {
    host: String,
    port: Option<u16>,
}

/// Where the registry's own name has led so far: not known yet.
const UNSEEN: u8 = 0;
/// The registry's own name has led only to private or loopback addresses so far.
const PRIVATE: u8 = 1;
/// The registry's own name has led to a public address. This is never undone; otherwise a rebinding name could make
/// itself private.
const PUBLIC: u8 = 2;

const UNENCRYPTED: &str = "the registry names it with http://, and no password goes there; set the registry's external URL \
     (Harbor: external_url), or X-Forwarded-Proto at the proxy in front of it";
const REMEDY: &str = "the registry names it, nobody approved it; add it to the registry's trusted_hosts";

impl Policy {
    /// The rules for the registry at `home`, where an administrator approved `trusted` (`host` or `host:port`).
    pub(crate) fn new(home: &Url, trusted: &[String]) -> Self {
        let at_home = match home.host() {
            Some(Host::Ipv4(v4)) => AddressClass::of_v4(v4),
            Some(Host::Ipv6(v6)) => AddressClass::of_v6(v6),
            _ => AddressClass::Public,
        };
        let seen = match (home.host(), at_home) {
            (Some(Host::Domain(_)) | None, _) => UNSEEN,
            (_, AddressClass::Private | AddressClass::Loopback) => PRIVATE,
            _ => PUBLIC,
        };
        Self {
            home: home.clone(),
            home_host: plain_host(home),
            trusted: trusted.iter().filter_map(|text| Approved::parse(text)).collect(),
            at_home: AtomicU8::new(seen),
        }
    }

    /// The registry's base URL.
    pub(crate) fn home(&self) -> &Url {
        &self.home
    }

    /// The host names that share the registry's TLS settings.
    pub(crate) fn own_names(&self) -> Vec<String> {
        let trusted = self.trusted.iter().map(|approved| approved.host.clone());
        std::iter::once(self.home_host.clone()).chain(trusted).collect()
    }

    /// Checks that a request may go to this URL, as far as possible without resolving its name.
    pub(crate) fn admit(&self, url: &Url) -> Result<(), Reason> {
        let blocked = |why| Err(blocked(url, why));
        if !url.username().is_empty() || url.password().is_some() {
            return blocked("a URL with user name or password in it is never followed");
        }
        match url.scheme() {
            "http" if self.home.scheme() != "http" => return blocked("https is never left for http"),
            "http" if self.role_at(url) == Role::Foreign => {
                return blocked(
                    "plain http goes to the registry itself only; add it to the registry's trusted_hosts",
                );
            }
            "http" | "https" => {}
            _ => return blocked("only http and https are spoken"),
        }
        let address = match url.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            Some(Host::Domain(name)) if !name.is_empty() => return Ok(()),
            _ => return blocked("it has no host"),
        };
        self.permits(&plain_host(url), AddressClass::of(address)).map_err(|why| self::blocked(url, why))
    }

    /// Checks that credentials, or anything at all, may go to this token realm: the registry's own host, a host above
    /// or below it in DNS, Docker Hub's, or one that an administrator approved.
    ///
    /// Hosts above and below are safe without a public-suffix list, because the owner of a zone can answer for every
    /// name in it anyway. Siblings (`gitlab.example.org` for `registry.example.org`) are not: on shared domains they
    /// belong to strangers, so an administrator must approve them.
    pub(crate) fn approve_realm(&self, realm: &Url) -> Result<(), Reason> {
        self.admit(realm)?;
        let host = plain_host(realm);
        let related = matches!(realm.host(), Some(Host::Domain(_)))
            && matches!(self.home.host(), Some(Host::Domain(_)))
            && (is_below(&host, &self.home_host) || is_below(&self.home_host, &host));
        if self.role_at(realm) != Role::Foreign || related || docker_hub::is_realm(&self.home_host, &host) {
            Ok(())
        } else {
            Err(blocked(realm, REMEDY))
        }
    }

    /// The URL by https of a realm that a registry with https names by http: a proxy in front of it hides from it how it
    /// is asked.
    pub(crate) fn encrypted(&self, realm: &Url) -> Result<Url, Reason> {
        if !same_host(realm, &self.home) || !realm.username().is_empty() || realm.password().is_some() {
            return Err(blocked(realm, UNENCRYPTED));
        }
        let mut own = self.home.clone();
        own.set_path(realm.path());
        own.set_query(realm.query());
        Ok(own)
    }

    /// Whether this URL is the registry's own origin, to which its credentials belong.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        same_origin(url, &self.home)
    }

    /// Whether only the registry chose this URL's host. If so, failures there must not be reported in detail.
    pub(crate) fn is_foreign(&self, url: &Url) -> bool {
        self.role_at(url) == Role::Foreign
    }

    /// Returns those of the addresses `found` for `host` that may be dialled.
    fn filter(&self, host: &str, found: &[IpAddr]) -> Result<Vec<IpAddr>, Reason> {
        let host = plain(host);
        if host == self.home_host {
            self.learn(found);
        }
        let mut why = "its name has no address";
        let allowed = found
            .iter()
            .filter(|address| match self.permits(&host, AddressClass::of(**address)) {
                Ok(()) => true,
                Err(reason) => {
                    why = reason;
                    false
                }
            })
            .copied()
            .collect::<Vec<_>>();
        if allowed.is_empty() { Err(Reason::Blocked { host, why }) } else { Ok(allowed) }
    }

    fn learn(&self, found: &[IpAddr]) {
        let inside = found
            .iter()
            .all(|a| matches!(AddressClass::of(*a), AddressClass::Private | AddressClass::Loopback));
        if !found.is_empty() {
            self.at_home.fetch_max(if inside { PRIVATE } else { PUBLIC }, Ordering::Relaxed);
        }
    }

    fn permits(&self, host: &str, place: AddressClass) -> Result<(), &'static str> {
        match place {
            AddressClass::Public => Ok(()),
            AddressClass::Never => {
                Err("its address is link-local, metadata, multicast or unspecified; no registry lives there")
            }
            AddressClass::Loopback if loopback::is_url(&self.home) => Ok(()),
            AddressClass::Loopback => {
                Err("its address is this machine itself, which only a registry added as localhost may use")
            }
            AddressClass::Private if self.role(host) != Role::Foreign => Ok(()),
            AddressClass::Private if self.at_home.load(Ordering::Relaxed) == PRIVATE => Ok(()),
            AddressClass::Private => Err(
                "its address is in a private network, the registry's is not; add it to the registry's trusted_hosts",
            ),
        }
    }

    fn role(&self, host: &str) -> Role {
        if host == self.home_host {
            Role::Home
        } else if self.trusted.iter().any(|approved| approved.host == host) {
            Role::Trusted
        } else {
            Role::Foreign
        }
    }

    fn role_at(&self, url: &Url) -> Role {
        let (host, port) = (plain_host(url), url.port_or_known_default());
        let approved = |a: &Approved| a.host == host && (a.port.is_none() || a.port == port);
        if host == self.home_host {
            Role::Home
        } else if self.trusted.iter().any(approved) {
            Role::Trusted
        } else {
            Role::Foreign
        }
    }
}

impl Approved {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(&format!("https://{}/", text.trim())).ok()?;
        let port = text.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        url.host()?;
        Some(Self { host: plain_host(&url), port })
    }
}

/// Whether both URLs have the same scheme, host and port (RFC 6454).
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && plain_host(a) == plain_host(b)
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether both URLs have the same host, at whatever scheme and port.
pub(crate) fn same_host(a: &Url, b: &Url) -> bool {
    plain_host(a) == plain_host(b)
}

/// Whether `name` is under `zone` in DNS. A zone of one label (`com`, `lan`) has no single owner, so it never counts.
fn is_below(name: &str, zone: &str) -> bool {
    zone.contains('.') && name.strip_suffix(zone).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn blocked(url: &Url, why: &'static str) -> Reason {
    Reason::Blocked { host: crate::registry::error::visible(url.host_str().unwrap_or("(none)")), why }
}

fn plain_host(url: &Url) -> String {
    plain(url.host_str().unwrap_or_default())
}

/// The one spelling of a host name that comparisons use: lower case, without the root's dot and IPv6 brackets.
fn plain(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The resolver that the HTTP client uses: it asks the real one, then applies the rules.
pub(crate) struct Filtered {
    /// The rules for hosts and addresses.
    pub(crate) policy: Arc<Policy>,
    /// The real resolver.
    pub(crate) resolver: Arc<dyn Resolver>,
    /// The proxies, which an admin chose, wherever machines are.
    pub(crate) outbound: Arc<Outbound>,
}

impl reqwest::dns::Resolve for Filtered {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (policy, resolver) = (self.policy.clone(), self.resolver.clone());
        let is_proxy = self.outbound.is_proxy(name.as_str());
        Box::pin(async move {
            let found = resolver.resolve(name.as_str()).await?;
            let allowed = if is_proxy {
                found
                    .into_iter()
                    .filter(|address| AddressClass::of(*address) != AddressClass::Never)
                    .collect()
            } else {
                policy.filter(name.as_str(), &found).map_err(Refused)?
            };
            // Port 0 leaves the port to the URL.
            let routed: Vec<_> = allowed.iter().map(|a| SocketAddr::new(resolver.route(*a), 0)).collect();
            Ok(Box::new(routed.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// A refused address, as it travels through the HTTP client's errors.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Reason);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use url::Url;

    use super::Policy;

    fn policy(home: &str, trusted: &[&str]) -> Policy {
        let trusted: Vec<String> = trusted.iter().map(|host| (*host).to_owned()).collect();
        Policy::new(&Url::parse(home).unwrap(), &trusted)
    }

    fn passes(policy: &Policy, host: &str, addresses: &[&str]) -> bool {
        let found: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        policy.filter(host, &found).is_ok()
    }

    #[test]
    fn a_private_registry_may_lead_to_private_neighbours_until_it_turns_public() {
        let lan = policy("https://harbor.lan", &[]);
        assert!(!passes(&lan, "minio.lan", &["10.0.0.2"]), "the registry has not been resolved yet");
        assert!(passes(&lan, "harbor.lan", &["10.0.0.1"]));
        assert!(passes(&lan, "minio.lan", &["10.0.0.2"]));
        assert!(!passes(&lan, "minio.lan", &["127.0.0.1"]));
        assert!(passes(&lan, "harbor.lan", &["10.0.0.1", "8.8.8.8"]));
        assert!(!passes(&lan, "minio.lan", &["10.0.0.2"]));
        assert!(passes(&lan, "harbor.lan", &["10.0.0.1"]));
        assert!(!passes(&lan, "minio.lan", &["10.0.0.2"]), "public once is public for good");
        assert!(passes(&policy("https://10.0.0.1", &[]), "minio.lan", &["10.0.0.2"]));
        assert!(!passes(&policy("https://8.8.8.8", &[]), "minio.lan", &["10.0.0.2"]));
        assert!(passes(&policy("https://8.8.8.8", &["MINIO.lan."]), "minio.lan", &["10.0.0.2"]));
        assert!(!passes(&policy("https://8.8.8.8", &["minio.lan"]), "minio.lan", &["169.254.169.254"]));
        assert!(!passes(&lan, "harbor.lan", &[]));
    }

    #[test]
    fn credentials_go_to_realms_that_belong_to_the_registry() {
        for (home, realm, good) in [
            ("https://cr.example.org", "https://cr.example.org:8443/token", true),
            ("https://cr.example.org", "https://CR.example.org./token", true),
            ("https://cr.example.org", "https://auth.cr.example.org/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://docker.io", "https://auth.docker.io/token", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://cr.example.org", "https://gitlab.example.org/jwt/auth", false),
            ("https://foo.github.io", "https://bar.github.io/", false),
            ("https://foo.co.uk", "https://bar.co.uk/", false),
            ("https://foo.com", "https://com/", false),
            ("https://lan", "https://harbor.lan/", false),
            ("https://cr.example.org", "https://evilcr.example.org/", false),
            ("https://cr.example.org", "https://cr.example.org.evil.test/", false),
            ("https://cr.example.org", "http://cr.example.org/token", false),
            ("https://cr.example.org", "https://u:p@cr.example.org/token", false),
            ("https://evil.test", "https://auth.docker.io/token", false),
            ("https://evildocker.io", "https://auth.docker.io/token", false),
            ("https://8.8.8.8", "https://1.8.8.8.8/", false),
            ("https://8.8.8.8", "https://8.8.4.4/", false),
        ] {
            let outcome = policy(home, &[])
                .approve_realm(&Url::parse(realm).unwrap_or_else(|_| Url::parse("data:x").unwrap()));
            assert_eq!(outcome.is_ok(), good, "{home} {realm}: {outcome:?}");
        }
    }
}
