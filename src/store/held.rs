//! For tests of what happens when several want to write at once, or when nothing can be written.

use std::sync::mpsc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::base::Result;
use crate::store::Store;

/// From now on the disk of a store has no room, or has it again.
pub(crate) fn fill_disk(store: &Store, is_full: bool) {
    const NO_ROOM: i32 = 28;
    if let Some(disk) = &store.current().disk {
        disk.faults().refused = is_full.then_some((0..u64::MAX, NO_ROOM));
    }
    // Whether there is room is known by the next write.
    assert_eq!(store.write_now(|_| Ok(())).is_err(), is_full);
}

/// Somebody who writes, and takes their time.
pub(crate) struct Held {
    go_on: mpsc::Sender<()>,
    writing: JoinHandle<Result<()>>,
}

impl Held {
    /// From now on nobody else writes.
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

    /// Lets everybody else come to where they wait.
    pub(crate) async fn gather(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// From now on the others write, one by one.
    pub(crate) async fn end(self) {
        self.go_on.send(()).expect("a write that is under way");
        self.writing.await.expect("a write that breaks down nowhere").expect("a write");
    }
}
