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
    pub(crate) fn image_by_digest(&self) -> Arc<HashMap<Digest, Arc<Image>>> {
        Arc::clone(self.index.read().by_digest())
    }

    /// What stands for an engine's image wherever one content is to be told from another: the config, if the catalog knows
    /// it, which on some engines is not the ID.
    pub(crate) fn content_of(&self, held: &Held) -> Digest {
        let index = self.index.read();
        let by_digest = index.by_digest();
        let known = held.digests().find_map(|digest| by_digest.get(digest));
        // Where an engine does not say which manifest it has of an index, only the images of that index can tell.
        let is_vague = known.is_none() && held.parts.iter().any(|part| part.manifest.is_none());
        let vague = || index.images(index::all).find(|image| held.is(&image.record.identity()));
        let found = known.or_else(|| if is_vague { vague() } else { None });
        found.map_or_else(|| held.digest.clone(), |image| image.record.digest.clone())
    }

    /// The images of this canonical name, one for each architecture, without asking who the caller is. The name may be
    /// as engines tell it, where the registry is stored by another spelling.
    pub(crate) fn variants(&self, canonical: &str) -> Vec<Arc<Image>> {
        let index = self.index.read();
        let mut found = index.images_named(canonical, index::all);
        if found.is_empty()
            && let Some((host, name)) = canonical.split_once('/')
            && let Some(registry) = index.registry(host)
            && registry.host != host
        {
            found = index.images_named(&format!("{}/{name}", registry.host), index::all);
        }
        found.into_iter().cloned().collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use crate::access::audit::{Audit, Retention};
    use crate::access::tenants::Tenants;
    use crate::access::visibility::PresenceIndex;
    use crate::base::bits::Bits;
    use crate::base::clock::Clock;
    use crate::base::digest::Digest;
    use crate::base::identity::Identity;
    use crate::catalog::image::fake;
    use crate::catalog::service::Catalog;
    use crate::engine::fake::held;
    use crate::engine::image::{Held, Part};
    use crate::store::Store;

    /// No agents.
    struct Nowhere;

    impl PresenceIndex for Nowhere {
        fn number(&self, _name: &str, _image: &Identity<'_>) -> u32 {
            0
        }

        fn forget(&self, _image: u32) {}

        fn held(&self, _scaling_groups: Option<&BTreeSet<String>>) -> Bits {
            Bits::default()
        }

        fn scaling_groups(&self, _image: u32) -> Vec<String> {
            Vec::new()
        }

        fn agents(&self, _image: u32) -> Vec<String> {
            Vec::new()
        }

        fn is_stale(&self, _name: &str, _image: &Identity<'_>) -> bool {
            false
        }
    }

    #[test]
    fn an_image_is_the_same_content_by_whatever_id_an_engine_has_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let (store, clock) = (Store::open(directory.path()).unwrap(), Clock::system());
        let tenants = Tenants::load(&store, clock.now()).unwrap();
        let audit = Audit::load(&store, clock, Retention::default()).unwrap();
        let catalog = Catalog::load(&store, tenants, Arc::new(Nowhere), audit).unwrap();
        let image = fake("a:1", "x86_64");
        let record = &image.record;
        let by = |digest: &Digest| Held { digest: digest.clone(), ..held("cr.lab/a:1") };
        let known = || catalog.content_of(&by(&record.manifest)) == record.digest;
        assert!(!known());
        catalog.index.write().put_image(image.record.clone(), Arc::clone(&image.config));
        let part = Part { architecture: "x86_64".into(), manifest: Some(record.manifest.clone()) };
        let index = Held { parts: vec![part], ..held("cr.lab/a:1") };
        for held in [by(&record.digest), by(&record.manifest), index] {
            assert_eq!(catalog.content_of(&held), record.digest);
        }
        let unknown = held("other");
        assert_eq!(catalog.content_of(&unknown), unknown.digest);
        catalog.index.write().remove_image(record.id());
        assert!(!known(), "it left the catalog");
    }
}
