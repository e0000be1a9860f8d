//! For tests of what happens when several want to write at once: keeps them all waiting for their turn.

use std::sync::mpsc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::base::Result;
use crate::store::Store;

/// Somebody who writes, and takes their time.
pub struct Held {
    go_on: mpsc::Sender<()>,
    writing: JoinHandle<Result<()>>,
}

impl Held {
    /// From now on nobody else writes.
    pub async fn begin(store: &Store) -> Self {
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
    pub async fn gather(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// From now on the others write, one by one.
    pub async fn end(self) {
        self.go_on.send(()).expect("a write that is under way");
        self.writing.await.expect("a write that breaks down nowhere").expect("a write");
    }
}
