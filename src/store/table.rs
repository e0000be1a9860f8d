//! Typed tables over redb, and the transactions that reach them.

use std::marker::PhantomData;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use parking_lot::Mutex;
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata as _, TableDefinition,
    TableError, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::base::{Error, Result};
use crate::store::guard::caught;
use crate::store::{fault, storage_fault};

/// A table of records of type `V`, keyed by bytes. Name tables `KEY_TO_VALUE`.
pub struct Table<V> {
    name: &'static str,
    record: PhantomData<fn() -> V>,
}

impl<V> Table<V> {
    /// Declares the table; its first write creates it.
    pub const fn new(name: &'static str) -> Self {
        Self { name, record: PhantomData }
    }

    pub(in crate::store) fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

/// The key of a record that two texts name together. Keys with the same first text are neighbours.
pub(crate) fn pair(first: &str, second: &str) -> Vec<u8> {
    let mut key = prefix(first);
    key.extend_from_slice(second.as_bytes());
    key
}

/// The prefix of every [`pair`] with this first text.
pub(crate) fn prefix(first: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + 1);
    key.extend_from_slice(first.as_bytes());
    key.push(0);
    key
}

fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V> {
    rmp_serde::from_slice(bytes).map_err(Error::internal)
}

/// A key and its record.
type Entry<'t> = (AccessGuard<'t, &'static [u8]>, AccessGuard<'t, &'static [u8]>);

/// The entries whose keys start with `prefix`, in order, from the key `from` on.
fn entries<'t>(
    table: &'t impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    from: &[u8],
) -> Result<impl Iterator<Item = Result<Entry<'t>>>> {
    let range = table.range(from..).map_err(storage_fault)?;
    let is_meant = move |entry: &Result<Entry<'_>>| match entry {
        Ok((key, _)) => key.value().starts_with(prefix),
        Err(_) => true,
    };
    Ok(range.map(|entry| entry.map_err(storage_fault)).take_while(is_meant))
}

/// Calls `each` with every key that starts with `prefix`, in order, and the bytes of its record.
fn walk(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    for entry in entries(table, prefix, prefix)? {
        let (key, value) = entry?;
        each(key.value(), value.value())?;
    }
    Ok(())
}

/// A consistent view of the whole database.
pub struct Reader {
    transaction: ReadTransaction,
}

