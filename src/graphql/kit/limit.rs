//! Limits on the number of fields in a document after its fragments are expanded, and on the number of its mutations.
//!
//! Fragments that each spread another twice, thirty deep, are a page of text and a billion fields, and async-graphql's
//! own checks walk them all. So the fields are counted first: each fragment once, by arithmetic.

use std::collections::HashMap;

use async_graphql::parser::types::{
    ExecutableDocument, FragmentDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, ServerError, ServerResult};

/// The cost of a list besides its fields, so that one request can't ask for the catalog a hundred times.
pub(crate) const LIST_COST: usize = 200;
/// The introspection query that tools send expands to some 120 fields, the largest of the official clients to 30.
const MAX_FIELDS: u64 = 1_000;
/// The cost of the schema, and of one of its types, besides their fields: most of their answer is lists.
const SCHEMA_COST: u64 = 200;
const TYPE_COST: u64 = 50;
/// The most mutations in a document: each writes a row to the audit log, and the official clients send one.
const MAX_MUTATIONS: u64 = 20;
/// How deep selections and fragments may nest; more than the schema's own limit, less than the stack's.
const MAX_NESTING: usize = 64;

/// Refuses a document with too many fields or mutations, and one whose fragments spread themselves.
pub(crate) fn check(document: &ExecutableDocument) -> ServerResult<()> {
    let refuse = |why: String| Err(ServerError::new(why, None));
    let operations = || document.operations.iter().map(|(_, operation)| &operation.node);
    let mut all = Count::new(&document.fragments, true);
    let fragments =
        document.fragments.keys().map(|name| all.of_fragment(name, 0)).fold(0, u64::saturating_add);
    let fields = operations().map(|operation| all.of(&operation.selection_set.node, 0));
    if fields.fold(fragments, u64::saturating_add) > MAX_FIELDS {
        return refuse(format!(
            "the document has more than {MAX_FIELDS} fields (the schema counts as {SCHEMA_COST}), or nests too deep; ask for \
             less at once"
        ));
    }
    if let Some(name) = all.circle {
        return refuse(format!("the fragment \"{name}\" spreads itself"));
    }
    let mut outer = Count::new(&document.fragments, false);
    for operation in operations().filter(|operation| operation.ty == OperationType::Mutation) {
        let count = outer.of(&operation.selection_set.node, 0);
        if count > MAX_MUTATIONS {
            return refuse(format!(
                "the document has {count} mutations, and {MAX_MUTATIONS} are taken at once; nothing was done: send \
                 them in several requests"
            ));
        }
    }
    Ok(())
}

/// Counts the selected fields, visiting each fragment once.
struct Count<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    /// Whether nested fields count, and fragments themselves, since each is a step of some walk; otherwise only the
    /// outermost fields count.
    is_of_all: bool,
    /// The count of each fragment; `None` while it is being counted.
    known: HashMap<&'a str, Option<u64>>,
    /// A fragment that spreads itself, directly or through others.
    circle: Option<&'a Name>,
}

impl<'a> Count<'a> {
    fn new(fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>, is_of_all: bool) -> Self {
        Self { fragments, is_of_all, known: HashMap::new(), circle: None }
    }

    fn of(&mut self, selection: &'a SelectionSet, depth: usize) -> u64 {
        if depth > MAX_NESTING {
            return u64::MAX;
        }
        let itself = u64::from(self.is_of_all);
        let counts = selection.items.iter().map(|item| match &item.node {
            Selection::Field(field) if self.is_of_all => {
                let within = self.of(&field.node.selection_set.node, depth + 1);
                within.saturating_add(cost(&field.node.name.node))
            }
            Selection::Field(_) => 1,
            Selection::InlineFragment(fragment) => {
                self.of(&fragment.node.selection_set.node, depth + 1).saturating_add(itself)
            }
            Selection::FragmentSpread(spread) => {
                self.of_fragment(&spread.node.fragment_name.node, depth + 1).saturating_add(itself)
            }
        });
        counts.fold(0, u64::saturating_add)
    }

    fn of_fragment(&mut self, name: &'a Name, depth: usize) -> u64 {
        match self.known.get(name.as_str()) {
            Some(Some(count)) => return *count,
            Some(None) => {
                self.circle = Some(name);
                return 0;
            }
            None => {}
        }
        self.known.insert(name.as_str(), None);
        let count =
            self.fragments.get(name).map_or(0, |fragment| self.of(&fragment.node.selection_set.node, depth));
        self.known.insert(name.as_str(), Some(count));
        count
    }
}

/// Returns the cost of a field besides its selection.
fn cost(field: &str) -> u64 {
    match field {
        "__schema" => SCHEMA_COST,
        "__type" => TYPE_COST,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use async_graphql::parser::parse_query;

    use super::check;

    fn refusal(document: &str) -> String {
        check(&parse_query(document).unwrap()).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn fragments_count_wherever_they_are_spread() {
        let doubling = |last: &str| {
            (0..25).fold(String::from("{ ...F0 }"), |mut text, n| {
                let _ = write!(text, " fragment F{n} on Query {{ ...F{m} ...F{m} }}", m = n + 1);
                text
            }) + last
        };
        for last in [" fragment F25 on Query { a }", "", " fragment F25 on Query { ...F25 }"] {
            assert!(refusal(&doubling(last)).contains("more than 1000 fields"), "{last}");
        }
        assert_eq!(refusal("{ ...A ...A } fragment A on Query { a { b } }"), "");
        let circle = "{ a } fragment A on Query { ...B } fragment B on Query { a { ...A } }";
        assert!(refusal(circle).contains("spreads itself"));
    }

    #[test]
    fn the_schema_counts_as_much_as_a_list() {
        let aliases = |field: &str, count: usize| {
            let field = |n| format!("a{n}: {field} {{ name }} ");
            format!("{{ {} }}", (0..count).map(field).collect::<String>())
        };
        for (field, most) in [("__schema", 4), ("__type(name: \"Query\")", 19)] {
            assert_eq!(refusal(&aliases(field, most)), "", "{field}");
            assert!(refusal(&aliases(field, most + 1)).contains("more than 1000 fields"), "{field}");
        }
    }

    #[test]
    fn at_most_twenty_mutations_are_taken_at_once() {
        let aliases = |count: usize| {
            (0..count).fold(String::new(), |mut text, n| {
                let _ = write!(text, "a{n}: x {{ ok msg }} ");
                text
            })
        };
        assert_eq!(refusal(&format!("mutation {{ {} }}", aliases(20))), "");
        assert_eq!(refusal(&format!("query {{ {} }}", aliases(21))), "");
        for document in [
            format!("mutation {{ {} }}", aliases(21)),
            format!("mutation {{ ...A ...A }} fragment A on Mutation {{ {} }}", aliases(11)),
            format!("mutation A {{ a }} mutation B {{ ... {{ {} }} a }}", aliases(20)),
        ] {
            assert!(refusal(&document).contains("and 20 are taken at once"), "{document}");
        }
    }
}
