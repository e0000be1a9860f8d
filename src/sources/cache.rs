//! A cache: a directory that keeps what passed, by digest, so that what a site has fetched once it need not fetch again.
//!
//! Each registry has a layout of its own within the directory: whoever may name a digest in one registry does not get
//! what only another one served. Who is used longest ago goes first, and never what is being read. A blob is handed on
//! while it still arrives; if the cache itself fails, the bytes come from the source behind it.

mod place;
mod reading;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use place::CachePlace;
use reading::{Reading, remark};
use state::{Key, State};

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::FutureExt as _;
use futures_util::stream::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::base::digest::Digest;
use crate::base::keyed::Keyed;
use crate::base::reference::is_registry_host;
use crate::engine::fault::{Class, Fault};
use crate::engine::oci::fetch::{Fetcher, Flight, blocking};
use crate::engine::oci::layout::{Layout, broken};
use crate::engine::oci::manifest::Blob;
use crate::engine::oci::throttle::Throttle;
use crate::engine::source::{Document, Flow, Origin, Source};
use crate::sources::file::pieces;
use crate::sources::verified::verified;

/// The folder with the layouts of the registries.
const REGISTRIES: &str = "registries";
/// The bytes that are left free on the disk.
const RESERVE: u64 = 64 * 1024 * 1024;
/// Most remarks about one pull.
const MAX_REMARKS: usize = 4;

/// A cache, locked for this process.
pub(crate) struct Cache {
    /// The directory itself. It holds the lock.
    root: Layout,
    /// The most bytes that it keeps.
    max: u64,
    sections: Mutex<HashMap<String, Arc<Section>>>,
    state: Mutex<State>,
}

/// The blobs of one registry.
struct Section {
    host: String,
    layout: Arc<Layout>,
    flights: Keyed<Digest, Flight>,
    throttle: Throttle,
    arrivals: Keyed<Digest, Arrival>,
}

/// A blob of the cache.
enum Copy {
    /// It is there; it is not removed while the second value exists.
    Whole(File, Arc<()>),
    Coming(Arc<Arrival>),
}

/// A blob on its way into the cache.
struct Arrival {
    state: watch::Sender<Arriving>,
    /// Held while the transfer is begun.
    turn: tokio::sync::Mutex<()>,
    /// Stops the transfer once nobody reads it any more.
    transfer: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug, Clone, Default)]
struct Arriving {
    /// The bytes that are there.
    bytes: u64,
    ended: Option<Result<(), Fault>>,
}

/// The room that a blob on its way takes.
struct Reserved {
    cache: Arc<Cache>,
    bytes: u64,
    part: PathBuf,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // What has not come to its end takes no room; it is there no longer if it has.
        let _ = fs::remove_file(&self.part);
        let mut state = self.cache.state.lock();
        state.arriving = state.arriving.saturating_sub(self.bytes);
    }
}

impl Cache {
    /// Opens the cache in this directory, which is made if it is missing. It keeps at most `max` bytes.
    ///
    /// # Errors
    /// A directory that can't be used; the message has the remedy.
    pub(crate) fn open(root: &Path, max: u64) -> Result<Arc<Self>, Fault> {
        let cache =
            Self { root: Layout::open(root)?, max, sections: Mutex::default(), state: Mutex::default() };
        cache.load()?;
        Ok(Arc::new(cache))
    }

    fn folder(&self) -> PathBuf {
        self.root.root().join(REGISTRIES)
    }

