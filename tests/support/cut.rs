//! A TCP proxy whose connections can be cut, or left open with nothing coming through.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    Frozen,
    Cut,
}

/// The proxy. It passes everything until a test says otherwise.
pub struct CutProxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    is_tls: bool,
    task: JoinHandle<()>,
}

impl CutProxy {
    /// Starts a proxy in front of `upstream`, `http://HOST:PORT`.
    pub async fn start(upstream: &str) -> Self {
        Self::new(upstream, None).await
    }

    /// Starts a proxy that speaks TLS to its clients: a PEM file each for the certificate and its key.
    pub async fn with_tls(upstream: &str, certificate: &std::path::Path, key: &std::path::Path) -> Self {
        let certificates = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("a certificate with its key");
        Self::new(upstream, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn new(upstream: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = watch::Sender::new(Wire::Whole);
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let is_tls = tls.is_some();
        let state = wire.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, to, tls) = (state.clone(), upstream.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => pass(stream, to, state).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => pass(stream, to, state).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, wire, is_tls, task }
    }

    /// Returns its URL, which replaces the upstream's.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }

    /// Leaves every connection open and lets nothing through, as a pulled plug does.
    pub fn freeze(&self) {
        self.wire.send_replace(Wire::Frozen);
    }

    /// Lets everything through again, including what was held back.
    pub fn mend(&self) {
        self.wire.send_replace(Wire::Whole);
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass<S: AsyncRead + AsyncWrite>(stream: S, to: String, state: watch::Receiver<Wire>) -> Option<()> {
    let mut cut = state.clone();
    let passing = async {
        let onward = TcpStream::connect(&to).await.ok()?;
        let ((down_read, down_write), (up_read, up_write)) =
            (tokio::io::split(stream), tokio::io::split(onward));
        tokio::select! {
            () = copy(down_read, up_write, state.clone()) => {}
            () = copy(up_read, down_write, state) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => None,
        passed = passing => passed,
    }
}

async fn copy<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    mut state: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|wire| *wire == Wire::Whole).await.is_err() {
            break;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
