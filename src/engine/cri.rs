//! A client of containerd, by the Kubernetes container runtime interface (CRI, `runtime.v1`) on its socket.
//!
//! CRI is made for one client, the kubelet, and can do less than Docker's API: a pull is by tag and silent until it
//! ends, removing an image removes all its names without regard to containers, and there are no events. What CRI does
//! not say is not made up: progress has no bytes, a moved tag is a failure, and removal checks for containers first.

mod call;
mod listing;
mod message;
mod pin;
mod relayed;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use prost::Message;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::{arch, docker_hub};
use crate::engine::{
    About, Change, Disk, Engine, EngineKind,
    address::{EngineLocation, EngineUrl},
    cri::{call::Line, listing::Listing, message as m},
    fault::{Class, Fault, one_line},
    image::{Held, Removal, Uses},
    name,
    pull::{Credentials, Progress, Pull, Pulled},
    room,
};

/// The most container names in an answer.
const MAX_CONTAINERS: usize = 20;
/// The name that containerd gives itself; other engines speak CRI too.
const CONTAINERD: &str = "containerd";
/// How often, and how long each time, to wait for a name to come or go: containerd tells its CRI part of names a
/// moment later.
const SETTLING: (u32, Duration) = (200, Duration::from_millis(50));

/// How long an engine may take, and how often it is read. Tests set shorter times.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the answer to any call but a pull.
    pub answer: Duration,
    /// For a pull to end, before we ask whether the engine is still alive.
    pub quiet: Duration,
    /// The shortest time between two reads of what it holds.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(20), quiet: Duration::from_secs(15), look: Duration::from_secs(5) }
    }
}

/// A client of an engine that speaks CRI.
#[derive(Debug, Clone)]
pub struct Cri {
    line: Line,
    patience: Patience,
}

/// An image as CRI shows it.
struct Shown {
    held: Held,
    image: m::Image,
}

impl Cri {
    /// A client for the engine at this address. It does not connect yet: the engine may come later, go away and return.
    ///
    /// # Errors
    /// An address that is not a socket: CRI has no password, and any client that can speak it controls the node.
    pub fn new(url: &EngineUrl) -> Result<Self, Fault> {
        let EngineLocation::Socket(socket) = &url.place else {
            return Err(Fault::new(
                Class::Other,
                "CRI is spoken over a socket only: cri:///path/of/the.sock",
            ));
        };
        Ok(Self { line: Line { socket: socket.clone() }, patience: Patience::default() })
    }

