//! Backups of the running server, for super-admins. The key that opens their secrets never leaves the server this
//! way.

use std::fs::{self, File};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use poem::http::header;
use poem::web::Data;
use poem::{Body, Response, handler};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::audit::{Audit, BACK_UP};
use crate::access::caller::Caller;
use crate::access::generate::random_text;
use crate::base::clock::Clock;
use crate::base::{Error, Result};
use crate::http::caller::Proved;
use crate::http::problem::Problem;
use crate::store::Store;
use crate::store::backup::BackupError;
use crate::store::open::DATABASE_FILE;

/// The most backups that may be in transit at once: while one is, it takes as much disk space as the database.
const MOST_SENT: usize = 4;

/// Takes backups, one at a time. Clones share it.
#[derive(Clone)]
pub(crate) struct Backups {
    store: Store,
    audit: Audit,
    clock: Clock,
    folder: PathBuf,
    turn: Arc<Semaphore>,
    sent: Arc<Semaphore>,
}

/// A backup in transit. Its file has no name any more, and the space is freed when this is dropped, whether or not
/// the client has read it to the end.
pub(crate) struct Taken {
    file: tokio::fs::File,
    bytes: u64,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buffer)
    }
}

impl Backups {
    /// Returns the backups of this store, made in its data directory.
    pub(crate) fn new(store: Store, audit: Audit, clock: Clock, folder: PathBuf) -> Self {
        let [turn, sent] = [1, MOST_SENT].map(|places| Arc::new(Semaphore::new(places)));
        Self { store, audit, clock, folder, turn, sent }
    }

    /// Removes the files that a server left when it was killed during a backup.
    pub(crate) fn tidy(&self) {
        let is_left = |name: &str| name.starts_with(&format!("{DATABASE_FILE}.backup-"));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().filter_map(std::io::Result::ok) {
            if entry.file_name().to_str().is_some_and(is_left) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Makes a backup of everything as it is now, without the key.
    ///
    /// # Errors
    /// [`Error::Denied`] for all but super-admins, [`Error::Busy`] while another backup is made or too many are in
    /// transit, and [`Error::Unavailable`] if there is no room for it.
    pub(crate) async fn take(&self, caller: &Caller) -> Result<Taken> {
        self.audit
            .superadmin(caller, BACK_UP, "", |_| async {
                let busy = |_| Error::Busy("another backup is being taken; try again when it is done".into());
                let many = |_| {
                    Error::Busy(format!("{MOST_SENT} backups are on their way already; try again when one is there"))
                };
                let place = Arc::clone(&self.sent).try_acquire_owned().map_err(many)?;
                let turn = Arc::clone(&self.turn).try_acquire_owned().map_err(busy)?;
                let path = self.folder.join(format!("{DATABASE_FILE}.backup-{}", random_text(8)?));
                let (store, now) = (self.store.clone(), self.clock.now());
                let taken = move || {
                    let _turn = turn;
                    store.back_up(&path, None, now)?;
                    let opened = File::open(&path).and_then(|file| {
                        fs::remove_file(&path)?;
                        let bytes = file.metadata()?.len();
                        Ok(Taken { file: file.into(), bytes, _place: place })
                    });
                    opened.map_err(|why| BackupError::Io { path, why })
                };
                let taken = tokio::task::spawn_blocking(taken).await.map_err(Error::internal)?;
                taken.map_err(|why| match why {
                    BackupError::Full(_) => Error::Unavailable(
                        "the disk that holds the data directory has no room for the backup, which is made there: \
                         free some space"
                            .into(),
                    ),
                    // The database itself can't be read.
                    BackupError::Source(why) => why,
                    why => Error::internal(why),
                })
            })
            .await
    }
}

/// `POST /backup`: answers with the file.
#[handler]
pub(crate) async fn take(Proved(caller): Proved, Data(backups): Data<&Backups>) -> Result<Response, Problem> {
    let taken = backups.take(&caller).await?;
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, taken.bytes)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_async_read(taken)))
}
