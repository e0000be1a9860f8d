//! What the catalog knows of the contents of images, whoever asks: for the transfers that bring them to agents.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::Result;
use crate::base::digest::Digest;
use crate::catalog::image::{ConfigRecord, Image, ImageRecord, Layer};
use crate::catalog::index;
use crate::catalog::records::{CONFIGS, MANIFESTS, ManifestRecord};
use crate::catalog::service::Catalog;
use crate::engine::image::Held;

impl Catalog {
    /// One image for each config and each platform's manifest in the catalog; for plans.
    pub(crate) fn image_by_digest(&self) -> HashMap<Digest, Arc<Image>> {
        let index = self.index.read();
        let both = |image: &Arc<Image>| {
            [&image.record.digest, &image.record.manifest].map(|digest| (digest.clone(), Arc::clone(image)))
        };
        index.images(index::all).flat_map(both).collect()
    }

    /// The config of the image of the catalog that an engine's image is, if it is one.
    pub(crate) fn config_of(&self, held: &Held) -> Option<Digest> {
        let index = self.index.read();
        let found = index.images(index::all).find(|image| held.is(&image.record.identity()));
        found.map(|image| image.record.digest.clone())
    }

    /// The images of this canonical name, one for each architecture, without asking who the caller is.
    pub(crate) fn variants(&self, canonical: &str) -> Vec<Arc<Image>> {
        self.index.read().images_named(canonical, index::all).into_iter().cloned().collect()
    }

    /// The layers of an image, from the base up; none if they are not known.
    pub(crate) async fn layers(&self, image: &ImageRecord) -> Result<Vec<Layer>> {
        let (manifest, config) = (image.manifest.clone(), image.digest.clone());
        self.store
            .read(move |r| {
                let layer_sizes = match r.find(&MANIFESTS, manifest.as_str())? {
                    Some(ManifestRecord::Image { layer_sizes, .. }) => layer_sizes,
                    _ => Vec::new(),
                };
                let config: Option<ConfigRecord> = r.find(&CONFIGS, config.as_str())?;
                let diff_ids = config.map(|config| config.diff_ids).unwrap_or_default();
                let (diff_ids, _) = diff_ids.as_chunks();
                if diff_ids.len() != layer_sizes.len() {
                    return Ok(Vec::new());
                }
                let layers = diff_ids.iter().zip(layer_sizes);
                Ok(layers.map(|(diff_id, size)| Layer { diff_id: *diff_id, size }).collect())
            })
            .await
    }
}
