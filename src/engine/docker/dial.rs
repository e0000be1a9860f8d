//! One connection per request to Docker Engine: over a socket, TCP or TLS.
//!
//! A connection per request means that dropping an answer closes it, which tells Docker that a pull is no longer
//! wanted. Docker's API is asked a few times a minute, so the cost of connecting does not matter.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bollard::{BollardRequest, errors::Error};
use hyper::{Response, Uri, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, rustls::ClientConfig, rustls::pki_types::ServerName};

use crate::engine::{
    address::{EngineLocation, EngineUrl},
    docker::tls,
    fault::{Class, Fault},
};

/// How long a connection is silent before TCP asks whether the other side is still there, and the time between its
/// questions. An event stream may be silent for days, and a machine that lost its power never says goodbye.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The way to connect to an engine.
pub(crate) enum Dial {
    Socket(PathBuf),
    Plain { host: String, port: u16 },
    Tls { host: String, port: u16, name: ServerName<'static>, config: Arc<ClientConfig> },
}

/// A connection, in both directions.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dial {
    /// Reads the certificates, if there are any; does not connect yet.
    pub(crate) fn new(url: &EngineUrl) -> Result<Self, Fault> {
        match &url.place {
            EngineLocation::Socket(path) => Ok(Self::Socket(path.clone())),
            EngineLocation::Tcp { host, port, certificates: None } => {
                tracing::warn!(
                    engine = %url,
                    "the engine is spoken to without TLS: whoever can reach its port owns the node"
                );
                Ok(Self::Plain { host: host.clone(), port: *port })
            }
            EngineLocation::Tcp { host, port, certificates: Some(certificates) } => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Fault::new(Class::Other, format!("{host} can't be in a certificate")))?;
                let config = Arc::new(tls::client_config(&certificates.folder)?);
                Ok(Self::Tls { host: host.clone(), port: *port, name, config })
            }
            EngineLocation::Folder { .. } => Err(Fault::new(Class::Other, "a directory is no Docker Engine")),
        }
    }

    /// Whether the engine is on this machine, as far as its address tells.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    /// Sends a request on a new connection and reads the head of the answer. At most `most` bytes of the answer are
    /// read, including its head.
    pub(crate) async fn send(
        &self,
        mut request: BollardRequest,
        most: u64,
    ) -> Result<Response<Incoming>, Error> {
        let stream = Metered { inner: self.connect().await?, left: most };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // This task ends with the answer: hyper closes a connection whose sender and body are dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "connection to the engine");
            }
        });
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
        if let Ok(host) = self.host().parse() {
            request.headers_mut().insert(HOST, host);
        }
        Ok(sender.send_request(request).await?)
    }

    fn host(&self) -> String {
        match self {
            Self::Socket(_) => "localhost".into(),
            Self::Plain { host, port } | Self::Tls { host, port, .. } => format!("{host}:{port}"),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Self::Plain { host, port } => Box::new(tcp(host, *port).await?),
            Self::Tls { host, port, name, config } => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name.clone(), tcp(host, *port).await?).await?)
            }
        })
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
    Ok(stream)
}

/// A stream that reads at most so many bytes: we decide how long an answer may be, not the engine.
struct Metered<T> {
    inner: T,
    left: u64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = u64::try_from(buffer.filled().len().saturating_sub(before)).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(read) else {
            let why = "the engine's answer is too long to be true";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, why)));
        };
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
