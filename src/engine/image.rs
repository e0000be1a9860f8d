//! An image as an engine holds it, and how it is given up.

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
    /// The manifests or indexes it was pulled by, as far as the engine remembers; sorted, none twice.
    pub manifests: Vec<Digest>,
    /// Bytes on disk, layers shared with other images included.
    pub size_bytes: u64,
}

impl Held {
    /// Of what an engine says of an image; nothing if it has no sound ID.
    pub(crate) fn read(id: &str, tags: &[String], digests: &[String], size_bytes: u64) -> Option<Self> {
        let mut names: Vec<_> = tags.iter().filter_map(|tag| name::canonical(tag)).collect();
        let mut manifests: Vec<_> = digests.iter().filter_map(|digest| name::manifest(digest)).collect();
        names.sort();
        names.dedup();
        manifests.sort();
        manifests.dedup();
        Some(Self { digest: name::image_id(id)?, names, manifests, size_bytes })
    }

    /// Whether this is the image with that config, which has that manifest.
    ///
    /// The manifest counts only where the engine uses it as the ID; one it merely remembers proves nothing about
    /// what it holds.
    pub(crate) fn is(&self, config: &Digest, manifest: Option<&Digest>) -> bool {
        self.digest == *config || manifest.is_some_and(|manifest| self.digest == *manifest)
    }
}

/// What became of a request to remove an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone from disk.
    Removed {
        /// Bytes that became free, where the engine says.
        freed_bytes: Option<u64>,
    },
    /// The name is gone; the image stays, for it has other names, children, or a container behind another name.
    Untagged,
    /// Nothing was changed, for containers use it.
    InUse {
        /// Their names, where we could find them, or IDs.
        containers: Vec<String>,
    },
    /// There was no such image.
    Absent,
}
