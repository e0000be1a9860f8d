//! GraphQL as its specification has it (October 2021, which says of all this what June 2018 said), in front of
//! async-graphql 7.2.1.
//!
//! That version ignores defaults of variables in `@skip` and `@include`, runs a mutation twice if it stands twice
//! under one response key, accepts requests without required variables, does not count variables in directives as
//! used, and panics at a default of an unknown type. So this module checks a document first, and gives the library
//! only the result: one operation without variables, directives and fragments. The library still validates where it
//! does so correctly.

#[cfg(test)]
pub(crate) mod asked;
pub(crate) mod select;
pub(crate) mod shape;
pub(crate) mod types;
pub(crate) mod validate;
pub(crate) mod values;

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::parse_query;
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Pos, Positioned, Request, Response, ServerError, ServerResult, Value, Variables};
use tokio::runtime::Handle;

use crate::access::caller::Caller;
use crate::base::error::Code;
use crate::base::ids::UserId;
use crate::base::turns::Turns;
use crate::base::walk::{Budget, Meter, Walks};
use crate::base::{Error, Result};
use crate::graphql::kit::answer::Later;
use crate::graphql::kit::fault::Fault;
use crate::graphql::kit::rows::NOTHING;
use crate::graphql::kit::{dialect, limit, text};
use crate::graphql::schema::Schema;
use crate::graphql::spec::select::{Chooser, Chosen, refuse_directives};
use crate::graphql::spec::types::Types;
use crate::graphql::spec::validate::{IsValid, OnlyValidate};
use crate::graphql::spec::values::Scope;

/// The most bytes of a document and its variables that is executed on the threads that answer all requests. The
/// largest document of the official clients has a quarter of that.
const LIGHT: usize = 8 * 1024;
/// The most answers to other documents that may be in memory at once before they are read: of one user, and in all.
/// One answer has up to some megabytes.
const ANSWERS_OF_ONE: usize = 8;
const ANSWERS: usize = 128;

/// The GraphQL API. Clones share it.
#[derive(Clone)]
pub struct Api {
    schema: Schema,
    types: Arc<Types>,
    walks: Walks,
    /// The threads for documents that may take long.
    documents: Walks,
    /// Limits whose answers to such documents may be in memory.
    answers: Turns,
}

/// The outcome of a request.
pub enum Outcome {
    /// Nothing was done: it is no GraphQL, does not fit the schema, or its variables have wrong types.
    Refused(Vec<ServerError>),
    /// Nothing was done: it would change something where only reading is allowed.
    MayNotChange,
    /// The request was executed, as far as the answer says.
    Answered(Response),
}

/// A document reduced to one operation.
struct Prepared {
    kind: OperationType,
    chosen: Vec<Chosen>,
}

impl Api {
    /// Returns the API of this schema, whose text is `sdl` and whose long walks run on `walks`.
    ///
    /// # Errors
    /// [`crate::base::Error::Internal`] if `sdl` is not the text of a schema.
    pub(crate) fn new(schema: Schema, sdl: &str, walks: Walks) -> Result<Self> {
        Ok(Self {
            schema,
            types: Arc::new(Types::read(sdl)?),
            walks,
            documents: Walks::default(),
            answers: Turns::new(ANSWERS_OF_ONE, ANSWERS),
        })
    }

    /// Returns the threads for long walks, for requests that do not come through GraphQL.
    pub(crate) fn walks(&self) -> &Walks {
        &self.walks
    }

    /// Executes a request. A mutation is refused unless `may_change`.
    pub async fn ask(&self, question: Request, may_change: bool) -> Outcome {
        let mut outcome = match heavy(&question) {
            None => self.execute(question, may_change).await,
            Some((user, budget)) => {
                let done = self.execute_in_turn(question, may_change, user, &budget).await;
                done.unwrap_or_else(|why| Outcome::Refused(vec![fault(why)]))
            }
        };
        match &mut outcome {
            Outcome::Answered(answer) => answer.errors.iter_mut().for_each(with_code),
            Outcome::Refused(errors) => errors.iter_mut().for_each(with_code),
            Outcome::MayNotChange => {}
        }
        outcome
    }

    /// Runs [`Api::execute`] in its turn, away from the threads that answer requests.
    async fn execute_in_turn(
        &self,
        question: Request,
        may_change: bool,
        user: UserId,
        budget: &Budget,
    ) -> crate::base::Result<Outcome> {
        let turn = budget.turn(&self.answers, user).await?;
        if let Some(later) = data::<Later>(&question) {
            later.hold(turn);
        }
        let (api, runtime) = (self.clone(), Handle::current());
        let work = move |_: &Meter| Ok(runtime.block_on(api.execute(question, may_change)));
        self.documents.run(user, budget, work).await
    }

