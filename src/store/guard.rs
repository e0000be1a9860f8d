//! Guards calls of redb, which documents that it may panic on a file something else has altered.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use redb::Database;

/// The start of this crate's paths in a panic: paths of dependencies are absolute.
const OURS: &str = "src/";

/// The code that panicked, in a thread whose panics are caught here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Culprit {
    Nobody,
    Library,
    Ours,
}

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static CULPRIT: Cell<Culprit> = const { Cell::new(Culprit::Nobody) };
}

/// The result of `work`, or the message with which the storage library panicked; the log of internal errors says where.
/// A panic of our own code goes on.
pub(in crate::store) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_ours = info.location().is_none_or(|at| at.file().starts_with(OURS));
            CULPRIT.set(if is_ours { Culprit::Ours } else { Culprit::Library });
            if IS_CAUGHT.get() && !is_ours {
                tracing::debug!(panic = %info, "the storage library can't go on");
            } else {
                others(info);
            }
        }));
    });
    let before = IS_CAUGHT.replace(true);
    CULPRIT.set(Culprit::Nobody);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    match result {
        Err(payload) if CULPRIT.get() == Culprit::Ours => resume_unwind(payload),
        result => result.map_err(|payload| words(payload.as_ref())),
    }
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "its structure is broken".into(), |text| format!("its structure is broken: {text}"))
}

/// A database whose closing is guarded too: it reads and writes the file.
pub(in crate::store) struct Guarded(Option<Database>);

impl From<Database> for Guarded {
    fn from(database: Database) -> Self {
        Self(Some(database))
    }
}

impl Guarded {
    /// The database, while it is open.
    pub(in crate::store) fn get(&self) -> redb::Result<&Database, redb::Error> {
        self.0.as_ref().ok_or(redb::Error::DatabaseClosed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let database = self.0.take();
        // If something can't be written, the next start recovers it.
        let _ = caught(move || drop(database));
    }
}
