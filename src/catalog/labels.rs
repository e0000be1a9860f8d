//! The labels of image configs, packed into few texts.
//!
//! A catalog of 100,000 images with 20 labels each has four million small texts. One allocation for each would take
//! more memory than the texts, and most of the start-up time. Here one text per config holds all values, and configs
//! with the same keys share the text that holds those: the images of a lab have few sets of keys.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many labels memory is reserved for at once; more labels are still accepted.
const MOST_EXPECTED: usize = 64;
/// The length that a key or a value usually has, in bytes.
const USUAL_LENGTH: usize = 32;

/// Label keys and values, ordered by key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels {
    keys: Arc<Pieces>,
    values: Pieces,
}

/// Texts in one.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Pieces {
    /// The texts one after the other, without separators.
    text: Box<str>,
    /// Where each of them ends in `text`.
    ends: Box<[u32]>,
}

impl Pieces {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let piece = self.text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            piece
        })
    }

    /// The text at this position; empty if there is none.
    fn at(&self, number: usize) -> &str {
        let end = |number: usize| self.ends.get(number).map_or(0, |end| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.text.get(start..end(number)).unwrap_or_default()
    }
}

/// The sets of keys of all configs in memory.
#[derive(Default)]
pub(crate) struct LabelKeys(Mutex<HashSet<Arc<Pieces>>>);

impl LabelKeys {
    /// Has these labels share their keys with all other labels that have the same ones.
    pub(crate) fn share(&self, labels: &mut Labels) {
        let mut known = self.0.lock();
        match known.get(&labels.keys) {
            Some(keys) => labels.keys.clone_from(keys),
            None => {
                known.insert(Arc::clone(&labels.keys));
            }
        }
    }

    /// Forgets the sets that no labels have any more.
    pub(crate) fn tidy(&self) {
        self.0.lock().retain(|keys| Arc::strong_count(keys) > 1);
    }
}

impl Labels {
    /// All labels, ordered by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().zip(self.values.iter())
    }

    /// The value of one label. It searches by halving, because there may be a thousand labels and a filter looks up
    /// many in each image.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.keys.at(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.len() && self.keys.at(low) == key).then(|| self.values.at(low))
    }

    /// The number of labels.
    pub(crate) fn len(&self) -> usize {
        self.keys.ends.len()
    }

    /// Whether there are no labels.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.ends.is_empty()
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut labels: Vec<(K, V)> = labels.into_iter().collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut keys, mut values) = (Packer::default(), Packer::default());
        for (key, value) in &labels {
            keys.push(key.as_ref());
            values.push(value.as_ref());
        }
        Self { keys: Arc::new(keys.finish()), values: values.finish() }
    }
}

#[derive(Default)]
struct Packer {
    text: String,
    ends: Vec<u32>,
}

impl Packer {
    fn with_capacity(count: usize) -> Self {
        Self { text: String::with_capacity(USUAL_LENGTH * count), ends: Vec::with_capacity(count) }
    }

    fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        // The registry client bounds a config to 8 MiB, so the length fits.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    fn finish(self) -> Pieces {
        Pieces { text: self.text.into(), ends: self.ends.into() }
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pack;
        impl<'de> Visitor<'de> for Pack {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let count = map.size_hint().unwrap_or_default().min(MOST_EXPECTED);
                let (mut keys, mut values) = (Packer::with_capacity(count), Packer::with_capacity(count));
                while let Some(key) = map.next_key::<&str>()? {
                    keys.push(key);
                    values.push(map.next_value::<&str>()?);
                }
                Ok(Labels { keys: Arc::new(keys.finish()), values: values.finish() })
            }
        }
        deserializer.deserialize_map(Pack)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{LabelKeys, Labels};

    #[test]
    fn labels_come_out_as_they_went_in_ordered_by_key() {
        let labels: Labels = [("b", "2"), ("a", ""), ("", "x"), ("ü", "é\n")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("", "x"), ("a", ""), ("b", "2"), ("ü", "é\n")]);
        assert_eq!((labels.find("b"), labels.find("c"), labels.len()), (Some("2"), None, 4));
        assert!(Labels::default().is_empty());
    }

    #[test]
    fn labels_survive_the_store() {
        let labels: Labels = [("a", "1"), ("b", "2")].into_iter().collect();
        let bytes = rmp_serde::to_vec_named(&labels).unwrap();
        assert_eq!(rmp_serde::from_slice::<Labels>(&bytes).unwrap(), labels);
    }

    #[test]
    fn labels_of_the_same_keys_share_them_as_long_as_there_are_some() {
        let known = LabelKeys::default();
        let kept = |labels: &[(&str, &str)]| {
            let mut labels: Labels = labels.iter().copied().collect();
            known.share(&mut labels);
            labels
        };
        let (one, two) = (kept(&[("a", "1"), ("b", "2")]), kept(&[("b", "4"), ("a", "3")]));
        // Only the lengths of the keys differ from the first ones.
        let other = kept(&[("", "5"), ("ab", "6")]);
        assert!(Arc::ptr_eq(&one.keys, &two.keys) && !Arc::ptr_eq(&one.keys, &other.keys));
        assert_eq!(two.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "4")]);
        assert_eq!(other.iter().collect::<Vec<_>>(), [("", "5"), ("ab", "6")]);
        drop((one, other));
        known.tidy();
        assert_eq!((known.0.lock().len(), two.find("a")), (1, Some("3")));
    }
}