    /// Learns what an earlier process kept.
    fn load(&self) -> Result<(), Fault> {
        let folder = self.folder();
        let failed = |error: io::Error| broken(&folder, &error);
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut found: Vec<(SystemTime, Key, u64)> = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let Ok(host) = entry.map_err(failed)?.file_name().into_string() else { continue };
            if !is_registry_host(&host) {
                continue;
            }
            let section = self.section(&host)?;
            for (digest, size, _) in section.layout.begun().map_err(failed)? {
                self.state.lock().leave((host.clone(), digest), size);
            }
            let blobs = section.layout.blobs().map_err(failed)?;
            found.extend(blobs.into_iter().map(|(digest, size, used)| (used, (host.clone(), digest), size)));
        }
        found.sort();
        let mut state = self.state.lock();
        for (_, key, size) in found {
            state.touch(&key, size);
        }
        drop(state);
        self.shrink(0);
        Ok(())
    }

    fn section(&self, host: &str) -> Result<Arc<Section>, Fault> {
        let mut sections = self.sections.lock();
        if let Some(section) = sections.get(host) {
            return Ok(Arc::clone(section));
        }
        if !is_registry_host(host) {
            return Err(Fault::new(Class::Other, format!("{host:?} is no registry")));
        }
        let section = Arc::new(Section {
            host: host.to_owned(),
            layout: Arc::new(Layout::open(&self.folder().join(host))?),
            flights: Keyed::default(),
            throttle: Throttle::new(None),
            arrivals: Keyed::default(),
        });
        sections.insert(host.to_owned(), Arc::clone(&section));
        Ok(section)
    }

    /// A source of a repository that reads from this cache what is there, and otherwise keeps what `behind` sends.
    pub(crate) fn before(self: &Arc<Self>, repository: &str, behind: &Arc<dyn Source>) -> Arc<dyn Source> {
        let host = repository.split('/').next().unwrap_or_default().to_owned();
        Arc::new(Cached {
            cache: Arc::clone(self),
            host,
            behind: Arc::clone(behind),
            remarks: Arc::default(),
        })
    }

    /// Makes room for this many bytes more; false, with nothing removed, if that can't be.
    fn shrink(&self, more: u64) -> bool {
        loop {
            let mut state = self.state.lock();
            let coming = state.arriving.saturating_add(more);
            let wanted = state.bytes.saturating_add(coming);
            let Ok((free, _)) = self.root.room() else { return false };
            let needed = if more == 0 { 0 } else { coming.saturating_add(RESERVE) };
            if wanted <= self.max && free >= needed {
                return true;
            }
            if coming > self.max || free.saturating_add(state.bytes) < needed {
                return false;
            }
            let (key, is_part) = match (state.any_left(), state.oldest()) {
                (Some(key), _) => (key, true),
                (None, Some(key)) => (key, false),
                (None, None) => return false,
            };
            if is_part {
                state.take_up(&key);
            } else {
                state.forget(&key);
            }
            let (host, digest) = &key;
            if let Ok(section) = self.section(host)
                && let layout = &section.layout
                && let place = if is_part { layout.part(digest) } else { layout.blob(digest) }
                && let Err(error) = fs::remove_file(place)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%digest, %error, "a blob of the cache could not be removed");
            }
        }
    }

    /// Compares a copy with its digest, and removes it if it is wrong. Returns whether there was one: the next reader gets
    /// right bytes then.
    fn check(&self, section: &Section, digest: &Digest) -> bool {
        let Ok(file) = File::open(section.layout.blob(digest)) else { return false };
        digest.matches_file(file).unwrap_or(false) || self.drop_blob(section, digest)
    }

    /// Removes a blob.
    fn drop_blob(&self, section: &Section, digest: &Digest) -> bool {
        self.state.lock().forget(&(section.host.clone(), digest.clone()));
        fs::remove_file(section.layout.blob(digest)).is_ok()
    }

    /// Opens a blob that is there whole.
    fn open_blob(&self, section: &Section, digest: &Digest, size: u64) -> Option<(File, Arc<()>)> {
        // Noted first, so that it is not removed between the look and the opening.
        let readers = {
            let mut state = self.state.lock();
            let key = (section.host.clone(), digest.clone());
            state.kept.contains_key(&key).then(|| state.touch(&key, size))?
        };
        let file = File::open(section.layout.blob(digest)).ok();
        let file =
            file.filter(|file| file.metadata().is_ok_and(|about| about.is_file() && about.len() == size));
        let Some(file) = file else {
            self.drop_blob(section, digest);
            return None;
        };
        // The next process learns by this what was used last.
        let _ = file.set_modified(SystemTime::now());
        Some((file, readers))
    }

    /// The copy of a blob: the one that is there whole, the one on its way, or a new one from this source.
    async fn copy(
        self: &Arc<Self>,
        section: &Arc<Section>,
        blob: &Blob,
        behind: &Arc<dyn Source>,
    ) -> Result<Copy, Fault> {
        let new = || Arrival {
            state: watch::Sender::new(Arriving::default()),
            turn: tokio::sync::Mutex::default(),
            transfer: Mutex::new(None),
        };
        loop {
            let arrival = section.arrivals.of(blob.digest.clone(), new);
            // One caller at a time, so that the room for a blob is taken once.
            let _turn = arrival.turn.lock().await;
            // Looked at before the copy: what ends after this is read as what is on its way.
            let is_over = arrival.state.borrow().ended.is_some();
            let (cache, there, wanted) = (Arc::clone(self), Arc::clone(section), blob.clone());
            let whole = blocking(move || Ok(cache.open_blob(&there, &wanted.digest, wanted.size)));
            if let Some((file, readers)) = whole.await? {
                return Ok(Copy::Whole(file, readers));
            }
            if is_over {
                // Its copy failed, or went away while others still read it.
                section.arrivals.retire(&blob.digest, &arrival);
                continue;
            }
            if arrival.transfer.lock().is_none() {
                let coming = self.begin(section, blob, behind, &arrival).await?;
                *arrival.transfer.lock() = Some(coming);
            }
            return Ok(Copy::Coming(Arc::clone(&arrival)));
        }
    }

    /// Takes the room for a blob and begins to bring it.
    async fn begin(
        self: &Arc<Self>,
        section: &Arc<Section>,
        blob: &Blob,
        behind: &Arc<dyn Source>,
        arrival: &Arrival,
    ) -> Result<AbortOnDropHandle<()>, Fault> {
        let (cache, size, part) = (Arc::clone(self), blob.size, section.layout.part(&blob.digest));
        let key = (section.host.clone(), blob.digest.clone());
        let reserved = blocking(move || {
            cache.state.lock().take_up(&key);
            if !cache.shrink(size) {
                let _ = fs::remove_file(&part);
                return Err(Fault::new(Class::NoSpace, "it does not fit into the cache"));
            }
            cache.state.lock().arriving += size;
            Ok(Reserved { cache, bytes: size, part })
        });
        let (reserved, state) = (reserved.await?, arrival.state.clone());
        let coming =
            Arc::clone(self).bring(Arc::clone(section), blob.clone(), Arc::clone(behind), reserved, state);
        Ok(AbortOnDropHandle::new(tokio::spawn(coming)))
    }

    /// Brings a blob into its place, and tells how far it is.
    async fn bring(
        self: Arc<Self>,
        section: Arc<Section>,
        blob: Blob,
        behind: Arc<dyn Source>,
        reserved: Reserved,
        state: watch::Sender<Arriving>,
    ) {
        let told = |_: &Blob, bytes: u64, _: bool| {
            state.send_modify(|state| state.bytes = bytes);
        };
        let fetcher = Fetcher {
            layout: &section.layout,
            flights: &section.flights,
            throttle: &section.throttle,
            source: behind.as_ref(),
            // Whole copies are compared with their digest whenever they are read.
            is_durable: false,
        };
        let mut coming = pin!(fetcher.bring(&blob, &told));
        // If this is stopped, the part goes before another transfer may begin one.
        let reserved = reserved;
        let brought = coming.as_mut().await;
        let is_here = brought.is_ok();
        if is_here {
            self.state.lock().touch(&(section.host.clone(), blob.digest.clone()), blob.size);
        }
        drop(reserved);
        state.send_modify(|state| state.ended = Some(brought));
        if is_here {
            // No reader waits for this, and neither does the end of the cache.
            let place = section.layout.blob(&blob.digest);
            drop(tokio::task::spawn_blocking(move || File::open(place)?.sync_all()));
        }
    }
}

