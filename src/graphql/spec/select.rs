//! Reduces an operation to the fields of its answer: expands fragments, applies `@skip` and `@include`, merges fields
//! of one response key, and fills in arguments (October 2021, 5.3.2, 5.7, 6.3.2, 6.4.1).

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use async_graphql::indexmap::IndexMap;
use async_graphql::indexmap::map::Entry;
use async_graphql::parser::types::{
    BaseType, Directive, Field, FragmentDefinition, Selection, SelectionSet, Type,
};
use async_graphql::{Name, Pos, Positioned, ServerError, ServerResult, Value};

use crate::graphql::kit::rows::NOTHING;
use crate::graphql::spec::types::{Types, named};
use crate::graphql::spec::values::{Scope, not_here};

/// The field that every object has.
const TYPE_NAME: &str = "__typename";

/// A field of the answer.
pub(crate) struct Chosen {
    /// Its response key.
    pub(crate) key: Name,
    /// The type of its value.
    pub(crate) ty: Type,
    /// The fields selected in it.
    pub(crate) inner: Vec<Self>,
    pub(super) is_object: bool,
    pub(super) name: Name,
    pub(super) arguments: Vec<(Name, Value)>,
    at: Pos,
}

impl Chosen {
    /// Returns the fields as a selection for the library.
    pub(crate) fn selection(chosen: &[Self]) -> SelectionSet {
        let fields = chosen.iter().map(Self::to_field);
        let nothing = chosen.is_empty().then(|| {
            // An empty selection is no valid GraphQL, and the library answers null for one.
            field(NOTHING, &Name::new(TYPE_NAME), Pos::default())
        });
        let items = fields.chain(nothing).map(|field| {
            let at = field.pos;
            Positioned::new(Selection::Field(field), at)
        });
        SelectionSet { items: items.collect() }
    }

    fn to_field(&self) -> Positioned<Field> {
        let mut field = field(&self.key, &self.name, self.at);
        let argument = |(name, value): &(Name, Value)| {
            (Positioned::new(name.clone(), self.at), Positioned::new(value.clone().into_value(), self.at))
        };
        field.node.arguments = self.arguments.iter().map(argument).collect();
        if self.is_object {
            field.node.selection_set.node = Self::selection(&self.inner);
        }
        field
    }
}

fn field(key: &str, name: &Name, at: Pos) -> Positioned<Field> {
    let field = Field {
        alias: (key != name.as_str()).then(|| Positioned::new(Name::new(key), at)),
        name: Positioned::new(name.clone(), at),
        arguments: Vec::new(),
        directives: Vec::new(),
        selection_set: Positioned::new(SelectionSet::default(), at),
    };
    Positioned::new(field, at)
}

/// A selection, and whether it is included.
type Set<'d> = (&'d SelectionSet, bool);

/// All fields of one response key.
struct Group<'d> {
    first: &'d Positioned<Field>,
    is_taken: bool,
    sets: Vec<Set<'d>>,
}

/// Expands selections.
pub(crate) struct Chooser<'d> {
    /// The schema's types.
    pub(crate) types: &'d Types,
    /// The document's fragments. None spreads itself.
    pub(crate) fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    /// The operation's variables. Without values, everything is included, and errors that validation will find are
    /// ignored.
    pub(crate) scope: Scope<'d>,
    /// The variables that directives use.
    pub(crate) in_directives: RefCell<HashSet<Name>>,
}

