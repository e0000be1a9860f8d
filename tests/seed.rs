//! Every operation that is valid against the seed's schema is valid against ours; proved on the two schemas.
//!
//! A query is a tree of fields with arguments and variables. It stays valid if, for every type it can reach: each field
//! is still there with the same type, each argument still takes every value it took, and no argument became required.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use async_graphql_parser::parse_schema;
use async_graphql_parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, ObjectType, SchemaDefinition, Type, TypeKind,
    TypeSystemDefinition,
};

struct Schema {
    kinds: HashMap<String, TypeKind>,
    query: String,
    mutation: String,
}

impl Schema {
    fn read(path: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document = parse_schema(text).map_err(|e| e.to_string())?;
        let mut schema =
            Self { kinds: HashMap::new(), query: "Query".to_owned(), mutation: "Mutation".to_owned() };
        for definition in document.definitions {
            match definition {
                TypeSystemDefinition::Type(kind) => {
                    schema.kinds.insert(kind.node.name.node.to_string(), kind.node.kind);
                }
                TypeSystemDefinition::Schema(roots) => schema.name_roots(&roots.node),
                TypeSystemDefinition::Directive(_) => {}
            }
        }
        Ok(schema)
    }

    fn name_roots(&mut self, roots: &SchemaDefinition) {
        if let Some(query) = &roots.query {
            self.query = query.node.to_string();
        }
        if let Some(mutation) = &roots.mutation {
            self.mutation = mutation.node.to_string();
        }
    }

    fn object(&self, name: &str) -> Option<&ObjectType> {
        match self.kinds.get(name) {
            Some(TypeKind::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// Returns our name for a type of the seed's: the root types may have other names.
    fn name_of<'a>(&'a self, seed: &Self, name: &'a str) -> &'a str {
        if name == seed.query {
            &self.query
        } else if name == seed.mutation {
            &self.mutation
        } else {
            name
        }
    }
}

/// Returns why operations valid on `seed` would not be valid on `ours`.
fn faults(seed: &Schema, ours: &Schema) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, kind) in &seed.kinds {
        let here = ours.name_of(seed, name);
        match kind {
            TypeKind::Object(theirs) => match ours.object(here) {
                Some(object) => compare(name, theirs, object, &mut faults),
                None => faults.push(format!("type {name} is missing")),
            },
            TypeKind::Scalar => {
                if !matches!(ours.kinds.get(here), Some(TypeKind::Scalar)) {
                    faults.push(format!("scalar {name} is missing"));
                }
            }
            _ => faults.push(format!("{name}: the seed has only objects and scalars")),
        }
    }
    faults.sort();
    faults
}

fn compare(name: &str, seed: &ObjectType, ours: &ObjectType, faults: &mut Vec<String>) {
    for field in &seed.fields {
        let field = &field.node;
        let Some(here) = ours.fields.iter().map(|f| &f.node).find(|f| f.name.node == field.name.node) else {
            faults.push(format!("{name}.{} is missing", field.name.node));
            continue;
        };
        // The types must be identical: even a stricter one could break a fragment merged with another field.
        if here.ty.node != field.ty.node {
            let (ours, seed) = (&here.ty.node, &field.ty.node);
            faults.push(format!("{name}.{} is {ours}, not {seed}", field.name.node));
        }
        compare_arguments(&format!("{name}.{}", field.name.node), field, here, faults);
    }
}

fn compare_arguments(name: &str, seed: &FieldDefinition, ours: &FieldDefinition, faults: &mut Vec<String>) {
    let find = |field: &FieldDefinition, wanted: &InputValueDefinition| {
        field.arguments.iter().map(|a| &a.node).find(|a| a.name.node == wanted.name.node).cloned()
    };
    for argument in seed.arguments.iter().map(|a| &a.node) {
        match find(ours, argument) {
            None => faults.push(format!("{name}({}) is missing", argument.name.node)),
            Some(here) if !takes(&here.ty.node, &argument.ty.node) => {
                let (argument, ours, seed) = (&argument.name.node, &here.ty.node, &argument.ty.node);
                faults.push(format!("{name}({argument}: {ours}) does not take every {seed}"));
            }
            Some(_) => {}
        }
    }
    for argument in ours.arguments.iter().map(|a| &a.node) {
        let required = !argument.ty.node.nullable && argument.default_value.is_none();
        if required && find(seed, argument).is_none() {
            faults.push(format!("{name}({}) is newly required", argument.name.node));
        }
    }
}

/// Whether an argument of type `wide` takes every variable and literal of type `narrow`.
fn takes(wide: &Type, narrow: &Type) -> bool {
    if narrow.nullable && !wide.nullable {
        return false;
    }
    match (&wide.base, &narrow.base) {
        (BaseType::Named(wide), BaseType::Named(narrow)) => wide == narrow,
        (BaseType::List(wide), BaseType::List(narrow)) => takes(wide, narrow),
        _ => false,
    }
}

#[test]
fn every_operation_of_the_seed_is_valid_here() {
    let faults = faults(&Schema::read("tests/seed.graphql"), &Schema::read("src/graphql/schema.graphql"));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_checked_in_schema_is_the_one_served() {
    let printed = Command::new(env!("CARGO_BIN_EXE_wharf")).arg("schema").output().expect("wharf runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/graphql/schema.graphql");
    let kept = std::fs::read_to_string(path).expect("src/graphql/schema.graphql");
    assert_eq!(
        String::from_utf8_lossy(&printed.stdout).trim(),
        kept.trim(),
        "renew it with: cargo run -- schema > src/graphql/schema.graphql"
    );
}

#[test]
fn the_comparison_finds_what_would_break_an_operation() {
    let seed = Schema::parse("type Query { a(x: String!, y: Int): [Int] b: String }").unwrap();
    let check = |ours: &str| faults(&seed, &Schema::parse(ours).unwrap());
    let wider =
        "schema { query: Root } type Root { a(x: String, y: Int, z: Int! = 1): [Int] b: String c: Int }";
    assert_eq!(check(wider), [""; 0]);
    assert_eq!(
        check("type Query { a(x: String!, z: Int!): [Int!] }"),
        [
            "Query.a is [Int!], not [Int]",
            "Query.a(y) is missing",
            "Query.a(z) is newly required",
            "Query.b is missing"
        ]
    );
    assert_eq!(
        check("type Query { a(x: ID!, y: Int!): [Int] b: String }"),
        ["Query.a(x: ID!) does not take every String!", "Query.a(y: Int!) does not take every Int"]
    );
}
