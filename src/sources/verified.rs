//! Verified flows: a blob whose bytes are not what its digest says never ends.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::base::digest::{Digest, Hasher};
use crate::engine::fault::{Class, Fault};

/// The pieces of a whole blob, of which the last is held back until the digest is known to be right. Otherwise the flow
/// ends with a fault, after `doubt`.
pub(crate) fn verified(
    pieces: BoxStream<'static, Result<Bytes, Fault>>,
    digest: Digest,
    doubt: impl Fn() -> BoxFuture<'static, ()> + Clone + Send + 'static,
) -> BoxStream<'static, Result<Bytes, Fault>> {
    verified_after(digest.hasher(), pieces, digest, doubt)
}

/// The same for the rest of a blob, with the hasher of the bytes before it.
pub(crate) fn verified_after(
    before: Hasher,
    pieces: BoxStream<'static, Result<Bytes, Fault>>,
    digest: Digest,
    doubt: impl Fn() -> BoxFuture<'static, ()> + Clone + Send + 'static,
) -> BoxStream<'static, Result<Bytes, Fault>> {
    let begun = (pieces, before, Bytes::new());
    let pieces = stream::unfold(Some(begun), move |going| {
        let (digest, doubt) = (digest.clone(), doubt.clone());
        async move {
            let (mut pieces, mut hasher, held) = going?;
            match pieces.next().await {
                Some(Ok(piece)) => {
                    hasher.update(&piece);
                    Some((Ok(held), Some((pieces, hasher, piece))))
                }
                Some(Err(fault)) => Some((Err(fault), None)),
                None if hasher.matches(&digest) => Some((Ok(held), None)),
                None => {
                    doubt().await;
                    let why = format!("what came as {digest} has another digest");
                    Some((Err(Fault::new(Class::Network, why)), None))
                }
            }
        }
    });
    // The first piece is the empty one that stood for none yet.
    pieces.filter(|piece| std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty))).boxed()
}
