//! What mutations answer under Backend.AI's names: whether it was done, why not, and what there is now.

use async_graphql::Enum;

use crate::base::error::Code;

/// What kind of failure something is. The word stays the same whatever the message says; more may be added.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "Code")]
pub(crate) enum ErrorCode {
    /// The request has no valid credential.
    Unauthenticated,
    /// The request's date is too far from the server's time.
    ClockSkew,
    /// The caller may not do this.
    Denied,
    /// There is no such thing, or none that the caller may see.
    NotFound,
    /// The name stands for several things; the message lists them.
    Ambiguous,
    /// There is one of that name already.
    AlreadyExists,
    /// The state of the thing does not allow it now; the message says what has to change first.
    Conflict,
    /// There are as many as the server takes.
    LimitReached,
    /// An argument, or the document, can't be taken as it is.
    Invalid,
    /// Nothing was removed, because it would be too much to remove unasked; ask again and confirm.
    ConfirmationRequired,
    /// Too much is asked at once; the same request may work later.
    Busy,
    /// A registry or an engine does not answer as it should.
    Unreachable,
    /// The server can't do it now: its disk is full or broken, or the time for the request is over.
    Unavailable,
    /// A fault of the server; its log has the cause.
    Internal,
}

/// What a mutation did, with something to say about it.
pub(crate) struct Done<T> {
    /// For `msg`.
    pub(crate) msg: String,
    /// What there is now.
    pub(crate) now: T,
}

impl Done<()> {
    /// It was done, and this is all there is to say.
    pub(crate) fn saying(msg: impl Into<String>) -> Self {
        Self { msg: msg.into(), now: () }
    }
}

impl<T> From<T> for Done<T> {
    fn from(now: T) -> Self {
        Self { msg: "done".into(), now }
    }
}

/// Declares a payload: `outcome!(/// … PurgeDomain)`, or with what there is now,
/// `outcome!(/// … CreateDomain, /// … domain: DomainNode)`. It is made of a result with that, or with [`Done`] around
/// it; of several things in the order of the fields.
macro_rules! outcome {
    ($(#[$doc:meta])* $name:ident $(, $(#[$about:meta])* $field:ident: $node:ty)* $(,)?) => {
        $(#[$doc])*
        #[derive(async_graphql::SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// Whether it was done, or accepted as a task.
            ok: Option<bool>,
            /// What came of it, or why it was not done.
            msg: Option<String>,
            /// What kind of failure it is; null if it was done.
            code: Option<crate::graphql::kit::outcome::ErrorCode>,
            $(
                $(#[$about])*
                $field: Option<$node>,
            )*
        }

        impl From<crate::base::Result<crate::graphql::kit::outcome::Done<outcome!(@now $($node),*)>>> for $name {
            fn from(
                result: crate::base::Result<crate::graphql::kit::outcome::Done<outcome!(@now $($node),*)>>,
            ) -> Self {
                match result {
                    Ok(crate::graphql::kit::outcome::Done { msg, now: outcome!(@now $($field),*) }) => {
                        Self { ok: Some(true), msg: Some(msg), code: None, $($field: Some($field)),* }
                    }
                    Err(error) => {
                        let fault = crate::graphql::kit::fault::Fault::from(error);
                        Self {
                            ok: Some(false),
                            code: Some(fault.code().into()),
                            msg: Some(fault.message()),
                            $($field: None),*
                        }
                    }
                }
            }
        }

        impl From<crate::base::Result<outcome!(@now $($node),*)>> for $name {
            fn from(result: crate::base::Result<outcome!(@now $($node),*)>) -> Self {
                result.map(crate::graphql::kit::outcome::Done::from).into()
            }
        }
    };
    (@now) => { () };
    (@now $one:tt) => { $one };
    (@now $($one:tt),+) => { ($($one),+) };
}

pub(in crate::graphql) use outcome;

#[cfg(test)]
mod tests {
    use async_graphql::EnumType as _;

    use crate::base::error::Code;
    use crate::graphql::kit::outcome::ErrorCode;

    #[test]
    fn the_schemas_codes_are_the_words_of_the_errors() {
        for item in ErrorCode::items() {
            assert_eq!(Code::from(item.value).as_str(), item.name);
            assert_eq!(serde_json::to_value(Code::from(item.value)).unwrap(), item.name);
        }
    }
}
