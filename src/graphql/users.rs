//! Users, under the names of Backend.AI's administration API.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use crate::access::caller::{Caller, Role};
use crate::access::directory::Directory;
use crate::access::directory::keypairs::OwnedKeypair;
use crate::access::directory::users::{UserChange, UserSearch};
use crate::access::tenants::Group;
use crate::access::user::{Status, User};
use crate::base::ids::GroupId;
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::walk::Meter;
use crate::base::{Error, Result};
use crate::graphql::keypairs::KeyPairNode;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::field::{Field, Read, Record};
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::{Slice, rows, walk};
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::Uuid;

/// A person or a program with an account.
pub(crate) struct UserNode(Arc<User>);

impl From<Arc<User>> for UserNode {
    fn from(user: Arc<User>) -> Self {
        Self(user)
    }
}

#[Object(name = "User", rename_fields = "snake_case")]
impl UserNode {
    /// Its id.
    async fn id(&self) -> Option<ID> {
        Some(self.0.id.to_string().into())
    }

    /// Its id.
    async fn uuid(&self) -> Option<Uuid> {
        Some(self.0.id.into())
    }

    /// Its short name; the e-mail address if it has none.
    async fn username(&self) -> Option<&str> {
        Some(self.0.shown_name())
    }

    /// The e-mail address.
    async fn email(&self) -> Option<&str> {
        Some(&self.0.email)
    }

    /// The person's name.
    async fn full_name(&self) -> Option<&str> {
        Some(&self.0.full_name)
    }

    /// A description for admins.
    async fn description(&self) -> Option<&str> {
        Some(&self.0.description)
    }

    /// `superadmin`, `admin`, `user` or `monitor`.
    async fn role(&self) -> Option<&str> {
        Some(self.0.role.as_str())
    }

    /// Whether the user may sign in or use keypairs.
    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active())
    }

    /// `active`, `inactive`, `before-verification` or `deleted`.
    async fn status(&self) -> Option<&str> {
        Some(self.0.status.as_str())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn status_info(&self) -> Option<&str> {
        None
    }

    /// Whether the user must choose a new password.
    async fn need_password_change(&self) -> Option<bool> {
        Some(self.0.need_password_change)
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.0.created_at.to_string())
    }

    /// When it was last changed, in RFC 3339.
    async fn modified_at(&self) -> Option<String> {
        self.0.modified_at.map(|at| at.to_string())
    }

    /// The domain that the user belongs to.
    async fn domain_name(&self) -> Option<&str> {
        Some(&self.0.domain)
    }

    /// The groups that the user is a member of, by name.
    async fn groups(&self, ctx: &Context<'_>) -> Option<Vec<Option<UserGroup>>> {
        Some(rows(ctx.data_unchecked::<Directory>().groups_of(self.0.id)))
    }

    /// Its id in an external system.
    async fn integration_id(&self) -> Option<&str> {
        self.0.integration_id.as_deref()
    }

    /// Constant; kept for Backend.AI's clients.
    async fn allowed_client_ip(&self) -> Option<Vec<Option<String>>> {
        None
    }

    /// Constant; kept for Backend.AI's clients.
    async fn totp_activated(&self) -> Option<bool> {
        Some(false)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn sudo_session_enabled(&self) -> Option<bool> {
        Some(false)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn resource_policy(&self) -> Option<&str> {
        Some("default")
    }

    /// The oldest of the user's keypairs that may be used.
    async fn main_access_key(&self, ctx: &Context<'_>) -> Option<String> {
        ctx.data_unchecked::<Directory>().main_access_key(&self.0)
    }
}

impl Record for User {
    type View<'a> = &'a Arc<Self>;

    fn row(view: Self::View<'_>) -> &Self {
        view
    }

    fn fields() -> &'static [Field<Self>] {
        &[
            Field { name: "uuid", read: Read::Text(|user| Some(user.id.to_string().into())) },
            Field { name: "username", read: Read::Text(|user| Some(user.shown_name().into())) },
            Field { name: "email", read: Read::Text(|user| Some(user.email.as_str().into())) },
            Field { name: "full_name", read: Read::Text(|user| Some(user.full_name.as_str().into())) },
            Field { name: "description", read: Read::Text(|user| Some(user.description.as_str().into())) },
            Field { name: "role", read: Read::Text(|user| Some(user.role.as_str().into())) },
            Field { name: "is_active", read: Read::Truth(|user| Some(user.is_active())) },
            Field { name: "status", read: Read::Text(|user| Some(user.status.as_str().into())) },
            Field { name: "need_password_change", read: Read::Truth(|user| Some(user.need_password_change)) },
            Field { name: "domain_name", read: Read::Text(|user| Some(user.domain.as_str().into())) },
            Field { name: "created_at", read: Read::Time(|user| Some(user.created_at)) },
            Field { name: "modified_at", read: Read::Time(|user| user.modified_at) },
        ]
    }
}

