//! The built-in engine: a directory that is an OCI image layout, filled by wharf itself.
//!
//! It needs no daemon. The directory is a standard one (image-spec v1.1, image-layout.md): other programs read it as
//! `oci:DIR:NAME`, with the full name in `org.opencontainers.image.ref.name`. Blobs are compared with their digests
//! while they arrive and get their names afterwards, so a blob with a name is whole. After a kill, a restart continues
//! where the transfer stopped.

mod contents;
mod export;
pub(crate) mod fetch;
mod index;
pub(crate) mod layout;
pub(crate) mod manifest;
mod meter;
mod part;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::base::{arch, clock::Clock, digest::Digest, keyed::Keyed};
use crate::engine::{
    About, Change, Disk, Engine, EngineKind,
    export::{Export, Reach},
    fault::{Class, Fault},
    image::{Held, Removal, Uses},
    name,
    oci::{
        contents::Contents,
        export::Kept,
        fetch::{Fetcher, Flight, blocking},
        layout::Layout,
        manifest::{Blob, Converted, Manifest},
        meter::Meter,
        throttle::Throttle,
    },
    pull::{Progress, Pull, Pulled},
    source::Source,
};

/// How many blobs one pull fetches at once: as many as Docker.
const AT_ONCE: usize = 3;
/// How many events are kept for a slow listener; if there are more, it is told that it missed some.
const EVENTS: usize = 64;

/// An image layout on this machine's disk.
pub(crate) struct Oci {
    contents: Arc<Contents>,
    flights: Keyed<Digest, Flight>,
    throttle: Throttle,
    events: broadcast::Sender<()>,
}

impl Oci {
    /// Locks this directory against other processes, and makes a layout of it if it is new or empty. `limit` is in
    /// bytes a second.
    ///
    /// # Errors
    /// A directory that can't be used; the message has the remedy.
    pub(crate) fn open(folder: &Path, limit: Option<NonZeroU64>) -> Result<Self, Fault> {
        Self::open_by(folder, limit, Clock::system().unproven())
    }