    /// This client with other deadlines, for tests.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    async fn ask<Q: Message, A: Message + Default>(&self, method: &str, question: &Q) -> Result<A, Fault> {
        let limit = self.patience.answer;
        let answer = timeout(limit, self.line.call(method, question)).await;
        answer.map_err(|_| Fault::silent(method.rsplit('/').next().unwrap_or_default(), limit))?
    }

    async fn version(&self) -> Result<m::VersionResponse, Fault> {
        self.ask("/runtime.v1.RuntimeService/Version", &m::VersionRequest {}).await
    }

    /// The image of this name or ID, if the engine has it.
    async fn show(&self, reference: &str) -> Result<Option<Shown>, Fault> {
        let Some(reference) = name::askable(reference) else { return Ok(None) };
        let which = m::ImageStatusRequest { image: Some(m::ImageSpec::of(&reference)) };
        let answer: m::ImageStatusResponse = self.ask("/runtime.v1.ImageService/ImageStatus", &which).await?;
        Ok(answer.image.and_then(|image| Some(Shown { held: held(&image)?, image })))
    }

    /// Has the engine pull a name. CRI reports no progress, so `progress` is told from time to time that the pull goes
    /// on.
    async fn fetch(
        &self,
        pull: &Pull,
        name: &str,
        mut now: Progress,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        let auth = pull.credentials.as_ref().map(|credentials| auth(credentials, name));
        let question = m::PullImageRequest { image: Some(m::ImageSpec::of(name)), auth };
        let pulling = self.line.call("/runtime.v1.ImageService/PullImage", &question);
        tokio::pin!(pulling);
        let began = Instant::now();
        loop {
            now.message = match began.elapsed().as_secs() {
                0 => "pulling; this engine does not say how far it is".into(),
                seconds => format!("pulling for {seconds} s; this engine does not say how far it is"),
            };
            progress(now.clone());
            if let Ok(ended) = timeout(self.patience.quiet, &mut pulling).await {
                return ended.map(|m::PullImageResponse {}| ());
            }
            // A slow registry makes it silent, and so does its death.
            self.version().await?;
        }
    }

    /// Does a whole pull: checks whether it is needed, pulls, and checks that the image is there.
    ///
    /// CRI can't give a name to an image pulled by digest, so the image is pulled by its tag and then compared. If the
    /// tag has moved, the other image keeps the name, as the registry now has it, and the pull is a failure.
    async fn bring(&self, pull: &Pull, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Pulled, Fault> {
        let name = pull.canonical()?;
        let bytes = pull.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size_bytes));
        let layers = u32::try_from(pull.layers.len()).unwrap_or(u32::MAX);
        let start = Progress { bytes_total: bytes, layers_total: layers, ..Progress::default() };
        let all = |message: &str| Progress {
            bytes_done: bytes,
            layers_done: layers,
            message: message.into(),
            ..start.clone()
        };
        if let Some(held) = self.find(&name).await?.filter(|held| pull.expects(held)) {
            self.pin(&name).await;
            progress(all("already there"));
            return Ok(Pulled::new(held, false));
        }
        match (&pull.via, &pull.manifest) {
            (Some(via), Some(manifest)) => self.fetch_via(pull, via, manifest, progress).await?,
            _ => self.fetch(pull, &name, start.clone(), progress).await?,
        }
        let held = pull.proven(self.find(&name).await?)?;
        self.pin(&name).await;
        progress(all("done"));
        Ok(Pulled::new(held, true))
    }

    /// All containers, running or not.
    async fn containers(&self) -> Result<Vec<m::Container>, Fault> {
        let all: m::ListContainersResponse =
            self.ask("/runtime.v1.RuntimeService/ListContainers", &m::ListContainersRequest {}).await?;
        Ok(all.containers)
    }

    /// The containers made from an image, running or not: CRI removes images regardless of them.
    async fn users(&self, shown: &Shown) -> Result<Vec<String>, Fault> {
        let names = self.containers().await?.into_iter().filter(|container| shown.is_of(container)).map(
            |container| {
                let name = container.metadata.map(|metadata| metadata.name).filter(|name| !name.is_empty());
                one_line(&name.unwrap_or(container.id))
            },
        );
        Ok(names.take(MAX_CONTAINERS).collect())
    }

    /// Removes one name of several, which only containerd itself can do.
    async fn untag(&self, tag: &str, name: &str, others: &[&String]) -> Result<Removal, Fault> {
        if self.version().await?.runtime_name != CONTAINERD {
            return Err(named_otherwise(others));
        }
        let which = m::DeleteImageRequest { name: tag.into(), sync: true };
        let m::Empty {} = self.ask("/containerd.services.images.v1.Images/Delete", &which).await?;
        self.settled(name, |shown| shown.is_none()).await;
        Ok(Removal::Untagged)
    }

    /// Waits a moment until CRI shows a name as it should be.
    async fn settled(&self, name: &str, is_so: impl Fn(Option<&Shown>) -> bool + Send) {
        for _ in 0..SETTLING.0 {
            if self.show(name).await.is_ok_and(|shown| is_so(shown.as_ref())) {
                break;
            }
            tokio::time::sleep(SETTLING.1).await;
        }
    }
}

impl Shown {
    /// Whether a container was made from this image, as far as the container says.
    fn is_of(&self, container: &m::Container) -> bool {
        container.images().any(|reference| {
            name::image_id(reference).is_some_and(|id| id == self.held.digest)
                || self.image.repo_digests.iter().chain(&self.image.repo_tags).any(|name| name == reference)
        })
    }

    /// The engine's own spelling of a canonical name.
    fn tag(&self, canonical: &str) -> Option<&String> {
        self.image.repo_tags.iter().find(|tag| name::canonical(tag).as_deref() == Some(canonical))
    }
}

