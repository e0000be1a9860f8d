//! The catalog in memory, which every list and lookup reads. It follows the store's commits, in their order.
//!
//! Who may see an image is decided from its [`Subject`], which is stored beside every pointer to the image. So a walk
//! never touches an image that the caller may not see. A lookup judges an entry before it compares its name, and
//! where the name does not exist it judges a neighbour instead: even by its timing, a hidden image looks like a
//! missing one.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::access::visibility::{CompiledView, Owner, PresenceIndex, Subject, Viewpoint};
use crate::base::digest::Digest;
use crate::base::ids::ImageId;
use crate::base::{Error, Result, reference};
use crate::catalog::changes::Change;
use crate::catalog::image::{Config, ConfigRecord, Image, ImageRecord};
use crate::catalog::labels::LabelKeys;
use crate::catalog::records::{ALIASES, CONFIGS, IMAGES, REGISTRIES};
use crate::catalog::registry::Registry;
use crate::store::Store;
use crate::store::table::Reader;

/// All catalogued images, aliases, configs and registries.
pub(crate) struct Index {
    presence: Arc<dyn PresenceIndex>,
    /// The images by canonical name and architecture, which is the order of every list.
    images: BTreeMap<Box<str>, Entry>,
    /// The same images in a row, built when a caller asks and dropped when something changes: a caller that wants all
    /// of them walks straight through memory.
    row: OnceLock<Vec<Entry>>,
    /// One image for each config and each platform's manifest, built and dropped like the row.
    by_digest: OnceLock<Arc<HashMap<Digest, Arc<Image>>>>,
    by_id: BTreeMap<ImageId, Entry>,
    /// The image that each alias stands for: one more alias of an image is one more entry, however many it has.
    aliases: BTreeMap<Arc<str>, ImageId>,
    configs: HashMap<Digest, Arc<Config>>,
    label_keys: Arc<LabelKeys>,
    registries: BTreeMap<String, Arc<Registry>>,
    numbers: Numbers,
}

/// A pointer to an image, and the subject by which it is judged.
#[derive(Clone)]
struct Entry {
    subject: Subject,
    image: Arc<Image>,
}

/// How many entries a lookup by name reads and judges at least: those of a hidden image with up to three
/// architectures and the one behind them, or as many where the name does not exist, so that both take equally long.
const LOOKED_AT: usize = 4;

/// Admits every image: for work on all images, regardless of who may see them.
pub(crate) fn all(_: &Subject) -> bool {
    true
}

/// The numbers of the things by which images are judged.
#[derive(Default)]
struct Numbers {
    registries: Numbering<String>,
    owners: Numbering<Owner>,
}

impl Numbers {
    fn subject(&mut self, record: &ImageRecord, config: &Config, presence: &dyn PresenceIndex) -> Subject {
        Subject {
            registry: self.registries.give(record.registry.as_str()).get(),
            number: presence.number(record.canonical().as_str(), &record.identity()),
            owner: config.owner.as_deref().map(|owner| self.owners.give(owner)),
            is_operation: config.is_operation,
        }
    }
}

/// Numbers given to things as they appear, from 1; each thing keeps its number while the server runs.
struct Numbering<K>(HashMap<K, NonZeroU32>);

impl<K> Default for Numbering<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Numbering<K> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<NonZeroU32>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).copied()
    }

    fn give<Q: Eq + Hash + ToOwned<Owned = K> + ?Sized>(&mut self, key: &Q) -> NonZeroU32
    where
        K: Borrow<Q>,
    {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let next = NonZeroU32::MIN.saturating_add(count);
        self.get(key).unwrap_or_else(|| *self.0.entry(key.to_owned()).or_insert(next))
    }
}

