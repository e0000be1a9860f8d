//! Docker's documents, as far as we read them, and what they mean.

use std::path::PathBuf;

use bollard::models::{ContainerSummary, ImageInspect, ImageSummary};
use serde::Deserialize;

use crate::base::digest::Digest;
use crate::engine::{Change, Event, fault::one_line, image::Held, name};

/// The reason Docker gives with a status that is no success.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
}

/// Disk usage. Up to API 1.51 the sum is `LayersSize`; later ones have `ImageUsage`.
#[derive(Debug, Deserialize)]
pub(crate) struct Usage {
    #[serde(default, rename = "LayersSize")]
    layers: Option<i64>,
    #[serde(default, rename = "ImageUsage")]
    images: Option<ImageUsage>,
}

#[derive(Debug, Deserialize)]
struct ImageUsage {
    #[serde(default, rename = "TotalSize")]
    total: i64,
}

impl Usage {
    pub(crate) fn images_bytes(&self) -> u64 {
        let total = self.images.as_ref().map_or(0, |images| images.total);
        u64::try_from(self.layers.unwrap_or(total)).unwrap_or(0)
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
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default, rename = "Attributes")]
    attributes: Option<Attributes>,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    name: Option<String>,
}

impl Said {
    /// What it means, if it is about images that come, go or change their names.
    pub(crate) fn event(self) -> Option<Event> {
        if self.kind != "image" {
            return None;
        }
        let change = match self.action.as_str() {
            "pull" => Change::Pulled,
            "tag" => Change::Tagged,
            "untag" => Change::Untagged,
            "delete" => Change::Deleted,
            "load" | "import" => Change::Loaded,
            _ => return None,
        };
        let named = self.actor.attributes.and_then(|attributes| attributes.name);
        // A pull's ID is the name with the tag; its `name` is the repository alone.
        let name = match change {
            Change::Pulled => name::canonical(&self.actor.id),
            _ => named.as_deref().filter(|name| name.parse::<Digest>().is_err()).and_then(name::canonical),
        };
        Some(Event::ImageChanged { change, digest: image_id(&self.actor.id), name })
    }
}

/// How to ask Docker for this reference: as it is, if it is an ID or a canonical name. Anything else could mean
/// another thing in a path.
pub(crate) fn askable(reference: &str) -> Option<String> {
    match reference.parse::<Digest>() {
        Ok(digest) => Some(digest.into()),
        Err(_) => name::canonical(reference),
    }
}

/// An image ID; some versions of Podman leave out the algorithm.
fn image_id(text: &str) -> Option<Digest> {
    text.parse().ok().or_else(|| format!("sha256:{text}").parse().ok())
}

pub(crate) fn summary(image: &ImageSummary) -> Option<Held> {
    held(&image.id, &image.repo_tags, &image.repo_digests, image.size)
}

pub(crate) fn inspected(image: ImageInspect) -> Option<Held> {
    held(
        &image.id.unwrap_or_default(),
        &image.repo_tags.unwrap_or_default(),
        &image.repo_digests.unwrap_or_default(),
        image.size.unwrap_or_default(),
    )
}

fn held(id: &str, tags: &[String], digests: &[String], size: i64) -> Option<Held> {
    let mut names: Vec<_> = tags.iter().filter_map(|tag| name::canonical(tag)).collect();
    let mut manifests: Vec<_> = digests.iter().filter_map(|digest| name::manifest(digest)).collect();
    names.sort();
    names.dedup();
    manifests.sort();
    manifests.dedup();
    let size_bytes = u64::try_from(size).unwrap_or(0);
    Some(Held { digest: image_id(id)?, names, manifests, size_bytes })
}

pub(crate) fn container_name(container: ContainerSummary) -> Option<String> {
    let name = container.names.unwrap_or_default().into_iter().next();
    let name = name.map(|name| name.trim_start_matches('/').to_owned()).or(container.id)?;
    Some(one_line(&name))
}

/// Free and total bytes of the disk a folder is on; nothing if we can't see it.
pub(crate) async fn room(folder: String) -> Option<(u64, u64)> {
    // A disk behind a network may keep us waiting.
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(PathBuf::from(folder))).await;
    let disk = asked.ok()?.ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}
