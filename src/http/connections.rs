//! Connections: which are accepted, what they may take how long for, and how each ends.
//!
//! HTTP/1.1 only. Clients multiplex nothing here that several connections would not do, and each connection is
//! counted, so the limit on connections limits what one client may hold. A client that begins with HTTP/2 is refused
//! in HTTP/2.

mod body;
mod slots;
mod socket;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use poem::http::StatusCode;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Body, Endpoint, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::lines::Lines;
use crate::http::connections::body::{Arriving, Leaving};
use crate::http::connections::slots::{ConnectionSlot, ConnectionSlots};
use crate::http::connections::socket::Socket;
use crate::http::connections::watch::Watch;
use crate::http::peer::Proxies;
use crate::http::problem;

/// The largest head of a request: a cookie, a signature, and a query in the address. It is also the most that a
/// connection buffers of requests to come.
const MAX_HEAD: usize = 32 * 1024;
/// How many bytes of an answer may wait in the system's memory to be sent. Without a limit the system keeps some
/// megabytes for each client that does not read.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;
/// The pause after a connection could not be accepted, for example for lack of descriptors: the next attempt would
/// fail at once too.
const AGAIN: Duration = Duration::from_millis(10);
/// How many times a minute the log reports it.
const TOLD: u32 = 1;

/// How connections are served.
pub(crate) struct Connections {
    /// The proxies, whose connections stand for many clients.
    pub(crate) proxies: Proxies,
    /// How long requests in progress may go on after the server was told to stop.
    pub(crate) last_requests: Duration,
}

impl Connections {
    /// Serves until told to stop, and then until the requests in progress end or their time is over.
    pub(crate) async fn serve<E>(self, listener: TcpListener, routes: E, shutdown: CancellationToken)
    where
        E: Endpoint<Output = Response> + 'static,
    {
        let (routes, tracker, cut) = (Arc::new(routes), TaskTracker::new(), CancellationToken::new());
        let slots = ConnectionSlots::new(slots::most(), self.proxies);
        let mut lines = Lines::new(TOLD);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(why) => {
                    if let (true, before) = lines.turn(Instant::now()) {
                        tracing::warn!(%why, before, "a connection could not be taken");
                    }
                    slots.give_some_up();
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            // Dropping the connection closes it: no idle connection could be closed instead.
            let Some(slot) = slots.take(remote.ip()) else { continue };
            let connection = Connection { stream, remote, slot, routes: Arc::clone(&routes) };
            tracker.spawn(connection.serve(shutdown.clone(), cut.clone()));
        }
        drop(listener);
        tracker.close();
        if tokio::time::timeout(self.last_requests, tracker.wait()).await.is_err() {
            cut.cancel();
            tracker.wait().await;
        }
    }
}

/// A connection in its slot.
struct Connection<E> {
    stream: TcpStream,
    remote: SocketAddr,
    slot: ConnectionSlot,
    routes: Arc<E>,
}

impl<E: Endpoint<Output = Response> + 'static> Connection<E> {
    async fn serve(self, shutdown: CancellationToken, cut: CancellationToken) {
        let Self { stream, remote, slot, routes } = self;
        // Answers are written whole, or in pieces that the client wants at once.
        let _ = stream.set_nodelay(true);
        bound_unsent(&stream);
        let Ok(local) = stream.local_addr() else { return };
        let (watch, asked) = (Arc::clone(slot.watch()), Arc::clone(slot.watch()));
        let service = service_fn(move |request| {
            let (routes, watch) = (Arc::clone(&routes), Arc::clone(&asked));
            async move { Ok::<_, Infallible>(answer(&*routes, request, local, remote, &watch).await) }
        });
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&watch)));
        let connection = http1::Builder::new()
            // The socket's watch knows the stage that the connection is in; hyper's single time limit does not.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .serve_connection(socket, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = watch.given_up() => {
                // A request that came meanwhile is still answered.
                if watch.spare_since().is_some() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = cut.cancelled() => {}
        }
    }
}

#[cfg(target_os = "linux")]
fn bound_unsent(stream: &TcpStream) {
    // A kernel that does not support this limit buffers as much as it likes.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
}

#[cfg(not(target_os = "linux"))]
fn bound_unsent(_: &TcpStream) {}

async fn answer<E: Endpoint<Output = Response>>(
    routes: &E,
    request: hyper::Request<Incoming>,
    local: SocketAddr,
    remote: SocketAddr,
    watch: &Arc<Watch>,
) -> hyper::Response<Leaving> {
    let has_body = !request.body().is_end_stream();
    watch.asked(has_body);
    let (local, remote) = (LocalAddr(local.into()), RemoteAddr(remote.into()));
    let mut request = Request::from((request, local, remote, Scheme::HTTP));
    if has_body {
        let body = Arriving::new(request.take_body().into(), Arc::clone(watch));
        request.set_body(Body::from(BoxBody::new(body)));
    }
    let response = routes.call(request).await.unwrap_or_else(|error| problem::of(&error));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        watch.handed_over();
    }
    hyper::Response::<BoxBody<_, _>>::from(response).map(|body| Leaving::new(body, Arc::clone(watch)))
}
