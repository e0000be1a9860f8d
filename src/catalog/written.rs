//! The contents that are written while the collection searches the store for those that nothing names any more.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::digest::Digest;
use crate::store::table::Writer;

/// A set of digests, distinguished by 128 bits as in the hash of [`Digest`] itself.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Marks(HashSet<u128>);

impl Marks {
    pub(in crate::catalog) fn insert(&mut self, digest: &str) -> bool {
        self.0.insert(number(digest))
    }

    /// Adds all of these digests.
    pub(in crate::catalog) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(in crate::catalog) fn has(&self, digest: &str) -> bool {
        self.0.contains(&number(digest))
    }
}

fn number(digest: &str) -> u128 {
    let hex = digest.split_once(':').and_then(|(_, hex)| hex.get(..32));
    hex.and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

/// The contents written since a collection began; `None` while none is running.
#[derive(Debug, Clone, Default)]
pub(in crate::catalog) struct Written(Arc<Mutex<Option<Marks>>>);

impl Written {
    /// Begins to note what is written.
    pub(in crate::catalog) fn begin(&self) {
        *self.0.lock() = Some(Marks::default());
    }

    /// Stops noting what is written.
    pub(in crate::catalog) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Notes these digests when the transaction is durable, before any later one begins.
    pub(in crate::catalog) fn note(&self, writer: &mut Writer, digests: Vec<Digest>) {
        let written = Arc::clone(&self.0);
        writer.on_commit(move || {
            if let Some(marks) = written.lock().as_mut() {
                for digest in &digests {
                    marks.insert(digest.as_str());
                }
            }
        });
    }

    pub(in crate::catalog) fn has(&self, digest: &str) -> bool {
        self.0.lock().as_ref().is_some_and(|marks| marks.has(digest))
    }
}