impl Reader {
    pub(in crate::store) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction }
    }

    pub(in crate::store) fn transaction(&self) -> &ReadTransaction {
        &self.transaction
    }

    /// The table, or `None` if nothing was ever written to it.
    fn open<V>(&self, table: &Table<V>) -> Result<Option<ReadOnlyTable<&'static [u8], &'static [u8]>>> {
        match self.transaction.open_table(table.definition()) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(fault(error.into())),
        }
    }

    /// The record under this key.
    pub fn find<V: DeserializeOwned>(&self, table: &Table<V>, key: impl AsRef<[u8]>) -> Result<Option<V>> {
        let Some(table) = self.open(table)? else { return Ok(None) };
        let found = table.get(key.as_ref()).map_err(storage_fault)?;
        found.map(|value| decode(value.value())).transpose()
    }

    /// Calls `each` with every record whose key starts with `prefix`, in the order of the keys.
    pub(crate) fn scan<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        prefix: impl AsRef<[u8]>,
        mut each: impl FnMut(&[u8], V) -> Result<()>,
    ) -> Result<()> {
        let Some(table) = self.open(table)? else { return Ok(()) };
        walk(&table, prefix.as_ref(), |key, value| each(key, decode(value)?))
    }

    /// Calls `each` with at most `take` of the records whose keys start with `prefix`, in the order of the keys, from
    /// the key `from` on. The first `skip` are passed over without being decoded.
    pub(crate) fn page<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        prefix: impl AsRef<[u8]>,
        from: impl AsRef<[u8]>,
        skip: usize,
        take: usize,
    ) -> Result<Vec<V>> {
        let Some(table) = self.open(table)? else { return Ok(Vec::new()) };
        let entries = entries(&table, prefix.as_ref(), from.as_ref())?;
        let mut records = Vec::new();
        for (place, entry) in entries.enumerate().take(skip.saturating_add(take)) {
            let (_, value) = entry?;
            if place >= skip {
                records.push(decode(value.value())?);
            }
        }
        Ok(records)
    }

    /// Calls `each` with every key that starts with `prefix`, in order, and the size of its record in bytes.
    pub(crate) fn scan_keys<V>(
        &self,
        table: &Table<V>,
        prefix: impl AsRef<[u8]>,
        mut each: impl FnMut(&[u8], usize),
    ) -> Result<()> {
        let Some(table) = self.open(table)? else { return Ok(()) };
        walk(&table, prefix.as_ref(), |key, value| {
            each(key, value.len());
            Ok(())
        })
    }

    /// How many records the table has, and the last key.
    pub(crate) fn extent<V>(&self, table: &Table<V>) -> Result<(u64, Option<Vec<u8>>)> {
        let Some(table) = self.open(table)? else { return Ok((0, None)) };
        let last = table.last().map_err(storage_fault)?.map(|(key, _)| key.value().to_vec());
        Ok((table.len().map_err(storage_fault)?, last))
    }

    /// Calls `each` with the records from the last key to the first, until it breaks off; with `from`, only the records
    /// with this key or a lower one.
    pub(crate) fn scan_back<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        from: Option<&[u8]>,
        mut each: impl FnMut(V) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(table) = self.open(table)? else { return Ok(()) };
        let range = match &from {
            Some(from) => table.range(..=*from),
            None => table.range::<&[u8]>(..),
        };
        for entry in range.map_err(storage_fault)?.rev() {
            let (_, value) = entry.map_err(storage_fault)?;
            if each(decode(value.value())?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The result of `make` for every record, in the order of the keys, on all processors: for tables that are read
    /// whole at the start.
    pub(crate) fn collect<V: DeserializeOwned, T: Send>(
        &self,
        table: &Table<V>,
        make: impl Fn(&[u8], V) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let parts = self.parts(table)?;
        let results: Vec<Mutex<Result<Vec<T>>>> = parts.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((part, result)) =
                parts.iter().zip(&results).nth(next.fetch_add(1, Ordering::Relaxed))
            {
                // Caught here, since a panic in a thread of its own would otherwise be reported as another's.
                *result.lock() = caught(|| self.collected(table, part, &make))
                    .unwrap_or_else(|why| Err(Error::internal(redb::Error::Corrupted(why))));
            }
        };
        let helpers = available_parallelism().map_or(1, NonZero::get).min(parts.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(work);
            }
            work();
        });
        let mut all = Vec::new();
        for part in results {
            all.append(&mut part.into_inner()?);
        }
        Ok(all)
    }

    fn collected<V: DeserializeOwned, T>(
        &self,
        table: &Table<V>,
        part: &[u8],
        make: impl Fn(&[u8], V) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut records = Vec::new();
        self.scan(table, part, |key, record| {
            records.push(make(key, record)?);
            Ok(())
        })?;
        Ok(records)
    }

    fn parts<V>(&self, table: &Table<V>) -> Result<Vec<Vec<u8>>> {
        let Some(table) = self.open(table)? else { return Ok(Vec::new()) };
        let (first, last) = (table.first().map_err(storage_fault)?, table.last().map_err(storage_fault)?);
        Ok(first.zip(last).map_or(Vec::new(), |(first, last)| parts(first.0.value(), last.0.value())))
    }
}

/// Splits the range from the first key to the last into parts. The keys of a part begin with the same bytes, up to the
/// first byte in which those two keys differ.
fn parts(first: &[u8], last: &[u8]) -> Vec<Vec<u8>> {
    let common: Vec<u8> = first.iter().zip(last).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect();
    match (first.get(common.len()), last.get(common.len())) {
        (Some(&from), Some(&to)) => (from..=to).map(|byte| [common.as_slice(), &[byte]].concat()).collect(),
        // The first key is the common prefix itself, so every other key begins with it.
        _ => vec![common],
    }
}

