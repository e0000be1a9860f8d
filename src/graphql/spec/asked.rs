//! What a client's document asks for, in plain words: for tests that hold clients to the schema.

use async_graphql::parser::types::{BaseType, Type};

use super::select::Chosen;
use super::types::{Given, Types, named};
use super::values::Scope;
use super::{Api, parse};
use crate::base::walk::Walks;
use crate::graphql::schema;

/// An operation that the schema takes.
pub(crate) struct Asked {
    /// Its name.
    pub(crate) name: String,
    /// Its variables.
    pub(crate) variables: Vec<Variable>,
    /// What it answers.
    pub(crate) answer: Shape,
}

/// A variable, as it is declared.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Its type, as it is written.
    pub(crate) ty: String,
    /// Whether it takes the fields of an input object.
    pub(crate) is_object: bool,
}

/// What a part of an answer is like.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A scalar of this name.
    Scalar(String),
    /// An enum, with its first value.
    Enum(String),
    /// A list of these.
    List(Box<Self>),
    /// An object, by its response keys.
    Object(Vec<(String, Self)>),
}

/// The names of the operations of a document.
///
/// # Panics
/// For what is no document.
pub(crate) fn operations(document: &str) -> Vec<String> {
    let document = parse(document).expect("a document");
    document.operations.iter().filter_map(|(name, _)| name).map(ToString::to_string).collect()
}

/// The API to ask, over no services.
///
/// # Panics
/// For a schema that can't be read, which is tested elsewhere.
pub(crate) fn api() -> Api {
    Api::new(schema::empty(), &schema::sdl(), Walks::default()).expect("our own schema")
}

/// What a document of one operation asks for; whatever its directives say, all of it.
///
/// # Errors
/// What the schema refuses of it.
pub(crate) async fn asked(api: &Api, document: &str) -> Result<Asked, String> {
    let read = api.read(document).await;
    let document =
        read.map_err(|errors| errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "))?;
    let mut operations = document.operations.iter();
    let (Some((name, operation)), None) = (operations.next(), operations.next()) else {
        return Err("expected one operation".into());
    };
    let operation = &operation.node;
    let definitions = &operation.variable_definitions;
    let scope = Scope { definitions, values: None };
    let chosen = api.choose(&document, operation, scope).map_err(|error| error.message)?.0;
    let variables = definitions.iter().map(|definition| {
        let ty = &definition.node.var_type.node;
        let is_object = matches!(api.types.given(named(ty)), Some(Given::Object(_)));
        Variable { name: definition.node.name.node.to_string(), ty: ty.to_string(), is_object }
    });
    Ok(Asked {
        name: name.map(ToString::to_string).unwrap_or_default(),
        variables: variables.collect(),
        answer: object(&api.types, &chosen),
    })
}

fn object(types: &Types, chosen: &[Chosen]) -> Shape {
    Shape::Object(
        chosen.iter().map(|field| (field.key.to_string(), shape(types, &field.ty, field))).collect(),
    )
}

fn shape(types: &Types, ty: &Type, field: &Chosen) -> Shape {
    match &ty.base {
        BaseType::List(inner) => Shape::List(Box::new(shape(types, inner, field))),
        BaseType::Named(_) if field.is_object => object(types, &field.inner),
        BaseType::Named(name) => match types.given(name) {
            Some(Given::Enum(values)) => {
                Shape::Enum(values.iter().min().map(ToString::to_string).unwrap_or_default())
            }
            _ => Shape::Scalar(name.to_string()),
        },
    }
}
