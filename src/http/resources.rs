//! Small lists that the official clients ask for outside GraphQL.

use poem::web::{Data, Query};
use poem::{Response, handler};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::catalog::service::Catalog;
use crate::http::caller::Proved;
use crate::http::json::answer;
use crate::http::problem::Problem;

/// `GET /config/docker-registries`, for clients before 24.9: each registry's URL, by its name.
#[handler]
pub(crate) fn docker_registries(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
) -> Result<Response, Problem> {
    let registries = catalog.registries(&caller)?;
    let urls = registries.iter().map(|registry| (registry.host.clone(), registry.written_url().into()));
    answer(&urls.collect::<Map<_, _>>())
}

/// `GET /resource/container-registries`, for clients from 24.9 on: each registry's URL, by `project/name` if the
/// registry is narrowed to projects.
#[handler]
pub(crate) fn container_registries(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
) -> Result<Response, Problem> {
    let mut urls = Map::new();
    for registry in catalog.registries(&caller)? {
        if registry.projects.is_empty() {
            urls.insert(registry.host.clone(), registry.written_url().into());
        }
        for project in &registry.projects {
            urls.insert(format!("{project}/{}", registry.host), registry.written_url().into());
        }
    }
    answer(&urls)
}

/// Selects a group.
#[derive(Deserialize)]
pub(crate) struct Membership {
    /// Its name or id; clients of all ages say `group`.
    group: Option<String>,
}

/// `GET /scaling-groups?group=`: the scaling groups that the caller may use as a member of that group.
#[handler]
pub(crate) fn scaling_groups(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Query(asked): Query<Membership>,
) -> Result<Response, Problem> {
    let group = asked.group.ok_or_else(|| Problem::bad_parameter("group is missing"))?;
    let usable = catalog.usable_scaling_groups(&caller, &group)?;
    let rows: Vec<Value> = usable.iter().map(|name| json!({ "name": name })).collect();
    answer(&json!({ "scaling_groups": rows }))
}
