//! The HTTP server that hands out images to peers with a grant from the manager, and to engines of this machine. It only
//! reads.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::slots::{Slot, Slots, net_of};
use crate::sources::grants::Grants;
use crate::sources::hand_out::{self, GrantPlace, PeerRequest, PeerResponse};

/// Most connections that have not shown a grant yet. Honest peers show theirs with the first request, so the oldest
/// connections are closed first.
const STRANGERS: usize = 32;
/// Most such connections from one address.
const STRANGERS_OF_ONE: usize = 16;
/// Most connections of peers that have shown a grant. A manager gives work to sixteen agents at a time.
const GUESTS: usize = 64;
/// Most connections of this machine's engines, with a grant and without. An engine opens some for each image, and all
/// have one address.
const ENGINES: usize = 512;
/// How long the head of a request may take to arrive.
const HEAD: Duration = Duration::from_secs(5);
/// Largest head of a request, in bytes: the grant, the path and some headers.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may be idle before it is closed.
const STALLED: Duration = Duration::from_mins(1);
/// The interval at which idle connections are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// The wait after a connection could not be accepted, for instance because no more files can be opened.
const AGAIN: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A server for those who have a grant.
pub(crate) struct GrantServer {
    /// The grants that it knows.
    pub(crate) grants: Arc<Grants>,
    /// Who asks here.
    pub(crate) clients: Clients,
}

/// Who asks a [`GrantServer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Agents of other machines, which send the grant in a header.
    Peers,
    /// Engines of this machine, which have it in the repository's name.
    Engines,
}