    async fn execute(&self, mut question: Request, may_change: bool) -> Outcome {
        let prepared = match self.prepare(&question).await {
            Ok(prepared) => prepared,
            Err(errors) => return Outcome::Refused(errors),
        };
        if prepared.kind == OperationType::Mutation && !may_change {
            return Outcome::MayNotChange;
        }
        if prepared.chosen.is_empty() {
            return Outcome::Answered(Response::new(Value::Object(IndexMap::new())));
        }
        let document = as_document(prepared.kind, Chosen::selection(&prepared.chosen));
        (question.operation_name, question.variables) = (None, Variables::default());
        question.set_parsed_query(document);
        let is_valid = Arc::new(AtomicBool::new(false));
        let mut answer = self.schema.execute(question.data(IsValid(Arc::clone(&is_valid)))).await;
        if !is_valid.load(Ordering::Relaxed) {
            return Outcome::Refused(answer.errors);
        }
        answer.data = shape::shape(std::mem::take(&mut answer.data), &prepared.chosen, &answer.errors);
        Outcome::Answered(answer)
    }

    /// Reads a document, and refuses what no variables could make right: syntax, size, and what the schema does not have.
    async fn read(&self, query: &str) -> std::result::Result<ExecutableDocument, Vec<ServerError>> {
        let one = |error| vec![error];
        let mut document = parse(query).map_err(one)?;
        limit::check(&document).map_err(one)?;
        dialect::translate(&mut document);
        let in_directives = self.check(&document).map_err(one)?;
        self.validate(plain(&document, &in_directives)).await?;
        Ok(document)
    }

    async fn prepare(&self, question: &Request) -> std::result::Result<Prepared, Vec<ServerError>> {
        let one = |error| vec![error];
        let document = self.read(&question.query).await?;
        let operation = operation_of(&document, question.operation_name.as_deref()).map_err(one)?;
        let definitions = &operation.variable_definitions;
        let values = self.types.coerce(definitions, &question.variables);
        let values = values.map_err(|why| one(ServerError::new(why, None)))?;
        let scope = Scope { definitions, values: Some(&values) };
        let chosen = self.choose(&document, operation, scope).map_err(one)?.0;
        Ok(Prepared { kind: operation.ty, chosen })
    }

    /// Checks all operations, whatever values their variables have, and returns the variables that their directives
    /// name.
    fn check(&self, document: &ExecutableDocument) -> ServerResult<HashSet<Name>> {
        let mut in_directives = HashSet::new();
        for operation in document.operations.iter().map(|(_, operation)| &operation.node) {
            refuse_directives(&operation.directives)?;
            let definitions = &operation.variable_definitions;
            self.types.check_definitions(definitions).map_err(|why| ServerError::new(why, None))?;
            let scope = Scope { definitions, values: None };
            in_directives.extend(self.choose(document, operation, scope)?.1);
        }
        Ok(in_directives)
    }

    fn choose(
        &self,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        scope: Scope<'_>,
    ) -> ServerResult<(Vec<Chosen>, HashSet<Name>)> {
        let in_directives = RefCell::default();
        let chooser = Chooser { types: &self.types, fragments: &document.fragments, scope, in_directives };
        let chosen = chooser.choose(&Types::root(operation.ty), &[(&operation.selection_set.node, true)])?;
        Ok((chosen, chooser.in_directives.into_inner()))
    }

    /// Has the library validate a document without executing it.
    async fn validate(&self, document: ExecutableDocument) -> std::result::Result<(), Vec<ServerError>> {
        let mut question = Request::new("").data(OnlyValidate);
        question.set_parsed_query(document);
        let errors = self.schema.execute(question).await.errors;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Returns the user of a document and its budget, if its execution may block a thread for long.
fn heavy(question: &Request) -> Option<(UserId, Budget)> {
    let caller = data::<Caller>(question)?;
    is_heavy(question).then(|| (caller.user, data::<Budget>(question).cloned().unwrap_or_default()))
}

/// Returns the data of this type that travels with a request.
fn data<T: 'static>(question: &Request) -> Option<&T> {
    question.data.get(&TypeId::of::<T>())?.downcast_ref()
}

/// Whether a document is large, has large variables, or asks for the schema, each part of which is a field that is
/// resolved by itself.
fn is_heavy(question: &Request) -> bool {
    let text = &question.query;
    // A name may stand apart from its arguments, so only names are looked for. `__typename` matches too, which does
    // no harm.
    let asks_for_schema = text.contains("__schema") || text.contains("__type");
    asks_for_schema || text.len() > LIGHT || question.variables.values().map(size).sum::<usize>() > LIGHT
}

/// Returns about how many bytes of text a value has.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(values) => values.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        _ => 1,
    }
}

