//! Connects to the manager: TCP, with TLS if the URL says https.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::agent::registries;
use crate::base::loopback;
use crate::registry::tls::{explain, system_roots, with_ca};
use crate::wire::socket::{Broken, Socket};
use crate::wire::{MAX_MESSAGE, PATH};

/// How long connecting, the TLS handshake and the request for a link may take together.
const DIAL: Duration = Duration::from_secs(20);

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The address of the manager, and how to connect to it.
#[derive(Clone)]
pub(crate) struct Manager {
    host: String,
    port: u16,
    /// The URL of the link.
    link: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    is_loopback: bool,
    at: registries::Manager,
}

impl Manager {
    /// The manager at this URL. Its certificate must be signed by an authority that the machine trusts, or by one of
    /// these.
    ///
    /// # Errors
    /// A URL that can't be a manager's, or certificates that can't be read.
    pub(crate) fn new(url: &Url, ca_pem: Option<&str>) -> Result<Self, String> {
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("the manager's URL begins with https:// or http://".into()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an agent has no user and password; it joins with a token".into());
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("the manager's URL has no host".into());
        };
        let is_loopback = loopback::is_url(url);
        let host = host.to_string().trim_matches(['[', ']']).to_owned();
        let tls = is_secure.then(|| secured(&host, ca_pem)).transpose()?;
        let scheme = if is_secure { "wss" } else { "ws" };
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let link = format!("{scheme}://{authority}{}{PATH}", url.path().trim_end_matches('/'));
        let mut at = url.clone();
        at.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        let at = registries::Manager { url: at, ca_pem: ca_pem.map(Into::into) };
        Ok(Self { host, port, link, tls, is_loopback, at })
    }

    /// Whether no one can read the traffic on its way.
    pub(crate) fn is_private(&self) -> bool {
        self.tls.is_some() || self.is_loopback
    }

    /// The manager's address for plain requests.
    pub(crate) fn at(&self) -> &registries::Manager {
        &self.at
    }

    /// Dials the manager. Also returns the local address of the connection.
    pub(crate) async fn dial(&self) -> Result<(Socket<Box<dyn Stream>>, Option<IpAddr>), Broken> {
        let within = timeout(DIAL, self.connect()).await;
        within.map_err(|_| Broken::Closed(format!("no answer within {} s", DIAL.as_secs())))?
    }

    async fn connect(&self) -> Result<(Socket<Box<dyn Stream>>, Option<IpAddr>), Broken> {
        let closed = |error: std::io::Error| Broken::Closed(why(&error));
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(closed)?;
        tcp.set_nodelay(true).map_err(closed)?;
        let local = tcp.local_addr().ok().map(|address| address.ip());
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name.clone(), tcp).await.map_err(closed)?)
            }
        };
        Ok((Socket::client(stream, &self.link, MAX_MESSAGE).await?, local))
    }
}

fn secured(host: &str, ca_pem: Option<&str>) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let roots: RootCertStore = match ca_pem {
        Some(pem) => with_ca(pem).map_err(|reason| reason.to_string())?,
        None => system_roots().clone(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no host name"))?;
    Ok((Arc::new(config), name))
}

/// The cause in the system's words, or for TLS with the remedy.
fn why(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "no trusted CA signed the manager's certificate (UnknownIssuer); give its CA with --ca-file"
                .into()
        }
        Some(tls) => explain(tls),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::Manager;

    fn read(url: &str) -> Result<Manager, String> {
        Manager::new(&Url::parse(url).unwrap(), None)
    }

    #[test]
    fn a_url_says_how_the_manager_is_reached() {
        for (url, link, is_private) in [
            ("https://wharf.lab", "wss://wharf.lab/agents/link", true),
            ("https://wharf.lab:8443/base/", "wss://wharf.lab:8443/base/agents/link", true),
            ("http://10.0.0.1:8090", "ws://10.0.0.1:8090/agents/link", false),
            ("http://127.0.0.1:8090", "ws://127.0.0.1:8090/agents/link", true),
            ("http://[::1]:8090", "ws://[::1]:8090/agents/link", true),
            ("http://[::ffff:127.0.0.1]:8090", "ws://[::ffff:7f00:1]:8090/agents/link", true),
        ] {
            let manager = read(url).unwrap();
            assert_eq!((manager.link.as_str(), manager.is_private()), (link, is_private), "{url}");
        }
        for url in ["ftp://wharf.lab", "https://u:p@wharf.lab"] {
            assert!(read(url).is_err(), "{url}");
        }
    }
}
