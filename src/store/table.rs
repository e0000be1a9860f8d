//! Typed tables over redb, and the transactions that reach them.

use std::marker::PhantomData;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use crate::base::{Error, Result};
use crate::store::{fault, storage_fault};

/// A table of records of type `V`, keyed by bytes. Name tables `KEY_TO_VALUE`.
pub struct Table<V> {
    name: &'static str,
    record: PhantomData<fn() -> V>,
}

impl<V> Table<V> {
    /// Declares the table; it comes to be with its first write.
    pub const fn new(name: &'static str) -> Self {
        Self { name, record: PhantomData }
    }

    fn definition(&self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

/// The key of a record that two texts name together. Keys with the same first text stand together.
pub fn pair(first: &str, second: &str) -> Vec<u8> {
    let mut key = prefix(first);
    key.extend_from_slice(second.as_bytes());
    key
}

/// What every [`pair`] with this first text begins with.
pub fn prefix(first: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + 1);
    key.extend_from_slice(first.as_bytes());
    key.push(0);
    key
}

fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V> {
    rmp_serde::from_slice(bytes).map_err(Error::internal)
}

/// A consistent view of the whole database.
pub struct Reader {
    transaction: ReadTransaction,
}

impl Reader {
    pub(in crate::store) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction }
    }

    /// The record under this key.
    pub fn find<V: DeserializeOwned>(&self, table: &Table<V>, key: impl AsRef<[u8]>) -> Result<Option<V>> {
        let table = match self.transaction.open_table(table.definition()) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(fault(error.into())),
        };
        let found = table.get(key.as_ref()).map_err(storage_fault)?;
        found.map(|value| decode(value.value())).transpose()
    }

    /// Calls `each` with every record whose key starts with `prefix`, in the order of the keys.
    pub fn scan<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        prefix: impl AsRef<[u8]>,
        mut each: impl FnMut(&[u8], V) -> Result<()>,
    ) -> Result<()> {
        let table = match self.transaction.open_table(table.definition()) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(fault(error.into())),
        };
        for entry in table.range(prefix.as_ref()..).map_err(storage_fault)? {
            let (key, value) = entry.map_err(storage_fault)?;
            if !key.value().starts_with(prefix.as_ref()) {
                break;
            }
            each(key.value(), decode(value.value())?)?;
        }
        Ok(())
    }
}

type AfterCommit = Box<dyn FnOnce() + Send>;

/// One write transaction: all of it, or nothing.
pub struct Writer {
    transaction: WriteTransaction,
    after: Vec<AfterCommit>,
}

impl Writer {
    pub(in crate::store) fn new(transaction: WriteTransaction) -> Self {
        Self { transaction, after: Vec::new() }
    }

    pub(in crate::store) fn into_parts(self) -> (WriteTransaction, Vec<AfterCommit>) {
        (self.transaction, self.after)
    }

    /// Has `apply` run once the transaction is durable, before any later write begins. This is how what is kept in
    /// memory follows the file: in the same order, and never ahead of it.
    pub fn on_commit(&mut self, apply: impl FnOnce() + Send + 'static) {
        self.after.push(Box::new(apply));
    }

    /// The record under this key, as this transaction sees it.
    pub fn find<V: DeserializeOwned>(&self, table: &Table<V>, key: impl AsRef<[u8]>) -> Result<Option<V>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let found = table.get(key.as_ref()).map_err(storage_fault)?;
        found.map(|value| decode(value.value())).transpose()
    }

    /// The keys that start with `prefix`, in order.
    pub fn keys<V>(&self, table: &Table<V>, prefix: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let mut keys = Vec::new();
        for entry in table.range(prefix.as_ref()..).map_err(storage_fault)? {
            let (key, _) = entry.map_err(storage_fault)?;
            if !key.value().starts_with(prefix.as_ref()) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        Ok(keys)
    }

    /// Writes the record under this key, in the place of any that was there.
    pub fn put<V: Serialize>(&mut self, table: &Table<V>, key: impl AsRef<[u8]>, record: &V) -> Result<()> {
        let bytes = rmp_serde::to_vec_named(record).map_err(Error::internal)?;
        let mut table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        table.insert(key.as_ref(), bytes.as_slice()).map_err(storage_fault)?;
        Ok(())
    }

    /// Takes the record under this key away; whether there was one.
    pub fn remove<V>(&mut self, table: &Table<V>, key: impl AsRef<[u8]>) -> Result<bool> {
        let mut table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let removed = table.remove(key.as_ref()).map_err(storage_fault)?;
        Ok(removed.is_some())
    }
}
