//! An answer in the shape that was asked for (October 2021, 6.4.3 and 6.4.4).
//!
//! The library leaves a field out that failed, whether it may be null or not, answers null for an object of which all
//! fields failed, and has the fields in the order in which they were ready.

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{BaseType, Type};
use async_graphql::{Name, PathSegment, ServerError, Value};

use crate::graphql::spec::select::Chosen;

/// What can't be null failed: what it is in becomes null, too.
struct Failed;

/// The data of an answer as it was asked for.
pub(crate) fn shape(data: Value, chosen: &[Chosen], errors: &[ServerError]) -> Value {
    let mut shaping = Shaping { errors, path: Vec::new() };
    let data = if matches!(data, Value::Null) { Value::Object(IndexMap::new()) } else { data };
    shaping.object(data, chosen).unwrap_or(Value::Null)
}

struct Shaping<'a> {
    errors: &'a [ServerError],
    /// Where in the answer we are.
    path: Vec<PathSegment>,
}

impl Shaping<'_> {
    fn object(&mut self, value: Value, chosen: &[Chosen]) -> Result<Value, Failed> {
        // A row that is written later is in its shape already.
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
            // Of what is asked nothing, there is nothing in the answer.
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

    /// Whether something below here failed, rather than what is here.
    fn has_failed_within(&self) -> bool {
        let is_within = |error: &ServerError| {
            error.path.len() > self.path.len() && error.path.starts_with(self.path.as_slice())
        };
        self.errors.iter().any(is_within)
    }
}