#[async_trait]
impl Engine for Cri {
    async fn about(&self) -> Result<About, Fault> {
        let version = self.version().await?;
        let system = rustix::system::uname();
        Ok(About {
            kind: EngineKind::Containerd,
            id: None,
            // CRI says neither; but a socket always leads to this machine.
            hostname: system.nodename().to_string_lossy().into_owned(),
            architecture: arch::normalize(&system.machine().to_string_lossy(), None),
            os: "linux".into(),
            version: one_line(&match version.runtime_name.as_str() {
                CONTAINERD => version.runtime_version,
                other => format!("{} ({other})", version.runtime_version),
            }),
            labels: BTreeMap::new(),
        })
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        let all: m::ListImagesResponse =
            self.ask("/runtime.v1.ImageService/ListImages", &m::ListImagesRequest {}).await?;
        Ok(all.images.iter().filter_map(held).collect())
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        let Some(Shown { mut held, image }) = self.show(reference).await? else { return Ok(None) };
        if held.manifests.is_empty() {
            // What `ctr` pulls has no name by digest for Kubernetes, but containerd knows what its name stands for.
            held.manifests.extend(self.target(image.repo_tags.first().unwrap_or(&image.id)).await);
        }
        Ok(Some(held))
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        // Dropping the call closes its connection, and that makes containerd cancel the pull.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            pulled = self.bring(pull, progress) => return pulled,
        }
        self.leave_relay(pull).await;
        Err(Fault::stopped())
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        let Some(shown) = self.show(reference).await? else { return Ok(Removal::Absent) };
        let canonical = name::canonical(reference).unwrap_or_default();
        let others: Vec<_> = shown.held.names.iter().filter(|&name| *name != canonical).collect();
        match shown.tag(&canonical) {
            Some(tag) if !others.is_empty() => return self.untag(tag, &canonical, &others).await,
            // Removal by ID: as with Docker, we don't choose which of several names go with it.
            None if others.len() > 1 => return Err(named_otherwise(&others)),
            _ => {}
        }
        if shown.image.pinned && !self.is_pinned_by_us(&shown, &canonical).await {
            return Err(Fault::new(Class::InUse, "the engine's configuration has it pinned, so it stays"));
        }
        let containers = self.users(&shown).await?;
        if !containers.is_empty() {
            return Ok(Removal::InUse { containers });
        }
        let which = m::RemoveImageRequest { image: Some(m::ImageSpec::of(shown.held.digest.as_str())) };
        let m::RemoveImageResponse {} = self.ask("/runtime.v1.ImageService/RemoveImage", &which).await?;
        // It reports success for a missing image too, and does not say what it did.
        match self.find(shown.held.digest.as_str()).await? {
            None => Ok(Removal::Removed { freed_bytes: None }),
            Some(_) => Err(Fault::new(Class::Other, "the engine says it is removed, and still has it")),
        }
    }

    async fn uses(&self, held: &[Held]) -> Result<Option<Uses>, Fault> {
        let containers = self.containers().await?;
        Ok(Some(Uses::of(held, containers.iter().map(m::Container::images), [])))
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        let seen = Listing::of(self).await?;
        Ok(listing::follow(self.clone(), seen, self.patience.look))
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        let answer: m::ImageFsInfoResponse =
            self.ask("/runtime.v1.ImageService/ImageFsInfo", &m::ImageFsInfoRequest {}).await?;
        let used = answer.image_filesystems.iter().filter_map(|usage| Some(usage.used_bytes.as_ref()?.value));
        let images_bytes = used.fold(0, u64::saturating_add);
        let mut places = answer.image_filesystems.into_iter().filter_map(|usage| usage.fs_id);
        let folder = places.next().map(|place| PathBuf::from(place.mountpoint));
        let room = match folder {
            Some(folder) => room::of(folder).await,
            None => None,
        };
        Ok(Disk {
            free_bytes: room.map(|(free, _)| free),
            total_bytes: room.map(|(_, total)| total),
            images_bytes,
        })
    }
}

fn held(image: &m::Image) -> Option<Held> {
    Held::read(&image.id, &image.repo_tags, &image.repo_digests, image.size)
}

fn named_otherwise(names: &[&String]) -> Fault {
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let why = format!("also called {}; this engine removes an image with all its names", names.join(", "));
    Fault::new(Class::InUse, why)
}

/// The credentials, with the only registry that they are for: containerd would offer them to each of its mirrors.
fn auth(credentials: &Credentials, name: &str) -> m::AuthConfig {
    let host = name.split('/').next().unwrap_or_default();
    let host = if host == docker_hub::NAME { docker_hub::HOST } else { host };
    m::AuthConfig {
        username: credentials.username.clone(),
        password: credentials.password.expose().into(),
        server_address: format!("https://{host}"),
    }
}
