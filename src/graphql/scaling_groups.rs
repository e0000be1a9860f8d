//! Scaling groups and who may use them, under Backend.AI's names.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};

use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::access::directory::associations::Grantee;
use crate::access::directory::scaling_groups::ScalingGroupChange;
use crate::access::tenants::ScalingGroup;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::rows;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::JsonString;

/// A named set of agents.
pub(crate) struct ScalingGroupNode(Arc<ScalingGroup>);

impl From<Arc<ScalingGroup>> for ScalingGroupNode {
    fn from(group: Arc<ScalingGroup>) -> Self {
        Self(group)
    }
}

/// Fields that only Backend.AI's scheduler uses are constants here, in the shape its clients expect.
#[Object(name = "ScalingGroup", rename_fields = "snake_case")]
impl ScalingGroupNode {
    /// Its name.
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    /// A description for people.
    async fn description(&self) -> Option<&str> {
        Some(&self.0.description)
    }

    /// Whether it is active. An image is not visible through an inactive scaling group.
    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn is_public(&self) -> Option<bool> {
        Some(true)
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.0.created_at.to_string())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn driver(&self) -> Option<&str> {
        Some("static")
    }

    /// Constant; kept for Backend.AI's clients.
    async fn driver_opts(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn scheduler(&self) -> Option<&str> {
        Some("fifo")
    }

    /// Constant; kept for Backend.AI's clients.
    async fn scheduler_opts(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn use_host_network(&self) -> Option<bool> {
        Some(false)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn wsproxy_addr(&self) -> Option<&str> {
        None
    }

    /// Constant; kept for Backend.AI's clients.
    async fn wsproxy_api_token(&self) -> Option<&str> {
        None
    }
}

macro_rules! props {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(InputObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// A description for people.
            description: Option<String>,
            /// Whether it is active. An image is not visible through an inactive scaling group.
            is_active: Option<bool>,
            /// Not looked at; accepted for Backend.AI's clients.
            is_public: Option<bool>,
            /// Not looked at; accepted for Backend.AI's clients.
            driver: Option<String>,
            /// Not looked at; accepted for Backend.AI's clients.
            driver_opts: Option<JsonString>,
            /// Not looked at; accepted for Backend.AI's clients.
            scheduler: Option<String>,
            /// Not looked at; accepted for Backend.AI's clients.
            scheduler_opts: Option<JsonString>,
            /// Not looked at; accepted for Backend.AI's clients.
            use_host_network: Option<bool>,
            /// Not looked at; accepted for Backend.AI's clients.
            wsproxy_addr: Option<String>,
            /// Not looked at; accepted for Backend.AI's clients.
            wsproxy_api_token: Option<String>,
        }

        impl From<$name> for ScalingGroupChange {
            fn from(props: $name) -> Self {
                Self { description: props.description, is_active: props.is_active }
            }
        }
    };
}

props!(
    /// A new scaling group. The oldest clients call this type `ScalingGroupInput`, which is accepted too.
    CreateScalingGroupInput
);
props!(
    /// Changes to a scaling group. A field that is null keeps its value.
    ModifyScalingGroupInput
);

outcome!(
    /// The result of `create_scaling_group`.
    CreateScalingGroup,
    /// The scaling group after the change; null if nothing was changed.
    scaling_group: ScalingGroupNode
);
outcome!(
    /// The result of `modify_scaling_group`.
    ModifyScalingGroup
);
outcome!(
    /// The result of `delete_scaling_group`.
    DeleteScalingGroup
);

/// The queries. Super-admins see all scaling groups. Other users see those that their domain may use, or a group or
/// keypair that they see.
#[derive(Default)]
pub(crate) struct ScalingGroupQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ScalingGroupQuery {
    /// One scaling group. Without a name, `default`.
    async fn scaling_group(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
    ) -> FieldResult<Option<ScalingGroupNode>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let name = name.as_deref().unwrap_or(crate::access::tenants::DEFAULT);
        Ok(Some(ScalingGroupNode(directory.scaling_group(caller, name)?)))
    }

    /// All scaling groups the caller may see, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn scaling_groups(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
        is_active: Option<bool>,
    ) -> Option<Vec<Option<ScalingGroupNode>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(rows(directory.scaling_groups(caller, name.as_deref(), is_active)))
    }

    /// The scaling groups that a domain may use.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn scaling_groups_for_domain(
        &self,
        ctx: &Context<'_>,
        domain: String,
        is_active: Option<bool>,
    ) -> FieldResult<Option<Vec<Option<ScalingGroupNode>>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Ok(Some(rows(directory.scaling_groups_for(caller, &Grantee::Domain(domain), is_active)?)))
    }

    /// The scaling groups that a group may use besides those of its domain.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn scaling_groups_for_user_group(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The group's id, or its name if no other group you see has it.")] user_group: String,
        is_active: Option<bool>,
    ) -> FieldResult<Option<Vec<Option<ScalingGroupNode>>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let grantee = Grantee::Group(directory.group_named(caller, &user_group)?.id);
        Ok(Some(rows(directory.scaling_groups_for(caller, &grantee, is_active)?)))
    }

    /// The scaling groups that a keypair may use whatever groups its user is in.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn scaling_groups_for_keypair(
        &self,
        ctx: &Context<'_>,
        access_key: String,
        is_active: Option<bool>,
    ) -> FieldResult<Option<Vec<Option<ScalingGroupNode>>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Ok(Some(rows(directory.scaling_groups_for(caller, &Grantee::Keypair(access_key), is_active)?)))
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct ScalingGroupMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ScalingGroupMutation {
    /// Adds a scaling group.
    async fn create_scaling_group(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateScalingGroupInput,
    ) -> Option<CreateScalingGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.add_scaling_group(caller, &name, props.into()).await.map(ScalingGroupNode).into())
    }

    /// Changes a scaling group.
    async fn modify_scaling_group(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyScalingGroupInput,
    ) -> Option<ModifyScalingGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.change_scaling_group(caller, &name, props.into()).await.into())
    }

    /// Deletes a scaling group. A scaling group that has agents, or that is assigned to a domain, group or keypair,
    /// is refused.
    async fn delete_scaling_group(&self, ctx: &Context<'_>, name: String) -> Option<DeleteScalingGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_scaling_group(caller, &name).await.into())
    }
}
