//! `/agents/link`: where agents on other machines dial in. `/agents/v2/…`: the images that agents may fetch from
//! here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_util::StreamExt as _;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, ResponseBuilder, handler};
use tokio::sync::Semaphore;

use crate::fleet::links::Links;
use crate::fleet::session::{HELLO, attend};
use crate::http::caller::Proofs;
use crate::http::events::Streams;
use crate::http::problem::Problem;
use crate::sources::grants::Grants;
use crate::sources::hand_out::{GrantPlace, PeerRequest, PeerResponse, answer};
use crate::wire::socket::accept_key;

/// The most parts of images that are handed out at once.
const GUESTS: usize = 64;

/// Turns the connection into a link. The credential is checked on the link, so that an agent of any version is told
/// in words why it is refused.
#[handler]
pub(crate) fn link(
    request: &Request,
    Data(links): Data<&Links>,
    Data(proofs): Data<&Proofs>,
    Data(streams): Data<&Streams>,
) -> Result<Response, Problem> {
    let Some(key) = websocket_key(request) else {
        return Err(Problem::upgrade_required(
            "this is where agents dial in, by WebSocket: wharf agent --manager URL",
        ));
    };
    // No agent is a browser; a page that tries belongs to another site.
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Problem::forbidden("agents are no browsers"));
    }
    let accept = accept_key(key);
    let upgrade =
        request.take_upgrade().map_err(|_| Problem::bad_request("this connection can't be upgraded"))?;
    let address = proofs.proxies.peer(request).address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let stranger = links.stranger(address);
    let links = links.clone();
    streams.tracker.spawn(async move {
        match tokio::time::timeout(HELLO, upgrade).await {
            Ok(Ok(stream)) => attend(links, stream, address, stranger).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "a link did not come to be"),
            Err(_) => tracing::debug!(%address, "a link did not come to be in time"),
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .finish())
}

/// Images of the server's own directories, for agents that were given a grant.
#[derive(Clone)]
pub(crate) struct HandOut {
    grants: Arc<Grants>,
    guests: Arc<Semaphore>,
}

impl HandOut {
    /// Returns the images behind these grants.
    pub(crate) fn new(grants: Arc<Grants>) -> Self {
        Self { grants, guests: Arc::new(Semaphore::new(GUESTS)) }
    }
}

/// `/agents/v2/…`: what a caller may read with a grant. No user or token opens it, and a grant opens nothing else.
#[handler]
pub(crate) async fn hand_out(request: &Request, Data(out): Data<&HandOut>) -> Response {
    let wanted = PeerRequest {
        method: request.method().as_str(),
        path: request.uri().path().strip_prefix("/agents").unwrap_or_default(),
        grant: GrantPlace::Header(request.header(header::AUTHORIZATION)),
        range: request.header(header::RANGE),
    };
    let mut answer = answer(&out.grants, &wanted).await;
    if let Some(pieces) = answer.body.take() {
        let Ok(place) = Arc::clone(&out.guests).try_acquire_owned() else {
            return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).finish();
        };
        let held = pieces.map(move |piece| {
            let _place = &place;
            piece
        });
        return headed(&answer).body(Body::from_bytes_stream(held));
    }
    headed(&answer).finish()
}

fn headed(answer: &PeerResponse) -> ResponseBuilder {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::builder().status(status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response
}

/// Returns the key of a request for a WebSocket, if it asks for the only version that exists (RFC 6455, 4.2.1).
fn websocket_key(request: &Request) -> Option<&str> {
    let says = |name, word: &str| {
        let value = request.header(name).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let asks = says(header::CONNECTION, "upgrade")
        && says(header::UPGRADE, "websocket")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    request.header(header::SEC_WEBSOCKET_KEY).filter(|_| asks)
}
