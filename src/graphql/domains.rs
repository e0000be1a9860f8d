//! Domains, under the names of Backend.AI's administration API.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};

use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::access::directory::domains::DomainChange;
use crate::access::tenants::Domain;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::rows;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::JsonString;

/// A tenant.
pub(crate) struct DomainNode(Arc<Domain>);

impl From<Arc<Domain>> for DomainNode {
    fn from(domain: Arc<Domain>) -> Self {
        Self(domain)
    }
}

#[Object(name = "Domain", rename_fields = "snake_case")]
impl DomainNode {
    /// Its name.
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    /// A description for people.
    async fn description(&self) -> Option<&str> {
        Some(&self.0.description)
    }

    /// Whether it is active. Users of an inactive domain see no images.
    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.0.created_at.to_string())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// The registries whose images its users may see.
    async fn allowed_docker_registries(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.allowed_docker_registries.iter().map(|host| Some(host.as_str())).collect())
    }

    /// The scaling groups that all of its groups may use.
    async fn scaling_groups(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.scaling_groups.iter().map(|name| Some(name.as_str())).collect())
    }

    /// Its id in an external system.
    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }
}

/// A new domain.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct DomainInput {
    /// A description for people.
    description: Option<String>,
    /// Whether it is active; true if not given. Users of an inactive domain see no images.
    is_active: Option<bool>,
    /// Not looked at; accepted for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; accepted for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// The registries whose images its users may see.
    allowed_docker_registries: Option<Vec<Option<String>>>,
    /// Its id in an external system.
    integration_id: Option<String>,
}

/// Changes to a domain. A field that is null keeps its value.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyDomainInput {
    /// A new name.
    name: Option<String>,
    /// A description for people.
    description: Option<String>,
    /// Whether it is active. Users of an inactive domain see no images.
    is_active: Option<bool>,
    /// Not looked at; accepted for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; accepted for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// The registries whose images its users may see. An empty list changes nothing, because the older official
    /// clients send one with every change; `[""]` empties the list.
    allowed_docker_registries: Option<Vec<Option<String>>>,
    /// Its id in an external system.
    integration_id: Option<String>,
}

fn texts(list: Option<Vec<Option<String>>>) -> Option<Vec<String>> {
    list.map(|texts| texts.into_iter().flatten().collect())
}

impl From<DomainInput> for DomainChange {
    fn from(props: DomainInput) -> Self {
        Self {
            name: None,
            description: props.description,
            is_active: props.is_active,
            registries: texts(props.allowed_docker_registries),
            integration_id: props.integration_id,
        }
    }
}

impl From<ModifyDomainInput> for DomainChange {
    fn from(props: ModifyDomainInput) -> Self {
        Self {
            name: props.name,
            description: props.description,
            is_active: props.is_active,
            registries: texts(props.allowed_docker_registries),
            integration_id: props.integration_id,
        }
    }
}

outcome!(
    /// The result of `create_domain`.
    CreateDomain,
    /// The domain after the change; null if nothing was changed.
    domain: DomainNode
);
outcome!(
    /// The result of `modify_domain`.
    ModifyDomain,
    /// The domain after the change; null if nothing was changed.
    domain: DomainNode
);
outcome!(
    /// The result of `delete_domain`.
    DeleteDomain
);
outcome!(
    /// The result of `purge_domain`.
    PurgeDomain
);

/// The queries. Super-admins see all domains, other users their own.
#[derive(Default)]
pub(crate) struct DomainQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl DomainQuery {
    /// One domain. Without a name, the caller's own.
    async fn domain(&self, ctx: &Context<'_>, name: Option<String>) -> FieldResult<Option<DomainNode>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Ok(Some(DomainNode(directory.domain(caller, name.as_deref())?)))
    }

    /// All domains the caller may see, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn domains(&self, ctx: &Context<'_>, is_active: Option<bool>) -> Option<Vec<Option<DomainNode>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(rows(directory.domains(caller, is_active)))
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct DomainMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl DomainMutation {
    /// Adds a domain.
    async fn create_domain(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: DomainInput,
    ) -> Option<CreateDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.add_domain(caller, &name, props.into()).await.map(DomainNode).into())
    }

    /// Changes a domain.
    async fn modify_domain(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyDomainInput,
    ) -> Option<ModifyDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.change_domain(caller, &name, props.into()).await.map(DomainNode).into())
    }

    /// Deactivates a domain and keeps it. A domain that still has users is refused.
    async fn delete_domain(&self, ctx: &Context<'_>, name: String) -> Option<DeleteDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.switch_domain_off(caller, &name).await.into())
    }

    /// Deletes a domain. A domain that has groups or users, including deleted users, is refused.
    async fn purge_domain(&self, ctx: &Context<'_>, name: String) -> Option<PurgeDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_domain(caller, &name).await.into())
    }
}
