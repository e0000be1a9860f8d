//! What the store keeps for the catalog: images and aliases, what each digest was found to be, and what was last seen
//! of each repository.

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
/// What each manifest or index holds. Content never changes under its digest, so it is kept once; whose it is says
/// [`SERVED`].
pub(crate) const MANIFESTS: Table<ManifestRecord> = Table::new("DIGEST_TO_MANIFEST");
/// What each config says; kept once, too.
pub(crate) const CONFIGS: Table<ConfigRecord> = Table::new("DIGEST_TO_CONFIG");
/// The manifests, indexes and configs that each registry has served, by registry and digest. To name a digest costs
/// nothing, so what another registry has served under it is not shown to the readers of this one before it has, too.
pub(crate) const SERVED: Table<Served> = Table::new("REGISTRY_AND_DIGEST_TO_SERVED");
/// What was last seen of each repository, by registry and name.
pub(crate) const REPOSITORIES: Table<RepositoryRecord> = Table::new("REGISTRY_AND_NAME_TO_REPOSITORY");

/// What a manifest was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestRecord {
    /// An image for one platform.
    Image {
        /// Its config's digest.
        config: Digest,
        /// Layers and config, in bytes.
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
    /// Nothing that runs, and why. Kept with [`Served`] since that is.
    Unusable {
        /// For the ledger.
        reason: String,
        /// Whether it makes no sense at all, rather than being something else than an image.
        #[serde(default)]
        is_broken: bool,
    },
}

/// That a registry has served something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// The [`ManifestRecord::Unusable`] that it came to, as it was served there: the type that it is served as has a say
    /// in it, so one registry's verdict is not another's.
    #[serde(default)]
    pub(crate) unusable: Option<ManifestRecord>,
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Its manifest.
    pub(crate) digest: Digest,
    /// Its architecture, normalized, when the index says.
    #[serde(default)]
    pub(crate) architecture: Option<String>,
}

/// What was last seen of a repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RepositoryRecord {
    /// Its tags.
    pub tags: BTreeMap<String, TagRecord>,
    /// The task that last read every page of its tag list.
    pub(crate) read_by: Option<TaskId>,
    /// Tags in the catalog that this reading did not find.
    pub(crate) gone: Vec<String>,
    /// When it was last read.
    pub(crate) read_at: Option<Timestamp>,
}

/// What was last seen of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// What it points at.
    pub digest: Digest,
}
