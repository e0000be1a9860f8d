//! Addresses of engines: `unix:///path`, `tcp://host:port`, with the kind of engine in front or Docker's by default;
//! `cri:///path`; `oci:DIR`.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use crate::base::loopback;
use crate::base::reference::{is_registry_host, shown};
use crate::engine::kind::EngineKind;

/// The default socket of Docker Engine.
pub(crate) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's port without TLS.
const PLAIN_PORT: u16 = 2375;
/// Docker's port with TLS.
const TLS_PORT: u16 = 2376;
/// Longest path of a socket on Linux (`sun_path`, without its final zero byte).
const MAX_SOCKET_PATH: usize = 107;

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineUrl {
    /// The expected kind of engine. Docker Engine and Podman are told apart by their answers.
    pub kind: EngineKind,
    /// The location of the engine.
    pub place: EngineLocation,
}

/// The location of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineLocation {
    /// A socket in the file system.
    Socket(PathBuf),
    /// A machine, reached over TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Certificates for TLS; without them, anyone on the network path controls the node.
        certificates: Option<Certificates>,
    },
    /// A directory of our own.
    Folder {
        /// Its absolute path.
        path: PathBuf,
        /// The most bytes a second that it is filled with.
        limit: Option<NonZeroU64>,
    },
}

/// The certificates for an engine, laid out as in `DOCKER_CERT_PATH`: `ca.pem`, `cert.pem`, `key.pem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The folder.
    pub(crate) folder: PathBuf,
}

/// What the environment says about Docker, read by a module that may read the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `DOCKER_HOST`.
    pub(crate) host: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub(crate) certificates: Option<PathBuf>,
    /// Whether `DOCKER_TLS_VERIFY` is set to anything.
    pub(crate) tls: bool,
}

/// Why a text is not the address of an engine, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine address {given:?}: {why}")]
pub struct InvalidAddress {
    given: String,
    why: String,
}

impl EngineUrl {
    /// Docker Engine at its usual socket.
    pub(crate) fn local() -> Self {
        Self { kind: EngineKind::Docker, place: EngineLocation::Socket(DEFAULT_SOCKET.into()) }
    }

    /// Whether it can be on this machine and share its loopback, as far as the address tells.
    pub(crate) fn is_beside(&self) -> bool {
        match &self.place {
            EngineLocation::Socket(_) | EngineLocation::Folder { .. } => true,
            EngineLocation::Tcp { host, .. } => {
                host == "localhost" || host.parse().is_ok_and(loopback::is_address)
            }
        }
    }

    /// The engine that Docker's own command line would use.
    ///
    /// # Errors
    /// A `DOCKER_HOST` that can't be used, and `DOCKER_TLS_VERIFY` without certificates.
    pub(crate) fn from_environment(environment: &Environment) -> Result<Self, InvalidAddress> {
        let host = environment.host.as_deref().map(str::trim).filter(|host| !host.is_empty());
        let Some(host) = host else { return Ok(Self::local()) };
        // Docker ignores the folder unless told to use TLS; so do we, or we would speak TLS to a plain engine.
        let certificates = environment.certificates.as_deref().filter(|_| environment.tls);
        let url = Self::parse(host, certificates)?;
        if environment.tls && certificates.is_none() && matches!(url.place, EngineLocation::Tcp { .. }) {
            return Err(InvalidAddress::new(
                host,
                "DOCKER_TLS_VERIFY is set, so set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem",
            ));
        }
        Ok(url)
    }

