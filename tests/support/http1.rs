//! A small HTTP/1.1 server for tests: what stands in for a registry, a token service or a proxy, and may misbehave
//! in ways no library server would.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, verbatim.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The decoded query parameters.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }
}

/// A well-formed answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status).header("content-type", "application/json").body(body.to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// The first byte of a TLS connection, which no HTTP request begins with.
const TLS_HANDSHAKE: u8 = 22;

/// The answer to a connection's request.
#[derive(Clone, Debug)]
pub enum Answer {
    Reply(Response),
    /// The same, with its body in ten pieces and this pause before each.
    Trickle(Response, Duration),
    /// Exactly these bytes, then the connection is closed.
    Raw(Bytes),
    /// Never answers; the connection stays open.
    Stall,
    /// Closes the connection without a word.
    Hang,
    /// These bytes, then the connection is reset.
    Reset(Bytes),
    /// These bytes, then nothing more; the connection stays open.
    Pause(Bytes),
    /// These bytes, then spaces for as long as anybody reads.
    Flood(Bytes),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Reply(response)
    }
}

type Handler = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// A running server. All of its connections end when it is dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Answers every request with what `handler` says.
    pub async fn start<F, A>(handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = A> + Send + 'static,
        A: Into<Answer>,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let handler: Handler = Arc::new(move |request| {
            let answer = handler(request);
            Box::pin(async move { answer.await.into() })
        });
        let accepting = tokio::spawn(async move {
            // Owned by this task, so aborting it ends the connections too.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, accepting }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, handler: Handler) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    // To a TLS handshake a real server answers in plain HTTP; a client that may fall back to plain HTTP waits for that.
    if stream.fill_buf().await.is_ok_and(|bytes| bytes.first() == Some(&TLS_HANDSHAKE)) {
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        let _ = stream.shutdown().await;
        return;
    }
    while let Some(request) = read_request(&mut stream).await {
        let bodiless = request.method == "HEAD";
        let close = request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        match handler(request).await {
            Answer::Reply(response) => {
                if stream.write_all(&encode(&response, bodiless)).await.is_err() || close {
                    return;
                }
            }
            Answer::Trickle(response, pause) => {
                let bytes = encode(&response, bodiless);
                let head = bytes.len() - if bodiless { 0 } else { response.body.len() };
                let mut open = stream.write_all(&bytes[..head]).await.is_ok();
                let rest = &bytes[head..];
                for piece in rest.chunks(rest.len().div_ceil(10).max(1)) {
                    tokio::time::sleep(pause).await;
                    open = open && stream.write_all(piece).await.is_ok();
                }
                if !open || close {
                    return;
                }
            }
            Answer::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::Stall => std::future::pending().await,
            Answer::Hang => return,
            Answer::Reset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
            Answer::Pause(bytes) => {
                let _ = stream.write_all(&bytes).await;
                std::future::pending::<()>().await;
            }
            Answer::Flood(head) => {
                let piece = vec![b' '; 64 * 1024];
                let mut open = stream.write_all(&head).await.is_ok();
                while open {
                    open = stream.write_all(&piece).await.is_ok();
                }
                return;
            }
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let line = read_line(stream).await?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Bytes::new() };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        request.body = body.into();
    } else if request.header("transfer-encoding").is_some() {
        request.body = read_chunks(stream).await?.into();
    }
    Some(request)
}

async fn read_chunks(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream).await?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await.ok()?;
        read_line(stream).await?;
        if size == 0 {
            return Some(body);
        }
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    let read = stream.read_until(b'\n', &mut line).await.ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn encode(response: &Response, bodiless: bool) -> Vec<u8> {
    let bodiless = bodiless || matches!(response.status, 204 | 304);
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (name, value) in &response.headers {
        // A length is what the body says, except where a body is only announced (HEAD).
        if bodiless || !name.eq_ignore_ascii_case("content-length") {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    if !bodiless {
        let _ = write!(head, "content-length: {}\r\n", response.body.len());
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !bodiless {
        bytes.extend_from_slice(&response.body);
    }
    bytes
}
