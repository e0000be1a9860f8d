//! Checks every operation against the schema: its document, its variables, and the fields of its answer.
//!
//! A field that a command reads but its operation does not ask for is an error, even if the field is optional; so is a
//! field that is asked for but never read. serde tells the deserializer of an answer which fields a type reads; the
//! tests use [`Reader`] for that.

use std::cell::RefCell;
use std::path::Path;
use std::{fs, iter};

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::Value;

use super::{Operation, definitions};
use crate::cli::demo::stage;
use crate::cli::doctor::{aliases, server};
use crate::cli::{
    agent, audit, bars, changes, domain, group, image, join, keypair, presence, registry, retention, room,
    rule, scaling_group, task, task_detail, token, transfer, user, why,
};
use crate::graphql::spec::asked::{self, Shape, Variable};

/// All operations of the commands.
fn all() -> Vec<&'static dyn Listed> {
    vec![
        &agent::LIST,
        &agent::SHOW,
        &agent::SET,
        &agent::MODIFY,
        &join::LIST,
        &join::CREATE,
        &join::REVOKE,
        &join::REMOVE,
        &audit::LOG,
        &domain::LIST,
        &domain::SHOW,
        &domain::CREATE,
        &domain::MODIFY,
        &domain::DELETE,
        &domain::PURGE,
        &group::LIST,
        &group::CREATE,
        &group::MODIFY,
        &group::DELETE,
        &group::PURGE,
        &image::LIST,
        &image::SHOW,
        &image::RESCAN,
        &image::SCAN,
        &image::FORGET,
        &image::ALIAS,
        &image::DEALIAS,
        &changes::CHANGES,
        &presence::PRESENCE,
        &why::WHY,
        &keypair::LIST,
        &keypair::CREATE,
        &keypair::MODIFY,
        &keypair::ROTATE,
        &keypair::DELETE,
        &registry::LIST,
        &registry::CREATE,
        &registry::MODIFY,
        &registry::DELETE,
        &registry::TEST,
        &retention::LIST,
        &retention::SHOW,
        &retention::PLAN,
        &retention::PREVIEW,
        &retention::CREATE,
        &retention::MODIFY,
        &retention::DELETE,
        &room::AGENT_IMAGES,
        &room::UNKNOWN,
        &room::PINS,
        &room::PIN,
        &room::UNPIN,
        &rule::LIST,
        &rule::SHOW,
        &rule::PREVIEW,
        &rule::CREATE,
        &rule::MODIFY,
        &rule::DELETE,
        &scaling_group::LIST,
        &scaling_group::CREATE,
        &scaling_group::MODIFY,
        &scaling_group::DELETE,
        &scaling_group::ALLOW_DOMAIN,
        &scaling_group::ALLOW_GROUP,
        &scaling_group::ALLOW_KEYPAIR,
        &scaling_group::DISALLOW_DOMAIN,
        &scaling_group::DISALLOW_GROUP,
        &scaling_group::DISALLOW_KEYPAIR,
        &task::LIST,
        &task_detail::SHOW,
        &task_detail::ITEMS,
        &task::CANCEL,
        &bars::LOOK,
        &token::LIST,
        &token::CREATE,
        &token::REVOKE,
        &transfer::PLAN,
        &transfer::PRELOAD,
        &transfer::PRELOAD_MAKING_ROOM,
        &transfer::UNLOAD_PLAN,
        &transfer::UNLOAD,
        &user::LIST,
        &user::SHOW,
        &user::CREATE,
        &user::MODIFY,
        &user::DELETE,
        &user::PURGE,
        &aliases::ALIASED,
        &server::CALLER,
        &server::HEALTH,
        &stage::TASK,
        &stage::AGENT,
        &stage::SCALING_GROUP,
        &stage::DOMAIN,
        &stage::GROUP,
        &stage::USER,
    ]
}