    /// Reads `unix:///path`, `tcp://host:port`, both also with `docker+` or `podman+` in front, `cri:///path`, and
    /// `oci:DIR` with or without `?limit=10MiB`. `certificates` is the folder for TLS, used with `tcp` only; a relative
    /// `DIR` starts at the current directory.
    ///
    /// # Errors
    /// A text that is none of these, or an engine that this release can't speak to; the message has the remedy.
    pub fn parse(text: &str, certificates: Option<&Path>) -> Result<Self, InvalidAddress> {
        let fail = |why: &str| Err(InvalidAddress::new(text, why));
        let text_trimmed = text.trim();
        if text_trimmed.starts_with('/') {
            return fail(&format!("write unix://{}", shown(text_trimmed)));
        }
        let Some((scheme, rest)) = text_trimmed.split_once(':') else {
            return fail(
                "write unix:///path/of/the.sock, tcp://host:port, cri:///path/of/the.sock or oci:DIR",
            );
        };
        let is_folder = scheme == "oci";
        let Some(rest) = rest.strip_prefix("//").or(is_folder.then_some(rest)) else {
            return fail("the scheme is followed by //, as in unix:///path or tcp://host:port");
        };
        let (kind, place) = match scheme {
            "unix" | "docker+unix" => (EngineKind::Docker, socket(scheme, rest)),
            "podman+unix" => (EngineKind::Podman, socket(scheme, rest)),
            "cri" | "containerd" => (EngineKind::Containerd, socket(scheme, rest)),
            "tcp" | "docker+tcp" => (EngineKind::Docker, tcp(rest, certificates)),
            "podman+tcp" => (EngineKind::Podman, tcp(rest, certificates)),
            "oci" => (EngineKind::Oci, folder(rest)),
            "http" | "https" => {
                let to = shown(rest.trim_end_matches('/'));
                return fail(&format!(
                    "write tcp://{to} instead; TLS is used where there are certificates for it"
                ));
            }
            "ssh" => {
                return fail(
                    "SSH is not supported; run wharf on that machine, or forward the socket: \
                     ssh -L /tmp/docker.sock:/var/run/docker.sock HOST, then unix:///tmp/docker.sock",
                );
            }
            "npipe" | "fd" => return fail("only unix:// and tcp:// can be connected to"),
            _ => {
                return fail(
                    "unknown scheme; write unix:///path, tcp://host:port, podman+unix:///path, cri:///path or oci:DIR",
                );
            }
        };
        match place {
            Ok(place) => Ok(Self { kind, place }),
            Err(why) => fail(&why),
        }
    }
}

/// The part of an address before the path of a socket.
fn socket_scheme(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Docker => "docker+unix",
        EngineKind::Podman => "podman+unix",
        EngineKind::Containerd => "cri",
        // It has no socket: it is a directory.
        EngineKind::Oci => "oci",
    }
}

fn socket(scheme: &str, path: &str) -> Result<EngineLocation, String> {
    if !path.starts_with('/') {
        return Err(format!("the path is absolute, with three slashes: {scheme}:///path/of/the.sock"));
    }
    if path.contains('\0') {
        return Err("the path has a zero byte".into());
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("the path is longer than {MAX_SOCKET_PATH} bytes, the most a socket may have"));
    }
    Ok(EngineLocation::Socket(path.into()))
}

fn folder(rest: &str) -> Result<EngineLocation, String> {
    let (path, limit) = match rest.rsplit_once("?limit=") {
        Some((path, limit)) => {
            let why = "the limit is in bytes a second, as in oci:DIR?limit=10MiB";
            (path, Some(bytes(limit).ok_or(why)?))
        }
        None => (rest, None),
    };
    if path.is_empty() {
        return Err("name a directory, as in oci:/var/lib/images".into());
    }
    if path.contains('\0') {
        return Err("the path has a zero byte".into());
    }
    // The current directory may change before the path is used, and an agent is identified by its address.
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok(EngineLocation::Folder { path, limit })
}

/// Parses a number of bytes: `1048576`, `1024KiB`, `1MiB`.
pub(crate) fn bytes(text: &str) -> Option<NonZeroU64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text.get(digits.len()..)? {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    NonZeroU64::new(digits.parse::<u64>().ok()?.checked_mul(unit)?)
}

fn tcp(rest: &str, certificates: Option<&Path>) -> Result<EngineLocation, String> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("it ends with the port: tcp://host:port".into());
    }
    if authority.contains('@') {
        return Err("engines have no user and password; they want client certificates".into());
    }
    if !is_registry_host(authority) {
        return Err("write tcp://host:port, with the host a name or an address ([::1] for IPv6)".into());
    }
    // `is_registry_host` has checked that the text after the last colon outside brackets is a port.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let port = port.unwrap_or(if certificates.is_some() { TLS_PORT } else { PLAIN_PORT });
    let certificates = certificates.map(|folder| Certificates { folder: folder.into() });
    Ok(EngineLocation::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port, certificates })
}

impl InvalidAddress {
    fn new(given: &str, why: &str) -> Self {
        Self { given: shown(given), why: why.into() }
    }
}

