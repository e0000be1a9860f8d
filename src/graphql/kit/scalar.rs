//! Scalars of Backend.AI's schema.

use async_graphql::{InputValueError, InputValueResult, Number, Scalar, ScalarType, Value};

/// The largest integer a JSON number carries everywhere.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// An integer larger than GraphQL's `Int`, up to what JavaScript can hold exactly (2^53 - 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BigInt(pub u64);

impl BigInt {
    /// The number as it is written.
    pub fn written(self) -> u64 {
        self.0.min(MAX_SAFE)
    }
}

#[Scalar(name = "BigInt")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::Number(number) => number.as_u64().map(Self).ok_or_else(|| {
                InputValueError::custom(format!("{number} is not a whole number from 0 on"))
            }),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(Number::from(self.written()))
    }
}
