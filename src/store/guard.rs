//! Where the storage library may panic: it says so of files that something else has altered.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught here, and so is no one's backtrace.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or what it panicked with, which the log has then in one line.
pub(in crate::store) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_CAUGHT.get() {
                tracing::error!(panic = %info, "the storage library can't go on");
            } else {
                others(info);
            }
        }));
    });
    let before = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    result.map_err(|payload| words(payload.as_ref()))
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "its structure is broken".into(), |text| format!("its structure is broken: {text}"))
}