/// A group that a user is a member of.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct UserGroup {
    /// Its id.
    id: Option<Uuid>,
    /// Its name.
    name: Option<String>,
}

impl From<Arc<Group>> for UserGroup {
    fn from(group: Arc<Group>) -> Self {
        Self { id: Some(group.id.into()), name: Some(group.name.clone()) }
    }
}

/// A page of users.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct UserList {
    /// The rows of this page.
    items: Option<Vec<Option<UserNode>>>,
    /// The number of rows on all pages together.
    total_count: Option<i32>,
}

macro_rules! props {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(InputObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// A short name, unique regardless of case; empty for none.
            username: Option<String>,
            /// 8 to 1024 bytes.
            password: Option<String>,
            /// Whether the user must choose a new password.
            need_password_change: Option<bool>,
            /// The person's name.
            full_name: Option<String>,
            /// A description for admins.
            description: Option<String>,
            /// Another way to set the status: true for `active`, false for `inactive`.
            is_active: Option<bool>,
            /// `active`, `inactive`, `before-verification` or `deleted`; it takes precedence over `is_active`.
            status: Option<String>,
            /// The domain that the user belongs to. Moving to another domain ends the user's memberships in groups.
            domain_name: Option<String>,
            /// `superadmin`, `admin`, `user` or `monitor`.
            role: Option<String>,
            /// The ids of all groups that the user is to be a member of.
            group_ids: Option<Vec<Option<String>>>,
            /// Its id in an external system.
            integration_id: Option<String>,
            /// Refused: accounts are not bound to addresses.
            allowed_client_ip: Option<Vec<Option<String>>>,
            /// Refused: there are no one-time passwords.
            totp_activated: Option<bool>,
            /// Refused: the main access key is always the oldest keypair that may be used.
            main_access_key: Option<String>,
            /// Not looked at; accepted for Backend.AI's clients.
            resource_policy: Option<String>,
            /// Not looked at; accepted for Backend.AI's clients.
            sudo_session_enabled: Option<bool>,
            /// Not looked at; accepted for Backend.AI's clients.
            container_uid: Option<i32>,
            /// Not looked at; accepted for Backend.AI's clients.
            container_main_gid: Option<i32>,
            /// Not looked at; accepted for Backend.AI's clients.
            container_gids: Option<Vec<Option<i32>>>,
        }

        impl TryFrom<$name> for UserChange {
            type Error = Error;

            fn try_from(props: $name) -> Result<Self> {
                refuse_protections(
                    props.allowed_client_ip.is_some_and(|addresses| !addresses.is_empty()),
                    props.totp_activated == Some(true),
                    props.main_access_key.is_some(),
                )?;
                Ok(Self {
                    password: props.password.map(Secret::new),
                    username: props.username,
                    full_name: props.full_name,
                    description: props.description,
                    role: props.role.map(|role| role.parse::<Role>()).transpose()?,
                    status: status(props.status, props.is_active)?,
                    need_password_change: props.need_password_change,
                    domain: props.domain_name,
                    groups: props.group_ids.map(group_ids).transpose()?,
                    integration_id: props.integration_id,
                })
            }
        }
    };
}

props!(
    /// A new user. Unless given otherwise, the user is active, has the role `user` and belongs to the caller's
    /// domain.
    UserInput
);
props!(
    /// Changes to a user. A field that is null keeps its value.
    ModifyUserInput
);

/// Refuses settings that make an account safer elsewhere but would have no effect here, rather than ignoring them.
fn refuse_protections(addresses: bool, totp: bool, main_key: bool) -> Result<()> {
    let refused = [
        (addresses, "allowed_client_ip", "accounts are not bound to addresses here; leave it out"),
        (totp, "totp_activated", "there are no one-time passwords here; leave it out"),
        (main_key, "main_access_key", "it is the oldest keypair that may be used; leave it out"),
    ];
    match refused.into_iter().find(|(is_given, ..)| *is_given) {
        Some((_, field, why)) => Err(Error::invalid(field, why)),
        None => Ok(()),
    }
}

fn status(status: Option<String>, is_active: Option<bool>) -> Result<Option<Status>> {
    match (status, is_active) {
        (Some(status), _) => status.parse().map(Some),
        (None, Some(true)) => Ok(Some(Status::Active)),
        (None, Some(false)) => Ok(Some(Status::Inactive)),
        (None, None) => Ok(None),
    }
}

fn group_ids(ids: Vec<Option<String>>) -> Result<Vec<GroupId>> {
    let ids = ids.into_iter().flatten();
    ids.map(|id| {
        id.parse().map_err(|_| Error::invalid("group_ids", format!("{:?} is no id of a group", shown(&id))))
    })
    .collect()
}

