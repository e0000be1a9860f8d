//! Every route on one page.

use poem::middleware::{AddData, CatchPanic};
use poem::{Endpoint, EndpointExt as _, Response, Route, get, post};

use crate::access::accounts::Accounts;
use crate::base::clock::Clock;
use crate::catalog::service::Catalog;
use crate::fleet::links::Links;
use crate::graphql::schema::Schema;
use crate::http::events::{self, Streams};
use crate::http::guard::{Guard, Hosts};
use crate::http::health::{self, Requests};
use crate::http::{agents, graphql, hello, ui};
use crate::store::Store;
use crate::tasks::queue::Queue;

/// What the routes work with.
pub struct Services {
    /// For readiness.
    pub store: Store,
    /// For signatures.
    pub accounts: Accounts,
    /// For signatures' dates.
    pub clock: Clock,
    /// For metrics.
    pub catalog: Catalog,
    /// For events.
    pub queue: Queue,
    /// For agents on other machines.
    pub links: Links,
    /// The API.
    pub schema: Schema,
    /// For events.
    pub streams: Streams,
    /// The names the server goes by.
    pub hosts: Hosts,
}

/// The whole HTTP surface.
pub fn routes(services: Services) -> impl Endpoint<Output = Response> {
    let requests = Requests::default();
    Route::new()
        .at("/graphql", post(graphql::spec))
        .at("/admin/gql", post(graphql::spec))
        .at("/admin/graphql", post(graphql::bare))
        .at("/events/background-task", get(events::follow))
        .at("/agents/link", get(agents::link))
        .at("/manager/status", get(hello::status))
        .at("/manager/announcement", get(hello::announcement))
        .at("/healthz", get(health::alive))
        .at("/readyz", get(health::ready))
        .at("/metrics", get(health::metrics))
        .at("/*page", ui::page)
        .with(AddData::new(services.store))
        .with(AddData::new(services.accounts))
        .with(AddData::new(services.clock))
        .with(AddData::new(services.catalog))
        .with(AddData::new(services.queue))
        .with(AddData::new(services.links))
        .with(AddData::new(services.schema))
        .with(AddData::new(services.streams))
        .with(AddData::new(requests.clone()))
        .with(CatchPanic::new())
        .with(Guard::new(services.hosts, requests))
}
