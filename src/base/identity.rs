//! The digests by which an image goes in engines.

use crate::base::digest::Digest;

/// What identifies an image's content, whichever engine holds it: most engines call an image by its config, Docker's
/// containerd store by the manifest or index that it was pulled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The digest of the config.
    pub config: &'a Digest,
    /// The digest of the platform's manifest, if it is known.
    pub manifest: Option<&'a Digest>,
    /// The digest of the index that the tag points to, if it points to one.
    pub index: Option<&'a Digest>,
    /// The architecture, in the catalog's spelling (`x86_64`).
    pub architecture: &'a str,
}
