//! `/agents/link`: where agents on other machines dial in.

use std::net::{IpAddr, Ipv4Addr};

use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Request, Response, handler};

use crate::fleet::links::Links;
use crate::fleet::session::attend;
use crate::http::events::Streams;
use crate::http::problem::Problem;
use crate::wire::socket::accept_key;

/// Turns the connection into a link. Who it is for is asked on the link, so that an agent of any version is told in
/// words why it is not wanted.
#[handler]
pub fn link(
    request: &Request,
    Data(links): Data<&Links>,
    Data(streams): Data<&Streams>,
) -> Result<Response, Problem> {
    let Some(key) = websocket_key(request) else {
        return Err(Problem::upgrade_required(
            "this is where agents dial in, by WebSocket: wharf agent --manager URL",
        ));
    };
    // No browser is an agent; a page that tries is another site's.
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Problem::forbidden("agents are no browsers"));
    }
    let accept = accept_key(key);
    let stranger = links.stranger().map_err(Problem::from)?;
    let upgrade =
        request.take_upgrade().map_err(|_| Problem::bad_request("this connection can't be upgraded"))?;
    let address = request.remote_addr().as_socket_addr().map(std::net::SocketAddr::ip);
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    let links = links.clone();
    streams.tracker.spawn(async move {
        match upgrade.await {
            Ok(stream) => attend(links, stream, address, stranger).await,
            Err(error) => tracing::debug!(%address, %error, "a link did not come to be"),
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .finish())
}

/// The key of a request for a WebSocket of the version there is (RFC 6455, 4.2.1).
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
