//! What is read of a repository while somebody else still reads all of it. That takes minutes where there are thousands
//! of tags, and its end must not bring back what a single tag was before it was read anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The tags that somebody else has read since a reading of all of them began.
pub(crate) type Newer = Mutex<BTreeSet<String>>;

type Readings = HashMap<(String, String), Vec<Weak<Newer>>>;

/// The readings of whole repositories that are under way. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct ConcurrentReads(Arc<Mutex<Readings>>);

impl ConcurrentReads {
    /// A reading of a whole repository begins. It is over when what this returns is dropped.
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

    /// What was found of a single tag is in the catalog now.
    pub(crate) fn note(&self, registry: &str, repository: &str, tag: &str) {
        let readings = self.0.lock();
        let open = readings.get(&(registry.into(), repository.into())).into_iter().flatten();
        for reading in open.filter_map(Weak::upgrade) {
            reading.lock().insert(tag.into());
        }
    }
}
