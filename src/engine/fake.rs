//! A fake engine for tests: it does what the test says, when the test allows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal};
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::{About, Change, Disk, Engine, EngineKind};

/// The fake engine. It answers at once what it holds; disk usage and the end of a pull wait for a permit.
pub(crate) struct Fake {
    pub(crate) holds: Mutex<Vec<Held>>,
    pub(crate) disk_asked: Semaphore,
    pub(crate) disk_told: Semaphore,
    pub(crate) pulls_begun: AtomicUsize,
    pub(crate) pulls_end: Semaphore,
}

impl Fake {
    pub(crate) fn holding(names: &[&str]) -> Self {
        Self {
            holds: Mutex::new(names.iter().map(|name| held(name)).collect()),
            disk_asked: Semaphore::new(0),
            disk_told: Semaphore::new(0),
            pulls_begun: AtomicUsize::new(0),
            pulls_end: Semaphore::new(0),
        }
    }
}

pub(crate) fn about() -> About {
    About {
        kind: EngineKind::Docker,
        id: None,
        hostname: "gpu01".into(),
        version: "1".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        labels: BTreeMap::new(),
    }
}

pub(crate) fn held(name: &str) -> Held {
    let digest = Digest::sha256_of(name.as_bytes());
    Held { digest, parts: Vec::new(), names: vec![name.into()], manifests: Vec::new(), size_bytes: 1 }
}

pub(crate) fn pull(repository: &str) -> Pull {
    Pull {
        repository: repository.into(),
        tag: "1".into(),
        manifest: None,
        index: None,
        config: Digest::sha256_of(format!("{repository}:1").as_bytes()),
        architecture: "x86_64".into(),
        platform: None,
        layers: Vec::new(),
        credentials: None,
        source: None,
        via: None,
    }
}

#[async_trait]
impl Engine for Fake {
    async fn about(&self) -> Result<About, Fault> {
        Ok(about())
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        Ok(self.holds.lock().clone())
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        Ok(self.holds.lock().iter().find(|held| held.names.iter().any(|name| name == reference)).cloned())
    }

    async fn pull(
        &self,
        pull: &Pull,
        _progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        self.pulls_begun.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            // A pull that was stopped must not take a permit.
            biased;
            () = stop.cancelled() => Err(Fault::new(Class::Stopped, "stopped on request")),
            permit = self.pulls_end.acquire() => {
                permit.expect("a semaphore that stays open").forget();
                let held = held(&pull.name());
                self.holds.lock().retain(|other| other.names != held.names);
                self.holds.lock().push(held.clone());
                Ok(Pulled::new(held, true))
            }
        }
    }

    async fn remove(&self, _reference: &str) -> Result<Removal, Fault> {
        Ok(Removal::Absent)
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        Ok(stream::pending().boxed())
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        self.disk_asked.add_permits(1);
        self.disk_told.acquire().await.expect("a semaphore that stays open").forget();
        Ok(Disk { free_bytes: None, total_bytes: None, images_bytes: 0 })
    }
}
