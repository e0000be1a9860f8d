//! What the store keeps for the catalog: images and aliases, what each digest was found to be, and what a scan last
//! saw of each repository.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::ids::{ImageId, TaskId};
use crate::catalog::image::{ConfigRecord, ImageRecord};
use crate::catalog::registry::Registry;
use crate::store::Table;

/// Registries, by host.
pub const REGISTRIES: Table<Registry> = Table::new("REGISTRY_HOST_TO_REGISTRY");
/// Images, by id.
pub(crate) const IMAGES: Table<ImageRecord> = Table::new("IMAGE_ID_TO_IMAGE");
/// Aliases, and the image each stands for.
pub const ALIASES: Table<ImageId> = Table::new("ALIAS_TO_IMAGE_ID");
/// What each manifest or index holds. Content never changes under its digest, so it is kept once; [`SERVED`] says
/// which registries have it.
pub(crate) const MANIFESTS: Table<ManifestRecord> = Table::new("DIGEST_TO_MANIFEST");
/// What each config says; each is kept once, because content never changes under its digest.
pub(crate) const CONFIGS: Table<ConfigRecord> = Table::new("DIGEST_TO_CONFIG");
/// The manifests, indexes and configs that each registry has served, by registry and digest. Anyone can name a
/// digest, so content that only another registry has served is not shown to readers of this one until this one has
/// served it too.
pub(crate) const SERVED: Table<Served> = Table::new("REGISTRY_AND_DIGEST_TO_SERVED");
/// What a scan last saw of each repository, by registry and name.
pub(crate) const REPOSITORIES: Table<RepositoryRecord> = Table::new("REGISTRY_AND_NAME_TO_REPOSITORY");

/// What a manifest was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestRecord {
    /// An image for one platform.
    Image {
        /// Its config's digest.
        config: Digest,
        /// The size of layers and config, in bytes.
        size_bytes: u64,
        /// Each layer's size as it is fetched, in bytes, from the base up.
        #[serde(default)]
        layer_sizes: Vec<u64>,
    },
    /// Several images.
    Index {
        /// The manifests of the platforms the catalog takes.
        children: Vec<ChildRecord>,
        /// The entries it does not take, and why.
        skipped: Vec<String>,
    },
    /// Content that does not run. It is kept with [`Served`] since that table exists.
    Unusable {
        /// The reason, for the ledger.
        reason: String,
        /// Whether the content makes no sense at all, rather than being something other than an image.
        #[serde(default)]
        is_broken: bool,
    },
}

/// The version of the rules by which content is found to be unusable. What was found by earlier ones is looked at anew:
/// before 1, the media type that a registry served it as played a part.
pub(crate) const RULES: u32 = 1;

/// The record that a registry has served some content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// The [`ManifestRecord::Unusable`] that the content turned out to be.
    #[serde(default)]
    pub(crate) unusable: Option<ManifestRecord>,
    /// The [`RULES`] by which that was found.
    #[serde(default)]
    pub(crate) rules: u32,
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// The digest of its manifest.
    pub(crate) digest: Digest,
    /// Its architecture, normalized, if the index says.
    #[serde(default)]
    pub(crate) architecture: Option<String>,
}

/// What a scan last saw of a repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RepositoryRecord {
    /// Its tags.
    pub tags: BTreeMap<String, TagRecord>,
    /// The task that last read every page of its tag list.
    pub(crate) read_by: Option<TaskId>,
    /// Tags in the catalog that this read did not find.
    pub(crate) gone: Vec<String>,
    /// When it was last read.
    pub(crate) read_at: Option<Timestamp>,
}

/// What a scan last saw of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The digest it points to.
    pub digest: Digest,
}
