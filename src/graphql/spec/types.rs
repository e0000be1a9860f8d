//! The schema's types as far as requests are checked against them. They are read from the schema's own text, so they
//! are what clients see.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, InputValueDefinition, OperationType, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql::{Name, Positioned, Value};

use crate::base::{Error, Result};

/// The types that every schema has (October 2021, 4.2) and that are not in its text.
const INTROSPECTION: &str = "
type __Schema { description: String types: [__Type!]! queryType: __Type! mutationType: __Type subscriptionType: __Type
  directives: [__Directive!]! }
type __Type { kind: __TypeKind! name: String description: String fields(includeDeprecated: Boolean = false): [__Field!]
  interfaces: [__Type!] possibleTypes: [__Type!] enumValues(includeDeprecated: Boolean = false): [__EnumValue!]
  inputFields(includeDeprecated: Boolean = false): [__InputValue!] ofType: __Type specifiedByURL: String
  isOneOf: Boolean }
type __Field { name: String! description: String args(includeDeprecated: Boolean = false): [__InputValue!]! type: __Type!
  isDeprecated: Boolean! deprecationReason: String }
type __InputValue { name: String! description: String type: __Type! defaultValue: String isDeprecated: Boolean!
  deprecationReason: String }
type __EnumValue { name: String! description: String isDeprecated: Boolean! deprecationReason: String }
type __Directive { name: String! description: String locations: [__DirectiveLocation!]!
  args(includeDeprecated: Boolean = false): [__InputValue!]! isRepeatable: Boolean! }
enum __TypeKind { SCALAR OBJECT INTERFACE UNION ENUM INPUT_OBJECT LIST NON_NULL }
enum __DirectiveLocation { QUERY }
type __Meta { __schema: __Schema! __type(name: String!): __Type }
";
/// The type that holds a query's own introspection fields.
const META: &str = "__Meta";
/// The scalars that every schema has (3.5).
const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];

/// The types of a schema. It has neither interfaces nor unions, so every fragment that passes validation applies.
pub(crate) struct Types {
    objects: HashMap<Name, HashMap<Name, Output>>,
    inputs: HashMap<Name, HashMap<Name, Input>>,
    enums: HashMap<Name, HashSet<Name>>,
    scalars: HashSet<Name>,
}

/// A field that can be selected.
pub(crate) struct Output {
    /// The type of its value.
    pub(crate) ty: Type,
    /// Its arguments.
    pub(crate) arguments: HashMap<Name, Input>,
}

/// An argument, or a field of an input object.
pub(crate) struct Input {
    /// The type of its value.
    pub(crate) ty: Type,
    /// The value if none is given.
    pub(crate) default: Option<Value>,
}

impl Input {
    fn new(definition: Positioned<InputValueDefinition>) -> (Name, Self) {
        let definition = definition.node;
        let default = definition.default_value.map(|value| value.node);
        (definition.name.node, Self { ty: definition.ty.node, default })
    }

    /// Whether a value must be given.
    pub(crate) fn is_required(&self) -> bool {
        !self.ty.nullable && self.default.is_none()
    }
}

/// The values that a type accepts, one level deep.
pub(crate) enum Given<'t> {
    /// The values of a scalar of this name.
    Scalar(&'t Name),
    /// One of these names.
    Enum(&'t HashSet<Name>),
    /// An object with these fields.
    Object(&'t HashMap<Name, Input>),
}

impl Types {
    /// Reads a schema's text.
    ///
    /// # Errors
    /// [`Error::Internal`] for a text that is no schema.
    pub(crate) fn read(sdl: &str) -> Result<Self> {
        let mut types = Self {
            objects: HashMap::new(),
            inputs: HashMap::new(),
            enums: HashMap::new(),
            scalars: HashSet::new(),
        };
        types.scalars.extend(BUILT_IN.map(Name::new));
        for text in [sdl, INTROSPECTION] {
            for definition in parse_schema(text).map_err(Error::internal)?.definitions {
                if let TypeSystemDefinition::Type(definition) = definition {
                    types.add(definition.node.name.node, definition.node.kind);
                }
            }
        }
        let meta = types.objects.remove(META).unwrap_or_default();
        types.objects.entry(Self::root(OperationType::Query)).or_default().extend(meta);
        Ok(types)
    }

    fn add(&mut self, name: Name, kind: TypeKind) {
        match kind {
            TypeKind::Object(object) => {
                let field = |field: Positioned<async_graphql::parser::types::FieldDefinition>| {
                    let field = field.node;
                    let arguments = field.arguments.into_iter().map(Input::new).collect();
                    (field.name.node, Output { ty: field.ty.node, arguments })
                };
                self.objects.insert(name, object.fields.into_iter().map(field).collect());
            }
            TypeKind::InputObject(object) => {
                self.inputs.insert(name, object.fields.into_iter().map(Input::new).collect());
            }
            TypeKind::Enum(values) => {
                let values = values.values.into_iter().map(|value| value.node.value.node);
                self.enums.insert(name, values.collect());
            }
            TypeKind::Scalar => {
                self.scalars.insert(name);
            }
            TypeKind::Interface(_) | TypeKind::Union(_) => {}
        }
    }

    /// Returns the type that operations of this kind start from.
    pub(crate) fn root(kind: OperationType) -> Name {
        Name::new(match kind {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        })
    }

    /// Returns a field of an object.
    pub(crate) fn field(&self, object: &Name, field: &Name) -> Option<&Output> {
        self.objects.get(object)?.get(field)
    }

    /// Whether the type of this name has fields.
    pub(crate) fn is_object(&self, name: &Name) -> bool {
        self.objects.contains_key(name)
    }

    /// Returns the values that the type of this name accepts; `None` for an unknown type and for one that is no input
    /// type.
    pub(crate) fn given(&self, name: &Name) -> Option<Given<'_>> {
        if let Some(name) = self.scalars.get(name) {
            return Some(Given::Scalar(name));
        }
        let values = self.enums.get(name).map(Given::Enum);
        values.or_else(|| self.inputs.get(name).map(Given::Object))
    }
}

/// Returns the name at the bottom of a type.
pub(crate) fn named(ty: &Type) -> &Name {
    let mut base = &ty.base;
    loop {
        match base {
            BaseType::Named(name) => return name,
            BaseType::List(inner) => base = &inner.base,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::Name;
    use async_graphql::parser::types::OperationType;

    use super::{Given, Types, named};
    use crate::graphql::schema;

    #[test]
    fn the_types_are_those_of_the_schema_itself() {
        let types = Types::read(&schema::sdl()).unwrap();
        let (query, name) = (Types::root(OperationType::Query), Name::new);
        let image = types.field(&query, &name("image")).unwrap();
        assert_eq!((named(&image.ty).as_str(), image.ty.nullable), ("Image", true));
        assert!(image.arguments.values().all(|argument| !argument.is_required()));
        assert!(types.field(&query, &name("__type")).unwrap().arguments[&name("name")].is_required());
        assert!(types.is_object(&name("Image")) && !types.is_object(&name("BigInt")));
        assert!(matches!(types.given(&name("ImageStatus")), Some(Given::Enum(values)) if values.len() == 2));
        assert!(matches!(types.given(&name("UserInput")), Some(Given::Object(_))));
        assert!(types.given(&name("Image")).is_none());
        // Fragments are expanded without a check of the type they apply to.
        assert!(!schema::sdl().contains("\ninterface ") && !schema::sdl().contains("\nunion "));
    }
}
