//! The catalog in memory: what every list and lookup reads. It follows the store's commits, in their order.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::ids::ImageId;
use crate::base::{Error, Result};
use crate::catalog::image::{Config, ConfigRecord, Image, ImageRecord};
use crate::catalog::records::{ALIASES, CONFIGS, IMAGES, REGISTRIES};
use crate::catalog::registry::Registry;
use crate::store::Store;
use crate::store::table::Reader;

/// Everything that is catalogued.
#[derive(Default)]
pub struct Index {
    /// By canonical name and architecture, which is the order of every list.
    images: BTreeMap<Box<str>, Arc<Image>>,
    by_id: HashMap<ImageId, Arc<Image>>,
    configs: HashMap<Digest, Arc<Config>>,
    aliases: BTreeMap<Box<str>, ImageId>,
    registries: BTreeMap<String, Arc<Registry>>,
}

impl Index {
    /// Reads the catalog from the store.
    pub fn load(store: &Store) -> Result<Self> {
        store.read_now(|reader| {
            let mut index = Self::default();
            reader.scan(&REGISTRIES, [], |_, registry: Registry| {
                index.registries.insert(registry.host.clone(), Arc::new(registry));
                Ok(())
            })?;
            index.load_images(reader)?;
            reader.scan(&ALIASES, [], |key, image| {
                let alias = std::str::from_utf8(key).map_err(Error::internal)?;
                index.put_alias(alias, image);
                Ok(())
            })?;
            Ok(index)
        })
    }

    fn load_images(&mut self, reader: &Reader) -> Result<()> {
        let configs = reader.collect(&CONFIGS, |key, record: ConfigRecord| {
            let digest = std::str::from_utf8(key).map_err(Error::internal)?.parse::<Digest>();
            Ok((digest.map_err(Error::internal)?, Arc::new(Config::new(record))))
        })?;
        self.configs = configs.into_iter().collect();
        let images = reader.collect(&IMAGES, |_, record: ImageRecord| {
            let config = self.configs.get(&record.digest).cloned().ok_or_else(|| {
                Error::internal(format!("{} has no config {}", record.canonical(), record.digest))
            })?;
            let key = key(&record);
            Ok((key, Arc::new(Image::new(record, config, Vec::new()))))
        })?;
        self.by_id = images.iter().map(|(_, image)| (image.id, Arc::clone(image))).collect();
        // Made of all at once, the tree is full, and a third smaller than one that grew.
        self.images = images.into_iter().collect();
        Ok(())
    }

    /// Adds an image, or changes it; its aliases stay.
    pub fn put_image(&mut self, record: ImageRecord, config: Arc<Config>) {
        self.configs.insert(record.digest.clone(), Arc::clone(&config));
        let mut image = Image::new(record, config, Vec::new());
        if let Some(old) = self.by_id.get(&image.id) {
            image.aliases.clone_from(&old.aliases);
        }
        self.insert(image);
    }

    fn insert(&mut self, image: Image) {
        let image = Arc::new(image);
        self.by_id.insert(image.id, Arc::clone(&image));
        self.images.insert(key(&image.record), image);
    }

    /// Takes an image and its aliases out.
    pub fn remove_image(&mut self, id: ImageId) {
        if let Some(image) = self.by_id.remove(&id) {
            self.images.remove(&key(&image.record));
            for alias in &image.aliases {
                self.aliases.remove(alias);
            }
        }
    }

    /// Gives an image another name.
    pub fn put_alias(&mut self, alias: &str, id: ImageId) {
        self.aliases.insert(alias.into(), id);
        self.edit_aliases(id, |aliases| {
            if let Err(place) = aliases.binary_search_by(|known| (**known).cmp(alias)) {
                aliases.insert(place, alias.into());
            }
        });
    }

    /// Takes a name away.
    pub fn remove_alias(&mut self, alias: &str) {
        if let Some(id) = self.aliases.remove(alias) {
            self.edit_aliases(id, |aliases| aliases.retain(|known| **known != *alias));
        }
    }

    fn edit_aliases(&mut self, id: ImageId, edit: impl FnOnce(&mut Vec<Box<str>>)) {
        if let Some(image) = self.by_id.get(&id) {
            let mut changed = Image::clone(image);
            edit(&mut changed.aliases);
            self.insert(changed);
        }
    }

    /// Adds a registry, or changes it.
    pub fn put_registry(&mut self, registry: Registry) {
        self.registries.insert(registry.host.clone(), Arc::new(registry));
    }

    /// Takes a registry out, but not its images.
    pub fn remove_registry(&mut self, host: &str) {
        self.registries.remove(host);
    }

    /// All images, by name.
    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// All images, by name, with a key that is unique and in the same order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Arc<Image>)> {
        self.images.iter().map(|(key, image)| (&**key, image))
    }

    /// How many images there are.
    pub fn image_count(&self) -> usize {
        self.images.len()
    }

    /// The image with this id.
    pub fn image(&self, id: ImageId) -> Option<&Arc<Image>> {
        self.by_id.get(&id)
    }

    /// The images whose canonical name begins with this, by name.
    pub fn images_from(&self, start: &str) -> impl Iterator<Item = &Arc<Image>> {
        let from = (Bound::Included(start), Bound::Unbounded);
        self.images
            .range::<str, _>(from)
            .take_while(move |(key, _)| key.starts_with(start))
            .map(|(_, image)| image)
    }

    /// The images of this canonical name: one for each architecture.
    pub fn images_named(&self, canonical: &str) -> Vec<&Arc<Image>> {
        self.images_from(&format!("{canonical}\0")).collect()
    }

    /// The image an alias stands for.
    pub fn aliased(&self, alias: &str) -> Option<&Arc<Image>> {
        self.aliases.get(alias).and_then(|id| self.by_id.get(id))
    }

    /// The config with this digest, as far as an image has or had it.
    pub fn config(&self, digest: &Digest) -> Option<&Arc<Config>> {
        self.configs.get(digest)
    }

    /// The registry of this name.
    pub fn registry(&self, host: &str) -> Option<&Arc<Registry>> {
        self.registries.get(host)
    }

    /// All registries, by name.
    pub fn registries(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.registries.values()
    }
}

fn key(record: &ImageRecord) -> Box<str> {
    format!("{}\0{}", record.canonical(), record.architecture).into()
}
