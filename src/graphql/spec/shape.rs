//! Brings an answer into the requested shape (October 2021, 6.4.3 and 6.4.4).
//!
//! The library leaves out a failed field even if it may be null, answers null for an object if all its fields failed,
//! and returns fields in the order in which they were ready.

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{BaseType, Type};
use async_graphql::{Name, PathSegment, ServerError, Value};

use crate::graphql::spec::select::Chosen;

/// A field that can't be null failed, so the object or list it is in becomes null too.
struct Failed;

/// Returns an answer's data in the requested shape.
pub(crate) fn shape(data: Value, chosen: &[Chosen], errors: &[ServerError]) -> Value {
    let mut shaping = Shaping { errors, path: Vec::new() };
    let data = if matches!(data, Value::Null) { Value::Object(IndexMap::new()) } else { data };
    shaping.object(data, chosen).unwrap_or(Value::Null)
}

struct Shaping<'a> {
    errors: &'a [ServerError],
    /// The current position in the answer.
    path: Vec<PathSegment>,
}

impl Shaping<'_> {
    fn object(&mut self, value: Value, chosen: &[Chosen]) -> Result<Value, Failed> {
        // A row that is written later already has its shape.
        let Value::Object(mut given) = value else { return Ok(value) };
        let mut object = IndexMap::with_capacity(chosen.len());
        for field in chosen {
            self.path.push(PathSegment::Field(field.key.to_string()));
            let value = match given.swap_remove(&field.key) {
                Some(value) => self.value(value, &field.ty, &field.inner)?,
                None if field.ty.nullable => Value::Null,
                None => return Err(Failed),
            };
            self.path.pop();
            object.insert(Name::clone(&field.key), value);
        }
        Ok(Value::Object(object))
    }

    fn value(&mut self, value: Value, ty: &Type, inner: &[Chosen]) -> Result<Value, Failed> {
        let depth = self.path.len();
        let shaped = match (value, &ty.base) {
            (Value::Null, _) if self.has_failed_within() => {
                self.object(Value::Object(IndexMap::new()), inner)
            }
            (Value::Null, _) if ty.nullable => return Ok(Value::Null),
            (Value::Null, _) => Err(Failed),
            (Value::List(items), BaseType::List(of)) => self.list(items, of, inner),
            (value @ Value::Object(_), BaseType::Named(_)) if !inner.is_empty() => self.object(value, inner),
            // An object of which nothing is selected is empty in the answer.
            (Value::Object(given), _) if given.len() == 1 && given.contains_key(super::NOTHING) => {
                Ok(Value::Object(IndexMap::new()))
            }
            (value, _) => Ok(value),
        };
        self.path.truncate(depth);
        match shaped {
            Err(Failed) if ty.nullable => Ok(Value::Null),
            shaped => shaped,
        }
    }

    fn list(&mut self, items: Vec<Value>, of: &Type, inner: &[Chosen]) -> Result<Value, Failed> {
        let mut list = Vec::with_capacity(items.len());
        for (number, item) in items.into_iter().enumerate() {
            self.path.push(PathSegment::Index(number));
            list.push(self.value(item, of, inner)?);
            self.path.pop();
        }
        Ok(Value::List(list))
    }

    /// Whether a field below this position failed, rather than the field here.
    fn has_failed_within(&self) -> bool {
        let is_within = |error: &ServerError| {
            error.path.len() > self.path.len() && error.path.starts_with(self.path.as_slice())
        };
        self.errors.iter().any(is_within)
    }
}
