//! The payloads of mutations under Backend.AI's names: whether the change was made, why not, and its result.

use async_graphql::Enum;

use crate::base::error::Code;

/// What kind of failure it is. A kind keeps its word even if the message changes; more kinds may be added.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "Code")]
pub(crate) enum ErrorCode {
    /// The request has no valid credential.
    Unauthenticated,
    /// The request's date is too far from the server's time.
    ClockSkew,
    /// The caller may not do this.
    Denied,
    /// The thing does not exist, or the caller may not see it.
    NotFound,
    /// The name stands for several things, which the message lists.
    Ambiguous,
    /// A thing of that name already exists.
    AlreadyExists,
    /// The thing's current state does not allow it; the message says what has to change first.
    Conflict,
    /// The server's limit on the number of such things is reached.
    LimitReached,
    /// An argument, or the document, is not valid.
    Invalid,
    /// Nothing was removed, because it would be too much to remove without confirmation; send the request again and
    /// confirm.
    ConfirmationRequired,
    /// Too much is asked at once; the same request may succeed later.
    Busy,
    /// A registry or an engine does not answer correctly.
    Unreachable,
    /// The server can't do it now: its disk is full or broken, or the request's time is over.
    Unavailable,
    /// A fault of the server; its log has the cause.
    Internal,
}

/// The result of a mutation, with a message about it.
pub(crate) struct Done<T> {
    /// The text for `msg`.
    pub(crate) msg: String,
    /// The state after the change.
    pub(crate) now: T,
}

impl Done<()> {
    /// Returns a success that has only a message.
    pub(crate) fn saying(msg: impl Into<String>) -> Self {
        Self { msg: msg.into(), now: () }
    }
}

impl<T> From<T> for Done<T> {
    fn from(now: T) -> Self {
        Self { msg: "done".into(), now }
    }
}

/// Declares a payload: `outcome!(/// … PurgeDomain)`, or one with a field for the result,
/// `outcome!(/// … CreateDomain, /// … domain: DomainNode)`. A payload is made from a `Result` with that value, or with
/// [`Done`] around it; for several fields, with a tuple in the order of the fields.
macro_rules! outcome {
    ($(#[$doc:meta])* $name:ident $(, $(#[$about:meta])* $field:ident: $node:ty)* $(,)?) => {
        $(#[$doc])*
        #[derive(async_graphql::SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// Whether the change was made, or accepted as a task.
            ok: Option<bool>,
            /// What was done, or why it failed.
            msg: Option<String>,
            /// What kind of failure it is; null if the change was made.
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