    fn open_by(folder: &Path, limit: Option<NonZeroU64>, clock: Clock) -> Result<Self, Fault> {
        let layout = Layout::open(folder)?;
        layout.index()?;
        let contents = Contents::new(layout, clock);
        Ok(Self {
            contents: Arc::new(contents),
            flights: Keyed::default(),
            throttle: Throttle::new(limit),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    /// Sets another limit in bytes a second, which holds from the next bytes on.
    pub(crate) fn set_limit(&self, per_second: Option<NonZeroU64>) {
        self.throttle.set(per_second);
    }

    /// Runs `question` over the contents, on a thread that may wait for the disk.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Arc<Contents>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let contents = Arc::clone(&self.contents);
        blocking(move || question(&contents)).await
    }

    fn tell(&self) {
        // An error only means that there is no listener.
        let _ = self.events.send(());
    }

    /// Does a whole pull: checks whether it is needed, pulls, and checks that the image is there.
    async fn bring(&self, pull: &Pull, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Pulled, Fault> {
        let name = name::canonical(&pull.name()).filter(|_| name::repository(&pull.repository).is_some());
        let Some(name) = name else {
            return Err(Fault::new(Class::Other, format!("{:?} is no image reference", pull.name())));
        };
        let expected = |held: &Held| held.digest == pull.config;
        if let Some(held) = self.find(&name).await?.filter(expected) {
            progress(all_of(&held, "already there"));
            return Ok(Pulled::new(held, false));
        }
        let (config, new_name) = (pull.config.clone(), name.clone());
        let is_tagged = self.ask(move |contents| contents.tag(&config, &new_name)).await?;
        let last = if is_tagged { None } else { Some(self.fetch(pull, &name, progress).await?) };
        let fetched = last.is_some();
        self.tell();
        let held = self.find(&name).await?.filter(expected).ok_or_else(|| {
            let why = "was fetched and is not there; does another program write into the directory?";
            Fault::new(Class::Other, format!("{name} {why}"))
        })?;
        progress(last.unwrap_or_else(|| all_of(&held, "already there under another name")));
        Ok(Pulled::new(held, fetched))
    }

    /// Fetches the missing blobs and gives the image its name; returns the final progress.
    async fn fetch(
        &self,
        pull: &Pull,
        name: &str,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Progress, Fault> {
        let Some(source) = &pull.source else {
            return Err(Fault::new(Class::Other, "this engine was not told where to fetch the image from"));
        };
        let converted = manifest_of(pull, source.as_ref()).await?;
        let manifest = manifest::read(&converted.bytes)?;
        if manifest.config.digest != pull.config {
            let found = &manifest.config.digest;
            let why = format!("{name} is {found} in the registry, not the expected {}", pull.config);
            return Err(Fault::new(Class::Other, format!("{why}; has the tag moved since the last scan?")));
        }
        let blobs: Vec<Blob> = manifest.blobs().into_iter().cloned().collect();
        let documents = [converted.digest.clone(), converted.served_as.clone()];
        let named = blobs.iter().map(|blob| blob.digest.clone()).chain(documents).collect();
        let pins = self.contents.pin(named);
        let wanted = blobs.clone();
        self.ask(move |contents| contents.make_room(&wanted)).await?;
        let meter = self.fetch_blobs(&manifest, &blobs, source.as_ref(), progress).await?;
        let name = name.to_owned();
        self.ask(move |contents| {
            let added = contents.add(&name, &converted);
            drop(pins);
            added
        })
        .await?;
        Ok(meter.finish("done"))
    }

    async fn fetch_blobs(
        &self,
        manifest: &Manifest,
        blobs: &[Blob],
        source: &dyn Source,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Meter, Fault> {
        let meter = Mutex::new(Meter::new(manifest));
        let told = |blob: &Blob, there: u64, is_whole: bool| {
            // Reported under the lock, so that no report overtakes another.
            let mut meter = meter.lock();
            progress(meter.at(&blob.digest, there, is_whole));
        };
        let fetcher = Fetcher {
            layout: &self.contents.layout,
            flights: &self.flights,
            throttle: &self.throttle,
            source,
            is_durable: true,
        };
        let jobs: Vec<_> = blobs.iter().map(|blob| fetcher.bring(blob, &told).boxed()).collect();
        let mut jobs = stream::iter(jobs).buffer_unordered(AT_ONCE);
        while let Some(brought) = jobs.next().await {
            brought?;
        }
        drop(jobs);
        Ok(meter.into_inner())
    }
}

#[async_trait]
impl Engine for Oci {
    async fn about(&self) -> Result<About, Fault> {
        // A directory whose disk is gone is as unreachable as an engine that is down.
        self.ask(|contents| contents.layout.index().map(drop)).await?;
        let identity = &self.contents.layout.identity;
        Ok(About {
            kind: EngineKind::Oci,
            id: Some(identity.id.to_string()),
            hostname: identity.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            architecture: arch::normalize(std::env::consts::ARCH, None),
            labels: BTreeMap::new(),
        })
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        self.ask(|contents| contents.images()).await
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        let Some(wanted) = spelt_out(reference) else { return Ok(None) };
        let is_it = |held: &Held| held.digest.as_str() == wanted || held.names.contains(&wanted);
        Ok(self.images().await?.into_iter().find(is_it))
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Fault::stopped()),
            pulled = self.bring(pull, progress) => pulled,
        }
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        let Some(wanted) = spelt_out(reference) else { return Ok(Removal::Absent) };
        let removal = self.ask(move |contents| contents.remove(&wanted)).await?;
        if matches!(removal, Removal::Removed { .. } | Removal::Untagged) {
            self.tell();
        }
        Ok(removal)
    }

    /// It runs no containers.
    async fn uses(&self, _held: &[Held]) -> Result<Option<Uses>, Fault> {
        Ok(Some(Uses::default()))
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        let events = stream::unfold(Some(self.events.subscribe()), async |events| {
            let mut events = events?;
            match events.recv().await {
                // An event is a hint to read again, so one stands for all that were missed.
                Ok(()) | Err(RecvError::Lagged(_)) => Some((Ok(Change::Images), Some(events))),
                Err(RecvError::Closed) => {
                    Some((Err(Fault::new(Class::EngineGone, "the image directory was given up")), None))
                }
            }
        });
        Ok(events.boxed())
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        self.ask(|contents| contents.tidy().and_then(|()| contents.disk())).await
    }

    fn export(&self) -> Option<Export> {
        Some(Export::Local(Arc::new(Kept(Arc::clone(&self.contents)))))
    }

    fn reach(&self) -> Reach {
        Reach { takes_sources: true, has_cache: false }
    }
}

/// The reference to search for: an ID as it is, a name in its canonical form.
fn spelt_out(reference: &str) -> Option<String> {
    if reference.parse::<Digest>().is_ok() { Some(reference.into()) } else { name::canonical(reference) }
}

/// The manifest as it will be kept.
async fn manifest_of(pull: &Pull, source: &dyn Source) -> Result<Converted, Fault> {
    let reference = pull.manifest.as_ref().map_or(pull.tag.as_str(), Digest::as_str);
    let document = source.manifest(reference).await?;
    if pull.manifest.as_ref().is_some_and(|wanted| !wanted.matches(&document.bytes)) {
        let why = "the registry sent another manifest than the digest says";
        return Err(Fault::new(Class::Other, format!("{reference}: {why}")));
    }
    let served_as = pull.manifest.clone().unwrap_or_else(|| Digest::sha256_of(&document.bytes));
    Converted::from_served(&document.media_type, document.bytes, served_as)
}

/// The progress of an image that is there already.
fn all_of(held: &Held, message: &str) -> Progress {
    Progress {
        bytes_done: held.size_bytes,
        bytes_total: held.size_bytes,
        message: message.into(),
        ..Progress::default()
    }
}
