//! A server that answers with exactly the bytes it is given.

use std::{
    fmt::Write as _,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// `GET /v2/ HTTP/1.1` without the version.
    pub(super) line: String,
    head: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What to do after the reply's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Close,
    Hang,
    Reset,
    /// Sends these bytes every few milliseconds.
    Drip(&'static [u8]),
    /// Sends pieces of 64 KiB until the client leaves.
    Flood,
}

#[derive(Debug, Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

impl Reply {
    pub(super) fn raw(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then }
    }

    pub(super) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (key, value) in headers {
            let _ = write!(head, "{key}: {value}\r\n");
        }
        head.push_str("\r\n");
        Self { bytes: [head.as_bytes(), body].concat(), then: Then::Close }
    }

    pub(super) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &[("content-type", "application/json")], body)
    }

    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, &[("location", location)], "")
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; it ends when this is dropped.
pub(super) struct Server {
    pub(super) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Turns a socket into the stream the server speaks over: the socket itself, or TLS.
type Wrap = dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = Option<Box<dyn Stream>>> + Send>> + Send + Sync;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Server {
    pub(super) async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_wrapped(script, |socket| Box::pin(async { Some(Box::new(socket) as Box<dyn Stream>) }))
            .await
    }

    pub(super) async fn start_wrapped(
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Pin<Box<dyn Future<Output = Option<Box<dyn Stream>>> + Send>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        // Every address, so that a stray request to any spelling of this machine is seen.
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, connections, sent) =
            <(Arc<Mutex<Vec<Request>>>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let script: Arc<Script> = Arc::new(script);
        let wrap: Arc<Wrap> = Arc::new(wrap);
        let task = tokio::spawn({
            let (requests, connections, sent) = (requests.clone(), connections.clone(), sent.clone());
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (requests, sent) = (requests.clone(), sent.clone());
                    let (script, wrap) = (script.clone(), wrap.clone());
                    open.spawn(async move {
                        if let Some(stream) = wrap(socket).await {
                            serve(stream, &*script, &requests, &sent).await;
                        }
                    });
                }
            }
        });
        Self { port, requests, connections, sent, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// The request lines (`GET /v2/…`) of all requests, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many body bytes a flood has sent.
    pub(super) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: Box<dyn Stream>,
    script: &Script,
    requests: &Mutex<Vec<Request>>,
    sent: &AtomicUsize,
) {
    let Some(request) = read(&mut stream).await else { return };
    requests.lock().push(request.clone());
    let reply = script(&request);
    if stream.write_all(&reply.bytes).await.is_err() {
        return;
    }
    let _ = stream.flush().await;
    match reply.then {
        Then::Close => {
            let _ = stream.shutdown().await;
        }
        Then::Hang => std::future::pending().await,
        // Closing with unread or unsent bytes makes the kernel send a reset; so does dropping without shutdown in TLS.
        Then::Reset => drop(stream),
        Then::Drip(bytes) => {
            while stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Then::Flood => {
            let piece = vec![b' '; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    }
}

async fn read(stream: &mut Box<dyn Stream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, head })
}
