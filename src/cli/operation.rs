//! The GraphQL operations of the commands. Each is a constant that says where its document is, what it takes and what
//! it answers.
//!
//! The documents are the files in `operations`, one for each group of commands. Each command declares the constants of
//! its operations. The table in this module's tests lists all operations, and checks each against the schema.

use std::marker::PhantomData;

use serde::Serialize;
use serde_json::Value;

/// An operation with the variables `V`; one field of its answer is read into `T`.
///
/// The fields of `V` are the variables' names. Variables that are null are not sent, because leaving an argument out
/// and passing null may mean two things.
pub(crate) struct Operation<V, T> {
    file: &'static str,
    name: &'static str,
    field: &'static str,
    types: PhantomData<fn() -> (V, T)>,
}

impl<V, T> Operation<V, T> {
    /// The operation with this name in the text of a file; `field` is the field of the schema that it asks for.
    pub(crate) const fn new(file: &'static str, name: &'static str, field: &'static str) -> Self {
        Self { file, name, field, types: PhantomData }
    }

    /// The field of the schema that the operation asks for, which is also the key of the answer.
    pub(crate) fn field(&self) -> &'static str {
        self.field
    }

    /// The document to send: the operation and the fragments it spreads. The rest of the file is not sent, because a
    /// server of another version refuses a whole document for one field that it does not know.
    pub(crate) fn document(&self) -> String {
        let (mut names, mut document) = (vec![self.name], String::new());
        let mut done = 0;
        while let Some(name) = names.get(done).copied() {
            done += 1;
            for (_, text) in definitions(self.file).filter(|(known, _)| *known == name) {
                document.push_str(text);
                document.push('\n');
                let more: Vec<_> = spreads(text).filter(|name| !names.contains(name)).collect();
                names.extend(more);
            }
        }
        document
    }
}

/// The names and texts of a file's operations and fragments. Blank lines separate them.
fn definitions(file: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    file.split("\n\n").filter_map(|text| {
        let first = text.lines().find(|line| !line.starts_with('#'))?;
        let name = first.split([' ', '(', '{']).nth(1)?;
        Some((name, text.trim()))
    })
}

/// The fragments that a definition spreads.
fn spreads(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split("...").skip(1).filter_map(|rest| rest.split_whitespace().next())
}

/// The variables of an operation on one thing.
#[derive(Default, Serialize)]
pub(crate) struct One<'a> {
    /// The thing's id, name or address.
    pub(crate) id: &'a str,
}

/// The variables of an operation that changes a thing.
#[derive(Default, Serialize)]
pub(crate) struct Set<'a> {
    /// The thing's id, name or address.
    pub(crate) id: &'a str,
    /// The properties to set.
    pub(crate) props: Value,
}

#[cfg(test)]
mod tests;
