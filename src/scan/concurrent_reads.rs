//! The tags read from a repository while another task reads all of it. Reading thousands of tags takes minutes, and
//! the end of that must not restore the old state of a single tag that was read anew meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The tags that other tasks have read since a read of the whole repository began.
pub(crate) type Newer = Mutex<BTreeSet<String>>;

type Readings = HashMap<(String, String), Vec<Weak<Newer>>>;

/// The reads of whole repositories that are under way. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct ConcurrentReads(Arc<Mutex<Readings>>);

impl ConcurrentReads {
    /// Begins a read of a whole repository. The read is over when the result is dropped.
    pub(crate) fn begin(&self, registry: &str, repository: &str) -> Arc<Newer> {
        let newer = Arc::<Newer>::default();
        let mut readings = self.0.lock();
        readings.retain(|_, open| {
            open.retain(|reading| reading.strong_count() > 0);
            !open.is_empty()
        });
        readings.entry((registry.into(), repository.into())).or_default().push(Arc::downgrade(&newer));
        newer
    }

    /// Notes that the catalog now has a newer read of this single tag.
    pub(crate) fn note(&self, registry: &str, repository: &str, tag: &str) {
        let readings = self.0.lock();
        let open = readings.get(&(registry.into(), repository.into())).into_iter().flatten();
        for reading in open.filter_map(Weak::upgrade) {
            reading.lock().insert(tag.into());
        }
    }
}
