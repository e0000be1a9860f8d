//! Lists that are written to JSON as they are walked.
//!
//! async-graphql resolves every field of every element through a future and a tree of values: for 10,000 images of 20
//! labels that is a million allocations and most of a second. A [`Row`] type instead declares its fields as a table.
//! The selection is turned into a [`Plan`] once, and each element is written by it in one pass. The same table gives
//! the schema its type, so no field is declared twice.
//!
//! What travels through async-graphql is a marker that stands for the JSON; the rows are written with the response
//! (see [`Later`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use async_graphql::parser::types::{Field, FragmentDefinition, Selection, SelectionSet};
use async_graphql::registry::{Deprecation, MetaField, MetaType, MetaTypeId, Registry};
use async_graphql::{ContextSelectionSet, Error, Name, OutputType, Positioned, ServerResult, Value};
use bytes::Bytes;

use crate::graphql::kit::answer::{Later, Pieces};

/// The response key for an object of which nothing is selected, since a selection can't be empty. It is in no answer.
pub(crate) const NOTHING: &str = "__nothing";
/// How many elements are written at a time: of images some 100 kB, which fits the processor's cache and goes over the
/// network in one piece.
const ROWS_PER_PIECE: usize = 64;

/// A GraphQL type whose values are written to JSON by a table of its fields.
pub(crate) trait Row: Sized + Send + Sync + 'static {
    /// The GraphQL type's name.
    const NAME: &'static str;
    /// Its description, for the schema.
    const DOC: &'static str;
    /// What is written: a borrow, possibly of something that has no value of its own.
    type View<'a>: Copy;
    /// Its fields.
    fn columns() -> &'static [Column<Self>];
}

/// A field of a [`Row`].
pub(crate) struct Column<T: Row> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its GraphQL type.
    pub(crate) ty: &'static str,
    /// Its description, for the schema.
    pub(crate) doc: &'static str,
    /// The type of its value, if that has fields itself.
    pub(crate) nested: Option<Nested>,
    /// Writes the field's value.
    pub(crate) write: fn(T::View<'_>, &Plan, &mut Vec<u8>),
}

/// The table of a field's own type when that is a [`Row`] too.
#[derive(Clone, Copy)]
pub(crate) struct Nested {
    register: fn(&mut Registry),
    /// Returns the index of a field in the table, and the table of its own type.
    find: fn(&str) -> Option<NestedField>,
    name: &'static str,
}

type NestedField = (usize, Option<Nested>);

impl Nested {
    /// Returns the table of `T`.
    pub(crate) const fn of<T: Row>() -> Self {
        Self { register: register::<T>, find: find::<T>, name: T::NAME }
    }
}

fn find<T: Row>(field: &str) -> Option<NestedField> {
    let place = T::columns().iter().position(|column| column.name == field)?;
    Some((place, T::columns().get(place)?.nested))
}

/// A selection on a [`Row`], ready to run.
#[derive(Default)]
pub(crate) struct Plan {
    steps: Vec<Step>,
}

struct Step {
    /// `"key":` with the comma before it where one is needed.
    key: Vec<u8>,
    what: What,
}

enum What {
    /// The column at this index, with the selection on it.
    Column(usize, Plan),
    /// `__typename`.
    TypeName(&'static str),
}

/// Fields with one response key; their selections are merged.
struct Wanted<'a> {
    key: &'a str,
    field: &'a str,
    selections: Vec<&'a SelectionSet>,
}

type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

impl Plan {
    fn new(selections: &[&SelectionSet], fragments: &Fragments, on: Nested) -> Self {
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        for selection in selections {
            collect(selection, fragments, &mut wanted);
        }
        let steps = wanted.iter().filter(|field| field.key != NOTHING).filter_map(|field| {
            let what = if field.field == "__typename" {
                What::TypeName(on.name)
            } else {
                // Validation has refused unknown fields.
                let (place, nested) = (on.find)(field.field)?;
                let plan = nested.map(|nested| Self::new(&field.selections, fragments, nested));
                What::Column(place, plan.unwrap_or_default())
            };
            Some((field.key, what))
        });
        let steps = steps.enumerate().map(|(number, (key, what))| {
            let comma = if number == 0 { "" } else { "," };
            Step { key: format!("{comma}\"{key}\":").into_bytes(), what }
        });
        Self { steps: steps.collect() }
    }