outcome!(
    /// The result of `create_user`.
    CreateUser,
    /// The created user.
    user: UserNode,
    /// The user's first keypair, with the secret key, which is shown this once.
    keypair: KeyPairNode
);
outcome!(
    /// The result of `modify_user`.
    ModifyUser,
    /// The user after the change; null if nothing was changed.
    user: UserNode
);
outcome!(
    /// The result of `delete_user`.
    DeleteUser
);
outcome!(
    /// The result of `purge_user`.
    PurgeUser
);

/// What else to delete with a user.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PurgeUserInput {
    /// Not looked at; accepted for Backend.AI's clients.
    purge_shared_vfolders: Option<bool>,
    /// Not looked at; accepted for Backend.AI's clients.
    delegate_endpoint_ownership: Option<bool>,
}

/// The queries. Super-admins see all users. A domain's admins see the users of the domain except its super-admins.
/// Other users see themselves.
#[derive(Default)]
pub(crate) struct UserQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl UserQuery {
    /// One user. Without an e-mail address, the caller.
    async fn user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Finds the user only in this domain.")] domain_name: Option<String>,
        email: Option<String>,
    ) -> FieldResult<Option<UserNode>> {
        Ok(Some(one(ctx, domain_name, email.as_deref())?))
    }

    /// One user, by id. Without an id, the caller.
    async fn user_from_uuid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Finds the user only in this domain.")] domain_name: Option<String>,
        user_id: Option<ID>,
    ) -> FieldResult<Option<UserNode>> {
        Ok(Some(one(ctx, domain_name, user_id.as_deref().map(String::as_str))?))
    }

    /// All users the caller may see, by e-mail address.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> FieldResult<Option<Vec<Option<UserNode>>>> {
        Ok(Some(rows(found(ctx, domain_name, group_id, is_active, status)?)))
    }

    /// A page of the users the caller may see, by e-mail address.
    #[expect(clippy::too_many_arguments, reason = "what the official clients send")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn user_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        #[graphql(desc = "As in `role == \"admin\" & email like \"%@lab\"`.")] filter: Option<String>,
        #[graphql(desc = "As in `domain_name,-created_at`; by e-mail address if not given.")] order: Option<
            String,
        >,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> FieldResult<Option<UserList>> {
        let users = found(ctx, domain_name, group_id, is_active, status)?;
        let slice = Slice { limit, offset, filter, order };
        let found = move |meter: &Meter| {
            let rows = users.iter().map(|user| (user.email.as_str(), user));
            let (page, total_count) = slice.of::<User>(rows, meter)?;
            Ok((page.into_iter().cloned().collect::<Vec<_>>(), total_count))
        };
        let (page, total_count) = walk(ctx, found).await?;
        Ok(Some(UserList { items: Some(rows(page)), total_count }))
    }
}

fn one(ctx: &Context<'_>, domain: Option<String>, name: Option<&str>) -> Result<UserNode> {
    let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
    let user = directory.user(caller, name)?;
    if domain.is_some_and(|domain| domain != user.domain) {
        return Err(Error::missing("user", shown(name.unwrap_or(&caller.email))));
    }
    Ok(UserNode(user))
}

fn found(
    ctx: &Context<'_>,
    domain: Option<String>,
    group: Option<Uuid>,
    is_active: Option<bool>,
    status: Option<String>,
) -> Result<Vec<Arc<User>>> {
    let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
    let status = status.map(|status| status.parse()).transpose()?;
    Ok(directory.users(caller, &UserSearch { domain, group: group.map(Uuid::group), is_active, status }))
}

/// The mutations. They are for super-admins, and for a domain's admins within their domain.
#[derive(Default)]
pub(crate) struct UserMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl UserMutation {
    /// Adds a user with a keypair.
    async fn create_user(&self, ctx: &Context<'_>, email: String, props: UserInput) -> Option<CreateUser> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let made = directory.add_user(caller, &email, props.try_into()).await;
        let shown = |(key, secret): (OwnedKeypair, Secret)| {
            (UserNode(Arc::clone(&key.owner)), KeyPairNode::fresh(key, secret))
        };
        Some(made.map(shown).into())
    }

    /// Changes a user. A new password ends the user's sessions. Any status but `active` also revokes the user's tokens
    /// and deactivates their keypairs.
    async fn modify_user(
        &self,
        ctx: &Context<'_>,
        email: String,
        props: ModifyUserInput,
    ) -> Option<ModifyUser> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.change_user(caller, &email, props.try_into()).await.map(UserNode).into())
    }

    /// Deactivates a user and keeps it.
    async fn delete_user(&self, ctx: &Context<'_>, email: String) -> Option<DeleteUser> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.switch_user_off(caller, &email).await.into())
    }

    /// Deletes a user with their keypairs and memberships.
    async fn purge_user(
        &self,
        ctx: &Context<'_>,
        email: String,
        #[graphql(desc = "Not looked at; for Backend.AI's clients.")] props: Option<PurgeUserInput>,
    ) -> Option<PurgeUser> {
        let _ = props;
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_user(caller, &email).await.into())
    }
}
