//! The server's state for its operators: is it alive, is it ready, what is it doing.

use poem::http::{StatusCode, Version, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::loopback;
use crate::catalog::service::Catalog;
use crate::http::caller::{Proofs, Proved};
use crate::http::peer::Proxies;
use crate::http::problem::Problem;
use crate::store::Store;
use crate::tasks::queue::Queue;

/// The prefix of the line in `/readyz` that reports the clock.
pub(crate) const CLOCK: &str = "clock: ";

/// Headers with which proxies identify themselves.
const FORWARDED: [&str; 4] = ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"];

/// Responses, by status class (`2xx`).
#[derive(Clone, Default)]
pub(crate) struct Requests(Family<Vec<(&'static str, &'static str)>, Counter>);

impl Requests {
    /// Counts a response.
    pub(crate) fn count(&self, status: StatusCode) {
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.0.get_or_create(&vec![("status", class)]).inc();
    }
}

/// `GET /healthz`: the process answers, and stores what it is told.
#[handler]
pub(crate) async fn alive(Data(store): Data<&Store>) -> Result<&'static str, Problem> {
    store.check_health().await?;
    Ok("ok\n")
}

/// `GET /readyz`: the store can be read and, as far as known, written. A clock that can't be trusted is reported in a
/// line of its own: it is no reason to send requests elsewhere.
#[handler]
pub(crate) async fn ready(store: Data<&Store>, proofs: Data<&Proofs>) -> Result<String, Problem> {
    store.check_health().await?;
    store.read(|_| Ok(())).await?;
    let doubt = proofs.clock.doubt().map(|doubt| format!("{CLOCK}{doubt}\n"));
    Ok(format!("ready\n{}", doubt.unwrap_or_default()))
}

/// `GET /metrics`, in Prometheus' text format, for this machine and for super-admins: the numbers count things that a
/// caller may not see.
#[handler]
pub(crate) fn metrics(
    request: &Request,
    caller: poem::Result<Proved>,
    Data(proofs): Data<&Proofs>,
    Data(requests): Data<&Requests>,
    Data(catalog): Data<&Catalog>,
    Data(queue): Data<&Queue>,
) -> Result<Response, Problem> {
    if !is_local(request, &proofs.proxies) {
        let why =
            "metrics are for this machine by a loopback address, and elsewhere for a super-admin's token";
        caller.map_err(|_| Problem::forbidden(why))?.require_superadmin("metrics")?;
    }
    let mut registry = Registry::with_prefix("wharf");
    registry.register("http_responses", "HTTP responses", requests.0.clone());
    for (name, help, value) in [
        ("images", "Images in the catalog", catalog.image_count()),
        ("registries", "Registries in the catalog", catalog.registry_hosts().len()),
        ("tasks_running", "Background tasks that have not ended", queue.running().len()),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Problem::internal())?;
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(Body::from_string(text)))
}

/// Whether the request comes from this machine and not through a proxy on it. A proxy that does not identify itself
/// is found by the host name that its client asked for, or by HTTP/1.0, which nginx speaks.
fn is_local(request: &Request, proxies: &Proxies) -> bool {
    let peer = request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical());
    let is_direct = peer.is_some_and(|address| loopback::is_address(address) && !proxies.trusts(address));
    let is_forwarded = FORWARDED.iter().any(|name| request.header(*name).is_some());
    let is_by_loopback = loopback::is_host(request.header(header::HOST).unwrap_or_default());
    is_direct && !is_forwarded && is_by_loopback && request.version() >= Version::HTTP_11
}