/// A change to memory that is made once a transaction is durable.
pub(in crate::store) type AfterCommit = Box<dyn FnOnce() + Send>;

/// One write transaction: all of it is kept, or nothing.
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

    /// Runs `apply` once the transaction is durable, before any later write begins. So memory follows the file: in the
    /// same order, and never ahead of it.
    pub(crate) fn on_commit(&mut self, apply: impl FnOnce() + Send + 'static) {
        self.after.push(Box::new(apply));
    }

    /// The record under this key, as this transaction sees it.
    pub(crate) fn find<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<V>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let found = table.get(key.as_ref()).map_err(storage_fault)?;
        found.map(|value| decode(value.value())).transpose()
    }

    /// The record with the lowest key.
    pub(crate) fn first<V: DeserializeOwned>(&self, table: &Table<V>) -> Result<Option<V>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let found = table.first().map_err(storage_fault)?;
        found.map(|(_, value)| decode(value.value())).transpose()
    }

    /// The record with the highest key.
    pub(crate) fn last<V: DeserializeOwned>(&self, table: &Table<V>) -> Result<Option<V>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let found = table.last().map_err(storage_fault)?;
        found.map(|(_, value)| decode(value.value())).transpose()
    }

    /// The keys that start with `prefix`, in order.
    pub(crate) fn keys<V>(&self, table: &Table<V>, prefix: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let mut keys = Vec::new();
        walk(&table, prefix.as_ref(), |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        Ok(keys)
    }

    /// The first keys that start with `prefix`, at most `most`.
    pub(crate) fn some_keys<V>(
        &self,
        table: &Table<V>,
        prefix: impl AsRef<[u8]>,
        most: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let keys = entries(&table, prefix.as_ref(), prefix.as_ref())?.take(most);
        keys.map(|entry| entry.map(|(key, _)| key.value().to_vec())).collect()
    }

    /// Writes the record under this key, replacing any earlier one.
    pub fn put<V: Serialize>(&mut self, table: &Table<V>, key: impl AsRef<[u8]>, record: &V) -> Result<()> {
        let bytes = rmp_serde::to_vec_named(record).map_err(Error::internal)?;
        let mut table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        table.insert(key.as_ref(), bytes.as_slice()).map_err(storage_fault)?;
        Ok(())
    }

    /// Removes the record under this key; returns whether there was one.
    pub(crate) fn remove<V>(&mut self, table: &Table<V>, key: impl AsRef<[u8]>) -> Result<bool> {
        let mut table = self.transaction.open_table(table.definition()).map_err(|e| fault(e.into()))?;
        let removed = table.remove(key.as_ref()).map_err(storage_fault)?;
        Ok(removed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, parts};
    use crate::base::Error;
    use crate::store::Store;

    #[test]
    fn parts_cover_every_key_between_two() {
        assert_eq!(parts(b"ab1", b"ab3x"), [b"ab1", b"ab2", b"ab3"]);
        assert_eq!(parts(b"ab", b"abc"), [b"ab"]);
        assert_eq!(parts(b"", b"x"), [b""]);
        assert_eq!(parts(b"same", b"same"), [b"same"]);
    }

    #[test]
    fn a_table_read_by_many_comes_out_whole_and_in_order() {
        const NUMBERS: Table<u64> = Table::new("KEY_TO_NUMBER");
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let all = |make: fn(u64) -> Result<u64, Error>| {
            store.read_now(|r| r.collect(&NUMBERS, |_, number: u64| make(number)))
        };
        assert_eq!(all(Ok).unwrap(), Vec::<u64>::new());
        let key = |number: u64| format!("key/{number:04}");
        store.write_now(|w| (0..5000).try_for_each(|number| w.put(&NUMBERS, key(number), &number))).unwrap();
        assert_eq!(all(Ok).unwrap(), (0..5000).collect::<Vec<_>>());
        let refused = all(|number| if number == 4321 { Err(Error::Unauthenticated) } else { Ok(number) });
        assert!(matches!(refused, Err(Error::Unauthenticated)));
    }
}
