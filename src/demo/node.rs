//! A node of the demo: the built-in engine on a directory, with a switch for its power.
//!
//! A node that is switched off answers like an engine that is not running: its fetches break off, and its followers
//! are cut off. When it is switched on, the directory is opened again, as after a power failure.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::base::error::Error;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal, Uses};
use crate::engine::oci::Oci;
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::{About, Change, Disk, Engine};

/// The architecture that every node reports, wherever the demo runs: images for accelerators exist for no other.
const ARCHITECTURE: &str = "x86_64";
/// How many times to try to open a directory that work just cut off may still hold for a moment.
const TRIES: u32 = 100;
/// The wait between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A node that can be switched off and on.
pub(crate) struct Node {
    folder: PathBuf,
    running: RwLock<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    oci: Arc<Oci>,
    /// Cancelled when the power goes.
    off: CancellationToken,
}

impl Node {
    /// A node that keeps its images in this directory; it is off.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, running: RwLock::default() }
    }

    /// The address that identifies its agent.
    pub(crate) fn address(&self) -> String {
        format!("oci:{}", self.folder.display())
    }

    /// Switches the node on; it fetches at most `per_second` bytes a second.
    ///
    /// # Errors
    /// A directory that can't be used.
    pub(crate) async fn switch_on(&self, per_second: Option<NonZeroU64>) -> Result<(), Fault> {
        let mut tries = 0;
        let oci = loop {
            let folder = self.folder.clone();
            let opened = tokio::task::spawn_blocking(move || Oci::open(&folder, per_second)).await;
            tries += 1;
            match opened.map_err(Error::internal).map_err(|why| Fault::new(Class::Other, why.to_string()))? {
                Ok(oci) => break oci,
                Err(fault) if tries == TRIES => return Err(fault),
                Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
            }
        };
        *self.running.write() = Some(Running { oci: Arc::new(oci), off: CancellationToken::new() });
        Ok(())
    }

    /// Switches the node off, whatever it is doing.
    pub(crate) fn switch_off(&self) {
        if let Some(running) = self.running.write().take() {
            running.off.cancel();
        }
    }

    /// Limits the node to this many bytes a second from now on.
    pub(crate) fn set_limit(&self, per_second: NonZeroU64) {
        if let Some(running) = self.running.read().as_ref() {
            running.oci.set_limit(Some(per_second));
        }
    }

    fn running(&self) -> Result<Running, Fault> {
        self.running.read().clone().ok_or_else(gone)
    }
}

fn gone() -> Fault {
    Fault::new(Class::EngineGone, "nothing answers there: the node is off or restarting")
}

#[async_trait]
impl Engine for Node {
    async fn about(&self) -> Result<About, Fault> {
        let about = self.running()?.oci.about().await?;
        Ok(About { architecture: ARCHITECTURE.into(), ..about })
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        self.running()?.oci.images().await
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        self.running()?.oci.find(reference).await
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        let Running { oci, off } = self.running()?;
        tokio::select! {
            biased;
            () = off.cancelled() => Err(gone()),
            pulled = oci.pull(pull, progress, stop) => pulled,
        }
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        self.running()?.oci.remove(reference).await
    }

    async fn uses(&self, held: &[Held]) -> Result<Option<Uses>, Fault> {
        self.running()?.oci.uses(held).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        let Running { oci, off } = self.running()?;
        let events = oci.events().await?.take_until(off.cancelled_owned());
        Ok(events.chain(stream::once(async { Err(gone()) })).boxed())
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        self.running()?.oci.disk().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::Node;
    use crate::engine::Engine as _;
    use crate::engine::fault::Class;

    #[tokio::test]
    async fn a_node_that_is_off_is_gone_for_all_who_follow_it_and_the_same_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::new(folder.path().join("gpu01"));
        assert_eq!(node.about().await.unwrap_err().class, Class::EngineGone);
        node.switch_on(None).await.unwrap();
        let about = node.about().await.unwrap();
        let mut events = node.events().await.unwrap();

        node.switch_off();
        assert_eq!(events.next().await.unwrap().unwrap_err().class, Class::EngineGone);
        assert!(events.next().await.is_none());
        assert_eq!(node.images().await.unwrap_err().class, Class::EngineGone);

        drop(events);
        node.switch_on(None).await.unwrap();
        assert_eq!(node.about().await.unwrap().id, about.id);
        assert_eq!((about.hostname.as_str(), about.architecture.as_str()), ("gpu01", "x86_64"));
    }
}
