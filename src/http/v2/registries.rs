//! `/v2/container-registries`.

use std::sync::Arc;

use poem::web::Data;
use poem::{Request, Response, handler};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::access::caller::Caller;
use crate::base::ids::RegistryId;
use crate::base::secret::Secret;
use crate::base::walk::{Budget, Meter, Walks};
use crate::base::{Error, Result};
use crate::catalog::registry::{PASSWORD_SET, Registry, RegistryChange};
use crate::catalog::service::Catalog;
use crate::http::caller::Proved;
use crate::http::finish;
use crate::http::json::{Sent, answer};
use crate::http::problem::Problem;
use crate::http::v2::filter::{ChoiceFilter, Nested, TextFilter, holds, sift};
use crate::http::v2::page::{self, OrderBy, Page};

/// A registry. Its password is never shown.
#[derive(Debug, Serialize)]
struct Node {
    id: RegistryId,
    entity_id: RegistryId,
    url: String,
    registry_name: String,
    #[serde(rename = "type")]
    kind: String,
    project: Option<String>,
    username: Option<String>,
    ssl_verify: bool,
    is_global: bool,
    extra: Option<Value>,
}

impl From<&Registry> for Node {
    fn from(registry: &Registry) -> Self {
        let id = RegistryId::of(&registry.host);
        Self {
            id,
            entity_id: id,
            url: registry.written_url().into(),
            registry_name: registry.host.clone(),
            kind: registry.kind.to_string(),
            project: registry.written_projects(),
            username: registry.username.clone(),
            ssl_verify: registry.ssl_verify,
            is_global: registry.is_global,
            extra: None,
        }
    }
}

/// Selects registries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryFilter {
    registry_name: Option<TextFilter>,
    #[serde(rename = "type")]
    kind: Option<ChoiceFilter<String>>,
    is_global: Option<bool>,
    #[serde(rename = "AND")]
    all: Option<Vec<Self>>,
    #[serde(rename = "OR")]
    any: Option<Vec<Self>>,
    #[serde(rename = "NOT")]
    none: Option<Vec<Self>>,
}

impl Nested for RegistryFilter {
    fn inner(&self) -> [Option<&Vec<Self>>; 3] {
        [self.all.as_ref(), self.any.as_ref(), self.none.as_ref()]
    }
}

impl RegistryFilter {
    fn takes(&self, node: &Node) -> bool {
        holds(self.registry_name.as_ref(), |filter| filter.takes(&node.registry_name))
            && holds(self.kind.as_ref(), |filter| filter.takes(&node.kind))
            && self.is_global.is_none_or(|wanted| wanted == node.is_global)
            && self.inner_take(|inner| inner.takes(node))
    }
}

/// The fields that registries are ordered by.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    RegistryName,
    Url,
    Type,
    IsGlobal,
}

/// A search for registries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    filter: Option<RegistryFilter>,
    order: Option<Vec<OrderBy<Field>>>,
    limit: Option<i64>,
    offset: Option<i64>,
}

/// `POST /v2/container-registries/search`: lists registries.
#[handler]
pub(crate) async fn search(
    request: &Request,
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Data(walks): Data<&Walks>,
    Sent(search): Sent<Search>,
) -> Result<Response, Problem> {
    let registries = catalog.registries(&caller)?;
    let page = Page::new(search.limit, search.offset)?;
    search.filter.as_ref().map_or(Ok(()), RegistryFilter::check)?;
    let found = move |meter: &Meter| {
        let nodes = registries.iter().map(|registry| Node::from(registry.as_ref())).collect();
        let size = |node: &Node| node.registry_name.len() + node.kind.len();
        let mut nodes = sift(nodes, search.filter.as_ref(), meter, size, RegistryFilter::takes)?;
        page::sort(&mut nodes, search.order.as_deref(), |field, a, b| match field {
            Field::RegistryName => a.registry_name.cmp(&b.registry_name),
            Field::Url => a.url.cmp(&b.url),
            Field::Type => a.kind.cmp(&b.kind),
            Field::IsGlobal => a.is_global.cmp(&b.is_global),
        })?;
        Ok(page.of(nodes, |node| node))
    };
    answer(&walks.run(caller.user, &Budget::new(finish::abandoned(request)), found).await?)
}

