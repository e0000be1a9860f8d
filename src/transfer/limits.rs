//! Limits on simultaneous work: per agent, per registry, and one operation at a time on one image of one agent, and
//! on one name.

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::base::digest::Digest;
use crate::base::keyed::Keyed;

/// Images loaded onto one agent at once: its disk is the slowest part, and its users need it too.
const PER_AGENT: usize = 2;
/// Pulls from one registry at once.
const PER_REGISTRY: usize = 16;

/// The work in progress. Entries disappear with their last holder.
#[derive(Default)]
pub(in crate::transfer) struct TransferLimits {
    agents: Keyed<String, Semaphore>,
    registries: Keyed<String, Semaphore>,
    names: Keyed<(String, String), Mutex<()>>,
    images: Keyed<(String, Digest), Mutex<()>>,
    rooms: Keyed<String, Mutex<()>>,
}

/// The right to work on one image of one agent; dropping it gives it back.
pub(in crate::transfer) struct Turn {
    _name: OwnedMutexGuard<()>,
    _image: OwnedMutexGuard<()>,
    _agent: Option<OwnedSemaphorePermit>,
    _registry: Option<OwnedSemaphorePermit>,
}

impl TransferLimits {
    /// Waits for a turn. A caller that waits behind another operation on the same image finds its result afterwards,
    /// and so does a caller that waits for the same name, which may belong to another image by then.
    pub(in crate::transfer) async fn turn(
        &self,
        agent: &str,
        name: &str,
        digest: &Digest,
        registry: &str,
    ) -> Turn {
        // Always locked in this order, so that no two callers wait for each other.
        let name = self.names.of((agent.into(), name.into()), || Mutex::new(())).lock_owned().await;
        let image = self.images.of((agent.into(), digest.clone()), || Mutex::new(())).lock_owned().await;
        let agent = self.agents.of(agent.into(), || Semaphore::new(PER_AGENT)).acquire_owned().await.ok();
        let registry =
            self.registries.of(registry.into(), || Semaphore::new(PER_REGISTRY)).acquire_owned().await.ok();
        Turn { _name: name, _image: image, _agent: agent, _registry: registry }
    }
}

impl TransferLimits {
    /// Waits for the right to make room on an agent, and to use it.
    pub(in crate::transfer) async fn room(&self, agent: &str) -> OwnedMutexGuard<()> {
        self.rooms.of(agent.into(), || Mutex::new(())).lock_owned().await
    }

    /// The right to take an image off an agent, if no operation works on it there. Nothing waits for it.
    pub(in crate::transfer) fn try_image(&self, agent: &str, digest: &Digest) -> Option<OwnedMutexGuard<()>> {
        self.images.of((agent.into(), digest.clone()), || Mutex::new(())).try_lock_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::TransferLimits;
    use crate::base::digest::Digest;

    #[tokio::test]
    async fn one_image_of_one_agent_is_worked_on_by_one_and_one_name_too() {
        let limits = TransferLimits::default();
        let (a, b) = (Digest::sha256_of(b"a"), Digest::sha256_of(b"b"));
        let first = limits.turn("i-1", "cr.io/a:1", &a, "cr.io").await;
        let other_image = limits.turn("i-1", "cr.io/b:1", &b, "cr.io").await;
        let _other_agent = limits.turn("i-2", "cr.io/a:1", &a, "cr.io").await;
        let mut same_image = Box::pin(limits.turn("i-1", "cr.io/a:2", &a, "cr.io"));
        // The tag now points to another image.
        let mut same_name = Box::pin(limits.turn("i-1", "cr.io/a:1", &b, "cr.io"));
        drop(other_image);
        assert!(futures_util::poll!(&mut same_image).is_pending());
        assert!(futures_util::poll!(&mut same_name).is_pending());
        assert!(limits.try_image("i-1", &a).is_none() && limits.try_image("i-3", &a).is_some());
        drop(first);
        let _both = tokio::join!(same_image, same_name);
    }
}