/// Returns one of our errors as an error of the library.
fn fault(why: Error) -> ServerError {
    async_graphql::Error::from(Fault::from(why)).into_server_error(Pos::default())
}

/// Gives an error a code. An error that no service reported is about the document or its variables.
fn with_code(error: &mut ServerError) {
    let extensions = error.extensions.get_or_insert_default();
    if extensions.get("code").is_none() {
        extensions.set("code", Code::Invalid.as_str());
    }
}

/// Parses a text that is within the limits. An error is reported in one line.
fn parse(query: &str) -> ServerResult<ExecutableDocument> {
    text::check(query)?;
    parse_query(query).map_err(|error| {
        let error = ServerError::from(error);
        ServerError { message: one_line(&error.message), ..error }
    })
}

/// Returns the last line of a parser's message. The parser draws over several lines where it stopped; the last line
/// says what it expected, and the position is reported separately.
fn one_line(message: &str) -> String {
    match message.lines().find_map(|line| line.trim_start().strip_prefix("= ")) {
        Some(expected) => format!("Syntax error: {expected}"),
        None => message.lines().map(str::trim).collect::<Vec<_>>().join(" "),
    }
}

/// Returns the operation of this name, or the only one.
fn operation_of<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> ServerResult<&'d OperationDefinition> {
    let mut operations = document.operations.iter();
    let found = match name {
        Some(name) => operations.find(|(known, _)| known.is_some_and(|known| known == name)),
        None if operations.len() > 1 => {
            return Err(ServerError::new(
                "The document has several operations; say which in operationName",
                None,
            ));
        }
        None => operations.next(),
    };
    found.map(|(_, operation)| &operation.node).ok_or_else(|| {
        let shown = crate::base::reference::shown(name.unwrap_or_default());
        ServerError::new(
            format!("Unknown operation named \"{shown}\"; the document has none of that name"),
            None,
        )
    })
}

/// Returns a document without its directives, which were checked, and without the variables that only they use.
fn plain(document: &ExecutableDocument, in_directives: &HashSet<Name>) -> ExecutableDocument {
    let mut plain = document.clone();
    let fragments = plain.fragments.values_mut().map(|fragment| &mut fragment.node.selection_set.node);
    fragments.for_each(without_directives);
    let mut used = HashSet::new();
    plain
        .fragments
        .values()
        .for_each(|fragment| note_variables(&fragment.node.selection_set.node, &mut used));
    let strip = |operation: &mut Positioned<OperationDefinition>| {
        let operation = &mut operation.node;
        without_directives(&mut operation.selection_set.node);
        let mut used = used.clone();
        note_variables(&operation.selection_set.node, &mut used);
        operation.variable_definitions.retain(|definition| {
            let name = &definition.node.name.node;
            used.contains(name) || !in_directives.contains(name)
        });
    };
    match &mut plain.operations {
        DocumentOperations::Single(operation) => strip(operation),
        DocumentOperations::Multiple(operations) => operations.values_mut().for_each(strip),
    }
    plain
}

fn without_directives(set: &mut SelectionSet) {
    for item in &mut set.items {
        item.node.directives_mut().clear();
        match &mut item.node {
            Selection::Field(field) => without_directives(&mut field.node.selection_set.node),
            Selection::InlineFragment(fragment) => without_directives(&mut fragment.node.selection_set.node),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Collects the variables that are used in arguments.
fn note_variables(set: &SelectionSet, used: &mut HashSet<Name>) {
    for item in &set.items {
        match &item.node {
            Selection::Field(field) => {
                for (_, literal) in &field.node.arguments {
                    let noted: std::result::Result<_, ()> = literal.node.clone().into_const_with(|name| {
                        used.insert(name);
                        Ok(Value::Null)
                    });
                    drop(noted);
                }
                note_variables(&field.node.selection_set.node, used);
            }
            Selection::InlineFragment(fragment) => note_variables(&fragment.node.selection_set.node, used),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn as_document(ty: OperationType, selection: SelectionSet) -> ExecutableDocument {
    let at = async_graphql::Pos::default();
    let operation = OperationDefinition {
        ty,
        variable_definitions: Vec::new(),
        directives: Vec::new(),
        selection_set: Positioned::new(selection, at),
    };
    let operations = DocumentOperations::Single(Positioned::new(operation, at));
    ExecutableDocument { operations, fragments: HashMap::new() }
}

#[cfg(test)]
mod tests;
