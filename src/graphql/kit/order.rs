//! The `order` argument of lists, in Backend.AI's form: `name,-size_bytes`, each field with `+` or nothing for
//! ascending and `-` for descending. Rows without a value come last, or first when descending, as in SQL databases.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::base::{Error, Result};
use crate::graphql::kit::field::{self, Field, Record, Value};

/// The most fields that rows are ordered by: each is one more comparison for every pair of rows.
const MAX_FIELDS: usize = 8;
/// The longest text, in bytes.
const MAX_TEXT: usize = 512;

/// An order of rows.
pub(crate) struct Order<R: Record>(Vec<Step<R>>);

struct Step<R: Record> {
    field: &'static Field<R>,
    is_descending: bool,
}

impl<R: Record> Order<R> {
    /// Parses the argument; null and an empty text keep the given order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is no list of fields.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Self(Vec::new())) };
        if text.len() > MAX_TEXT || text.split(',').count() > MAX_FIELDS {
            let why = format!("rows are ordered by at most {MAX_FIELDS} fields; leave the last ones out");
            return Err(Error::invalid("order", why));
        }
        text.split(',').map(|part| step(part.trim())).collect::<Result<_>>().map(Self)
    }

    /// Whether rows keep the given order.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of fields that rows are ordered by.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns which of two rows comes first; they may be equal.
    pub(crate) fn compare(&self, a: R::View<'_>, b: R::View<'_>) -> Ordering {
        let mut orders = self.0.iter().map(|step| step.turned(step.value(a).compare(&step.value(b))));
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Returns which comes first: a row, or another row whose [`Order::values`] were read before.
    pub(crate) fn compare_values(&self, a: R::View<'_>, values: &[Value<'_>]) -> Ordering {
        let pairs = self.0.iter().zip(values);
        let mut orders = pairs.map(|(step, value)| step.turned(step.value(a).compare(value)));
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Returns the values by which a row is ordered.
    pub(crate) fn values<'a>(&self, view: R::View<'a>) -> Vec<Value<'a>> {
        self.0.iter().map(|step| step.value(view)).collect()
    }

    /// Returns the values of a cursor, if they belong to this order.
    pub(crate) fn read<'j>(&self, values: &'j [Json]) -> Option<Vec<Value<'j>>> {
        if values.len() != self.0.len() {
            return None;
        }
        self.0.iter().zip(values).map(|(step, json)| field::from_json(&step.field.read, json)).collect()
    }

    /// Returns the order as text; the same order always has the same text.
    pub(crate) fn text(&self) -> String {
        let part =
            |step: &Step<R>| format!("{}{}", if step.is_descending { "-" } else { "" }, step.field.name);
        self.0.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

impl<R: Record> Step<R> {
    fn value<'a>(&self, view: R::View<'a>) -> Value<'a> {
        self.field.read.value(view)
    }

    fn turned(&self, order: Ordering) -> Ordering {
        if self.is_descending { order.reverse() } else { order }
    }
}

fn step<R: Record>(text: &str) -> Result<Step<R>> {
    let (is_descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text).trim_start()),
    };
    match field::find::<R>(name) {
        Some((field, _)) if field.read.is_ordered() => Ok(Step { field, is_descending }),
        _ => {
            let known = field::names::<R>(field::Read::is_ordered);
            let shown = crate::base::reference::shown(name);
            Err(Error::invalid("order", format!("rows are not ordered by {shown:?}, but by {known}")))
        }
    }
}
