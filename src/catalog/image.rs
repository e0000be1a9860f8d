//! An image: one registry, name, tag and architecture, and what its config says.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::visibility::{Owner, Subject};
use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::base::ids::ImageId;
use crate::base::reference::Canonical;
use crate::catalog::describe::{self, ImageKind, ResourceLimit};
use crate::catalog::labels::{LabelKeys, Labels};

/// What the store keeps of an image. Its labels are with its config, which several images may share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The registry's host.
    pub registry: String,
    /// The repository.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The architecture, normalized (`x86_64`).
    pub architecture: String,
    /// The config's digest: what Docker calls the image ID.
    pub digest: Digest,
    /// The digest of the platform's manifest.
    pub manifest: Digest,
    /// The digest the tag points to: that of the manifest, or of the index that contains it.
    pub target: Digest,
    /// The size of layers and config, in bytes.
    pub size_bytes: u64,
    /// When the catalog first had it.
    #[serde(default)]
    pub first_seen: Seconds,
    /// When it last became another image, or first was there.
    #[serde(default)]
    pub changed: Seconds,
}

/// A time in whole seconds since 1970, in four bytes; zero if it is not known, as of images that were there before such
/// times were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(u32);

impl Seconds {
    /// This time.
    pub(crate) fn of(time: Timestamp) -> Self {
        Self(u32::try_from(time.as_second()).unwrap_or_default())
    }

    /// The time, if it is known.
    pub(crate) fn time(self) -> Option<Timestamp> {
        Timestamp::from_second(i64::from(self.0)).ok().filter(|_| self.0 > 0)
    }
}

impl ImageRecord {
    /// Whether this is the same image as `other`, whenever either was seen.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            registry,
            name,
            tag,
            architecture,
            digest,
            manifest,
            target,
            size_bytes,
            first_seen: _,
            changed: _,
        } = self;
        let same_name = *registry == other.registry && *name == other.name && *tag == other.tag;
        let same_content = *digest == other.digest && *manifest == other.manifest && *target == other.target;
        same_name && same_content && *architecture == other.architecture && *size_bytes == other.size_bytes
    }

    /// The image's id.
    pub(crate) fn id(&self) -> ImageId {
        ImageId::of(self.canonical().as_str(), &self.architecture)
    }

    /// What identifies its content in engines.
    pub fn identity(&self) -> Identity<'_> {
        Identity {
            config: &self.digest,
            manifest: Some(&self.manifest),
            index: (self.target != self.manifest).then_some(&self.target),
            architecture: &self.architecture,
        }
    }

    /// `registry/name:tag`.
    pub fn canonical(&self) -> Canonical {
        Canonical::new(&self.registry, &self.name, &self.tag)
    }

    /// Whether its path is `registry/name`.
    pub(crate) fn is_in(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.registry.as_str()).and_then(|rest| rest.strip_prefix('/'));
        rest == Some(self.name.as_str())
    }
}

/// The parts of an image config that the catalog uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// The architecture, normalized.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// When the image was made, as the config states it.
    #[serde(default)]
    pub created: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The digests of the unpacked layers, from the base up: 32 bytes each, one after the other. Two images that
    /// begin with the same layers share them on an agent.
    #[serde(default, with = "serde_bytes")]
    pub diff_ids: Vec<u8>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The digest of its content, unpacked.
    pub(crate) diff_id: [u8; 32],
    /// Its size as it is fetched, in bytes.
    pub(crate) size: u64,
}

/// What the catalog has of a config in memory, with its meaning worked out. Images with the same digest share one. Its
/// layers stay in the store: a plan asks for those of a few images, and they would take as much memory as the labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// Its labels.
    pub(crate) labels: Labels,
    /// See [`describe::kind`].
    pub(crate) kind: ImageKind,
    /// See [`describe::resource_limits`].
    pub(crate) resource_limits: Box<[ResourceLimit]>,
    /// See [`describe::accelerators`].
    pub(crate) accelerators: Box<[Box<str>]>,
    /// When the image was made, if the config states a time: to the microsecond, which is the precision official
    /// clients read.
    pub(crate) created_at: Option<Timestamp>,
    /// See [`describe::is_operation`].
    pub(crate) is_operation: bool,
    /// See [`describe::owner`]. Few images have one, so it is boxed.
    pub(crate) owner: Option<Box<Owner>>,
}

