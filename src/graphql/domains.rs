//! Domains, under the names Backend.AI gave their administration.

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

    /// For people.
    async fn description(&self) -> Option<&str> {
        Some(&self.0.description)
    }

    /// Whether its users see any image.
    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    /// When it was made, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.0.created_at.to_string())
    }

    /// Constant; for Backend.AI's clients.
    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; for Backend.AI's clients.
    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// The registries whose images its users may see.
    async fn allowed_docker_registries(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.allowed_docker_registries.iter().map(|host| Some(host.as_str())).collect())
    }

    /// The scaling groups all of its groups may use.
    async fn scaling_groups(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.scaling_groups.iter().map(|name| Some(name.as_str())).collect())
    }

    /// What an outside system calls it.
    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }
}

/// A new domain.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct DomainInput {
    /// For people.
    description: Option<String>,
    /// Whether its users see any image; true if not given.
    is_active: Option<bool>,
    /// Not looked at; for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// The registries whose images its users may see.
    allowed_docker_registries: Option<Vec<Option<String>>>,
    /// What an outside system calls it.
    integration_id: Option<String>,
}

/// Changes to a domain; what is null stays as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyDomainInput {
    /// Another name.
    name: Option<String>,
    /// For people.
    description: Option<String>,
    /// Whether its users see any image.
    is_active: Option<bool>,
    /// Not looked at; for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// The registries whose images its users may see. An empty list leaves them as they are, since the older official
    /// clients send one with every change; `[""]` empties them.
    allowed_docker_registries: Option<Vec<Option<String>>>,
    /// What an outside system calls it.
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
    /// What came of `create_domain`.
    CreateDomain,
    /// As it is now; null if it was not done.
    domain: DomainNode
);
outcome!(
    /// What came of `modify_domain`.
    ModifyDomain,
    /// As it is now; null if it was not done.
    domain: DomainNode
);
outcome!(
    /// What came of `delete_domain`.
    DeleteDomain
);
outcome!(
    /// What came of `purge_domain`.
    PurgeDomain
);

/// The queries. Super-admins see all domains, everybody else their own.
#[derive(Default)]
pub(crate) struct DomainQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl DomainQuery {
    /// One domain; without a name your own.
    async fn domain(&self, ctx: &Context<'_>, name: Option<String>) -> FieldResult<Option<DomainNode>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Ok(Some(DomainNode(directory.domain(caller, name.as_deref())?)))
    }

    /// All domains, by name.
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

    /// Switches a domain off and keeps it. One that still has users is refused.
    async fn delete_domain(&self, ctx: &Context<'_>, name: String) -> Option<DeleteDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.switch_domain_off(caller, &name).await.into())
    }

    /// Takes a domain out. One that has users, deleted ones too, or groups is refused.
    async fn purge_domain(&self, ctx: &Context<'_>, name: String) -> Option<PurgeDomain> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_domain(caller, &name).await.into())
    }
}