impl Index {
    /// Loads the catalog from the store.
    pub(crate) fn load(store: &Store, presence: Arc<dyn PresenceIndex>) -> Result<Self> {
        store.read_now(|reader| {
            let mut index = Self {
                presence,
                images: BTreeMap::new(),
                row: OnceLock::new(),
                by_digest: OnceLock::new(),
                by_id: BTreeMap::new(),
                aliases: BTreeMap::new(),
                configs: HashMap::new(),
                label_keys: Arc::default(),
                registries: BTreeMap::new(),
                numbers: Numbers::default(),
            };
            reader.scan(&REGISTRIES, [], |_, registry: Registry| {
                index.registries.insert(registry.host.clone(), Arc::new(registry));
                Ok(())
            })?;
            let mut aliases: HashMap<ImageId, Vec<Arc<str>>> = HashMap::new();
            reader.scan(&ALIASES, [], |key, image| {
                let alias: Arc<str> = std::str::from_utf8(key).map_err(Error::internal)?.into();
                aliases.entry(image).or_default().push(Arc::clone(&alias));
                index.aliases.insert(alias, image);
                Ok(())
            })?;
            index.load_images(reader, &aliases)?;
            Ok(index)
        })
    }

    /// Loads the images, each with its aliases in order.
    fn load_images(&mut self, reader: &Reader, aliases: &HashMap<ImageId, Vec<Arc<str>>>) -> Result<()> {
        let configs = reader.collect(&CONFIGS, |key, record: ConfigRecord| {
            let digest = std::str::from_utf8(key).map_err(Error::internal)?.parse::<Digest>();
            Ok((digest.map_err(Error::internal)?, Arc::new(Config::new(record, &self.label_keys))))
        })?;
        self.configs = configs.into_iter().collect();
        let numbers = Mutex::new(&mut self.numbers);
        let images = reader.collect(&IMAGES, |_, mut record: ImageRecord| {
            let (digest, config) = self.configs.get_key_value(&record.digest).ok_or_else(|| {
                Error::internal(format!("{} has no config {}", record.canonical(), record.digest))
            })?;
            record.digest.clone_from(digest);
            let subject = numbers.lock().subject(&record, config, &*self.presence);
            let key = key(&record);
            let aliases = aliases.get(&record.id()).cloned().unwrap_or_default();
            let image = Arc::new(Image::new(record, Arc::clone(config), subject, aliases));
            Ok((key, Entry { subject, image }))
        })?;
        // Built from all entries at once, the trees are full, and a third smaller than trees that grew.
        self.by_id = images.iter().map(|(_, entry)| (entry.image.id, entry.clone())).collect();
        self.images = images.into_iter().collect();
        Ok(())
    }

    /// Adds an image, or changes it; its aliases stay.
    pub(crate) fn put_image(&mut self, record: ImageRecord, config: Arc<Config>) {
        let config = match self.configs.get(&record.digest) {
            Some(known) if *known == config => Arc::clone(known),
            _ => {
                self.configs.insert(record.digest.clone(), Arc::clone(&config));
                config
            }
        };
        let old = self.by_id.get(&record.id()).map(|entry| Arc::clone(&entry.image));
        if let Some(old) = &old {
            self.presence.forget(old.subject.number);
        }
        if let (None, Some(alias)) = (&old, self.shadowed_by(&record)) {
            tracing::warn!(
                %alias, image = %record.canonical(),
                "an alias is an image's own name now and means that image; dealias it"
            );
        }
        let subject = self.numbers.subject(&record, &config, &*self.presence);
        let aliases = old.map(|old| old.aliases.clone()).unwrap_or_default();
        self.insert(Image::new(record, config, subject, aliases));
    }

    fn insert(&mut self, image: Image) {
        let entry = Entry { subject: image.subject, image: Arc::new(image) };
        self.by_id.insert(entry.image.id, entry.clone());
        self.images.insert(key(&entry.image.record), entry);
        self.drop_views();
    }

    /// Drops what was built from the images as they were.
    fn drop_views(&mut self) {
        (self.row, self.by_digest) = (OnceLock::new(), OnceLock::new());
    }

