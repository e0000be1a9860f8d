//! An image, its filter and its orders, in the shapes of this API.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::ids::{ImageId, RegistryId};
use crate::catalog::describe::{ImageKind, ResourceLimit};
use crate::catalog::image::Image;
use crate::http::v2::filter::{ChoiceFilter, Nested, NumberFilter, TextFilter, TimeFilter, holds};

/// An image.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    id: ImageId,
    entity_id: ImageId,
    name: String,
    image: String,
    registry: String,
    registry_id: RegistryId,
    project: Option<String>,
    tag: String,
    architecture: String,
    size_bytes: u64,
    #[serde(rename = "type")]
    kind: ImageKind,
    status: Status,
    labels: Vec<Pair>,
    tags: Vec<Pair>,
    resource_limits: Vec<Limit>,
    accelerators: String,
    config_digest: String,
    is_local: bool,
    created_at: Option<Timestamp>,
    /// Always null, because wharf runs no sessions.
    last_used_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Pair {
    key: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct Limit {
    key: String,
    min: String,
    max: String,
}

/// Whether the image exists. Forgotten images are not kept, so every image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    /// In the catalog.
    Alive,
    /// Removed.
    Deleted,
}

impl From<&Image> for Node {
    fn from(image: &Image) -> Self {
        let record = &image.record;
        let pair = |(key, value): (&str, &str)| Pair { key: key.into(), value: value.into() };
        let limit = |limit: &ResourceLimit| Limit {
            key: limit.key.to_string(),
            min: limit.min.to_string(),
            max: limit.max.to_string(),
        };
        Self {
            id: image.id,
            entity_id: image.id,
            name: record.canonical().to_string(),
            image: record.name.clone(),
            registry: record.registry.clone(),
            registry_id: RegistryId::of(&record.registry),
            project: image.project().map(str::to_owned),
            tag: record.tag.clone(),
            architecture: record.architecture.clone(),
            size_bytes: record.size_bytes,
            kind: image.kind(),
            status: Status::Alive,
            labels: image.config.labels.iter().map(pair).collect(),
            tags: parts_of_tag(&record.tag).map(pair).collect(),
            resource_limits: image.config.resource_limits.iter().map(limit).collect(),
            accelerators: accelerators(image),
            config_digest: record.digest.to_string(),
            is_local: false,
            created_at: image.config.created_at,
            last_used_at: None,
        }
    }
}

/// Returns the accelerators in one text, as in this API.
fn accelerators(image: &Image) -> String {
    image.accelerators().join(",")
}

/// Returns the parts after the version in a tag: `3.9-ubuntu20.04-cuda11` has `ubuntu` 20.04 and `cuda` 11.
fn parts_of_tag(tag: &str) -> impl Iterator<Item = (&str, &str)> {
    tag.split('-').skip(1).filter(|part| !part.is_empty()).map(|part| {
        let digit = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        part.split_at(digit)
    })
}

/// Selects images.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSearchFilter {
    id: Option<ChoiceFilter<ImageId>>,
    status: Option<ChoiceFilter<Status>>,
    name: Option<TextFilter>,
    architecture: Option<TextFilter>,
    registry_id: Option<ChoiceFilter<RegistryId>>,
    image: Option<TextFilter>,
    registry: Option<TextFilter>,
    project: Option<TextFilter>,
    tag: Option<TextFilter>,
    config_digest: Option<TextFilter>,
    accelerators: Option<TextFilter>,
    size_bytes: Option<NumberFilter>,
    is_local: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<ChoiceFilter<ImageKind>>,
    created_at: Option<TimeFilter>,
    alias: Option<OfAlias>,
    last_used: Option<TimeFilter>,
    labels: Option<OfLabels>,
    #[serde(rename = "AND")]
    all: Option<Vec<Self>>,
    #[serde(rename = "OR")]
    any: Option<Vec<Self>>,
    #[serde(rename = "NOT")]
    none: Option<Vec<Self>>,
}

/// The conditions on the image's aliases: one of them must meet them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfAlias {
    alias: Option<TextFilter>,
}

/// The conditions on the image's labels, each label by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfLabels {
    exists: Option<bool>,
    some: Option<LabelFilter>,
    every: Option<LabelFilter>,
    none: Option<LabelFilter>,
}

/// The conditions on one label.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelFilter {
    key: Option<TextFilter>,
    value: Option<TextFilter>,
    #[serde(rename = "AND")]
    all: Option<Vec<Self>>,
    #[serde(rename = "OR")]
    any: Option<Vec<Self>>,
    #[serde(rename = "NOT")]
    none: Option<Vec<Self>>,
}

impl Nested for ImageSearchFilter {
    fn inner(&self) -> [Option<&Vec<Self>>; 3] {
        [self.all.as_ref(), self.any.as_ref(), self.none.as_ref()]
    }

    fn count(&self) -> usize {
        let of_labels = self.labels.iter().flat_map(|of| [&of.some, &of.every, &of.none]).flatten();
        1 + of_labels.map(Nested::count).sum::<usize>()
            + self.inner().into_iter().flatten().flatten().map(Self::count).sum::<usize>()
    }
}

impl Nested for LabelFilter {
    fn inner(&self) -> [Option<&Vec<Self>>; 3] {
        [self.all.as_ref(), self.any.as_ref(), self.none.as_ref()]
    }
}

