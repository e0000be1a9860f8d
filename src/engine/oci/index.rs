//! `index.json`: the names in a layout, and the image of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::base::digest::Digest;
use crate::engine::name;
use crate::engine::oci::manifest::OCI_IMAGE;

/// The annotation that holds an image's name (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// An annotation of wharf: the manifest an image was pulled by, if the kept one was converted from it.
const PULLED_BY: &str = "wharf.pulled-by";

/// The document. Fields that other programs wrote and wharf does not know are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u8,
    /// The entries: a name and an image each. Go writes an empty list as null.
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) manifests: Vec<Entry>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// An entry of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(default)]
    media_type: String,
    /// The digest of the manifest.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

impl Default for Index {
    fn default() -> Self {
        let media_type = ("mediaType".to_owned(), "application/vnd.oci.image.index.v1+json".into());
        Self { schema_version: 2, manifests: Vec::new(), rest: Map::from_iter([media_type]) }
    }
}

impl Index {
    /// Gives an image this name; returns the entries that had it before.
    pub(crate) fn put(&mut self, entry: Entry) -> Vec<Entry> {
        let before = entry.name().map(|name| self.remove(&name)).unwrap_or_default();
        self.manifests.push(entry);
        before
    }

    /// Removes a name; returns the entries that had it.
    pub(crate) fn remove(&mut self, name: &str) -> Vec<Entry> {
        self.manifests.extract_if(.., |entry| entry.name().as_deref() == Some(name)).collect()
    }
}

impl Entry {
    /// An entry for the image of this manifest, with this name. `pulled_by` is the manifest's digest in the registry.
    pub(crate) fn new(digest: Digest, size: u64, name: &str, pulled_by: Option<&Digest>) -> Self {
        let mut annotations = BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]);
        if let Some(original) = pulled_by.filter(|original| **original != digest) {
            annotations.insert(PULLED_BY.into(), original.to_string());
        }
        Self { media_type: OCI_IMAGE.into(), digest, size, annotations, rest: Map::new() }
    }

    /// This entry with another name.
    pub(crate) fn named(&self, name: &str) -> Self {
        let mut entry = self.clone();
        entry.annotations.insert(REF_NAME.into(), name.into());
        entry
    }

    /// The entry's name, if it is a full one: registry, repository and tag. Other programs write tags alone, which do
    /// not say which repository they belong to.
    pub(crate) fn name(&self) -> Option<String> {
        let name = self.annotations.get(REF_NAME)?;
        name::canonical(name).filter(|canonical| canonical == name)
    }

    /// Whether it stands for one image, and not for an index of several or an artifact.
    pub(crate) fn is_image(&self) -> bool {
        self.media_type.is_empty() || self.media_type == OCI_IMAGE
    }

    /// The manifests that the image is known by.
    pub(crate) fn known_by(&self) -> Vec<Digest> {
        let original = self.annotations.get(PULLED_BY).and_then(|text| text.parse().ok());
        original.into_iter().chain([self.digest.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Index};
    use crate::base::digest::Digest;

    const FOREIGN: &str = r#"{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[
        {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,
         "digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "annotations":{"org.opencontainers.image.ref.name":"latest","x":"y"},"platform":{"os":"linux"}}]}"#;

    #[test]
    fn what_others_wrote_stays() {
        let mut index: Index = serde_json::from_str(FOREIGN).unwrap();
        assert_eq!(index.manifests[0].name(), None, "a tag alone is no full name");
        index.put(Entry::new(Digest::sha256_of(b"m"), 1, "cr.io/a:1", None));
        index.remove("cr.io/a:1");
        let before: serde_json::Value = serde_json::from_str(FOREIGN).unwrap();
        assert_eq!(serde_json::to_value(&index).unwrap(), before);
        let empty: Index = serde_json::from_str(r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
        assert!(empty.manifests.is_empty());
    }

    #[test]
    fn a_name_stands_for_one_image() {
        let (old, new) = (Digest::sha256_of(b"old"), Digest::sha256_of(b"new"));
        let mut index = Index::default();
        assert!(index.put(Entry::new(old.clone(), 1, "cr.io/a:1", Some(&new))).is_empty());
        let replaced = index.put(Entry::new(new.clone(), 1, "cr.io/a:1", Some(&new)));
        assert_eq!(replaced[0].known_by(), [new.clone(), old]);
        assert_eq!(index.manifests[0].known_by(), [new]);
        assert_eq!(index.manifests.len(), 1);
    }
}
