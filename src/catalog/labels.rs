//! The labels of an image config, packed into one text.
//!
//! A catalog of 100,000 images with 20 labels each has four million small texts. One allocation for each would take
//! more memory than the texts, and most of the start-up time. Here one text per config holds all of them.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many labels memory is reserved for at once; more labels are still accepted.
const MOST_EXPECTED: usize = 64;
/// The length that a key and its value usually have together, in bytes.
const USUAL_LENGTH: usize = 64;

/// Label keys and values, ordered by key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Key, value, key, value, ... without separators.
    text: Box<str>,
    /// Where each key and each value ends in `text`.
    ends: Box<[u32]>,
}

impl Labels {
    /// All labels, ordered by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        let mut pieces = self.ends.iter().map(move |&end| {
            let piece = self.text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            piece
        });
        std::iter::from_fn(move || Some((pieces.next()?, pieces.next()?)))
    }

    /// The value of one label. It searches by halving, because there may be a thousand labels and a filter looks up
    /// many in each image.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.piece(2 * middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.len() && self.piece(2 * low) == key).then(|| self.piece(2 * low + 1))
    }

    /// The key (even number) or the value (odd number) at this position.
    fn piece(&self, number: usize) -> &str {
        let end = |number: usize| self.ends.get(number).map_or(0, |end| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.text.get(start..end(number)).unwrap_or_default()
    }

    /// The number of labels.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are no labels.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<K: AsRef<str> + Ord, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut labels: Vec<(K, V)> = labels.into_iter().collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        let mut packer = Packer::default();
        for (key, value) in &labels {
            packer.push(key.as_ref());
            packer.push(value.as_ref());
        }
        packer.finish()
    }
}

#[derive(Default)]
struct Packer {
    text: String,
    ends: Vec<u32>,
}

impl Packer {
    fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        // The registry client bounds a config to 8 MiB, so the length fits.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    fn finish(self) -> Labels {
        Labels { text: self.text.into(), ends: self.ends.into() }
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
                let mut packer = Packer {
                    text: String::with_capacity(USUAL_LENGTH * count),
                    ends: Vec::with_capacity(2 * count),
                };
                while let Some(key) = map.next_key::<&str>()? {
                    packer.push(key);
                    packer.push(map.next_value::<&str>()?);
                }
                Ok(packer.finish())
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
    use super::Labels;

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
}