/// The address as [`EngineUrl::parse`] reads it, in its longest form.
impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            EngineLocation::Socket(path) => write!(f, "{}://{}", socket_scheme(self.kind), path.display()),
            EngineLocation::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "{}+tcp://[{host}]:{port}", self.kind)
            }
            EngineLocation::Tcp { host, port, .. } => write!(f, "{}+tcp://{host}:{port}", self.kind),
            EngineLocation::Folder { path, limit: None } => write!(f, "{}:{}", self.kind, path.display()),
            EngineLocation::Folder { path, limit: Some(limit) } => {
                write!(f, "{}:{}?limit={limit}", self.kind, path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{EngineLocation, EngineUrl, Environment};

    fn read(text: &str) -> String {
        EngineUrl::parse(text, None).unwrap().to_string()
    }

    #[test]
    fn addresses_have_one_long_form_and_read_back() {
        for (given, expected) in [
            ("unix:///var/run/docker.sock", "docker+unix:///var/run/docker.sock"),
            ("docker+unix:///a b.sock", "docker+unix:///a b.sock"),
            ("tcp://node1", "docker+tcp://node1:2375"),
            ("tcp://node1:2375/", "docker+tcp://node1:2375"),
            ("docker+tcp://10.0.0.1:99", "docker+tcp://10.0.0.1:99"),
            ("tcp://[::1]:99", "docker+tcp://[::1]:99"),
            ("tcp://[::1]", "docker+tcp://[::1]:2375"),
            ("oci:/var/lib/images", "oci:/var/lib/images"),
            ("oci:///var/lib/images/", "oci:/var/lib/images/"),
            ("oci:/a?b", "oci:/a?b"),
            ("oci:/a?limit=2MiB", "oci:/a?limit=2097152"),
            ("podman+unix:///run/podman/podman.sock", "podman+unix:///run/podman/podman.sock"),
            ("podman+tcp://node1:8080", "podman+tcp://node1:8080"),
            ("cri:///run/containerd/containerd.sock", "cri:///run/containerd/containerd.sock"),
            ("containerd:///run/containerd/containerd.sock", "cri:///run/containerd/containerd.sock"),
        ] {
            assert_eq!(read(given), expected);
            assert_eq!(read(expected), expected);
        }
    }

    #[test]
    fn a_relative_directory_is_meant_from_where_we_are() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(read("oci:images"), format!("oci:{}/images", here.display()));
        assert_eq!(read("oci:./images?limit=1"), format!("oci:{}/images?limit=1", here.display()));
    }

    #[test]
    fn certificates_mean_tls_and_its_port() {
        let url = EngineUrl::parse("tcp://node1", Some(Path::new("/certs"))).unwrap();
        let EngineLocation::Tcp { port, certificates: Some(certificates), .. } = &url.place else {
            panic!("{url}")
        };
        assert_eq!((*port, certificates.folder.as_path()), (2376, Path::new("/certs")));
    }

    #[test]
    fn a_wrong_address_comes_with_the_remedy() {
        for (given, remedy) in [
            ("", "unix:///path"),
            ("/run/docker.sock", "write unix:///run/docker.sock"),
            ("node1:2375", "followed by //"),
            ("unix://run/docker.sock", "three slashes"),
            ("tcp://node1:0", "tcp://host:port"),
            ("tcp://node1:2375/x", "ends with the port"),
            ("tcp://u:p@node1:2375", "client certificates"),
            ("https://node1:2376", "tcp://node1:2376"),
            ("ssh://node1", "forward the socket"),
            ("npipe:////./pipe/x", "unix://"),
            ("ftp://x", "unknown scheme"),
            ("oci:", "name a directory"),
            ("oci://", "name a directory"),
            ("oci:/a?limit=", "bytes a second"),
            ("oci:/a?limit=0", "bytes a second"),
            ("oci:/a?limit=2MB", "bytes a second"),
            ("oci:/a?limit=99999999999999999GiB", "bytes a second"),
            ("cri://run/containerd.sock", "cri:///path"),
            ("cri://node1:1234", "three slashes"),
        ] {
            let error = EngineUrl::parse(given, None).unwrap_err().to_string();
            assert!(error.contains(remedy), "{given}: {error}");
        }
        let long = format!("unix:///{}", "a".repeat(3000));
        assert!(EngineUrl::parse(&long, None).unwrap_err().to_string().len() < 250);
    }

    #[test]
    fn the_environment_is_read_as_docker_reads_it() {
        let read = |host: &str, certificates: Option<&str>, tls| {
            EngineUrl::from_environment(&Environment {
                host: Some(host.into()),
                certificates: certificates.map(Into::into),
                tls,
            })
        };
        assert_eq!(EngineUrl::from_environment(&Environment::default()).unwrap(), EngineUrl::local());
        assert_eq!(read("", None, false).unwrap(), EngineUrl::local());
        assert_eq!(read("tcp://n", Some("/c"), false).unwrap().to_string(), "docker+tcp://n:2375");
        assert_eq!(read("tcp://n", Some("/c"), true).unwrap().to_string(), "docker+tcp://n:2376");
        assert!(read("tcp://n", None, true).unwrap_err().to_string().contains("DOCKER_CERT_PATH"));
        assert!(read("unix:///x.sock", None, true).is_ok());
    }
}