/// A source with a cache in front.
struct Cached {
    cache: Arc<Cache>,
    host: String,
    behind: Arc<dyn Source>,
    remarks: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cache, then {:?}", self.behind)
    }
}

impl Cached {
    async fn section(&self) -> Result<Arc<Section>, Fault> {
        let (cache, host) = (Arc::clone(&self.cache), self.host.clone());
        blocking(move || cache.section(&host)).await
    }

    async fn kept_manifest(&self, digest: &Digest) -> Option<Document> {
        let (section, digest) = (self.section().await.ok()?, digest.clone());
        let cache = Arc::clone(&self.cache);
        let read = blocking(move || {
            let Ok(bytes) = section.layout.document(&digest) else { return Ok(None) };
            if !digest.matches(&bytes) {
                cache.drop_blob(&section, &digest);
                return Ok(None);
            }
            cache.state.lock().touch(&(section.host.clone(), digest), length(&bytes));
            Ok(Some(Document::of(bytes)))
        });
        read.await.ok().flatten()
    }

    async fn keep_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Fault> {
        let (section, cache) = (self.section().await?, Arc::clone(&self.cache));
        let (digest, bytes) = (digest.clone(), bytes.to_vec());
        let kept = move || {
            if cache.shrink(length(&bytes)) {
                let put = section.layout.put_blob(&digest, &bytes);
                put.map_err(|error| broken(&section.layout.blob(&digest), &error))?;
                cache.state.lock().touch(&(section.host.clone(), digest), length(&bytes));
            }
            Ok(())
        };
        blocking(kept).await
    }

