//! Helpers for tests in which several tasks want to write at once, or nothing can be written.

use std::sync::mpsc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::base::Result;
use crate::store::Store;

/// Makes the disk of a store full, or gives it room again.
pub(crate) fn fill_disk(store: &Store, is_full: bool) {
    const NO_ROOM: i32 = 28;
    if let Some(disk) = &store.current().disk {
        disk.faults().refused = is_full.then_some((0..u64::MAX, NO_ROOM));
    }
    // The store notices at its next write.
    assert_eq!(store.write_now(|_| Ok(())).is_err(), is_full);
}

/// A write that is in progress until the test ends it.
pub(crate) struct Held {
    go_on: mpsc::Sender<()>,
    writing: JoinHandle<Result<()>>,
}

impl Held {
    /// Begins the write: from now on no other write proceeds.
    pub(crate) async fn begin(store: &Store) -> Self {
        let (begun, writes) = oneshot::channel();
        let (go_on, told) = mpsc::channel();
        let store = store.clone();
        let writing = tokio::spawn(async move {
            let write = move |_: &mut _| {
                let _ = begun.send(());
                let _ = told.recv();
                Ok(())
            };
            store.write(write).await
        });
        writes.await.expect("a write that begins");
        Self { go_on, writing }
    }

    /// Waits until the other tasks have come to where they wait.
    pub(crate) async fn gather(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the write: the others proceed one by one.
    pub(crate) async fn end(self) {
        self.go_on.send(()).expect("a write that is under way");
        self.writing.await.expect("a write that breaks down nowhere").expect("a write");
    }
}