/// An operation with any types.
trait Listed {
    fn name(&self) -> &'static str;
    fn field(&self) -> &'static str;
    fn document(&self) -> String;
    /// The operation's variables, with the values that they have when no flag is given.
    fn variables(&self) -> Value;
    fn read(&self, answer: Reader<'_>) -> Result<(), Error>;
}

impl<V: Default + Serialize, T: DeserializeOwned> Listed for Operation<V, T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn field(&self) -> &'static str {
        self.field
    }

    fn document(&self) -> String {
        Operation::document(self)
    }

    fn variables(&self) -> Value {
        serde_json::to_value(V::default()).unwrap()
    }

    fn read(&self, answer: Reader<'_>) -> Result<(), Error> {
        T::deserialize(answer).map(drop)
    }
}

/// The texts of the files below a folder whose names have this ending.
fn files(folder: &Path, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}

#[test]
fn every_operation_of_the_files_has_its_constant_in_the_table() {
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    let documents = files(&commands, "graphql");
    let mut written: Vec<_> = documents.iter().flat_map(|text| asked::operations(text)).collect();
    let mut listed: Vec<_> = all().iter().map(|operation| operation.name()).collect();
    written.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, written);

    let sent: String = all().iter().map(|operation| operation.document()).collect();
    for text in documents {
        for (name, text) in definitions(text.leak()) {
            assert!(sent.contains(text), "nothing spreads {name}");
        }
    }
    // If two constants had the same document, the table could miss one of them; counting the constants finds that.
    let without_tests = |text: &str| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let sources = files(&commands, "rs");
    let constants = sources.iter().map(|text| without_tests(text).matches(" Operation::new(").count());
    assert_eq!(constants.sum::<usize>(), listed.len());
}