    /// Removes an image and its aliases.
    pub(crate) fn remove_image(&mut self, id: ImageId) {
        if let Some(Entry { image, .. }) = self.by_id.remove(&id) {
            self.images.remove(&key(&image.record));
            self.drop_views();
            self.presence.forget(image.subject.number);
            for alias in &image.aliases {
                self.aliases.remove(alias);
            }
        }
    }

    /// Gives an image an alias.
    pub(crate) fn put_alias(&mut self, alias: &str, id: ImageId) {
        let alias: Arc<str> = alias.into();
        self.edit_aliases(id, |aliases| {
            if let Err(place) = aliases.binary_search(&alias) {
                aliases.insert(place, Arc::clone(&alias));
            }
        });
        self.aliases.insert(alias, id);
    }

    /// Removes an alias.
    pub(crate) fn remove_alias(&mut self, alias: &str) {
        if let Some(id) = self.aliases.remove(alias) {
            self.edit_aliases(id, |aliases| aliases.retain(|known| **known != *alias));
        }
    }

    fn edit_aliases(&mut self, id: ImageId, edit: impl FnOnce(&mut Vec<Arc<str>>)) {
        if let Some(entry) = self.by_id.get(&id) {
            let mut changed = Image::clone(&entry.image);
            edit(&mut changed.aliases);
            self.insert(changed);
        }
    }

    /// Forgets these configs, which no image has any more.
    pub(crate) fn forget_configs(&mut self, digests: &[Digest]) {
        for digest in digests {
            self.configs.remove(digest);
        }
        self.label_keys.tidy();
        if self.configs.capacity() / 4 > self.configs.len() {
            self.configs.shrink_to_fit();
        }
    }

    /// Adds a registry, or changes it.
    pub(crate) fn put_registry(&mut self, registry: Registry) {
        self.registries.insert(registry.host.clone(), Arc::new(registry));
    }

    /// Removes a registry, but not its images.
    pub(crate) fn remove_registry(&mut self, host: &str) {
        self.registries.remove(host);
    }

    /// What decides who may see a change. The image may be gone; then it is on no agent.
    pub(in crate::catalog) fn subject_of(&self, change: &Change) -> Subject {
        let number = |number: Option<NonZeroU32>| number.map_or(0, NonZeroU32::get);
        Subject {
            registry: number(self.numbers.registries.get(change.registry.as_str())),
            number: u32::MAX,
            // An owner who has no number is none of those who ask.
            owner: change.owner().map(|owner| self.numbers.owners.get(&owner).unwrap_or(NonZeroU32::MAX)),
            is_operation: change.is_operation(),
        }
    }

    /// Compiles a viewpoint against what is catalogued and where it is now.
    pub(crate) fn view(&self, viewpoint: &Viewpoint) -> CompiledView {
        let registry = |host: &str| {
            let host = self.registry(host).map_or(host, |registry| registry.host.as_str());
            self.numbers.registries.get(host).map(NonZeroU32::get)
        };
        viewpoint.compile(registry, |owner| self.numbers.owners.get(owner), &*self.presence)
    }

    /// The images that may be seen, ordered by name.
    pub(crate) fn images(&self, may_see: impl Fn(&Subject) -> bool) -> impl Iterator<Item = &Arc<Image>> {
        let row = self.row.get_or_init(|| self.images.values().cloned().collect());
        row.iter().filter(move |entry| may_see(&entry.subject)).map(|entry| &entry.image)
    }

    /// The images that may be seen, ordered by name, each with a unique key in the same order.
    pub(crate) fn keyed_images(
        &self,
        may_see: impl Fn(&Subject) -> bool,
    ) -> impl Iterator<Item = (&str, &Arc<Image>)> {
        let seen = self.images.iter().filter(move |(_, entry)| may_see(&entry.subject));
        seen.map(|(key, entry)| (&**key, &entry.image))
    }

    /// One image for each config and each platform's manifest.
    pub(in crate::catalog) fn by_digest(&self) -> &Arc<HashMap<Digest, Arc<Image>>> {
        self.by_digest.get_or_init(|| {
            let both = |image: &Arc<Image>| {
                [&image.record.digest, &image.record.manifest]
                    .map(|digest| (digest.clone(), Arc::clone(image)))
            };
            Arc::new(self.images.values().flat_map(|entry| both(&entry.image)).collect())
        })
    }