    /// Opens a blob of the cache, or one on its way into it.
    async fn open(&self, blob: &Blob, from: u64) -> Result<Flow, Fault> {
        let section = self.section().await?;
        let (file, readers) = match self.cache.copy(&section, blob, &self.behind).await? {
            Copy::Whole(file, readers) => (file, readers),
            Copy::Coming(arrival) => {
                let reading = Reading {
                    follower: arrival.state.subscribe(),
                    arrival,
                    section,
                    blob: blob.clone(),
                    behind: Arc::clone(&self.behind),
                    remarks: Arc::clone(&self.remarks),
                    file: None,
                    is_whole: from == 0,
                    at: from,
                    seen: 0,
                };
                return Ok(Flow { from, is_verified: from == 0, pieces: reading.pieces() });
            }
        };
        let read = pieces(file, from, blob.size.saturating_sub(from)).map(move |piece| {
            // It counts as a reader as long as this exists.
            let _ = &readers;
            piece.map_err(|error| Fault::new(Class::Network, format!("the cache: {error}")))
        });
        let read = read.boxed();
        if from > 0 {
            return Ok(Flow { from, is_verified: false, pieces: read });
        }
        // Who reads it verifies it too, but can't mend this copy.
        let (cache, digest) = (Arc::clone(&self.cache), blob.digest.clone());
        let doubt = move || {
            let (cache, section, digest) = (Arc::clone(&cache), Arc::clone(&section), digest.clone());
            blocking(move || Ok(cache.check(&section, &digest))).map(|_| ()).boxed()
        };
        Ok(Flow { from, is_verified: true, pieces: verified(read, blob.digest.clone(), doubt) })
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Source for Cached {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        // Only the registry can say what a tag points to.
        let Ok(digest) = reference.parse::<Digest>() else { return self.behind.manifest(reference).await };
        if let Some(document) = self.kept_manifest(&digest).await {
            return Ok(document);
        }
        let document = self.behind.manifest(reference).await?;
        if digest.matches(&document.bytes)
            && let Err(why) = self.keep_manifest(&digest, &document.bytes).await
        {
            remark(&self.remarks, &why);
        }
        Ok(document)
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        let blob = Blob { digest: digest.clone(), size };
        match self.open(&blob, from).await {
            Ok(flow) => Ok(flow),
            Err(why) => {
                remark(&self.remarks, &why);
                self.behind.blob(digest, size, from).await
            }
        }
    }

    async fn doubt(&self, digest: &Digest) -> bool {
        let (cache, doubted) = (Arc::clone(&self.cache), digest.clone());
        let section = self.section().await;
        // A reader that began with bytes of another source doubts a copy that is right.
        let was_here = match section {
            Ok(section) => blocking(move || Ok(cache.check(&section, &doubted))).await.unwrap_or(false),
            Err(_) => false,
        };
        was_here || self.behind.doubt(digest).await
    }

    fn is_near(&self) -> bool {
        true
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.remarks.lock().clone();
        remarks.extend(self.behind.remarks());
        remarks
    }

    fn origin(&self) -> Result<Option<Origin>, Fault> {
        self.behind.origin()
    }
}
