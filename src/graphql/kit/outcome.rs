//! What mutations answer under Backend.AI's names: whether it was done, why not, and what there is now.

/// Declares a payload: `outcome!(/// … PurgeDomain)`, or with what there is now,
/// `outcome!(/// … CreateDomain, domain: DomainNode)`.
macro_rules! outcome {
    ($(#[$doc:meta])* $name:ident $(, $field:ident: $node:ty)?) => {
        $(#[$doc])*
        #[derive(async_graphql::SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub struct $name {
            /// Whether it was done.
            ok: Option<bool>,
            /// `done`, or why it was not.
            msg: Option<String>,
            $(
                /// As it is now; null if it was not done.
                $field: Option<$node>,
            )?
        }

        impl From<crate::base::Result<outcome!(@held $($node)?)>> for $name {
            fn from(result: crate::base::Result<outcome!(@held $($node)?)>) -> Self {
                outcome!(@from result $(, $field)?)
            }
        }
    };
    (@held) => { () };
    (@held $node:ty) => { $node };
    (@from $result:ident) => {
        match $result {
            Ok(()) => Self { ok: Some(true), msg: Some("done".into()) },
            Err(error) => Self {
                ok: Some(false),
                msg: Some(crate::graphql::kit::fault::Fault::from(error).message()),
            },
        }
    };
    (@from $result:ident, $field:ident) => {
        match $result {
            Ok(node) => Self { ok: Some(true), msg: Some("done".into()), $field: Some(node) },
            Err(error) => Self {
                ok: Some(false),
                msg: Some(crate::graphql::kit::fault::Fault::from(error).message()),
                $field: None,
            },
        }
    };
}

pub(in crate::graphql) use outcome;
