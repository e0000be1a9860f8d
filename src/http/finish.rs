//! Finishes the work begun for a request, even if the client does not wait for it.

use std::panic::resume_unwind;
use std::sync::Arc;

use poem::http::Method;
use poem::{Endpoint, Middleware, Request};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The layer around the routes. Without it, a client that hangs up would end its request's work wherever that happens
/// to wait: a tag could be gone from its registry, and the catalog and the audit log would not know.
pub(crate) struct Finish(TaskTracker);

impl Finish {
    /// Returns the layer. When the server stops, it waits for this work with the rest of what `tracker` tracks.
    pub(crate) fn new(tracker: TaskTracker) -> Self {
        Self(tracker)
    }
}

impl<E: Endpoint + 'static> Middleware<E> for Finish {
    type Output = Finished<E>;

    fn transform(&self, inner: E) -> Finished<E> {
        Finished { inner: Arc::new(inner), tracker: self.0.clone() }
    }
}

/// Cancelled when the client no longer waits for the request: it hung up, or has its answer.
#[derive(Clone)]
struct Waited(CancellationToken);

/// Returns a token that is cancelled when the client no longer waits for this request. Work that only reads may end
/// then.
pub(crate) fn abandoned(request: &Request) -> CancellationToken {
    request.extensions().get::<Waited>().map(|waited| waited.0.clone()).unwrap_or_default()
}

/// An endpoint whose work is always finished.
pub(crate) struct Finished<E> {
    inner: Arc<E>,
    tracker: TaskTracker,
}

impl<E: Endpoint + 'static> Endpoint for Finished<E> {
    type Output = E::Output;

    async fn call(&self, mut request: Request) -> poem::Result<E::Output> {
        let waited = CancellationToken::new();
        request.extensions_mut().insert(Waited(waited.clone()));
        let _until_this_is_dropped = waited.drop_guard();
        // A request that only reads has nothing to finish; streams and links to agents are of this kind too.
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return self.inner.call(request).await;
        }
        let inner = Arc::clone(&self.inner);
        match self.tracker.spawn(async move { inner.call(request).await }).await {
            Ok(answer) => answer,
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(cancelled) => Err(poem::Error::from_string(
                    cancelled.to_string(),
                    poem::http::StatusCode::INTERNAL_SERVER_ERROR,
                )),
            },
        }
    }
}
