//! Keypair resource policies. Backend.AI's clients ask for them; wharf has a single one, which limits nothing.

use async_graphql::{Context, InputValueResult, Object, Scalar, ScalarType, Value};

use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::{BigInt, JsonString};

/// The name of the one policy.
pub(crate) const DEFAULT: &str = "default";

/// Accepts the name of the one policy, or no name.
///
/// # Errors
/// [`Error::Missing`] for any other name.
pub(crate) fn check(name: Option<&str>) -> Result<()> {
    match name {
        None | Some("" | DEFAULT) => Ok(()),
        Some(name) => {
            let id = format!("{} (there is: {DEFAULT})", shown(name));
            Err(Error::missing("keypair resource policy", id))
        }
    }
}

/// The only policy. All its fields are constants, in the shape Backend.AI's clients expect; 0 means no limit.
pub(crate) struct KeyPairResourcePolicy;

#[Object(rename_fields = "snake_case")]
impl KeyPairResourcePolicy {
    /// `default`.
    async fn name(&self) -> Option<&str> {
        Some(DEFAULT)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn created_at(&self) -> Option<&str> {
        None
    }

    /// Constant; kept for Backend.AI's clients.
    async fn default_for_unspecified(&self) -> Option<&str> {
        Some("UNLIMITED")
    }

    /// Constant; kept for Backend.AI's clients.
    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_session_lifetime(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_concurrent_sessions(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_concurrent_sftp_sessions(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_containers_per_session(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_pending_session_count(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_pending_session_resource_slots(&self) -> Option<JsonString> {
        Some("{}".into())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_vfolder_count(&self) -> Option<i32> {
        Some(0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn max_vfolder_size(&self) -> Option<BigInt> {
        Some(BigInt(0))
    }

    /// Constant; kept for Backend.AI's clients.
    async fn idle_timeout(&self) -> Option<BigInt> {
        Some(BigInt(0))
    }

    /// Constant; kept for Backend.AI's clients.
    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some("{}".into())
    }
}

macro_rules! props {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub(crate) struct $name;

        #[Scalar]
        impl ScalarType for $name {
            fn parse(_: Value) -> InputValueResult<Self> {
                Ok(Self)
            }

            fn to_value(&self) -> Value {
                Value::Null
            }
        }
    };
}

props!(
    /// A new policy. The server ignores what a client sends.
    CreateKeyPairResourcePolicyInput
);
props!(
    /// Changes to a policy. The server ignores what a client sends.
    ModifyKeyPairResourcePolicyInput
);

outcome!(
    /// The result of `create_keypair_resource_policy`.
    CreateKeyPairResourcePolicy,
    /// The policy after the change; null if nothing was changed.
    resource_policy: KeyPairResourcePolicy
);
outcome!(
    /// The result of `modify_keypair_resource_policy`.
    ModifyKeyPairResourcePolicy
);
outcome!(
    /// The result of `delete_keypair_resource_policy`.
    DeleteKeyPairResourcePolicy
);

/// The queries.
#[derive(Default)]
pub(crate) struct PolicyQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PolicyQuery {
    /// The policy of this name; there is only `default`.
    async fn keypair_resource_policy(
        &self,
        name: Option<String>,
    ) -> FieldResult<Option<KeyPairResourcePolicy>> {
        check(name.as_deref())?;
        Ok(Some(KeyPairResourcePolicy))
    }

    /// All policies: `default` is the only one.
    async fn keypair_resource_policies(&self) -> Option<Vec<Option<KeyPairResourcePolicy>>> {
        Some(vec![Some(KeyPairResourcePolicy)])
    }
}

/// The mutations. Each is refused.
#[derive(Default)]
pub(crate) struct PolicyMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PolicyMutation {
    /// Refused: `default` is the only policy and can't be changed.
    async fn create_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateKeyPairResourcePolicyInput,
    ) -> Option<CreateKeyPairResourcePolicy> {
        let _ = props;
        let refused = refuse(ctx, "create_keypair_resource_policy", &name).await;
        Some(refused.map(|()| KeyPairResourcePolicy).into())
    }

    /// Refused: `default` is the only policy and can't be changed.
    async fn modify_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyKeyPairResourcePolicyInput,
    ) -> Option<ModifyKeyPairResourcePolicy> {
        let _ = props;
        Some(refuse(ctx, "modify_keypair_resource_policy", &name).await.into())
    }

    /// Refused: `default` is the only policy and can't be changed.
    async fn delete_keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Option<DeleteKeyPairResourcePolicy> {
        Some(refuse(ctx, "delete_keypair_resource_policy", &name).await.into())
    }
}

async fn refuse(ctx: &Context<'_>, action: &str, name: &str) -> Result<()> {
    let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
    directory.refuse_policy(caller, action, name).await
}
