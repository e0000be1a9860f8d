//! How Docker keeps images: in a store of its own, or in containerd's, which is the default of new installs from 29 on.
//!
//! The containerd store calls an image by the digest of the manifest or index that it was pulled by. An index says
//! nothing about which of its platforms are there; the list says so from API 1.47 on, and engines before that tell only of
//! one image at a time for which platform it is.

use std::collections::HashMap;

use bollard::models::SystemInfo;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use crate::base::digest::Digest;
use crate::engine::{
    Engine as _, EngineKind,
    docker::{Docker, wire},
    fault::Fault,
    image::{Held, Part},
};

/// The first minor version of API 1 of a Docker with a containerd store.
const FIRST: usize = 42;
/// The entry of `DriverStatus` that tells the store, and how its value begins for containerd's.
const DRIVER_TYPE: &str = "driver-type";
const SNAPSHOTTER: &str = "io.containerd.snapshotter";
/// How many images are asked about at once.
const AT_ONCE: usize = 8;

/// How an engine keeps images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// In its own way: the ID of an image is the digest of its config. Podman does so too.
    Own,
    /// In containerd's store: the ID is the digest of a manifest or an index.
    Containerd,
}

/// What each image has, by its ID, with the size that the image had when it was asked: one that got another platform
/// is larger.
pub(crate) type Parts = Mutex<HashMap<Digest, (u64, Vec<Part>)>>;

impl Store {
    /// The store of an engine that says this about itself.
    pub(crate) fn of(info: &SystemInfo) -> Self {
        let is_snapshotter = |entry: &Vec<String>| match entry.as_slice() {
            [key, value, ..] => key == DRIVER_TYPE && value.starts_with(SNAPSHOTTER),
            _ => false,
        };
        let is_containerds = info.driver_status.iter().flatten().any(is_snapshotter);
        if is_containerds { Self::Containerd } else { Self::Own }
    }

    /// The image that the engine tells of; `None` if its ID is not valid, or if nothing is there but the name.
    pub(in crate::engine::docker) fn held(self, image: &wire::Image) -> Option<Held> {
        let held = image.held()?;
        if self == Self::Own {
            return Some(held);
        }
        if let Some(parts) = image.parts() {
            return (!parts.is_empty()).then(|| held.with_parts(parts));
        }
        let part = |architecture| Part { architecture, manifest: None };
        Some(held.with_parts(image.platform().map(part).into_iter().collect()))
    }

    /// What to add to a question about images, so that the answer says all that it can.
    pub(in crate::engine::docker) fn query(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::Containerd => "?manifests=1",
        }
    }
}

impl Docker {
    /// How the engine keeps images. It can't change that while it runs.
    pub(in crate::engine::docker) async fn store(&self) -> Result<Store, Fault> {
        let known = *self.store.lock();
        if let Some(known) = known {
            return Ok(known);
        }
        let met = self.met().await?;
        let store = if met.kind == EngineKind::Docker && met.minor >= FIRST {
            Store::of(&self.info().await?)
        } else {
            Store::Own
        };
        *self.store.lock() = Some(store);
        Ok(store)
    }

    /// The images of a containerd store whose list does not say what of them is there: they are asked about, each once.
    pub(in crate::engine::docker) async fn with_parts(
        &self,
        images: Vec<wire::Image>,
    ) -> Result<Vec<Held>, Fault> {
        let jobs = images.into_iter().map(|image| async move {
            let Some(held) = image.held() else { return Ok(None) };
            let known = self.parts.lock().get(&held.digest).cloned();
            if let Some((_, parts)) = known.filter(|(size, _)| *size == held.size_bytes) {
                return Ok(Some(held.with_parts(parts)));
            }
            // One that is not found went away since the list was made.
            let found = self.find(&image.id).await?;
            Ok::<_, Fault>(found.map(|found| held.with_parts(found.parts)))
        });
        let found: Vec<Option<Held>> = stream::iter(jobs).buffered(AT_ONCE).try_collect().await?;
        let found: Vec<Held> = found.into_iter().flatten().collect();
        *self.parts.lock() =
            found.iter().map(|held| (held.digest.clone(), (held.size_bytes, held.parts.clone()))).collect();
        Ok(found)
    }
}