    /// How many images there are.
    pub(crate) fn image_count(&self) -> usize {
        self.images.len()
    }

    /// The image with this id, if it may be seen.
    pub(crate) fn image(&self, id: ImageId, may_see: impl Fn(&Subject) -> bool) -> Option<&Arc<Image>> {
        at(&self.by_id, &id, Some, may_see)
    }

    /// The image an alias stands for, if it may be seen.
    pub(crate) fn aliased(&self, alias: &str, may_see: impl Fn(&Subject) -> bool) -> Option<&Arc<Image>> {
        at(&self.aliases, alias, |id| self.by_id.get(id), may_see)
    }

    /// All images whose canonical name begins with `start`, ordered by name, regardless of who may see them.
    pub(crate) fn images_from(&self, start: &str) -> impl Iterator<Item = &Arc<Image>> {
        let behind = self.images.range::<str, _>((Bound::Included(start), Bound::Unbounded));
        behind.take_while(move |(key, _)| key.starts_with(start)).map(|(_, entry)| &entry.image)
    }

    /// The images of this canonical name that may be seen: one for each architecture.
    pub(crate) fn images_named(
        &self,
        canonical: &str,
        may_see: impl Fn(&Subject) -> bool,
    ) -> Vec<&Arc<Image>> {
        let start = format!("{canonical}\0");
        let behind = self.images.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
        let judged =
            behind.map(|(key, entry)| (key.starts_with(&start), may_see(&entry.subject), &entry.image));
        let looked_at = judged.enumerate().take_while(|(place, (is_it, ..))| *is_it || *place < LOOKED_AT);
        looked_at.filter_map(|(_, (is_it, is_seen, image))| (is_it && is_seen).then_some(image)).collect()
    }

    /// The sets of keys that the configs' labels share.
    pub(crate) fn label_keys(&self) -> &Arc<LabelKeys> {
        &self.label_keys
    }

    /// The registry of this name, however it is spelt.
    pub(crate) fn registry(&self, host: &str) -> Option<&Arc<Registry>> {
        self.registries.get(host).or_else(|| {
            let name = reference::typed_registry(host)?.name;
            self.registries.values().find(|registry| reference::registry_name(&registry.host) == name)
        })
    }

    /// The alias that a new image's own name, in full or in short, takes the meaning from.
    fn shadowed_by(&self, record: &ImageRecord) -> Option<&Arc<str>> {
        let (canonical, short) = (record.canonical().to_string(), format!("{}:{}", record.name, record.tag));
        let names = [canonical.as_str(), short.as_str()];
        let bare = names.into_iter().filter_map(|name| name.strip_suffix(":latest"));
        let found = names.into_iter().chain(bare).find_map(|name| self.aliases.get_key_value(name));
        found.filter(|(_, image)| **image != record.id()).map(|(alias, _)| alias)
    }

    /// All registries, ordered by name.
    pub(crate) fn registries(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.registries.values()
    }
}

/// The entry at this key, if it may be seen. If there is none, the next one is judged instead.
fn at<'a, K, Q, V>(
    entries: &'a BTreeMap<K, V>,
    key: &Q,
    entry: impl Fn(&'a V) -> Option<&'a Entry>,
    may_see: impl Fn(&Subject) -> bool,
) -> Option<&'a Arc<Image>>
where
    K: Borrow<Q> + Ord,
    Q: Ord + ?Sized,
{
    let (found, value) = entries.range::<Q, _>((Bound::Included(key), Bound::Unbounded)).next()?;
    let entry = entry(value)?;
    let is_seen = may_see(&entry.subject);
    (found.borrow() == key && is_seen).then_some(&entry.image)
}

fn key(record: &ImageRecord) -> Box<str> {
    format!("{}\0{}", record.canonical(), record.architecture).into()
}
