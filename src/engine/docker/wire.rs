//! Docker's JSON documents, as far as wharf reads them, and what they mean.

use std::collections::HashMap;

use bollard::models::{ContainerSummary, ImageInspect, ImageSummary};
use serde::Deserialize;

use crate::engine::{fault::one_line, image::Held};

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
}

impl Said {
    /// Whether the event says that images came, went or changed their names.
    pub(crate) fn is_of_images(&self) -> bool {
        let is_change =
            matches!(self.action.as_str(), "pull" | "tag" | "untag" | "delete" | "load" | "import");
        self.kind == "image" && is_change
    }
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
    let size_bytes = u64::try_from(size).unwrap_or(0);
    Held::read(id, tags, digests, size_bytes)
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
