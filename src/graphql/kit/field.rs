//! The fields that the `filter` and `order` arguments of a list may name: a table, declared once for each kind of
//! row.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::graphql::kit::scalar::BigInt;

/// The most field names that an error lists.
const NAMED: usize = 40;

/// Rows that can be filtered and ordered.
pub(crate) trait Record: Sized + 'static {
    /// A row with whatever else is needed to read it; for most kinds of rows, only the reference.
    type View<'a>: Copy;
    /// Returns the row of a view.
    fn row(view: Self::View<'_>) -> &Self;
    /// Returns the fields that expressions may name.
    fn fields() -> &'static [Field<Self>];
}

/// A field that expressions may name.
pub(crate) struct Field<R: Record> {
    /// Its name.
    pub(crate) name: &'static str,
    /// How it is read.
    pub(crate) read: Read<R>,
}

/// A test that a text is put to.
pub(crate) type Test<'t> = &'t mut dyn FnMut(&str) -> bool;

/// How a field is read, and its type.
pub(crate) enum Read<R: Record> {
    /// A text.
    Text(fn(&R) -> Option<Cow<'_, str>>),
    /// An id, and a function that brings an id into the form in which rows show it; a filter may use either form.
    Id(fn(&R) -> Option<Cow<'_, str>>, fn(&str) -> String),
    /// A number.
    Number(fn(&R) -> Option<f64>),
    /// A truth value.
    Truth(fn(R::View<'_>) -> Option<bool>),
    /// A moment.
    Time(fn(&R) -> Option<Timestamp>),
    /// Several texts: a comparison holds if it holds for any of them. The function passes the texts to the test until
    /// the test returns `true`, and returns whether it did.
    Texts(fn(&R, Test<'_>) -> bool),
    /// Texts by key, for `name.key` in an expression.
    Keyed(for<'a> fn(&'a R, &str) -> Option<Cow<'a, str>>),
}

impl<R: Record> Read<R> {
    /// Returns the type as an error names it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Id(..) | Self::Texts(_) | Self::Keyed(_) => "a text",
            Self::Number(_) => "a number",
            Self::Truth(_) => "true or false",
            Self::Time(_) => "a time",
        }
    }

    /// Returns the value that rows are ordered by; [`Value::Null`] for a field with several values.
    pub(crate) fn value<'a>(&self, view: R::View<'a>) -> Value<'a> {
        match self {
            Self::Text(read) | Self::Id(read, _) => read(R::row(view)).map(Value::Text),
            Self::Number(read) => read(R::row(view)).map(Value::Number),
            Self::Truth(read) => read(view).map(Value::Truth),
            Self::Time(read) => read(R::row(view)).map(Value::Time),
            Self::Texts(_) | Self::Keyed(_) => None,
        }
        .unwrap_or(Value::Null)
    }

    /// Whether rows can be ordered by it.
    pub(crate) fn is_ordered(&self) -> bool {
        !matches!(self, Self::Texts(_) | Self::Keyed(_))
    }
}

/// Returns the field of this name; if the field has keys, with the key after the dot.
pub(crate) fn find<R: Record>(name: &str) -> Option<(&'static Field<R>, Option<&str>)> {
    let keyed = |field: &&Field<R>| matches!(field.read, Read::Keyed(_));
    if let Some(field) = R::fields().iter().find(|field| field.name == name && !keyed(field)) {
        return Some((field, None));
    }
    let (name, key) = name.split_once('.').filter(|(_, key)| !key.is_empty())?;
    let field = R::fields().iter().find(|field| field.name == name && keyed(field))?;
    Some((field, Some(key)))
}

/// Returns the names of the wanted fields, for the error about an unknown name.
pub(crate) fn names<R: Record>(is_wanted: impl Fn(&Read<R>) -> bool) -> String {
    let wanted = R::fields().iter().filter(|field| is_wanted(&field.read)).take(NAMED);
    let name = |field: &Field<R>| match field.read {
        Read::Keyed(_) => format!("{}.KEY", field.name),
        _ => field.name.into(),
    };
    wanted.map(name).collect::<Vec<_>>().join(", ")
}

/// A field's value. Values of one field are all of one type, or null.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    /// A text, ordered by its bytes.
    Text(Cow<'a, str>),
    /// A number.
    Number(f64),
    /// A truth value; false comes before true.
    Truth(bool),
    /// A moment; the earlier comes first.
    Time(Timestamp),
    /// No value; it comes after all others, as in SQL databases.
    Null,
}

impl Value<'_> {
    /// Returns which of two values of one field comes first.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Self::Text(a), Value::Text(b)) => a.cmp(b),
            (Self::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Self::Truth(a), Value::Truth(b)) => a.cmp(b),
            (Self::Time(a), Value::Time(b)) => a.cmp(b),
            (a, b) => matches!(a, Self::Null).cmp(&matches!(b, Value::Null)),
        }
    }

    /// Returns the value as JSON, for a cursor.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => text.as_ref().into(),
            Self::Number(number) => (*number).into(),
            Self::Truth(truth) => (*truth).into(),
            Self::Time(time) => time.to_string().into(),
            Self::Null => Json::Null,
        }
    }
}

/// Returns a cursor's value, if it is of the type that a field read this way has.
pub(crate) fn from_json<'j, R: Record>(read: &Read<R>, json: &'j Json) -> Option<Value<'j>> {
    match (read, json) {
        (_, Json::Null) => Some(Value::Null),
        (Read::Text(_) | Read::Id(..), Json::String(text)) => Some(Value::Text(text.into())),
        (Read::Number(_), Json::Number(number)) => number.as_f64().map(Value::Number),
        (Read::Truth(_), Json::Bool(truth)) => Some(Value::Truth(*truth)),
        (Read::Time(_), Json::String(text)) => text.parse().ok().map(Value::Time),
        _ => None,
    }
}

/// Returns a size or a count as a field's number, as rows show it.
#[expect(clippy::cast_precision_loss, reason = "what is written is exact in this type, too")]
pub(crate) fn number(count: u64) -> f64 {
    BigInt(count).written() as f64
}
