//! How many fields a document may come to once its fragments are opened.
//!
//! Fragments that spread others twice, thirty deep, are a page of text and a billion fields; validation walks them all
//! before it measures complexity. So they are counted here, on the parsed text: each fragment once, by arithmetic.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery};
use async_graphql::parser::types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet};
use async_graphql::{Name, Positioned, ServerError, ServerResult, Variables};

/// The introspection query that tools send opens to some 120 fields, the largest of the official clients to 30.
const MAX_FIELDS: u64 = 1_000;

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
        let document = next.run(ctx, query, variables).await?;
        let mut count = Count { fragments: &document.fragments, known: HashMap::new() };
        let fields =
            document.operations.iter().map(|(_, operation)| count.of(&operation.node.selection_set.node));
        if fields.fold(0, u64::saturating_add) > MAX_FIELDS {
            let why = format!("the document has more than {MAX_FIELDS} fields; ask for less at once");
            return Err(ServerError::new(why, None));
        }
        Ok(document)
    }
}

struct Count<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    known: HashMap<&'a str, u64>,
}

impl<'a> Count<'a> {
    fn of(&mut self, selection: &'a SelectionSet) -> u64 {
        let counts = selection.items.iter().map(|item| match &item.node {
            Selection::Field(field) => self.of(&field.node.selection_set.node).saturating_add(1),
            Selection::InlineFragment(fragment) => self.of(&fragment.node.selection_set.node),
            Selection::FragmentSpread(spread) => self.of_fragment(&spread.node.fragment_name.node),
        });
        counts.fold(0, u64::saturating_add)
    }

    fn of_fragment(&mut self, name: &'a Name) -> u64 {
        if let Some(count) = self.known.get(name.as_str()) {
            return *count;
        }
        // While it is being counted it counts nothing: a fragment that spreads itself is refused by validation.
        self.known.insert(name.as_str(), 0);
        let count = self.fragments.get(name).map_or(0, |fragment| self.of(&fragment.node.selection_set.node));
        self.known.insert(name.as_str(), count);
        count
    }
}
