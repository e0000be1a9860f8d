//! What was begun for a request is brought to its end, whether or not the client waits for it.

use std::panic::resume_unwind;
use std::sync::Arc;

use poem::http::Method;
use poem::{Endpoint, Middleware, Request};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The layer around the routes. Otherwise a client that hangs up ends what is done for it wherever it waits just then: a
/// tag would be gone from its registry, and the catalog and the audit log know nothing of it.
pub(crate) struct Finish(TaskTracker);

impl Finish {
    /// What is still under way when the server stops is waited for with the rest of what `tracker` knows.
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

/// Cancelled when nobody waits for the request any more: the client hung up, or has its answer.
#[derive(Clone)]
struct Waited(CancellationToken);

/// What is cancelled when nobody waits for this request any more. Whatever only reads may end then.
pub(crate) fn abandoned(request: &Request) -> CancellationToken {
    request.extensions().get::<Waited>().map(|waited| waited.0.clone()).unwrap_or_default()
}

/// An endpoint whose work is finished.
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
        // What only reads has nothing to finish; streams and links to agents are of this kind, too.
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
