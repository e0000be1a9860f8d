//! Turns: so many at once in all, and so many of one user. Further requests wait, each user's in a queue of its own,
//! so that a user with many requests only holds up their own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::ids::UserId;
use crate::base::keyed::Keyed;
use crate::base::{Error, Result};

/// The turns. Clones share them.
#[derive(Clone)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    queues: Arc<Keyed<UserId, Semaphore>>,
    of_one: usize,
}

/// A turn. Dropping it ends the turn.
pub(crate) struct Turn(#[expect(dead_code, reason = "it is held, not read")] [OwnedSemaphorePermit; 2]);

impl Turns {
    /// Creates turns: `of_one` at once of one user, and `all` in all.
    pub(crate) fn new(of_one: usize, all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), queues: Arc::default(), of_one }
    }

    /// Waits for this user's next turn.
    ///
    /// # Errors
    /// None in practice: the turns are never closed.
    pub(crate) async fn take(&self, user: UserId) -> Result<Turn> {
        let queue = self.queues.of(user, || Semaphore::new(self.of_one));
        let own = queue.acquire_owned().await.map_err(Error::internal)?;
        Ok(Turn([own, Arc::clone(&self.all).acquire_owned().await.map_err(Error::internal)?]))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::{Turn, Turns};
    use crate::base::ids::UserId;

    /// Takes a turn if it needs no waiting.
    fn now(turns: &Turns, user: UserId) -> Option<Turn> {
        turns.take(user).now_or_never().map(|turn| turn.unwrap())
    }

    #[test]
    fn a_user_has_so_many_turns_and_keeps_none_from_others() {
        let (turns, user) = (Turns::new(2, 500), UserId::random());
        let held = [now(&turns, user), now(&turns, user)];
        assert!(held.iter().all(Option::is_some));
        assert!(now(&turns, user).is_none());
        // Enough others that queues which users share would be noticed.
        let others: Vec<_> = (0..400).map(|_| now(&turns, UserId::random())).collect();
        assert!(others.iter().all(Option::is_some), "each user has a queue of their own");
        drop(held);
        assert!(now(&turns, user).is_some());
    }

    #[test]
    fn there_are_so_many_turns_in_all() {
        let turns = Turns::new(2, 3);
        let held: Vec<_> = (0..3).map(|_| now(&turns, UserId::random())).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(now(&turns, UserId::random()).is_none());
        drop(held);
        assert!(now(&turns, UserId::random()).is_some());
    }
}
