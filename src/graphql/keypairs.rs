//! Keypairs, under the names of Backend.AI's administration API.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use crate::access::caller::{Caller, Role};
use crate::access::directory::Directory;
use crate::access::directory::keypairs::{KeypairChange, KeypairSearch, OwnedKeypair};
use crate::access::user::User;
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::walk::Meter;
use crate::base::{Error, Result};
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::field::{Field, Read, Record, number};
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::{Slice, rows, walk};
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::Uuid;
use crate::graphql::policies;

/// The text shown instead of a secret key, which leaves the server only when it is created.
const HIDDEN: &str = "*****";

/// An API credential of a user.
pub(crate) struct KeyPairNode {
    key: OwnedKeypair,
    /// The secret key, only in the answer to the mutation that created it.
    fresh: Option<Secret>,
}

impl KeyPairNode {
    /// Returns a keypair with its secret key, which is shown this once.
    pub(crate) fn fresh(key: OwnedKeypair, secret: Secret) -> Self {
        Self { key, fresh: Some(secret) }
    }
}

impl From<OwnedKeypair> for KeyPairNode {
    fn from(key: OwnedKeypair) -> Self {
        Self { key, fresh: None }
    }
}

/// Fields that only Backend.AI's scheduler uses are constants here, in the shape its clients expect.
#[Object(name = "KeyPair", rename_fields = "snake_case")]
impl KeyPairNode {
    /// Its access key.
    async fn id(&self) -> Option<ID> {
        Some(self.key.pair.access_key.as_str().into())
    }

    /// The e-mail address of the user it belongs to.
    async fn user_id(&self) -> Option<&str> {
        Some(&self.key.owner.email)
    }

    /// The id of the user it belongs to.
    async fn user(&self) -> Option<Uuid> {
        Some(self.key.owner.id.into())
    }

    /// The user it belongs to.
    async fn user_info(&self) -> Option<UserInfo> {
        Some(UserInfo::from(&self.key.owner))
    }

    /// The names of the groups of the user it belongs to.
    async fn projects(&self, ctx: &Context<'_>) -> Option<Vec<Option<String>>> {
        let groups = ctx.data_unchecked::<Directory>().groups_of(self.key.owner.id);
        Some(groups.iter().map(|group| Some(group.name.clone())).collect())
    }

    /// The access key, which is the public half.
    async fn access_key(&self) -> Option<&str> {
        Some(&self.key.pair.access_key)
    }

    /// The secret key in the answer that creates it; `*****` everywhere else.
    async fn secret_key(&self) -> Option<&str> {
        Some(self.fresh.as_ref().map_or(HIDDEN, Secret::expose))
    }

    /// Whether it may be used.
    async fn is_active(&self) -> Option<bool> {
        Some(self.key.pair.is_active)
    }

    /// Whether its user is an admin.
    async fn is_admin(&self) -> Option<bool> {
        Some(matches!(self.key.owner.role, Role::Superadmin | Role::Admin))
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> Option<String> {
        Some(self.key.pair.created_at.to_string())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn modified_at(&self) -> Option<&str> {
        None
    }

    /// When it was last used, in RFC 3339.
    async fn last_used(&self) -> Option<String> {
        self.key.pair.last_used.map(|at| at.to_string())
    }

    /// How many requests it may make in a window; 0 for no limit.
    async fn rate_limit(&self) -> Option<i32> {
        i32::try_from(self.key.pair.rate_limit).ok()
    }

    /// Constant; kept for Backend.AI's clients.
    async fn resource_policy(&self) -> Option<&str> {
        Some(policies::DEFAULT)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn concurrency_limit(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn concurrency_used(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn num_queries(&self) -> Option<i32> {
        Some(0)
    }
}

impl Record for OwnedKeypair {
    type View<'a> = &'a Self;

    fn row(view: Self::View<'_>) -> &Self {
        view
    }

    fn fields() -> &'static [Field<Self>] {
        &[
            Field { name: "user_id", read: Read::Text(|key| Some(key.owner.email.as_str().into())) },
            Field { name: "access_key", read: Read::Text(|key| Some(key.pair.access_key.as_str().into())) },
            Field { name: "full_name", read: Read::Text(|key| Some(key.owner.full_name.as_str().into())) },
            Field { name: "domain_name", read: Read::Text(|key| Some(key.owner.domain.as_str().into())) },
            Field { name: "is_active", read: Read::Truth(|key| Some(key.pair.is_active)) },
            Field { name: "rate_limit", read: Read::Number(|key| Some(number(key.pair.rate_limit.into()))) },
            Field { name: "created_at", read: Read::Time(|key| Some(key.pair.created_at)) },
            Field { name: "last_used", read: Read::Time(|key| key.pair.last_used) },
        ]
    }
}

/// The user of a keypair.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct UserInfo {
    /// The e-mail address.
    email: Option<String>,
    /// The short name; the e-mail address if it has none.
    username: Option<String>,
    /// The person's name.
    full_name: Option<String>,
}

impl From<&Arc<User>> for UserInfo {
    fn from(user: &Arc<User>) -> Self {
        Self {
            email: Some(user.email.clone()),
            username: Some(user.shown_name().into()),
            full_name: Some(user.full_name.clone()),
        }
    }
}

/// A page of keypairs.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct KeyPairList {
    /// The rows of this page.
    items: Option<Vec<Option<KeyPairNode>>>,
    /// The number of rows on all pages together.
    total_count: Option<i32>,
}

macro_rules! props {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(InputObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// Whether it may be used.
            is_active: Option<bool>,
            /// Not looked at: it follows the user's role.
            is_admin: Option<bool>,
            /// The resource policy; `default` is the only one.
            resource_policy: Option<String>,
            /// How many requests it may make in a window; 0 for no limit.
            rate_limit: Option<i32>,
            /// Not looked at; accepted for Backend.AI's clients.
            concurrency_limit: Option<i32>,
        }

        impl TryFrom<$name> for KeypairChange {
            type Error = Error;

            fn try_from(props: $name) -> Result<Self> {
                policies::check(props.resource_policy.as_deref())?;
                Ok(Self { is_active: props.is_active, rate_limit: props.rate_limit })
            }
        }
    };
}

props!(
    /// A new keypair. It is active and has a rate limit of 5000 unless given otherwise.
    KeyPairInput
);
props!(
    /// Changes to a keypair. A field that is null keeps its value.
    ModifyKeyPairInput
);

outcome!(
    /// The result of `create_keypair`, with the secret key, which is shown this once.
    CreateKeyPair,
    /// The keypair after the change; null if nothing was changed.
    keypair: KeyPairNode
);
outcome!(
    /// The result of `rotate_keypair`, with the new secret key, which is shown this once.
    RotateKeyPair,
    /// The keypair after the change; null if nothing was changed.
    keypair: KeyPairNode
);
outcome!(
    /// The result of `modify_keypair`.
    ModifyKeyPair
);
outcome!(
    /// The result of `delete_keypair`.
    DeleteKeyPair
);

/// The queries. A caller sees the keypairs of the users they see.
#[derive(Default)]
pub(crate) struct KeyPairQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl KeyPairQuery {
    /// One keypair. Without an access key, the caller's own.
    async fn keypair(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Finds the keypair only if its user belongs to this domain.")] domain_name: Option<
            String,
        >,
        access_key: Option<String>,
    ) -> FieldResult<Option<KeyPairNode>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let key = directory.keypair(caller, access_key.as_deref())?;
        if domain_name.is_some_and(|domain| domain != key.owner.domain) {
            return Err(Error::missing("keypair", shown(&key.pair.access_key)).into());
        }
        Ok(Some(key.into()))
    }