/// The properties that a registry should have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Properties {
    /// The registry to change; absent for a new one.
    id: Option<RegistryId>,
    url: Option<String>,
    registry_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    project: Option<String>,
    username: Option<String>,
    password: Option<String>,
    ssl_verify: Option<bool>,
    is_global: Option<bool>,
    extra: Option<Map<String, Value>>,
    allowed_groups: Option<AllowedGroups>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedGroups {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

impl Properties {
    fn into_change(self) -> Result<RegistryChange> {
        if self.extra.is_some_and(|extra| !extra.is_empty()) {
            return Err(Error::invalid("extra", "wharf has no use for it; leave it out"));
        }
        if self.allowed_groups.is_some_and(|groups| !(groups.add.is_empty() && groups.remove.is_empty())) {
            let why = "registries are allowed to domains, not to groups; modify a domain's allowed_docker_registries";
            return Err(Error::invalid("allowed_groups", why));
        }
        let names = |text: String| {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        Ok(RegistryChange {
            url: self.url.map(|url| url.trim().to_owned()),
            kind: self.kind,
            projects: self.project.map(names),
            username: self.username,
            password: self.password.filter(|text| text != PASSWORD_SET).map(Secret::new),
            ssl_verify: self.ssl_verify,
            is_global: self.is_global,
            ..RegistryChange::default()
        })
    }
}

/// `POST /v2/container-registries`: adds a registry.
#[handler]
pub(crate) async fn create(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(wanted): Sent<Properties>,
) -> Result<Response, Problem> {
    let target = wanted.registry_name.as_deref().unwrap_or_default();
    catalog.require_superadmin(&caller, "create_container_registry", target).await?;
    if wanted.id.is_some() {
        return Err(Problem::bad_parameter("id: it is made of the name, and can't be chosen"));
    }
    let name = wanted.registry_name.clone().ok_or_else(|| missing("registry_name"))?;
    if wanted.url.is_none() {
        return Err(missing("url"));
    }
    let registry = catalog.add_registry(&caller, &name, wanted.into_change()?).await?;
    answer(&json!({ "registry": Node::from(registry.as_ref()) }))
}

/// `PATCH /v2/container-registries`: changes a registry.
#[handler]
pub(crate) async fn update(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(wanted): Sent<Properties>,
) -> Result<Response, Problem> {
    let id = wanted.id.ok_or_else(|| missing("id"))?;
    catalog.require_superadmin(&caller, "modify_container_registry", &id.to_string()).await?;
    let registry = find(catalog, &caller, id)?;
    if wanted.registry_name.as_ref().is_some_and(|name| name.trim() != registry.host) {
        let why = "registry_name: the names of its images begin with it; add another registry instead";
        return Err(Problem::bad_parameter(why));
    }
    let changed = catalog.change_registry(&caller, &registry.host, wanted.into_change()?).await?;
    let node = Node::from(changed.registry.as_ref());
    match changed.note() {
        None => answer(&json!({ "registry": node })),
        Some(msg) => answer(&json!({ "registry": node, "msg": msg })),
    }
}

/// Selects one registry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct One {
    id: RegistryId,
}

/// `POST /v2/container-registries/delete`: deletes a registry with its images and their aliases.
#[handler]
pub(crate) async fn delete(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(one): Sent<One>,
) -> Result<Response, Problem> {
    catalog.require_superadmin(&caller, "delete_container_registry", &one.id.to_string()).await?;
    let registry = find(catalog, &caller, one.id)?;
    catalog.remove_registry(&caller, &registry.host).await?;
    answer(&json!({ "id": one.id }))
}

fn find(catalog: &Catalog, caller: &Caller, id: RegistryId) -> Result<Arc<Registry>> {
    let mut registries = catalog.registries(caller)?.into_iter();
    registries
        .find(|registry| RegistryId::of(&registry.host) == id)
        .ok_or_else(|| Error::missing("registry", id.to_string()))
}

fn missing(field: &str) -> Problem {
    Problem::bad_parameter(format!("{field} is missing"))
}
