//! Where passwords are checked: few at a time, so that those who try can take neither all processors nor all memory.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::accounts::random_text;
use crate::access::password;
use crate::base::secret::Secret;
use crate::base::{Error, Result};

/// How many may wait for their turn; at some 30 ms each that is two seconds on one processor.
const MAX_WAITING: usize = 64;
/// How long one may wait. Who has waited this long has given up.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Checks and hashes passwords, one on each processor at most. Each takes 19 MiB and tens of milliseconds.
#[derive(Clone)]
pub struct Hasher {
    turns: Arc<Semaphore>,
    /// Turns and waiting places together.
    places: Arc<Semaphore>,
    /// The hash of a password that nobody has: what is checked for an account that does not exist.
    nobody: Arc<str>,
}

impl Hasher {
    /// One that does as many at once as there are processors.
    pub fn new() -> Result<Self> {
        Self::with_turns(available_parallelism().map_or(1, NonZero::get), MAX_WAITING)
    }

    fn with_turns(turns: usize, waiting: usize) -> Result<Self> {
        let nobody = password::hash(&Secret::new(random_text(32)?))?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(turns + waiting)),
            nobody: nobody.into(),
        })
    }

    /// Whether the password is the one the hash was made of. Without a hash it never is, which takes as long to find.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many are being checked already.
    pub async fn matches(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.as_ref().to_owned());
        let matches = self.in_turn(move || password::matches(&password, &hash)).await?;
        Ok(matches && is_known)
    }

    /// The hash of a password.
    ///
    /// # Errors
    /// [`Error::Busy`] as for [`Hasher::matches`], and [`Error::Invalid`] for a password that can't be taken.
    pub async fn hash(&self, password: Secret) -> Result<String> {
        self.in_turn(move || password::hash(&password)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let busy = || Error::Busy("too many passwords are being checked; try again in a few seconds".into());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.turns).acquire_owned());
        let turn: OwnedSemaphorePermit = turn.await.map_err(|_| busy())?.map_err(Error::internal)?;
        // The turn goes with the work: a caller who is gone frees it no sooner.
        let work = move || {
            let _held = (place, turn);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

#[cfg(test)]
mod tests {
    use super::Hasher;
    use crate::access::password;
    use crate::base::Error;
    use crate::base::secret::Secret;

    #[tokio::test]
    async fn nobody_has_the_password_of_an_account_that_does_not_exist() {
        let hasher = Hasher::with_turns(1, 1).unwrap();
        let known = password::hash(&Secret::new("correct horse")).unwrap();
        assert!(hasher.matches(Secret::new("correct horse"), Some(known)).await.unwrap());
        assert!(!hasher.matches(Secret::new("correct horse"), None).await.unwrap());
    }

    #[tokio::test]
    async fn who_finds_no_place_to_wait_is_told_at_once() {
        let hasher = Hasher::with_turns(1, 1).unwrap();
        // Nobody gets a turn before all have asked.
        let held = std::sync::Arc::clone(&hasher.turns).acquire_owned().await.unwrap();
        let attempts = (0..8).map(|_| hasher.matches(Secret::new("correct horse"), None));
        let answers = futures_util::future::join_all(attempts);
        let (answers, ()) = tokio::join!(answers, async { drop(held) });
        let busy = answers.iter().filter(|answer| matches!(answer, Err(Error::Busy(_)))).count();
        assert_eq!(busy, 6, "one turn and one place to wait: {answers:?}");
    }
}