impl LabelFilter {
    fn takes(&self, key: &str, value: &str) -> bool {
        holds(self.key.as_ref(), |filter| filter.takes(key))
            && holds(self.value.as_ref(), |filter| filter.takes(value))
            && self.inner_take(|inner| inner.takes(key, value))
    }
}

impl OfLabels {
    fn takes(&self, image: &Image) -> bool {
        let labels = &image.config.labels;
        let some = |filter: &LabelFilter| labels.iter().any(|(key, value)| filter.takes(key, value));
        self.exists.is_none_or(|wanted| wanted != labels.is_empty())
            && holds(self.some.as_ref(), some)
            && holds(self.every.as_ref(), |filter| labels.iter().all(|(key, value)| filter.takes(key, value)))
            && holds(self.none.as_ref(), |filter| !some(filter))
    }
}

impl ImageSearchFilter {
    /// Whether the filter selects the image.
    pub(crate) fn takes(&self, image: &Image) -> bool {
        let record = &image.record;
        let text = |filter: &Option<TextFilter>, text: &str| holds(filter.as_ref(), |f| f.takes(text));
        holds(self.id.as_ref(), |filter| filter.takes(&image.id))
            && holds(self.status.as_ref(), |filter| filter.takes(&Status::Alive))
            && holds(self.name.as_ref(), |filter| filter.takes(record.canonical().as_str()))
            && text(&self.architecture, &record.architecture)
            && holds(self.registry_id.as_ref(), |filter| filter.takes(&RegistryId::of(&record.registry)))
            && text(&self.image, &record.name)
            && text(&self.registry, &record.registry)
            && text(&self.project, image.project().unwrap_or_default())
            && text(&self.tag, &record.tag)
            && text(&self.config_digest, record.digest.as_str())
            && holds(self.accelerators.as_ref(), |filter| filter.takes(&accelerators(image)))
            && holds(self.size_bytes.as_ref(), |filter| filter.takes(record.size_bytes))
            && self.is_local != Some(true)
            && holds(self.kind.as_ref(), |filter| filter.takes(&image.kind()))
            && holds(self.created_at.as_ref(), |filter| filter.takes(image.config.created_at))
            && holds(self.alias.as_ref().and_then(|of| of.alias.as_ref()), |filter| {
                image.aliases.iter().any(|alias| filter.takes(alias))
            })
            && holds(self.last_used.as_ref(), |filter| filter.takes(None))
            && holds(self.labels.as_ref(), |filter| filter.takes(image))
            && self.inner_take(|inner| inner.takes(image))
    }
}

/// Returns about how much text a filter may look at in an image: its names and its labels.
pub(crate) fn size_of_text(image: &Arc<Image>) -> usize {
    const NAMES: usize = 512;
    let labels = image.config.labels.iter().map(|(key, value)| key.len() + value.len());
    NAMES + labels.sum::<usize>()
}

/// The fields that images are ordered by.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    /// The canonical name.
    Name,
    /// See [`Node::created_at`]; images without it come first.
    CreatedAt,
    /// Equal for all images, because none was ever used.
    LastUsed,
    /// The id.
    EntityId,
    /// The repository.
    Image,
    /// The repository's first part.
    Project,
    /// The tag, as a text.
    Tag,
    /// The registry's host.
    Registry,
    /// The registry's id.
    RegistryId,
    /// The architecture.
    Architecture,
    /// The config's digest.
    ConfigDigest,
    /// The size.
    SizeBytes,
    /// Equal for all images, because none is local.
    IsLocal,
    /// What it is for.
    Type,
    /// Equal for all images, because all exist.
    Status,
    /// The accelerators.
    Accelerators,
}

impl Field {
    /// Returns which of two images comes first by this field.
    pub(crate) fn compare(self, a: &Image, b: &Image) -> Ordering {
        let (x, y) = (&a.record, &b.record);
        match self {
            Self::Name => x.canonical().as_str().cmp(y.canonical().as_str()),
            Self::CreatedAt => a.config.created_at.cmp(&b.config.created_at),
            Self::EntityId => a.id.cmp(&b.id),
            Self::Image => x.name.cmp(&y.name),
            Self::Project => a.project().cmp(&b.project()),
            Self::Tag => x.tag.cmp(&y.tag),
            Self::Registry => x.registry.cmp(&y.registry),
            Self::RegistryId => RegistryId::of(&x.registry).cmp(&RegistryId::of(&y.registry)),
            Self::Architecture => x.architecture.cmp(&y.architecture),
            Self::ConfigDigest => x.digest.as_str().cmp(y.digest.as_str()),
            Self::SizeBytes => x.size_bytes.cmp(&y.size_bytes),
            Self::Type => a.kind().cmp(&b.kind()),
            Self::Accelerators => accelerators(a).cmp(&accelerators(b)),
            Self::LastUsed | Self::IsLocal | Self::Status => Ordering::Equal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parts_of_tag;

    #[test]
    fn a_tag_is_taken_apart_behind_its_version() {
        let parts: Vec<_> = parts_of_tag("3.9-ubuntu20.04-cuda11-slim-").collect();
        assert_eq!(parts, [("ubuntu", "20.04"), ("cuda", "11"), ("slim", "")]);
        assert_eq!(parts_of_tag("latest").count(), 0);
    }
}
