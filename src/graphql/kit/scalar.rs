//! The scalars of Backend.AI's schema.

use async_graphql::{InputValueError, InputValueResult, Number, Pos, Scalar, ScalarType, Value};

use crate::base::ids::{GroupId, UserId};
use crate::base::reference::shown;

/// The largest integer a JSON number carries everywhere.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Whether the value is valid for the scalar of this name; a scalar that is not listed here accepts any value.
///
/// # Errors
/// The reason, if there is more to say than that the value has the wrong type.
pub(crate) fn check(name: &str, value: &Value) -> Result<bool, String> {
    match name {
        "BigInt" => parsed::<BigInt>(value),
        "UUID" => parsed::<Uuid>(value),
        "ScopeField" | "ImagePermissionValueField" | "GlobalIDField" => Ok(matches!(value, Value::String(_))),
        _ => Ok(true),
    }
}

fn parsed<T: ScalarType + async_graphql::InputType>(value: &Value) -> Result<bool, String> {
    let parsed = <T as ScalarType>::parse(value.clone());
    parsed.map(|_| true).map_err(|error| error.into_server_error(Pos::default()).message)
}

/// An integer larger than GraphQL's `Int`, up to the largest that JavaScript holds exactly (2^53 - 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BigInt(pub(crate) u64);

impl BigInt {
    /// Returns the number as it is written in JSON.
    pub(crate) fn written(self) -> u64 {
        self.0.min(MAX_SAFE)
    }
}

#[Scalar(name = "BigInt")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::Number(number) => number
                .as_u64()
                .map(Self)
                .ok_or_else(|| InputValueError::custom(format!("{number} is not a whole number from 0 on"))),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(Number::from(self.written()))
    }
}

/// JSON in a text. Clients of different ages send the same value as such a text, as a list, or as an object; all are
/// accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonString(pub(crate) String);

#[Scalar(name = "JSONString")]
impl ScalarType for JsonString {
    fn parse(value: Value) -> InputValueResult<Self> {
        Ok(Self(match value {
            Value::String(text) => text,
            other => other.to_string(),
        }))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl From<&str> for JsonString {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) uuid::Uuid);

#[Scalar(name = "UUID")]
impl ScalarType for Uuid {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => uuid::Uuid::parse_str(&text).map(Self).map_err(|_| {
                InputValueError::custom(format!("{:?} is no UUID, such as a list shows", shown(&text)))
            }),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl Uuid {
    /// Returns the UUID as the id of a group.
    pub(crate) fn group(self) -> GroupId {
        GroupId::from_bytes(*self.0.as_bytes())
    }
}

impl From<GroupId> for Uuid {
    fn from(id: GroupId) -> Self {
        Self(uuid::Uuid::from_bytes(*id.as_bytes()))
    }
}

impl From<UserId> for Uuid {
    fn from(id: UserId) -> Self {
        Self(uuid::Uuid::from_bytes(*id.as_bytes()))
    }
}

macro_rules! texts {
    ($(#[$doc:meta] $name:ident,)*) => { $(
        #[$doc]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) String);

        #[$doc]
        #[Scalar]
        impl ScalarType for $name {
            fn parse(value: Value) -> InputValueResult<Self> {
                match value {
                    Value::String(text) => Ok(Self(text)),
                    other => Err(InputValueError::expected_type(other)),
                }
            }

            fn to_value(&self) -> Value {
                Value::String(self.0.clone())
            }
        }
    )* };
}

texts! {
    /// The scope from which something is seen: `system:`, `domain:NAME`, `project:ID`, `user:ID`.
    ScopeField,
    /// A permission on an image: `read_attribute`, `update_attribute`, `create_container`, `forget_image`.
    ImagePermissionValueField,
    /// A Relay id, which is unique among the nodes of all kinds; an image's own id is accepted as well.
    GlobalIDField,
}