impl GrantServer {
    /// Serves them until told to stop.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) {
        let (strangers, guests) = match self.clients {
            Clients::Peers => (Slots::new(STRANGERS, STRANGERS_OF_ONE), GUESTS),
            Clients::Engines => (Slots::new(ENGINES, ENGINES), ENGINES),
        };
        let guests = Arc::new(Semaphore::new(guests));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok((stream, remote)) = accepted else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let stranger = strangers.take(net_of(Some(remote.ip())));
            let visit = Visit {
                grants: Arc::clone(&self.grants),
                clients: self.clients,
                guests: Arc::clone(&guests),
                given_up: stranger.signal(),
                stranger: Mutex::new(Some(stranger)),
                guest: Mutex::new(None),
                moved: Mutex::new(Instant::now()),
            };
            let shutdown = shutdown.clone();
            tracker.spawn(async move {
                tokio::select! {
                    () = attend(Arc::new(visit), stream) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
    }
}

/// A connection.
struct Visit {
    grants: Arc<Grants>,
    clients: Clients,
    guests: Arc<Semaphore>,
    /// Its place among connections without a grant, until it has shown one.
    stranger: Mutex<Option<Slot<Vec<u8>>>>,
    /// Cancelled when its place is needed for another connection.
    given_up: CancellationToken,
    /// Its place among connections with a grant.
    guest: Mutex<Option<OwnedSemaphorePermit>>,
    /// When data last moved on it.
    moved: Mutex<Instant>,
}

async fn attend(visit: Arc<Visit>, stream: TcpStream) {
    let asked = Arc::clone(&visit);
    let service = service_fn(move |request| {
        let visit = Arc::clone(&asked);
        async move { Ok::<_, Infallible>(visit.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = visit.given_up.cancelled(), if visit.guest.lock().is_none() => return,
            () = tokio::time::sleep(LOOK) => {
                if visit.moved.lock().elapsed() >= STALLED {
                    return;
                }
            }
        }
    }
}

impl Visit {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        *self.moved.lock() = Instant::now();
        let (head, _) = request.into_parts();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let wanted = PeerRequest {
            method: head.method.as_str(),
            path: head.uri.path(),
            grant: match self.clients {
                Clients::Peers => GrantPlace::Header(header(AUTHORIZATION)),
                Clients::Engines => GrantPlace::Path,
            },
            range: header(RANGE),
        };
        let answer = hand_out::answer(&self.grants, &wanted).await;
        let is_welcome = answer.is_granted && self.is_let_in();
        let answer = if is_welcome || !answer.is_granted { answer } else { busy() };
        self.response(answer, is_welcome)
    }

    /// Whether there is a place for a connection that has shown a grant; if so, it gives up its place among the
    /// others.
    fn is_let_in(&self) -> bool {
        let mut guest = self.guest.lock();
        if guest.is_none() {
            *guest = Arc::clone(&self.guests).try_acquire_owned().ok();
        }
        if guest.is_some() {
            *self.stranger.lock() = None;
        }
        guest.is_some()
    }

    fn response(self: Arc<Self>, answer: PeerResponse, stays: bool) -> Response<Body> {
        let body = match answer.body {
            None => Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync(),
            Some(pieces) => {
                let moving = pieces.map(move |piece| {
                    *self.moved.lock() = Instant::now();
                    piece.map(Frame::data)
                });
                BodyExt::boxed_unsync(StreamBody::new(moving))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in answer.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        if !stays && let Ok(close) = "close".parse() {
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }
}

fn busy() -> PeerResponse {
    PeerResponse { status: 503, headers: vec![("content-length", "0".into())], body: None, is_granted: false }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use async_trait::async_trait;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{Clients, GrantServer, STRANGERS};
    use crate::base::digest::Digest;
    use crate::base::secret::Secret;
    use crate::engine::export::LocalExport;
    use crate::engine::fault::Fault;
    use crate::sources::grants::{Grants, LIFE, random};
    use crate::sources::peer::held_parts;

    const CONTENT: &[u8] = b"0123456789";
    const DEADLINE: Duration = Duration::from_secs(30);

    /// An export of one image with one part, in a file.
    struct One(TempDir);

    fn part() -> Digest {
        Digest::sha256_of(CONTENT)
    }

    #[async_trait]
    impl LocalExport for One {
        async fn parts(&self, _: &Digest) -> Result<HashMap<Digest, u64>, Fault> {
            Ok(HashMap::from([(part(), 10)]))
        }

        async fn open(&self, _: &Digest) -> Result<Option<(File, u64)>, Fault> {
            Ok(Some((File::open(self.0.path().join("part")).unwrap(), 10)))
        }
    }

    struct Open {
        grants: Arc<Grants>,
        bound: SocketAddr,
        shutdown: CancellationToken,
    }

    impl Drop for Open {
        fn drop(&mut self) {
            self.shutdown.cancel();
        }
    }

    fn client() -> reqwest::Client {
        // Another test may have installed it first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap()
    }

    impl Open {
        async fn server(clients: Clients) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (bound, grants) = (listener.local_addr().unwrap(), Arc::new(Grants::default()));
            let shutdown = CancellationToken::new();
            let server = GrantServer { grants: Arc::clone(&grants), clients };
            tokio::spawn(server.serve(listener, TaskTracker::new(), shutdown.clone()));
            Self { grants, bound, shutdown }
        }

        async fn grant(&self, from: Instant) -> Secret {
            self.grant_of(CONTENT, from).await
        }

        /// A grant for the part, of which these bytes are there.
        async fn grant_of(&self, bytes: &[u8], from: Instant) -> Secret {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("part"), bytes).unwrap();
            let grant = random().unwrap();
            let held = held_parts(Arc::new(One(folder)), &part()).await.unwrap();
            self.grants.admit(&grant, held, LIFE, from).unwrap();
            grant
        }

        /// The status and body of the answer to a request for this part.
        async fn ask(&self, method: &str, part: &Digest, grant: &str, range: &str) -> (u16, String) {
            let url = format!("http://{}/v2/lab/python/blobs/{part}", self.bound);
            let mut request = client().request(method.parse().unwrap(), url).basic_auth("grant", Some(grant));
            if !range.is_empty() {
                request = request.header("range", range);
            }
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    }

    #[tokio::test]
    async fn a_grant_opens_what_it_is_for_and_nothing_else_opens_anything() {
        let open = Open::server(Clients::Peers).await;
        let grant = open.grant(Instant::now()).await;
        let ask = async |method: &str, part: &Digest, grant: &str, range: &str| {
            let (status, body) = open.ask(method, part, grant, range).await;
            (status, body.as_str().to_owned())
        };
        let (good, other) = (part(), Digest::sha256_of(b"other"));
        assert_eq!(ask("GET", &good, grant.expose(), "").await, (200, "0123456789".into()));
        assert_eq!(ask("GET", &good, grant.expose(), "bytes=4-").await, (206, "456789".into()));
        assert_eq!(ask("GET", &good, grant.expose(), "bytes=10-").await.0, 416);
        assert_eq!(ask("HEAD", &good, grant.expose(), "").await, (200, String::new()));
        assert_eq!(ask("PUT", &good, grant.expose(), "").await.0, 405);
        assert_eq!(ask("GET", &other, grant.expose(), "").await, (404, String::new()));
        assert_eq!(ask("GET", &good, "", "").await, (401, String::new()));
        assert_eq!(ask("GET", &good, random().unwrap().expose(), "").await, (401, String::new()));
        let over = open.grant(Instant::now().checked_sub(LIFE).unwrap()).await;
        assert_eq!(ask("GET", &good, over.expose(), "").await, (401, String::new()), "its time is over");
    }

    #[tokio::test]
    async fn an_engine_has_its_grant_in_the_name_of_the_repository() {
        let open = Open::server(Clients::Engines).await;
        let (grant, good) = (open.grant(Instant::now()).await, part());
        let ask = async |path: String| {
            let response = client().get(format!("http://{}{path}", open.bound)).send().await.unwrap();
            response.status().as_u16()
        };
        assert_eq!(ask("/v2/".into()).await, 200, "it is a registry");
        assert_eq!(ask(format!("/v2/{}/blobs/{good}", grant.expose())).await, 200);
        for other in ["lab/python", random().unwrap().expose()] {
            assert_eq!(ask(format!("/v2/{other}/blobs/{good}")).await, 401);
        }
        assert_eq!(ask(format!("/v2/{}/blobs/{}", grant.expose(), Digest::sha256_of(b"x"))).await, 404);
        let mut greeted = TcpStream::connect(open.bound).await.unwrap();
        greeted.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, greeted.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400"), "who tries TLS first learns that this is HTTP");
    }

    #[tokio::test]
    async fn bytes_that_are_not_what_their_digest_says_never_come_whole() {
        let open = Open::server(Clients::Engines).await;
        let grant = open.grant_of(b"012345678x", Instant::now()).await;
        let url = format!("http://{}/v2/{}/blobs/{}", open.bound, grant.expose(), part());
        let answer = client().get(url).send().await.unwrap().bytes().await;
        assert!(answer.is_err(), "{answer:?}");
    }

    #[tokio::test]
    async fn a_flood_of_strangers_is_bounded_and_keeps_out_nobody_for_long() {
        let open = Open::server(Clients::Peers).await;
        let grant = open.grant(Instant::now()).await;
        let mut flood = Vec::new();
        for _ in 0..4 * STRANGERS {
            flood.push(TcpStream::connect(open.bound).await.unwrap());
        }
        // The grant also works while strangers are connected.
        assert_eq!(open.ask("GET", &part(), grant.expose(), "").await.0, 200);
        // Most are closed without a word as soon as others come; those that say nothing are closed after some
        // seconds.
        for mut stranger in flood {
            let closed = timeout(DEADLINE, stranger.read(&mut [0; 1])).await.expect("it is closed");
            assert!(matches!(closed, Ok(0) | Err(_)));
        }
        assert_eq!(open.ask("GET", &part(), grant.expose(), "").await.0, 200);
        // A head without end is also cut off.
        let mut endless = TcpStream::connect(open.bound).await.unwrap();
        let junk = format!("GET /v2/{} HTTP/1.1\r\n", "x".repeat(100_000));
        let _ = endless.write_all(junk.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, endless.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}
