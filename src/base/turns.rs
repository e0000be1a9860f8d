//! Turns: so many at once in all, and so many of one user. Further requests wait, each user's in a queue of its own,
//! so that a user with many requests only holds up their own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::ids::UserId;
use crate::base::{Error, Result};

/// How many queues there are; two users who share one by chance wait for each other.
const QUEUES: usize = 64;

/// The turns. Clones share them.
#[derive(Clone)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    queues: Arc<[Arc<Semaphore>]>,
}

/// A turn. Dropping it ends the turn.
pub(crate) struct Turn(#[expect(dead_code, reason = "it is held, not read")] [OwnedSemaphorePermit; 2]);

impl Turns {
    /// Creates turns: `of_one` at once of one user, and `all` in all.
    pub(crate) fn new(of_one: usize, all: usize) -> Self {
        let queue = |_| Arc::new(Semaphore::new(of_one));
        Self { all: Arc::new(Semaphore::new(all)), queues: (0..QUEUES).map(queue).collect() }
    }

    /// Waits for this user's next turn.
    ///
    /// # Errors
    /// None in practice: the turns are never closed.
    pub(crate) async fn take(&self, user: UserId) -> Result<Turn> {
        let number = usize::from(*user.as_bytes().last().unwrap_or(&0)) % QUEUES;
        let queue = Arc::clone(self.queues.get(number).unwrap_or(&self.all));
        let own = queue.acquire_owned().await.map_err(Error::internal)?;
        Ok(Turn([own, Arc::clone(&self.all).acquire_owned().await.map_err(Error::internal)?]))
    }
}
