//! All routes in one place.

use poem::middleware::{AddData, CatchPanic};
use poem::{Endpoint, EndpointExt as _, Response, Route, get, patch, post};

use crate::access::set_up::SetUp;
use crate::access::sign_in::SignIn;
use crate::catalog::service::Catalog;
use crate::fleet::links::Links;
use crate::graphql::spec::Api;
use crate::http::agents::HandOut;
use crate::http::backup::{self, Backups};
use crate::http::caller::Proofs;
use crate::http::events::{self, Streams};
use crate::http::finish::Finish;
use crate::http::guard::{Guard, Hosts};
use crate::http::health::{self, Requests};
use crate::http::v2::{aliases, images, registries};
use crate::http::{agents, config, func, graphql, hello, resources, sessions, set_up, ui};
use crate::store::Store;
use crate::tasks::queue::Queue;

/// The services behind the routes.
pub(crate) struct Services {
    /// For readiness.
    pub(crate) store: Store,
    /// For finding the sender of a request.
    pub(crate) proofs: Proofs,
    /// For signing in.
    pub(crate) sign_in: SignIn,
    /// For the first super-admin.
    pub(crate) set_up: SetUp,
    /// For backups.
    pub(crate) backups: Backups,
    /// For metrics.
    pub(crate) catalog: Catalog,
    /// For events.
    pub(crate) queue: Queue,
    /// For agents on other machines.
    pub(crate) links: Links,
    /// For images that agents fetch from here.
    pub(crate) hand_out: HandOut,
    /// For GraphQL.
    pub(crate) api: Api,
    /// For event streams.
    pub(crate) streams: Streams,
    /// The names of the server.
    pub(crate) hosts: Hosts,
}

/// The whole HTTP surface.
pub(crate) fn routes(services: Services) -> impl Endpoint<Output = Response> {
    let (requests, proxies) = (Requests::default(), services.proofs.proxies.clone());
    let tracker = services.streams.tracker.clone();
    Route::new()
        .at("/graphql", post(graphql::spec).get(graphql::look))
        .at("/admin/gql", post(graphql::spec).get(graphql::look))
        .at("/admin/graphql", post(graphql::bare))
        .at("/admin/gql/strawberry", post(graphql::spec).get(graphql::look))
        .at("/v2/images", patch(images::update))
        .at("/v2/images/search", post(images::search))
        .at("/v2/images/forget", post(images::forget))
        .at("/v2/images/purge", post(images::forget))
        .at("/v2/images/alias", post(aliases::create))
        .at("/v2/images/dealias", post(aliases::remove))
        .at("/v2/images/aliases/search", post(aliases::search))
        .at("/v2/container-registries", post(registries::create).patch(registries::update))
        .at("/v2/container-registries/search", post(registries::search))
        .at("/v2/container-registries/delete", post(registries::delete))
        .at("/config/get", post(config::get))
        .at("/config/set", post(config::set))
        .at("/config/delete", post(config::delete))
        .at("/config/docker-registries", get(resources::docker_registries))
        .at("/resource/container-registries", get(resources::container_registries))
        .at("/scaling-groups", get(resources::scaling_groups))
        .at("/events/background-task", get(events::follow))
        .at("/backup", post(backup::take))
        .at("/agents/link", get(agents::link))
        .at("/agents/v2/*path", get(agents::hand_out).head(agents::hand_out))
        .at("/server/login", post(sessions::sign_in))
        .at("/server/login-check", post(sessions::check))
        .at("/server/setup", post(set_up::finish))
        .at("/server/logout", post(sessions::sign_out))
        .at("/auth/update-password", post(sessions::update_password))
        .at("/manager/status", get(hello::status))
        .at("/manager/announcement", get(hello::announcement))
        .at("/healthz", get(health::alive))
        .at("/readyz", get(health::ready))
        .at("/metrics", get(health::metrics))
        .at("/*page", ui::page)
        .before(|mut request| async move {
            func::strip(&mut request);
            Ok(request)
        })
        .with(AddData::new(services.store))
        .with(AddData::new(services.proofs))
        .with(AddData::new(services.sign_in))
        .with(AddData::new(services.set_up))
        .with(AddData::new(services.backups))
        .with(AddData::new(services.catalog))
        .with(AddData::new(services.queue))
        .with(AddData::new(services.api.walks().clone()))
        .with(AddData::new(services.links))
        .with(AddData::new(services.hand_out))
        .with(AddData::new(services.api))
        .with(AddData::new(services.streams))
        .with(AddData::new(requests.clone()))
        .with(Finish::new(tracker))
        .with(CatchPanic::new())
        .with(Guard::new(services.hosts, requests, proxies))
}