    /// Writes one element.
    pub(crate) fn write<T: Row>(&self, row: T::View<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        for step in &self.steps {
            out.extend_from_slice(&step.key);
            match &step.what {
                What::Column(place, plan) => match T::columns().get(*place) {
                    Some(column) => (column.write)(row, plan, out),
                    None => null(out),
                },
                What::TypeName(name) => text(name, out),
            }
        }
        out.push(b'}');
    }

    /// Writes elements as a list.
    pub(crate) fn write_all<'a, T: Row>(&self, rows: impl Iterator<Item = T::View<'a>>, out: &mut Vec<u8>) {
        list(rows, out, |row, out| self.write::<T>(row, out));
    }
}

/// Collects the fields of a selection with its fragments expanded. Directives were applied before execution.
fn collect<'a>(selection: &'a SelectionSet, fragments: &'a Fragments, wanted: &mut Vec<Wanted<'a>>) {
    for item in &selection.items {
        match &item.node {
            Selection::Field(field) => {
                let field = &field.node;
                let key = field.response_key().node.as_str();
                let selections = &field.selection_set.node;
                match wanted.iter_mut().find(|known| known.key == key) {
                    Some(known) => known.selections.push(selections),
                    None => wanted.push(Wanted {
                        key,
                        field: field.name.node.as_str(),
                        selections: vec![selections],
                    }),
                }
            }
            Selection::InlineFragment(fragment) => {
                collect(&fragment.node.selection_set.node, fragments, wanted);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    collect(&fragment.node.selection_set.node, fragments, wanted);
                }
            }
        }
    }
}

fn register<T: Row>(registry: &mut Registry) {
    registry.create_output_type::<Named<T>, _>(MetaTypeId::Object, |registry| {
        let fields = T::columns().iter().map(|column| {
            if let Some(nested) = column.nested {
                (nested.register)(registry);
            }
            (column.name.to_owned(), meta_field(column.name, column.ty, column.doc))
        });
        MetaType::Object {
            name: T::NAME.into(),
            description: Some(T::DOC.into()),
            fields: fields.collect(),
            cache_control: async_graphql::CacheControl::default(),
            extends: false,
            shareable: false,
            resolvable: true,
            inaccessible: false,
            interface_object: false,
            tags: Vec::new(),
            keys: None,
            visible: None,
            is_subscription: false,
            rust_typename: Some(std::any::type_name::<Named<T>>()),
            directive_invocations: Vec::new(),
            requires_scopes: Vec::new(),
        }
    });
}

fn meta_field(name: &str, ty: &str, doc: &str) -> MetaField {
    MetaField {
        name: name.into(),
        description: Some(doc.into()),
        args: async_graphql::indexmap::IndexMap::default(),
        ty: ty.into(),
        deprecation: Deprecation::NoDeprecated,
        cache_control: async_graphql::CacheControl::default(),
        external: false,
        requires: None,
        provides: None,
        visible: None,
        shareable: false,
        inaccessible: false,
        tags: Vec::new(),
        override_from: None,
        compute_complexity: None,
        directive_invocations: Vec::new(),
        requires_scopes: Vec::new(),
    }
}

/// Registers a [`Row`]'s type under its name; no field has it as its value.
struct Named<T>(std::marker::PhantomData<fn() -> T>);

impl<T: Row> OutputType for Named<T> {
    fn type_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        register::<T>(registry);
        Self::qualified_type_name()
    }

    async fn resolve(
        &self,
        _ctx: &ContextSelectionSet<'_>,
        _field: &Positioned<Field>,
    ) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

