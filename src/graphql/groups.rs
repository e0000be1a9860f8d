//! Groups (projects), under the names of Backend.AI's administration API.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};

use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::access::directory::groups::{GroupChange, GroupSearch, MemberChange};
use crate::access::tenants::Group;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::rows;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::{JsonString, Uuid};

/// The type of all groups.
const GENERAL: &str = "GENERAL";

/// A project: some users of a domain.
pub(crate) struct GroupNode(Arc<Group>);

impl From<Arc<Group>> for GroupNode {
    fn from(group: Arc<Group>) -> Self {
        Self(group)
    }
}

#[Object(name = "Group", rename_fields = "snake_case")]
impl GroupNode {
    /// Its id.
    async fn id(&self) -> Option<Uuid> {
        Some(self.0.id.into())
    }

    /// Its name, unique in its domain.
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    /// A description for people.
    async fn description(&self) -> Option<&str> {
        Some(&self.0.description)
    }

    /// Whether it is active. An inactive group gives its members nothing.
    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.0.created_at.to_string())
    }

    /// The domain it belongs to.
    async fn domain_name(&self) -> Option<&str> {
        Some(&self.0.domain)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Its id in an external system.
    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }

    /// The scaling groups it may use besides those of its domain.
    async fn scaling_groups(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.scaling_groups.iter().map(|name| Some(name.as_str())).collect())
    }

    /// Always `GENERAL`.
    #[graphql(name = "type")]
    async fn kind(&self) -> Option<&str> {
        Some(GENERAL)
    }
}

/// A new group.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct GroupInput {
    /// A description for people.
    description: Option<String>,
    /// Whether it is active; true if not given. An inactive group gives its members nothing.
    is_active: Option<bool>,
    /// The domain it belongs to; the caller's own if not given.
    domain_name: Option<String>,
    /// Not looked at; accepted for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; accepted for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// Its id in an external system.
    integration_id: Option<String>,
}

/// Changes to a group. A field that is null keeps its value.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyGroupInput {
    /// A new name.
    name: Option<String>,
    /// A description for people.
    description: Option<String>,
    /// Whether it is active. An inactive group gives its members nothing.
    is_active: Option<bool>,
    /// The domain it belongs to. A group can't be moved to another domain.
    domain_name: Option<String>,
    /// Not looked at; accepted for Backend.AI's clients.
    total_resource_slots: Option<JsonString>,
    /// Not looked at; accepted for Backend.AI's clients.
    allowed_vfolder_hosts: Option<JsonString>,
    /// What to do with the users of `user_uuids`: `add` or `remove`.
    user_update_mode: Option<String>,
    /// Users, by id or e-mail address.
    user_uuids: Option<Vec<Option<String>>>,
    /// Its id in an external system.
    integration_id: Option<String>,
}

impl From<GroupInput> for GroupChange {
    fn from(props: GroupInput) -> Self {
        Self {
            name: None,
            description: props.description,
            is_active: props.is_active,
            domain: props.domain_name,
            integration_id: props.integration_id,
            members: None,
        }
    }
}

impl TryFrom<ModifyGroupInput> for GroupChange {
    type Error = Error;

    fn try_from(props: ModifyGroupInput) -> Result<Self> {
        let users = props.user_uuids.map(|users| users.into_iter().flatten().collect());
        let members = match (props.user_update_mode.as_deref(), users) {
            (_, None) => None,
            (Some("add"), Some(users)) => Some(MemberChange::Add(users)),
            (Some("remove"), Some(users)) => Some(MemberChange::Remove(users)),
            (mode, Some(_)) => {
                let why = format!("{:?} is neither add nor remove", shown(mode.unwrap_or_default()));
                return Err(Error::invalid("user_update_mode", why));
            }
        };
        Ok(Self {
            name: props.name,
            description: props.description,
            is_active: props.is_active,
            domain: props.domain_name,
            integration_id: props.integration_id,
            members,
        })
    }
}

outcome!(
    /// The result of `create_group`.
    CreateGroup,
    /// The group after the change; null if nothing was changed.
    group: GroupNode
);
outcome!(
    /// The result of `modify_group`.
    ModifyGroup,
    /// The group after the change; null if nothing was changed.
    group: GroupNode
);
outcome!(
    /// The result of `delete_group`.
    DeleteGroup
);
outcome!(
    /// The result of `purge_group`.
    PurgeGroup
);

/// The queries. Super-admins see all groups, a domain's admins those of the domain, other users those they are in.
#[derive(Default)]
pub(crate) struct GroupQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl GroupQuery {
    /// One group.
    async fn group(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        #[graphql(desc = "Finds the group only in this domain.")] domain_name: Option<String>,
        #[graphql(name = "type", desc = "Not looked at; every group is `GENERAL`.")] kind: Option<
            Vec<Option<String>>,
        >,
    ) -> FieldResult<Option<GroupNode>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let _ = kind;
        let group = directory.group(caller, id.group())?;
        if domain_name.is_some_and(|name| name != group.domain) {
            return Err(Error::missing("group", id.0.to_string()).into());
        }
        Ok(Some(GroupNode(group)))
    }

    /// All groups the caller may see, by domain and name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn groups(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        is_active: Option<bool>,
        #[graphql(name = "type", desc = "Every group is `GENERAL`.")] kind: Option<Vec<Option<String>>>,
    ) -> Option<Vec<Option<GroupNode>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        if kind.is_some_and(|kinds| !kinds.iter().any(|kind| kind.as_deref() == Some(GENERAL))) {
            return Some(Vec::new());
        }
        Some(rows(directory.groups(caller, &GroupSearch { domain: domain_name, name: None, is_active })))
    }

    /// The groups of this name, at most one in each domain.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn groups_by_name(
        &self,
        ctx: &Context<'_>,
        name: String,
        domain_name: Option<String>,
    ) -> Option<Vec<Option<GroupNode>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let search = GroupSearch { domain: domain_name, name: Some(name), is_active: None };
        Some(rows(directory.groups(caller, &search)))
    }
}

/// The mutations. They are for super-admins, and for a domain's admins within their domain.
#[derive(Default)]
pub(crate) struct GroupMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl GroupMutation {
    /// Adds a group.
    async fn create_group(&self, ctx: &Context<'_>, name: String, props: GroupInput) -> Option<CreateGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.add_group(caller, &name, props.into()).await.map(GroupNode).into())
    }

    /// Changes a group and its members.
    async fn modify_group(
        &self,
        ctx: &Context<'_>,
        gid: Uuid,
        props: ModifyGroupInput,
    ) -> Option<ModifyGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.change_group(caller, gid.group(), props.try_into()).await.map(GroupNode).into())
    }

    /// Deactivates a group and keeps it.
    async fn delete_group(&self, ctx: &Context<'_>, gid: Uuid) -> Option<DeleteGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.switch_group_off(caller, gid.group()).await.into())
    }

    /// Deletes a group. Its members stay users of the domain.
    async fn purge_group(&self, ctx: &Context<'_>, gid: Uuid) -> Option<PurgeGroup> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_group(caller, gid.group()).await.into())
    }
}
