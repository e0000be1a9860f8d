//! Values by key that exist as long as they are in use: locks and limits by name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Values that are made on demand and dropped when they are no longer in use.
pub(crate) struct Keyed<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V> Keyed<K, V> {
    /// The value of this key: the one in use, or else a new one.
    pub(crate) fn of(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut values = self.0.lock();
        if let Some(value) = values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        values.retain(|_, value| value.strong_count() > 0);
        let value = Arc::new(make());
        values.insert(key, Arc::downgrade(&value));
        value
    }

    /// Gives up a value, though it is still in use: the key gets a new one next.
    pub(crate) fn retire(&self, key: &K, value: &Arc<V>) {
        let mut values = self.0.lock();
        if values.get(key).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(value))) {
            values.remove(key);
        }
    }
}
