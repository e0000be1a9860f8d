//! The contents of the directory: images by name, blobs by digest, and which of them are still needed.
//!
//! Every call waits for the disk, so it must run on a thread that may wait.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::engine::{
    Disk, EngineKind,
    fault::{Class, Fault},
    image::{Held, Removal},
    oci::{
        index::{Entry, Index},
        layout::{Layout, broken},
        manifest::{self, Blob, Converted, Manifest},
    },
};

/// How old a blob that nothing refers to must be before it is removed. Until then a killed pull may go on with it, over
/// a line on which a large image takes days, or another program may be about to name it.
const ABANDONED: Duration = Duration::from_hours(7 * 24);
/// How often such blobs are searched for.
const TIDY: Duration = Duration::from_hours(24);
/// How deep indexes within indexes are followed. Real ones have two levels.
const MAX_DEPTH: usize = 8;

/// The directory, with the state of the work in it.
pub(crate) struct Contents {
    pub(crate) layout: Arc<Layout>,
    /// The clock for the age of blobs. It knows no time before this process, so in its first minutes nothing is old.
    clock: Clock,
    tidied: Mutex<Option<Instant>>,
    /// Held from reading `index.json` to acting on it.
    turn: Mutex<()>,
    /// The blobs that running pulls need, with how many pulls need each.
    pins: Mutex<HashMap<Digest, usize>>,
    /// The manifests that were read; their bytes never change.
    known: Mutex<HashMap<Digest, Arc<Manifest>>>,
}

/// A guard that keeps blobs from being collected while it is held.
pub(crate) struct Pins {
    contents: Arc<Contents>,
    blobs: Vec<Digest>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = self.contents.pins.lock();
        for blob in &self.blobs {
            if let Some(count) = pins.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(blob);
                }
            }
        }
    }
}

