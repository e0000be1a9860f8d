//! How many fields a document may come to once its fragments are opened.
//!
//! Fragments that spread others twice, thirty deep, are a page of text and a billion fields, and async-graphql's own
//! checks walk them all. So they are counted before, each fragment once, by arithmetic. The text is parsed twice for
//! that: microseconds for what clients send.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery};
use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet};
use async_graphql::{Name, Positioned, ServerError, ServerResult, Variables};

/// The introspection query that tools send opens to some 120 fields, the largest of the official clients to 30.
const MAX_FIELDS: u64 = 1_000;
/// How deep selections and fragments may nest; more than the schema's own limit, less than the stack's.
const MAX_NESTING: usize = 64;

/// Refuses documents of too many fields.
pub struct FieldLimit;

impl ExtensionFactory for FieldLimit {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait::async_trait]
impl Extension for FieldLimit {
    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        if fields(&parse_query(query)?) > MAX_FIELDS {
            let why = format!(
                "the document has more than {MAX_FIELDS} fields, or nests too deep; ask for less at once"
            );
            return Err(ServerError::new(why, None));
        }
        next.run(ctx, query, variables).await
    }
}

fn fields(document: &ExecutableDocument) -> u64 {
    let mut count = Count { fragments: &document.fragments, known: HashMap::new() };
    let fields =
        document.operations.iter().map(|(_, operation)| count.of(&operation.node.selection_set.node, 0));
    fields.fold(0, u64::saturating_add)
}

struct Count<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    known: HashMap<&'a str, u64>,
}

impl<'a> Count<'a> {
    fn of(&mut self, selection: &'a SelectionSet, depth: usize) -> u64 {
        if depth > MAX_NESTING {
            return u64::MAX;
        }
        let counts = selection.items.iter().map(|item| match &item.node {
            Selection::Field(field) => self.of(&field.node.selection_set.node, depth + 1).saturating_add(1),
            Selection::InlineFragment(fragment) => self.of(&fragment.node.selection_set.node, depth + 1),
            Selection::FragmentSpread(spread) => self.of_fragment(&spread.node.fragment_name.node, depth + 1),
        });
        counts.fold(0, u64::saturating_add)
    }

    fn of_fragment(&mut self, name: &'a Name, depth: usize) -> u64 {
        if let Some(count) = self.known.get(name.as_str()) {
            return *count;
        }
        // While it is being counted it counts nothing: a fragment that spreads itself is refused by validation.
        self.known.insert(name.as_str(), 0);
        let count =
            self.fragments.get(name).map_or(0, |fragment| self.of(&fragment.node.selection_set.node, depth));
        self.known.insert(name.as_str(), count);
        count
    }
}