    /// All keypairs the caller may see, oldest first.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn keypairs(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> Option<Vec<Option<KeyPairNode>>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let search = KeypairSearch { domain: domain_name, email, is_active };
        Some(rows(directory.keypairs(caller, &search)))
    }

    /// A page of the keypairs the caller may see, oldest first.
    #[expect(clippy::too_many_arguments, reason = "what the official clients send")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn keypair_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        #[graphql(desc = "As in `is_active == true & rate_limit < 100`.")] filter: Option<String>,
        #[graphql(desc = "As in `user_id,-last_used`; the oldest first if not given.")] order: Option<String>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> FieldResult<Option<KeyPairList>> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let keys = directory.keypairs(caller, &KeypairSearch { domain: domain_name, email, is_active });
        let order = order.filter(|order| !order.trim().is_empty()).or(Some("created_at".into()));
        let slice = Slice { limit, offset, filter, order };
        let found = move |meter: &Meter| {
            let rows = keys.iter().map(|key| (key.pair.access_key.as_str(), key));
            let (page, total_count) = slice.of::<OwnedKeypair>(rows, meter)?;
            Ok((page.into_iter().cloned().collect::<Vec<_>>(), total_count))
        };
        let (page, total_count) = walk(ctx, found).await?;
        Ok(Some(KeyPairList { items: Some(rows(page)), total_count }))
    }
}

/// The mutations. They are for super-admins, and for a domain's admins within their domain.
#[derive(Default)]
pub(crate) struct KeyPairMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl KeyPairMutation {
    /// Creates a keypair for a user.
    async fn create_keypair(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's e-mail address or id.")] user_id: String,
        props: KeyPairInput,
    ) -> Option<CreateKeyPair> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let made = directory.add_keypair(caller, &user_id, props.try_into()).await;
        Some(made.map(|(key, secret)| KeyPairNode::fresh(key, secret)).into())
    }

    /// Gives a keypair a new secret key; the old one stops working. The keypair's owner may do that too.
    async fn rotate_keypair(&self, ctx: &Context<'_>, access_key: String) -> Option<RotateKeyPair> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        let made = directory.rotate_keypair(caller, &access_key).await;
        Some(made.map(|(key, secret)| KeyPairNode::fresh(key, secret)).into())
    }

    /// Changes a keypair.
    async fn modify_keypair(
        &self,
        ctx: &Context<'_>,
        access_key: String,
        props: ModifyKeyPairInput,
    ) -> Option<ModifyKeyPair> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.change_keypair(caller, &access_key, props.try_into()).await.into())
    }

    /// Deletes a keypair.
    async fn delete_keypair(&self, ctx: &Context<'_>, access_key: String) -> Option<DeleteKeyPair> {
        let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
        Some(directory.remove_keypair(caller, &access_key).await.into())
    }
}
