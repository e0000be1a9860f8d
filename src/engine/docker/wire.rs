//! Docker's JSON documents, as far as wharf reads them, and what they mean.

use std::collections::HashMap;

use bollard::models::ContainerSummary;
use serde::Deserialize;

use crate::base::{arch, digest::Digest};
use crate::engine::{
    fault::one_line,
    image::{Held, Part},
    name,
};

/// The reason Docker gives with a status that is no success.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
}

/// Disk usage. Up to API 1.51 the sum is `LayersSize`; later ones have `ImageUsage`. Podman 4 has neither, only a list
/// with a row per name, in which shared layers count for each image.
#[derive(Debug, Deserialize)]
pub(crate) struct Usage {
    #[serde(default, rename = "LayersSize")]
    layers: Option<i64>,
    #[serde(default, rename = "ImageUsage")]
    sums: Option<ImageUsage>,
    #[serde(default, rename = "Images")]
    images: Option<Vec<ImageSize>>,
}

#[derive(Debug, Deserialize)]
struct ImageSize {
    #[serde(default, rename = "Id")]
    id: String,
    #[serde(default, rename = "Size")]
    size: i64,
}

#[derive(Debug, Deserialize)]
struct ImageUsage {
    #[serde(default, rename = "TotalSize")]
    total: i64,
}

impl Usage {
    pub(crate) fn images_bytes(&self) -> u64 {
        let listed = || -> i64 {
            let rows = self.images.iter().flatten().map(|image| (&image.id, image.size));
            rows.collect::<HashMap<_, _>>().into_values().fold(0, i64::saturating_add)
        };
        let total = self.sums.as_ref().map(|sums| sums.total);
        let total = self.layers.filter(|&sum| sum > 0).or(total).unwrap_or_else(listed);
        u64::try_from(total).unwrap_or(0)
    }
}

/// An event.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default, rename = "Action")]
    action: String,
    #[serde(default, rename = "Actor")]
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
struct Actor {
    #[serde(default, rename = "Attributes")]
    attributes: Option<HashMap<String, String>>,
}

impl Said {
    /// Whether the event says that images came, went or changed their names.
    pub(crate) fn is_of_images(&self) -> bool {
        let is_change =
            matches!(self.action.as_str(), "pull" | "tag" | "untag" | "delete" | "load" | "import");
        self.kind == "image" && is_change
    }

    /// The image of a container that came, ran or went, as its maker named it. Podman has words of its own for the end
    /// and the removal of a container.
    pub(crate) fn image_of_container(&self) -> Option<&str> {
        let is_change = matches!(
            self.action.as_str(),
            "create" | "start" | "die" | "died" | "destroy" | "remove" | "rename"
        );
        let image = self.actor.attributes.as_ref()?.get("image")?;
        (self.kind == "container" && is_change).then_some(image)
    }
}

/// An image, in the list or by itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Image {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(default)]
    size: i64,
    /// Only of an image by itself: its processor, or that of the part of an index that Docker would run here.
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    /// What an index has, if that was asked for and the engine knows (API 1.47 in the list, 1.48 by itself).
    #[serde(default)]
    manifests: Option<Vec<Manifest>>,
}

/// An entry of an index in Docker's containerd store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    #[serde(default, rename = "ID")]
    id: String,
    /// Whether all of it is there.
    #[serde(default)]
    available: bool,
    /// Only of an image, not of an attestation.
    #[serde(default)]
    image_data: Option<ImageData>,
}

#[derive(Debug, Deserialize)]
struct ImageData {
    #[serde(default, rename = "Platform")]
    platform: Platform,
}

#[derive(Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Image {
    /// The image, without what of it is there; `None` if its ID is not valid.
    pub(crate) fn held(&self) -> Option<Held> {
        let size_bytes = u64::try_from(self.size).unwrap_or(0);
        let tags = self.repo_tags.as_deref().unwrap_or_default();
        let digests = self.repo_digests.as_deref().unwrap_or_default();
        Held::read(&self.id, tags, digests, size_bytes)
    }

    /// Whether the answer says what of the image is there.
    pub(crate) fn tells_parts(&self) -> bool {
        self.manifests.is_some()
    }

    /// What of the image is there, if the answer says so of each platform.
    pub(crate) fn parts(&self) -> Option<Vec<Part>> {
        self.manifests.as_ref().map(|manifests| manifests.iter().filter_map(Manifest::part).collect())
    }

    /// The architecture, if the answer has one.
    pub(crate) fn platform(&self) -> Option<String> {
        let architecture = self.architecture.as_deref().filter(|architecture| !architecture.is_empty())?;
        Some(arch::normalize(architecture, self.variant.as_deref()))
    }

    /// Those of its names that are by digest alone, in this repository. Only Podman and Docker's containerd store have
    /// such names. Podman shows no other trace of them here than the digests that the image has in a repository.
    pub(crate) fn names_by_digest<'a>(&'a self, repository: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.repo_tags.iter().chain(&self.repo_digests).flatten().map(String::as_str);
        names.filter(move |name| {
            name.split_once('@').is_some_and(|(of, _)| name::repository(of).as_deref() == Some(repository))
        })
    }
}

impl Image {
    /// Those of its names that a relay gave it.
    pub(crate) fn names_by_relays(&self) -> impl Iterator<Item = &str> {
        let names = self.repo_tags.iter().chain(&self.repo_digests).flatten().map(String::as_str);
        names.filter(|name| name.split_once('@').is_some_and(|(of, _)| name::relay(of).is_some()))
    }
}

impl Manifest {
    /// The image for one platform, if it is one and all of it is there.
    fn part(&self) -> Option<Part> {
        let Platform { architecture, variant } = &self.image_data.as_ref()?.platform;
        let manifest: Digest = self.id.parse().ok().filter(|_| self.available)?;
        Some(Part {
            architecture: arch::normalize(architecture, variant.as_deref()),
            manifest: Some(manifest),
        })
    }
}

pub(crate) fn container_name(container: ContainerSummary) -> Option<String> {
    let name = container.names.unwrap_or_default().into_iter().next();
    let name = name.map(|name| name.trim_start_matches('/').to_owned()).or(container.id)?;
    Some(one_line(&name))
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn each_engine_has_its_own_way_to_say_what_images_take() {
        for (said, bytes) in [
            (r#"{"LayersSize":5,"Images":[{"Id":"a","Size":9}]}"#, 5),
            (r#"{"LayersSize":0,"Images":null}"#, 0),
            (r#"{"ImageUsage":{"TotalSize":7}}"#, 7),
            // Podman 4.3 has a row for each name.
            (
                r#"{"LayersSize":0,"Images":[{"Id":"a","Size":9},{"Id":"a","Size":9},{"Id":"b","Size":1}]}"#,
                10,
            ),
            (r#"{"LayersSize":-1,"Images":[{"Id":"a","Size":-9}]}"#, 0),
            ("{}", 0),
        ] {
            let usage: Usage = serde_json::from_str(said).unwrap();
            assert_eq!(usage.images_bytes(), bytes, "{said}");
        }
    }
}
