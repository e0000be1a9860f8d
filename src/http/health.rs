//! For those who operate the server: is it alive, is it ready, what is it doing.

use std::net::IpAddr;

use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::catalog::service::Catalog;
use crate::http::problem::Problem;
use crate::store::Store;
use crate::tasks::queue::Queue;

/// Responses, by status class (`2xx`).
#[derive(Clone, Default)]
pub struct Requests(Family<Vec<(&'static str, &'static str)>, Counter>);

impl Requests {
    /// Counts a response.
    pub fn count(&self, status: StatusCode) {
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.0.get_or_create(&vec![("status", class)]).inc();
    }
}

/// `GET /healthz`: the process answers.
#[handler]
pub fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the store can be read and, as far as is known, written.
#[handler]
pub async fn ready(store: Data<&Store>) -> Result<&'static str, Problem> {
    store.read(|_| Ok(())).await?;
    store.check_writable()?;
    Ok("ready\n")
}

/// `GET /metrics`, in Prometheus' text format, for this machine only: the numbers say how much there is of what a
/// caller may not see.
#[handler]
pub fn metrics(
    request: &Request,
    Data(requests): Data<&Requests>,
    Data(catalog): Data<&Catalog>,
    Data(queue): Data<&Queue>,
) -> Result<Response, Problem> {
    if !is_local(request) {
        return Err(Problem::forbidden("metrics are for this machine only; ask by a loopback address"));
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

/// Whether the request comes from this machine and not through a proxy on it.
fn is_local(request: &Request) -> bool {
    let peer: Option<IpAddr> = request.remote_addr().as_socket_addr().map(std::net::SocketAddr::ip);
    let forwarded =
        ["X-Forwarded-For", "Forwarded", "X-Real-IP"].iter().any(|name| request.header(*name).is_some());
    peer.is_some_and(|address| address.to_canonical().is_loopback()) && !forwarded
}
