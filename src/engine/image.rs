//! An image as an engine holds it, and the result of removing one.

use crate::base::digest::Digest;
use crate::engine::name;

/// An image in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The engine's ID of the image: the digest of its config. Docker's containerd image store uses the digest of
    /// the manifest or index instead; compare by [`is`](Self::is).
    pub digest: Digest,
    /// Its names in canonical form, `registry/name:tag`, sorted; empty for an image without a name.
    pub names: Vec<String>,
    /// The manifests or indexes it was pulled by, as far as the engine remembers; sorted, without duplicates.
    pub manifests: Vec<Digest>,
    /// Its bytes on disk, including layers shared with other images.
    pub size_bytes: u64,
}

impl Held {
    /// The image from an engine's own words; `None` if its ID is not valid.
    pub(crate) fn read(id: &str, tags: &[String], digests: &[String], size_bytes: u64) -> Option<Self> {
        let mut names: Vec<_> = tags.iter().filter_map(|tag| name::canonical(tag)).collect();
        let mut manifests: Vec<_> = digests.iter().filter_map(|digest| name::manifest(digest)).collect();
        names.sort();
        names.dedup();
        manifests.sort();
        manifests.dedup();
        Some(Self { digest: name::image_id(id)?, names, manifests, size_bytes })
    }

    /// Whether this is the image with that config or, by its ID, that manifest.
    ///
    /// The manifest counts only if the engine uses it as the ID; a manifest that the engine merely remembers proves
    /// nothing about what it holds.
    pub(crate) fn is(&self, config: &Digest, manifest: Option<&Digest>) -> bool {
        self.digest == *config || manifest.is_some_and(|manifest| self.digest == *manifest)
    }
}

/// The result of a request to remove an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone from disk.
    Removed {
        /// Bytes that became free, where the engine says.
        freed_bytes: Option<u64>,
    },
    /// The name is removed; the image stays, since it has other names, children, or a container behind another name.
    Untagged,
    /// Nothing was changed, since containers use the image.
    InUse {
        /// The containers' names, if we could find them, or their IDs.
        containers: Vec<String>,
    },
    /// There was no such image.
    Absent,
}
