//! Walks over many rows: on other threads than those that answer requests, few at a time, and each with an end.
//!
//! ```text
//! walks.run(caller.user, &budget, move |meter| {
//!     for row in rows {
//!         meter.go_on()?;
//!         meter.look(row.text.len());
//!         …
//!     }
//! })
//! ```
//!
//! A request's [`Budget`] bounds what all its walks together may read, in bytes of text and the like. The bytes are
//! counted where they are read, so a request ends when it has read enough, whatever it asks for, and when its client no
//! longer waits for the answer.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio_util::sync::CancellationToken;

use crate::base::ids::UserId;
use crate::base::turns::{Turn, Turns};
use crate::base::{Error, Result};

/// How many bytes one request may read: some seconds of one processor. 64 comparisons with the names of 100,000 images
/// are 0.4 GB.
const BUDGET: usize = 1 << 30;
/// How many bytes a walk may read while it holds up the rest of the server: some 50 ms.
const BRIEFLY: usize = 32 << 20;
/// How many bytes are counted at a time: less than a millisecond's work.
const STRIDE: usize = 64 << 10;
/// How many walks of one user run at once. Further ones wait, and other users' walks go first.
const OF_ONE: usize = 2;

/// The service that runs walks. Clones share it.
#[derive(Clone)]
pub(crate) struct Walks {
    turns: Turns,
}

impl Default for Walks {
    /// Allows twice as many walks at once as there are processors; the system divides these among all threads.
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self { turns: Turns::new(OF_ONE, (2 * processors).max(2 * OF_ONE)) }
    }
}

impl Walks {
    /// Runs `work` for this user on a thread of its own, when the user's turn comes.
    ///
    /// # Errors
    /// Those of `work`, and those of [`Meter::go_on`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        user: UserId,
        budget: &Budget,
        work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = budget.turn(&self.turns, user).await?;
        let meter = Meter { budget: budget.clone(), seen: Cell::new(0) };
        // The turn goes with the work: a caller that is gone does not free it sooner.
        let work = move || {
            let _held = turn;
            work(&meter)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// The bytes that a request may still read. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicUsize>,
    ended: CancellationToken,
}

impl Default for Budget {
    /// A full budget that belongs to no request, so it ends only when it is spent.
    fn default() -> Self {
        Self::new(CancellationToken::new())
    }
}

impl Budget {
    /// A full budget, which also ends when `ended` is cancelled.
    pub(crate) fn new(ended: CancellationToken) -> Self {
        Self { left: Arc::new(AtomicUsize::new(BUDGET)), ended }
    }

    /// Whether all of it was used.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Waits for one of this user's turns, as long as the client waits for the answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the client no longer waits.
    pub(crate) async fn turn(&self, turns: &Turns, user: UserId) -> Result<Turn> {
        tokio::select! {
            turn = turns.take(user) => turn,
            () = self.ended.cancelled() => Err(ended()),
        }
    }

    fn spend(&self, bytes: usize) -> Result<()> {
        if self.ended.is_cancelled() {
            return Err(ended());
        }
        let less = |left: usize| Some(left.saturating_sub(bytes));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        if before > bytes {
            return Ok(());
        }
        Err(Error::invalid(
            "filter",
            "it takes too much work: more than a GiB of text would be looked at; ask for fewer or shorter \
             comparisons, or for less at once",
        ))
    }
}

fn ended() -> Error {
    Error::Unavailable(
        "the request was ended: nobody waits for its answer any more, or its time is over".into(),
    )
}

/// Counts the bytes that one walk reads.
#[derive(Default)]
pub(crate) struct Meter {
    budget: Budget,
    seen: Cell<usize>,
}

impl Meter {
    /// A meter for a part of a walk that holds up others. The part ends early, when the returned budget
    /// [is spent](Budget::is_spent), and must then be done in another way.
    pub(crate) fn briefly(&self) -> (Self, Budget) {
        let left = Arc::new(AtomicUsize::new(BRIEFLY));
        let budget = Budget { left, ended: self.budget.ended.clone() };
        (Self { budget: budget.clone(), seen: Cell::new(0) }, budget)
    }

    /// Counts this many bytes as read.
    pub(crate) fn look(&self, bytes: usize) {
        self.seen.set(self.seen.get().saturating_add(bytes));
    }

    /// Checks whether the walk may go on; called before each row.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the request has read enough, [`Error::Unavailable`] when its client no longer waits.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.seen.get() < STRIDE { Ok(()) } else { self.budget.spend(self.seen.take()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{BUDGET, Budget, Meter, STRIDE, Walks};
    use crate::base::ids::UserId;
    use crate::base::{Error, Result};

    fn user(number: u8) -> UserId {
        format!("{number:032x}").parse().unwrap()
    }

    /// Counts this many bytes, a stride at a time.
    fn look(meter: &Meter, bytes: usize) -> Result<()> {
        for _ in 0..bytes / STRIDE {
            meter.go_on()?;
            meter.look(STRIDE);
        }
        meter.go_on()
    }

    #[tokio::test]
    async fn a_request_looks_at_so_much_and_no_more() {
        let (walks, budget) = (Walks::default(), Budget::new(CancellationToken::new()));
        let half = || walks.run(user(1), &budget, |meter| look(meter, BUDGET / 2 - STRIDE));
        half().await.unwrap();
        half().await.unwrap();
        assert!(!budget.is_spent());
        let why = half().await.unwrap_err().to_string();
        assert!(budget.is_spent() && why.contains("ask for fewer or shorter comparisons"), "{why}");
        let other = Budget::new(CancellationToken::new());
        walks.run(user(1), &other, |meter| look(meter, STRIDE)).await.unwrap();
    }

    #[tokio::test]
    async fn a_walk_that_nobody_waits_for_ends() {
        let (walks, ended) = (Walks::default(), CancellationToken::new());
        let budget = Budget::new(ended.clone());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let walk = walks.run(user(1), &budget, move |meter| {
            begun.send(()).unwrap();
            while !meter.budget.ended.is_cancelled() {
                std::thread::yield_now();
            }
            look(meter, 2 * STRIDE)
        });
        let stop = async {
            has_begun.await.unwrap();
            ended.cancel();
        };
        let (outcome, ()) = tokio::join!(walk, stop);
        assert!(matches!(outcome, Err(Error::Unavailable(_))));
    }

    #[tokio::test]
    async fn one_user_has_two_turns_and_leaves_the_others_to_others() {
        let (walks, budget) = (Walks::default(), Budget::new(CancellationToken::new()));
        let (one, other) = (user(1), user(2));
        let (begun, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Arc::new(std::sync::Mutex::new(released));
        let held: Vec<_> = (0..10)
            .map(|_| {
                let (walks, budget) = (walks.clone(), budget.clone());
                let (begun, released) = (begun.clone(), released.clone());
                tokio::spawn(async move {
                    walks
                        .run(one, &budget, move |_| {
                            begun.send(()).unwrap();
                            let _ = released.lock().unwrap().recv();
                            Ok(())
                        })
                        .await
                })
            })
            .collect();
        for _ in 0..2 {
            beginnings.recv().await.unwrap();
        }
        // Where the first user has all turns, the other waits for ever.
        let its_own = tokio::time::timeout(Duration::from_secs(30), walks.run(other, &budget, |_| Ok(())));
        its_own.await.expect("a turn for the other user").unwrap();
        assert!(beginnings.try_recv().is_err(), "a third walk of one user has begun");
        drop(release);
        for walk in held {
            walk.await.unwrap().unwrap();
        }
    }
}