#[tokio::test]
async fn every_operation_is_of_the_schema_and_all_that_it_asks_for_is_read() {
    let (api, mut faults) = (asked::api(), Vec::new());
    for operation in all() {
        let (name, document) = (operation.name(), operation.document());
        let asked = match asked::asked(&api, &document).await {
            Ok(asked) => asked,
            Err(why) => {
                faults.push(format!("{name}: {why}"));
                continue;
            }
        };
        assert_eq!(asked.name, name);
        let given = operation.variables();
        let empty = serde_json::Map::new();
        let given = given.as_object().unwrap_or(&empty);
        for variable in &asked.variables {
            match given.get(&variable.name) {
                None => faults.push(format!("{name}: ${} is never given", variable.name)),
                Some(value) if !is_of(variable, value) => {
                    faults.push(format!("{name}: ${} is a {}, not {value}", variable.name, variable.ty));
                }
                Some(_) => {}
            }
        }
        let declared = |given: &&String| asked.variables.iter().any(|variable| variable.name == **given);
        faults.extend(
            given
                .keys()
                .filter(|given| !declared(given))
                .map(|given| format!("{name}: no variable ${given}")),
        );
        match &asked.answer {
            Shape::Object(fields) if fields.len() == 1 && fields[0].0 == operation.field() => {
                faults.extend(faults_of(operation, name, &fields[0].1));
            }
            _ => faults.push(format!("{name}: it asks not for {} alone", operation.field())),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a variable's value, when no flag is given, fits its type. A null is not sent, so it fits an optional
/// variable; it also fits an input object, which is always given.
fn is_of(variable: &Variable, value: &Value) -> bool {
    let named = variable.ty.trim_end_matches('!');
    match value {
        Value::Null => variable.is_object || named == variable.ty,
        Value::Bool(_) => named == "Boolean",
        Value::Number(_) => matches!(named, "Int" | "BigInt"),
        Value::String(_) => matches!(named, "String" | "UUID"),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn faults_of(operation: &dyn Listed, name: &str, shape: &Shape) -> Vec<String> {
    let faults = RefCell::default();
    let read = operation.read(Reader { shape, at: name.into(), faults: &faults });
    let mut faults = faults.into_inner();
    faults.extend(read.err().map(|why| format!("{name}: {why}")));
    faults
}

/// Deserializes an answer of some shape, and notes fields that are asked for but not read, or read but not asked for.
struct Reader<'a> {
    shape: &'a Shape,
    at: String,
    faults: &'a RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn inner(&self, shape: &'a Shape, name: &str) -> Self {
        Self { shape, at: format!("{}{name}", self.at), faults: self.faults }
    }

    fn fault(&self, name: &str, what: &str) {
        self.faults.borrow_mut().push(format!("{}.{name}: {what}", self.at));
    }
}

impl<'de, 's> Deserializer<'de> for Reader<'s> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.shape {
            Shape::Enum(value) => visitor.visit_str(value),
            Shape::Scalar(name) => match name.as_str() {
                "Int" | "BigInt" => visitor.visit_u64(1),
                "Float" => visitor.visit_f64(1.0),
                "Boolean" => visitor.visit_bool(true),
                // Any other scalar is read as a text; an id will do.
                _ => visitor.visit_str("6b1f27e4-0c0d-4d0e-9f35-6d5f77686172"),
            },
            Shape::List(inner) => {
                visitor.visit_seq(SeqDeserializer::new(iter::once(self.inner(inner, "[]"))))
            }
            Shape::Object(fields) => {
                let inner = |(name, shape): &'s (String, Shape)| {
                    (name.as_str(), self.inner(shape, &format!(".{name}")))
                };
                visitor.visit_map(MapDeserializer::new(fields.iter().map(inner)))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        read: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Shape::Object(asked) = self.shape {
            for name in read.iter().filter(|read| !asked.iter().any(|(asked, _)| asked == *read)) {
                self.fault(name, "it is read, and not asked for");
            }
            for (name, _) in asked.iter().filter(|(asked, _)| !read.contains(&asked.as_str())) {
                self.fault(name, "it is asked for, and not read");
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.fault("*", "a map, and #[serde(flatten)], hides which fields are read");
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.shape {
            Shape::Enum(value) => visitor.visit_enum(value.as_str().into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

impl IntoDeserializer<'_, Error> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[tokio::test]
async fn what_is_read_and_not_asked_for_is_found_and_the_reverse() {
    #[derive(Deserialize)]
    struct Agent {
        #[expect(dead_code, reason = "it is read by its name only")]
        id: Option<String>,
        #[serde(default)]
        #[expect(dead_code, reason = "it is read by its name only")]
        labels: Vec<Label>,
    }
    #[derive(Deserialize)]
    struct Label {
        #[expect(dead_code, reason = "it is read by its name only")]
        key: String,
    }
    let api = asked::api();
    let faults = async |document: &str| {
        let asked = asked::asked(&api, document).await.unwrap();
        let Shape::Object(fields) = asked.answer else { panic!("an object") };
        faults_of(&Operation::<(), Vec<Option<Agent>>>::new("", "", "agents"), "A", &fields[0].1)
    };
    assert_eq!(faults("query A { agents { id labels { key } } }").await, [""; 0]);
    assert_eq!(faults("query A { agents { id } }").await, ["A[].labels: it is read, and not asked for"]);
    assert_eq!(
        faults("query A { agents { id os labels { key value } } }").await,
        ["A[].os: it is asked for, and not read", "A[].labels[].value: it is asked for, and not read"]
    );
}

#[test]
fn an_operation_is_sent_with_its_fragments_and_nothing_else() {
    const FILE: &str = "query A($id: ID) {\n  a(id: $id) { ...F }\n}\n\nquery B { b }\n\n# Why.\n\
                        fragment F on T { x ...G }\n\nfragment G on T {\n  y\n}\n\nfragment H on T { z }\n";
    let sent = Operation::<(), ()>::new(FILE, "A", "a").document();
    assert_eq!(
        sent,
        "query A($id: ID) {\n  a(id: $id) { ...F }\n}\n# Why.\nfragment F on T { x ...G }\nfragment G on T {\n  y\n}\n"
    );
    assert_eq!(Operation::<(), ()>::new(FILE, "B", "b").document(), "query B { b }\n");
}