impl<'d> Chooser<'d> {
    /// Returns the fields that these selections on this type add up to.
    ///
    /// # Errors
    /// What the specification forbids of values, directives and fields of one response key.
    pub(crate) fn choose(&self, on: &Name, sets: &[Set<'d>]) -> ServerResult<Vec<Chosen>> {
        let mut groups = IndexMap::new();
        for (set, is_taken) in sets {
            self.collect(on, set, *is_taken, &mut groups)?;
        }
        let mut chosen = Vec::new();
        for (key, group) in groups {
            let is_taken = group.is_taken;
            if let Some(field) = self.field(on, key, &group)?.filter(|_| is_taken) {
                chosen.push(field);
            }
        }
        Ok(chosen)
    }

    fn collect(
        &self,
        on: &Name,
        set: &'d SelectionSet,
        is_taken: bool,
        groups: &mut IndexMap<&'d Name, Group<'d>>,
    ) -> ServerResult<()> {
        for item in &set.items {
            let is_taken = self.is_taken(item.node.directives())? && is_taken;
            match &item.node {
                Selection::Field(field) => {
                    let inner = (&field.node.selection_set.node, is_taken);
                    match groups.entry(&field.node.response_key().node) {
                        Entry::Vacant(entry) => {
                            entry.insert(Group { first: field, is_taken, sets: vec![inner] });
                        }
                        Entry::Occupied(mut entry) => {
                            let group = entry.get_mut();
                            check_alike(group.first, field)?;
                            group.is_taken |= is_taken;
                            group.sets.push(inner);
                        }
                    }
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    if condition.is_none_or(|condition| condition.node.on.node == *on) {
                        self.collect(on, &fragment.node.selection_set.node, is_taken, groups)?;
                    }
                }
                Selection::FragmentSpread(spread) => {
                    let fragment =
                        self.fragments.get(&spread.node.fragment_name.node).map(|found| &found.node);
                    if let Some(fragment) = fragment.filter(|found| found.type_condition.node.on.node == *on)
                    {
                        refuse_directives(&fragment.directives)?;
                        self.collect(on, &fragment.selection_set.node, is_taken, groups)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&self, on: &Name, key: &Name, group: &Group<'d>) -> ServerResult<Option<Chosen>> {
        let (at, field) = (group.first.pos, &group.first.node);
        let name = &field.name.node;
        let chosen = |ty: Type| {
            let (key, name, is_object) = (key.clone(), name.clone(), self.types.is_object(named(&ty)));
            Chosen { key, name, ty, is_object, at, arguments: Vec::new(), inner: Vec::new() }
        };
        if name == TYPE_NAME {
            if !field.arguments.is_empty() || group.sets.iter().any(|(set, _)| !set.items.is_empty()) {
                return Err(ServerError::new(
                    "The field \"__typename\" takes no arguments and has no fields",
                    Some(at),
                ));
            }
            return Ok(Some(chosen(Type { base: BaseType::Named(Name::new("String")), nullable: false })));
        }
        // Validation reports unknown fields.
        let Some(known) = self.types.field(on, name) else { return Ok(None) };
        let mut chosen = chosen(known.ty.clone());
        for (name, literal) in &field.arguments {
            let Some(argument) = known.arguments.get(&name.node) else { continue };
            let value =
                self.types.literal(&literal.node, &argument.ty, argument.default.is_some(), self.scope);
            let refused = |why| {
                ServerError::new(
                    format!("The argument \"{}\" can't be taken: {why}", name.node),
                    Some(literal.pos),
                )
            };
            match value.map_err(refused)? {
                Some(value) => chosen.arguments.push((name.node.clone(), value)),
                None if argument.is_required() => {
                    return Err(refused("it is required, and not given".into()));
                }
                None => {}
            }
        }
        if chosen.is_object {
            chosen.inner = self.choose(named(&known.ty), &group.sets)?;
        }
        Ok(Some(chosen))
    }

    /// Whether a selection with these directives is included.
    fn is_taken(&self, directives: &[Positioned<Directive>]) -> ServerResult<bool> {
        let condition = Type { base: BaseType::Named(Name::new("Boolean")), nullable: false };
        let mut is_taken = true;
        for (number, directive) in directives.iter().enumerate() {
            let refuse = |why: String| Err(ServerError::new(why, Some(directive.pos)));
            let name = &directive.node.name.node;
            if name != "skip" && name != "include" {
                return refuse(not_here(name));
            }
            if directives.iter().skip(number + 1).any(|other| other.node.name.node == *name) {
                return refuse(format!("The directive \"@{name}\" stands twice at one place"));
            }
            let [(argument, literal)] = directive.node.arguments.as_slice() else {
                return refuse(format!("The directive \"@{name}\" takes the argument \"if\", and no other"));
            };
            if argument.node != "if" {
                return refuse(format!("The directive \"@{name}\" has no argument \"{}\"", argument.node));
            }
            if let async_graphql_value::Value::Variable(variable) = &literal.node {
                self.in_directives.borrow_mut().insert(variable.clone());
            }
            match self.types.literal(&literal.node, &condition, false, self.scope) {
                Ok(Some(Value::Boolean(value))) => is_taken &= value == (name == "include"),
                // Only the document is checked, so the variable has no value.
                Ok(_) => {}
                Err(why) => {
                    return refuse(format!("The argument \"if\" of \"@{name}\" can't be taken: {why}"));
                }
            }
        }
        Ok(is_taken || self.scope.values.is_none())
    }
}

/// Refuses directives at a position where none is allowed.
pub(crate) fn refuse_directives(directives: &[Positioned<Directive>]) -> ServerResult<()> {
    directives.first().map_or(Ok(()), |directive| {
        Err(ServerError::new(not_here(&directive.node.name.node), Some(directive.pos)))
    })
}

/// Refuses two different fields under one response key, because only one of them would be in the answer.
fn check_alike(first: &Positioned<Field>, other: &Positioned<Field>) -> ServerResult<()> {
    let (a, b) = (&first.node, &other.node);
    let same_arguments = a.arguments.len() == b.arguments.len()
        && a.arguments
            .iter()
            .all(|(name, value)| b.get_argument(&name.node).is_some_and(|other| other.node == value.node));
    if a.name.node == b.name.node && same_arguments {
        return Ok(());
    }
    let key = &a.response_key().node;
    let why = if a.name.node == b.name.node { "their arguments differ" } else { "they are different fields" };
    let message =
        format!("Two fields conflict under the name \"{key}\": {why}; give one of them another alias");
    Err(ServerError { locations: vec![first.pos, other.pos], ..ServerError::new(message, None) })
}