/// One [`Row`] as the value of a field.
pub(crate) struct One<T>(pub(crate) Arc<T>);

impl<T> OutputType for One<T>
where
    T: for<'a> Row<View<'a> = &'a T>,
{
    fn type_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        register::<T>(registry);
        Self::qualified_type_name()
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let (plan, row) = (plan::<T>(ctx), Arc::clone(&self.0));
        let write = iter::once_with(move || {
            let mut out = Vec::new();
            plan.write::<T>(&row, &mut out);
            out.into()
        });
        later(ctx, field, Box::new(write))
    }
}

/// A list of [`Row`]s as the value of a field: `[T]`.
pub(crate) struct Rows<T>(pub(crate) Arc<[T]>);

impl<T> OutputType for Rows<T>
where
    T: for<'a> Row<View<'a> = &'a T>,
{
    fn type_name() -> Cow<'static, str> {
        format!("[{}]", T::NAME).into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        register::<T>(registry);
        Self::qualified_type_name()
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let (plan, rows) = (plan::<T>(ctx), Arc::clone(&self.0));
        let mut size = 0;
        let pieces = (0..rows.len()).step_by(ROWS_PER_PIECE).map(move |start| {
            // All pieces are of similar size, so every piece but the first needs one allocation.
            let mut out = Vec::with_capacity(size);
            for (row, number) in rows.iter().skip(start).take(ROWS_PER_PIECE).zip(start..) {
                if number > 0 {
                    out.push(b',');
                }
                plan.write::<T>(row, &mut out);
            }
            size = size.max(out.len());
            Bytes::from(out)
        });
        let bracket = |text| iter::once(Bytes::from_static(text));
        later(ctx, field, Box::new(bracket(b"[").chain(pieces).chain(bracket(b"]"))))
    }
}

fn plan<T: Row>(ctx: &ContextSelectionSet<'_>) -> Plan {
    Plan::new(&[&ctx.item.node], &ctx.query_env.fragments, Nested::of::<T>())
}

fn later(ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>, pieces: Pieces) -> ServerResult<Value> {
    let kept = ctx.data::<Later>().map(|later| later.keep(pieces));
    kept.map_err(|error: Error| error.into_server_error(field.pos))
}

/// Writes a text.
pub(crate) fn text(text: &str, out: &mut Vec<u8>) {
    // Few texts have a character that JSON escapes. A search without an early end looks at many bytes at once, and then
    // the text is copied at once; `serde_json` goes byte by byte.
    let escapes = |byte: u8| matches!(byte, ..b' ' | b'"' | b'\\');
    if !text.bytes().fold(false, |found, byte| found | escapes(byte)) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // Writing to a vector can't fail, and a text is always valid JSON.
    let _ = serde_json::to_writer(out, text);
}

/// Writes a text, or `null` for none.
pub(crate) fn text_or_null(value: Option<&str>, out: &mut Vec<u8>) {
    match value {
        Some(value) => text(value, out),
        None => null(out),
    }
}

/// Writes any value whose text has no characters that JSON escapes.
pub(crate) fn plain(value: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let _ = write!(out, "\"{value}\"");
}

/// Writes a number.
pub(crate) fn number(value: u64, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, &value);
}

/// Writes a truth value.
pub(crate) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes `null`.
pub(crate) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

/// Writes a list of texts.
pub(crate) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, out: &mut Vec<u8>) {
    list(texts.into_iter(), out, |item, out| text(item.as_ref(), out));
}

fn list<T>(items: impl Iterator<Item = T>, out: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (number, item) in items.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_character_is_written_as_json_wants_it() {
        for character in '\0'..='\u{2ff}' {
            for around in ["", "a", "what stands around it is longer than what is looked at at once"] {
                let text = format!("{around}{character}{around}");
                let mut out = b"[".to_vec();
                super::text(&text, &mut out);
                assert_eq!(out.get(1..), Some(serde_json::to_vec(&text).unwrap().as_slice()), "{text:?}");
            }
        }
    }
}