impl Config {
    /// Works out the meaning of a config. It shares the keys of its labels with the others of `keys`.
    pub(crate) fn new(mut record: ConfigRecord, keys: &LabelKeys) -> Self {
        keys.share(&mut record.labels);
        Self {
            kind: describe::kind(&record.labels),
            resource_limits: describe::resource_limits(&record.labels).into(),
            accelerators: describe::accelerators(&record.labels).into(),
            created_at: record.created.as_deref().and_then(to_the_microsecond),
            is_operation: describe::is_operation(&record.labels),
            owner: describe::owner(&record.labels).map(Box::new),
            labels: record.labels,
        }
    }
}

fn to_the_microsecond(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    Timestamp::from_microsecond(time.as_microsecond()).ok()
}

/// An image, as the catalog returns it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// The image as stored.
    pub record: ImageRecord,
    /// Its config.
    pub(crate) config: Arc<Config>,
    /// What decides who may see it.
    pub(crate) subject: Subject,
    /// Its name for people.
    pub(crate) humanized_name: Box<str>,
    /// Its other names, in order.
    pub(crate) aliases: Vec<Arc<str>>,
}

impl Image {
    /// Joins the stored parts of an image.
    pub(crate) fn new(
        mut record: ImageRecord,
        config: Arc<Config>,
        subject: Subject,
        aliases: Vec<Arc<str>>,
    ) -> Self {
        if record.target == record.manifest {
            // Most images are in no index. Their two digests share one text.
            record.target.clone_from(&record.manifest);
        }
        let humanized_name = describe::humanize(&record.name, &record.tag, &config.labels).into();
        Self { id: record.id(), record, config, subject, humanized_name, aliases }
    }

    /// The purpose of the image.
    pub(crate) fn kind(&self) -> ImageKind {
        self.config.kind
    }

    /// The first part of the repository's name, if it has several.
    pub(crate) fn project(&self) -> Option<&str> {
        self.record.name.split_once('/').map(|(project, _)| project)
    }

    /// The accelerators it runs with; `*` means any.
    pub(crate) fn accelerators(&self) -> &[Box<str>] {
        &self.config.accelerators
    }

    /// Whether this is the digest of the image's config, of its manifest or of the index its tag points to.
    pub(crate) fn has_digest(&self, digest: &Digest) -> bool {
        [&self.record.digest, &self.record.manifest, &self.record.target].contains(&digest)
    }
}

/// For tests: the image `cr.lab/NAME:TAG` of 100 bytes; its digest is made from that name and the architecture.
#[cfg(test)]
pub(crate) fn fake(name: &str, architecture: &str) -> Arc<Image> {
    let (name, tag) = name.split_once(':').unwrap();
    let digest = |of: &str| Digest::sha256_of(format!("{of} {name}:{tag} {architecture}").as_bytes());
    let record = ImageRecord {
        registry: "cr.lab".into(),
        name: name.into(),
        tag: tag.into(),
        architecture: architecture.into(),
        digest: digest("config"),
        manifest: digest("manifest"),
        target: digest("manifest"),
        size_bytes: 100,
        first_seen: Seconds::default(),
        changed: Seconds::default(),
    };
    let config = ConfigRecord {
        architecture: architecture.into(),
        os: "linux".into(),
        created: None,
        labels: Labels::default(),
        diff_ids: Vec::new(),
    };
    let subject = Subject { registry: 0, number: 0, is_operation: false, owner: None };
    Arc::new(Image::new(record, Arc::new(Config::new(config, &LabelKeys::default())), subject, Vec::new()))
}