impl Contents {
    /// The contents of this directory; `clock` must be [`Clock::unproven`].
    pub(crate) fn new(layout: Layout, clock: Clock) -> Self {
        Self {
            layout: Arc::new(layout),
            clock,
            tidied: Mutex::default(),
            turn: Mutex::default(),
            pins: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The images that are whole.
    pub(crate) fn images(&self) -> Result<Vec<Held>, Fault> {
        let index = self.layout.index()?;
        let mut images: BTreeMap<Digest, Held> = BTreeMap::new();
        for entry in index.manifests.iter().filter(|entry| entry.is_image()) {
            let Some(manifest) = self.whole(entry) else { continue };
            let image = images.entry(manifest.config.digest.clone()).or_insert_with(|| Held {
                digest: manifest.config.digest.clone(),
                parts: Vec::new(),
                names: Vec::new(),
                manifests: Vec::new(),
                size_bytes: manifest.size(),
            });
            image.names.extend(entry.name());
            image.manifests.extend(entry.known_by());
        }
        let listed: HashSet<&Digest> = index.manifests.iter().map(|entry| &entry.digest).collect();
        self.known.lock().retain(|digest, _| listed.contains(digest));
        let mut images: Vec<Held> = images.into_values().collect();
        for image in &mut images {
            image.names.sort();
            image.manifests.sort();
            image.manifests.dedup();
        }
        Ok(images)
    }

    /// All blobs of the image with this ID, if it is whole, with their sizes: its manifests, the config and the layers.
    pub(crate) fn parts(&self, image: &Digest) -> Result<HashMap<Digest, u64>, Fault> {
        let index = self.layout.index()?;
        let mut parts = HashMap::new();
        for entry in index.manifests.iter().filter(|entry| self.config_of(entry).as_ref() == Some(image)) {
            let Some(manifest) = self.whole(entry) else { continue };
            let documents = entry.known_by().into_iter();
            parts
                .extend(documents.filter_map(|digest| Some((digest.clone(), self.layout.size_of(&digest)?))));
            parts.extend(manifest.blobs().into_iter().map(|blob| (blob.digest.clone(), blob.size)));
        }
        Ok(parts)
    }

    /// The manifest of an entry, if all its blobs are there.
    fn whole(&self, entry: &Entry) -> Option<Arc<Manifest>> {
        if !self.layout.has(&entry.digest, entry.size) {
            return None;
        }
        let known = self.known.lock().get(&entry.digest).cloned();
        let manifest = if let Some(manifest) = known {
            manifest
        } else {
            let bytes = self.layout.document(&entry.digest).ok()?;
            let read = manifest::read(&bytes).ok().filter(|_| entry.digest.matches(&bytes))?;
            let manifest = Arc::new(read);
            self.known.lock().insert(entry.digest.clone(), Arc::clone(&manifest));
            manifest
        };
        let is_whole = manifest.blobs().iter().all(|blob| self.layout.has(&blob.digest, blob.size));
        is_whole.then_some(manifest)
    }

    /// Keeps these blobs from being collected from now on, whether they are there yet or not.
    pub(crate) fn pin(self: &Arc<Self>, blobs: Vec<Digest>) -> Pins {
        let mut pins = self.pins.lock();
        for blob in &blobs {
            *pins.entry(blob.clone()).or_default() += 1;
        }
        Pins { contents: Arc::clone(self), blobs }
    }

    /// Makes sure that the missing ones of these blobs fit on the disk.
    pub(crate) fn make_room(&self, blobs: &[Blob]) -> Result<(), Fault> {
        let root = self.layout.root();
        let begun: HashMap<Digest, u64> = self
            .layout
            .begun()
            .map_err(|error| broken(root, &error))?
            .into_iter()
            .map(|(digest, size, _)| (digest, size))
            .collect();
        let missing = blobs.iter().filter(|blob| !self.layout.has(&blob.digest, blob.size));
        let missing = missing.map(|blob| {
            let there = begun.get(&blob.digest).copied().unwrap_or(0);
            blob.size.saturating_sub(there)
        });
        let missing = missing.fold(0, u64::saturating_add);
        if missing == 0 {
            return Ok(());
        }
        let reserve = EngineKind::Oci.reserve();
        let needed = missing.saturating_add(reserve);
        let free = || self.layout.room().map(|(free, _)| free).map_err(|error| broken(root, &error));
        if needed <= free()? {
            return Ok(());
        }
        // Partly fetched blobs of pulls that were given up take the room that is needed now.
        self.drop_begun(|_| true);
        let free = free()?;
        if needed <= free {
            return Ok(());
        }
        let why = format!(
            "{}: {missing} bytes are to be fetched and {reserve} stay in reserve, but {free} are free; unload images \
             or free some space",
            root.display()
        );
        Err(Fault::new(Class::NoSpace, why))
    }

    /// Names an image whose other blobs are here. If another image had the name, it is removed. The manifest is kept as
    /// the registry served it too, since its digest there is what peers ask for.
    pub(crate) fn add(&self, name: &str, manifest: &Converted) -> Result<(), Fault> {
        let _turn = self.turn.lock();
        let documents = [(&manifest.digest, &manifest.bytes), (&manifest.served_as, &manifest.served)];
        for (digest, bytes) in documents {
            if self.layout.size_of(digest) != Some(length(bytes)) {
                let put = self.layout.put_blob(digest, bytes);
                put.map_err(|error| broken(&self.layout.blob(digest), &error))?;
            }
        }
        let index = self.layout.index()?;
        let entry =
            Entry::new(manifest.digest.clone(), length(&manifest.bytes), name, Some(&manifest.served_as));
        self.put(index, entry)
    }

    /// Gives the image with this ID another name, if it is here.
    pub(crate) fn tag(&self, config: &Digest, name: &str) -> Result<bool, Fault> {
        let _turn = self.turn.lock();
        let index = self.layout.index()?;
        let is_it = |entry: &&Entry| self.whole(entry).is_some_and(|found| found.config.digest == *config);
        let found = index.manifests.iter().filter(|entry| entry.is_image()).find(is_it);
        let Some(entry) = found.map(|entry| entry.named(name)) else { return Ok(false) };
        self.put(index, entry)?;
        Ok(true)
    }

    fn put(&self, mut index: Index, entry: Entry) -> Result<(), Fault> {
        let replaced = index.put(entry);
        self.write(&index)?;
        if !replaced.is_empty() {
            self.collect(&index, &replaced);
        }
        Ok(())
    }

    fn write(&self, index: &Index) -> Result<(), Fault> {
        self.layout.put_index(index).map_err(|error| broken(self.layout.root(), &error))
    }

    /// Removes a name, or all names of an image by its ID, and then the blobs that are no longer needed.
    pub(crate) fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        let _turn = self.turn.lock();
        let mut index = self.layout.index()?;
        let config_of = |entry: &Entry| self.config_of(entry);
        let removed = match reference.parse::<Digest>() {
            Ok(id) => {
                index.manifests.extract_if(.., |entry| config_of(entry).as_ref() == Some(&id)).collect()
            }
            Err(_) => index.remove(reference),
        };
        let Some(first) = removed.first() else { return Ok(Removal::Absent) };
        let config = config_of(first);
        let is_named_still =
            config.is_some() && index.manifests.iter().any(|entry| config_of(entry) == config);
        self.write(&index)?;
        let freed = self.collect(&index, &removed);
        Ok(if is_named_still { Removal::Untagged } else { Removal::Removed { freed_bytes: Some(freed) } })
    }

    fn config_of(&self, entry: &Entry) -> Option<Digest> {
        if !entry.is_image() {
            return None;
        }
        if let Some(known) = self.known.lock().get(&entry.digest) {
            return Some(known.config.digest.clone());
        }
        manifest::read(&self.layout.document(&entry.digest).ok()?).ok().map(|read| read.config.digest)
    }

    /// Removes the blobs that only these entries needed, and those abandoned long ago; returns the freed bytes. It
    /// never removes a blob that the index or a running pull refers to, and none at all if the needed ones can't be
    /// determined.
    fn collect(&self, index: &Index, lost: &[Entry]) -> u64 {
        let abandoned = self.abandoned();
        self.drop_begun(&abandoned);
        let reach = |entries: &[Entry]| {
            let mut reached = HashSet::new();
            for entry in entries {
                self.reach(&entry.digest, MAX_DEPTH, &mut reached)?;
                reached.extend(entry.known_by());
            }
            Ok::<_, Fault>(reached)
        };
        let needed = match reach(&index.manifests) {
            Ok(needed) => needed,
            Err(fault) => {
                tracing::warn!(%fault, "nothing is collected: what the images need can't be told");
                return 0;
            }
        };
        let lost = reach(lost).unwrap_or_default();
        let Ok(blobs) = self.layout.blobs() else { return 0 };
        // A pull that pins a blob from now on checks afterwards whether it is there.
        let pins = self.pins.lock();
        let goes = |digest: &Digest, written: SystemTime| {
            !needed.contains(digest)
                && !pins.contains_key(digest)
                && (lost.contains(digest) || abandoned(written))
        };
        let mut freed = 0_u64;
        for (digest, size, written) in blobs {
            if goes(&digest, written) && fs::remove_file(self.layout.blob(&digest)).is_ok() {
                freed = freed.saturating_add(size);
            }
        }
        freed
    }

    /// Collects all blobs that a document of an index leads to, itself included.
    fn reach(&self, document: &Digest, depth: usize, reached: &mut HashSet<Digest>) -> Result<(), Fault> {
        let path = self.layout.blob(document);
        if depth == 0 {
            return Err(Fault::new(Class::Other, format!("{}: indexes within indexes", path.display())));
        }
        if !reached.insert(document.clone()) {
            return Ok(());
        }
        let bytes = match self.layout.document(document) {
            Ok(bytes) => bytes,
            // An index may name platforms that were not copied to this directory.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(broken(&path, &error)),
        };
        let (documents, others) = manifest::references(&bytes)?;
        reached.extend(others.into_iter().map(|blob| blob.digest));
        documents.iter().try_for_each(|inner| self.reach(&inner.digest, depth - 1, reached))
    }

    /// Whether a blob written at that time is abandoned. While the date is not known, no blob is.
    fn abandoned(&self) -> impl Fn(SystemTime) -> bool + use<> {
        let today = self.clock.calendar().map(SystemTime::from);
        move |written| {
            let age = today.and_then(|today| today.duration_since(written).ok());
            age.is_some_and(|age| age >= ABANDONED)
        }
    }

    /// Removes what was abandoned long ago; does so once in [`TIDY`].
    pub(crate) fn tidy(&self) -> Result<(), Fault> {
        let now = self.clock.steady();
        let is_due = |last: Instant| now.saturating_duration_since(last) >= TIDY;
        if self.clock.calendar().is_some() && self.tidied.lock().is_none_or(is_due) {
            *self.tidied.lock() = Some(now);
            let _turn = self.turn.lock();
            self.collect(&self.layout.index()?, &[]);
        }
        Ok(())
    }

    /// Removes the partly fetched blobs that `goes` selects by their time, unless they are being fetched.
    fn drop_begun(&self, goes: impl Fn(SystemTime) -> bool) {
        let Ok(begun) = self.layout.begun() else { return };
        let pins = self.pins.lock();
        for (digest, _, written) in begun {
            if !pins.contains_key(&digest) && goes(written) {
                let _ = fs::remove_file(self.layout.part(&digest));
            }
        }
    }

    /// The room on the disk, and the bytes that the blobs take.
    pub(crate) fn disk(&self) -> Result<Disk, Fault> {
        let read = || {
            let (free, total) = self.layout.room()?;
            let blobs = self.layout.blobs()?;
            Ok((free, total, blobs.iter().fold(0, |sum: u64, (_, size, _)| sum.saturating_add(*size))))
        };
        let (free, total, used) = read().map_err(|error| broken(self.layout.root(), &error))?;
        Ok(Disk { free_bytes: Some(free), total_bytes: Some(total), images_bytes: used })
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
