//! A chain of sources: peers first, the registry last. An image is taken from nearby peers if they have it.
//!
//! Peers are not trusted. Their bytes are verified against the digest like any others, and a peer that fails, lies or
//! is slow is not asked again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{Document, Flow, Origin, Source};

/// How long a peer may take to begin its answer. It is near, and the registry is there as well.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a cache may take: it may have to wait for the registry.
const CACHE_ANSWER: Duration = Duration::from_mins(1);
/// After this much waiting for a peer in all, it must have sent at least [`SLOWEST`] bytes a second.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 64 * 1024;
/// The same for a cache. It may be no faster than the registry, which all of its readers would then ask.
const CACHE_PATIENCE: Duration = Duration::from_mins(1);
const SLOWEST_CACHE: u64 = 8 * 1024;
/// Most remarks about the peers of one image.
const MAX_REMARKS: usize = 8;

/// The sources of one image.
pub(crate) struct Chain {
    state: Arc<Mutex<State>>,
    registry: Arc<dyn Source>,
}

#[derive(Default)]
struct State {
    /// The peers in the order in which to ask them.
    peers: Vec<Peer>,
    /// The names of the peers that are not asked again.
    out: HashSet<String>,
    /// What peers failed at, for people.
    remarks: Vec<String>,
    /// The peers that sent bytes of each blob.
    brought: HashMap<Digest, HashSet<String>>,
}

/// A peer that may have the image.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The peer's name.
    pub(crate) name: String,
    /// The source that fetches from it.
    pub(crate) source: Arc<dyn Source>,
    /// Whether it is a cache: where it is slow, what is slow is the registry behind it.
    pub(crate) is_cache: bool,
}

impl Peer {
    /// How long it may take for its next bytes.
    fn answer(&self) -> Duration {
        if self.is_cache { CACHE_ANSWER } else { ANSWER }
    }

    /// Judges its pace by the time spent waiting for it and the bytes that came.
    fn pace(&self, waited: Duration, bytes: u64) -> Pace {
        let (patience, slowest) =
            if self.is_cache { (CACHE_PATIENCE, SLOWEST_CACHE) } else { (PATIENCE, SLOWEST) };
        if waited < patience {
            Pace::Unknown
        } else if bytes >= slowest * patience.as_secs() {
            Pace::Enough
        } else {
            Pace::TooSlow
        }
    }
}

/// How fast a peer sends.
#[derive(Debug, PartialEq, Eq)]
enum Pace {
    /// It is too early to say.
    Unknown,
    Enough,
    TooSlow,
}

impl Chain {
    /// A chain of these peers in this order, and then the registry.
    pub(crate) fn new(peers: Vec<Peer>, registry: Arc<dyn Source>) -> Self {
        Self { state: Arc::new(Mutex::new(State { peers, ..State::default() })), registry }
    }

    /// Replaces the peers. A peer that was given up gets another chance: its grant may have ended.
    pub(crate) fn renew(&self, peers: Vec<Peer>) {
        let mut state = self.state.lock();
        state.peers = peers;
        state.out.clear();
    }

    fn next(&self, asked: &HashSet<String>) -> Option<Peer> {
        let state = self.state.lock();
        let is_next = |peer: &&Peer| !state.out.contains(&peer.name) && !asked.contains(&peer.name);
        state.peers.iter().find(is_next).cloned()
    }

    /// Asks the peers one after the other; `None` if the registry must be asked.
    async fn of_peers<T, F>(&self, ask: impl Fn(Peer) -> F) -> Option<(Peer, T)>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut asked = HashSet::new();
        while let Some(peer) = self.next(&asked) {
            asked.insert(peer.name.clone());
            let answer = timeout(peer.answer(), ask(peer.clone())).await;
            match answer.unwrap_or_else(|_| Err(Fault::new(Class::Network, "it does not answer"))) {
                Ok(answer) => return Some((peer, answer)),
                // The peer may have removed the image, or never had this form of its manifest.
                Err(fault) if fault.class == Class::NotFound => {
                    self.state.lock().remark(&peer.name, &format!("lacks a part of the image: {fault}"));
                }
                Err(fault) => leave(&self.state, &peer.name, &fault),
            }
        }
        None
    }
}

impl State {
    fn remark(&mut self, peer: &str, what: &str) {
        if self.remarks.len() < MAX_REMARKS {
            self.remarks.push(format!("{peer} {what}"));
        }
    }
}

fn leave(state: &Mutex<State>, peer: &str, why: &Fault) {
    let mut state = state.lock();
    if state.out.insert(peer.to_owned()) {
        tracing::warn!(peer, %why, "a peer is left for the next one, or the registry");
        state.remark(peer, &format!("was left for another source: {why}"));
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.state.lock().peers.iter().map(|peer| peer.name.clone()).collect();
        write!(f, "{names:?}, then {:?}", self.registry)
    }
}

#[async_trait]
impl Source for Chain {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        // Only the registry can say what a tag points to.
        if let Ok(digest) = reference.parse::<Digest>() {
            let digest = &digest;
            let taken = self.of_peers(|peer| async move {
                let document = peer.source.manifest(reference).await?;
                let is_it = digest.matches(&document.bytes);
                if is_it { Ok(document) } else { Err(Fault::new(Class::Other, "it sent another manifest")) }
            });
            if let Some((_, document)) = taken.await {
                return Ok(document);
            }
        }
        self.registry.manifest(reference).await
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        let taken = self.of_peers(|peer| async move { peer.source.blob(digest, size, from).await }).await;
        let Some((peer, flow)) = taken else { return self.registry.blob(digest, size, from).await };
        tracing::debug!(peer = peer.name, blob = %digest, "taken from a peer");
        self.state.lock().brought.entry(digest.clone()).or_default().insert(peer.name.clone());
        Ok(watched(Arc::clone(&self.state), peer, flow))
    }

    async fn doubt(&self, digest: &Digest) -> bool {
        let suspects = self.state.lock().brought.remove(digest).unwrap_or_default();
        let why = Fault::new(Class::Other, format!("what came as {digest} has another digest"));
        for peer in &suspects {
            leave(&self.state, peer, &why);
        }
        !suspects.is_empty()
    }

    fn is_near(&self) -> bool {
        !self.state.lock().peers.is_empty()
    }

    fn remarks(&self) -> Vec<String> {
        self.state.lock().remarks.clone()
    }

    fn origin(&self) -> Result<Option<Origin>, Fault> {
        self.registry.origin()
    }
}

/// Wraps a flow so that its peer is given up if it breaks off or is too slow. The reader may be slow too, so only the
/// time spent waiting for the peer counts.
fn watched(state: Arc<Mutex<State>>, peer: Peer, flow: Flow) -> Flow {
    let Flow { from, pieces, .. } = flow;
    let begun = (pieces, Duration::ZERO, 0_u64);
    let pieces = stream::unfold(Some(begun), move |going| {
        let (state, peer) = (Arc::clone(&state), peer.clone());
        async move {
            let (mut pieces, mut waited, mut bytes) = going?;
            let asked = Instant::now();
            let piece = timeout(peer.answer(), pieces.next()).await;
            waited += asked.elapsed();
            let fault = match piece {
                Ok(None) => return None,
                Ok(Some(Ok(piece))) => {
                    bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    match peer.pace(waited, bytes) {
                        Pace::Unknown => return Some((Ok(piece), Some((pieces, waited, bytes)))),
                        Pace::Enough => return Some((Ok(piece), Some((pieces, Duration::ZERO, 0)))),
                        Pace::TooSlow => Fault::new(Class::Network, "it is too slow"),
                    }
                }
                Ok(Some(Err(fault))) => fault,
                Err(_) => Fault::new(Class::Network, "it stopped sending"),
            };
            leave(&state, &peer.name, &fault);
            // Whatever the cause, another source can continue.
            Some((Err(Fault::new(Class::Network, fault.message)), None))
        }
    });
    Flow { from, is_verified: false, pieces: pieces.boxed() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures_util::stream::{self, StreamExt as _};

    use super::{Chain, Pace, Peer};
    use crate::base::digest::Digest;
    use crate::engine::fault::{Class, Fault};
    use crate::engine::source::{Document, Flow, Source};

    /// What a test source answers to every request.
    #[derive(Debug, Clone)]
    enum Says {
        Bytes(&'static [u8]),
        Fault(Class),
        BreaksOff(&'static [u8]),
    }

    #[async_trait]
    impl Source for Says {
        async fn manifest(&self, _: &str) -> Result<Document, Fault> {
            match self {
                Self::Bytes(bytes) => Ok(Document { media_type: String::new(), bytes: bytes.to_vec() }),
                Self::Fault(class) => Err(Fault::new(*class, "no")),
                Self::BreaksOff(_) => Err(Fault::new(Class::Network, "broke off")),
            }
        }

        async fn blob(&self, _: &Digest, _: u64, from: u64) -> Result<Flow, Fault> {
            let start = usize::try_from(from).unwrap();
            let pieces: Vec<Result<Bytes, Fault>> = match self {
                Self::Bytes(bytes) => vec![Ok(Bytes::from_static(&bytes[start..]))],
                Self::BreaksOff(bytes) => {
                    vec![Ok(Bytes::from_static(&bytes[start..])), Err(Fault::new(Class::Other, "broke off"))]
                }
                Self::Fault(class) => return Err(Fault::new(*class, "no")),
            };
            Ok(Flow { from, is_verified: false, pieces: stream::iter(pieces).boxed() })
        }
    }

    fn chain(peers: &[Says], registry: Says) -> Chain {
        let named = (0..).zip(peers).map(|(number, says): (u32, _)| Peer {
            name: format!("peer{number}"),
            source: Arc::new(says.clone()),
            is_cache: false,
        });
        Chain::new(named.collect(), Arc::new(registry))
    }

    async fn blob(chain: &Chain, from: u64) -> (Vec<u8>, Option<Class>) {
        let mut flow = chain.blob(&Digest::sha256_of(b"good"), 4, from).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = flow.pieces.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(fault) => return (bytes, Some(fault.class)),
            }
        }
        (bytes, None)
    }

    #[test]
    fn a_cache_may_be_as_slow_as_a_bad_line_but_not_trickle() {
        let peer = |is_cache| Peer { name: String::new(), source: Arc::new(Says::Bytes(b"")), is_cache };
        let pace = |is_cache, seconds, bytes| peer(is_cache).pace(Duration::from_secs(seconds), bytes);
        assert_eq!(pace(true, 59, 0), Pace::Unknown);
        assert_eq!(pace(true, 60, 60), Pace::TooSlow);
        assert_eq!(pace(true, 60, 600 * 1024), Pace::Enough);
        assert_eq!(pace(false, 10, 600 * 1024), Pace::TooSlow, "a peer is near");
        assert_eq!(pace(false, 10, 640 * 1024), Pace::Enough);
    }

    fn out(chain: &Chain) -> Vec<String> {
        let mut out: Vec<String> = chain.state.lock().out.iter().cloned().collect();
        out.sort();
        out
    }

    #[tokio::test]
    async fn the_first_peer_that_has_it_is_asked_and_the_registry_last() {
        let chain = chain(
            &[Says::Fault(Class::Network), Says::Fault(Class::NotFound), Says::Bytes(b"good")],
            Says::Fault(Class::Other),
        );
        assert_eq!(blob(&chain, 0).await, (b"good".to_vec(), None));
        assert_eq!(out(&chain), ["peer0"], "one that has not this is no bad one");
        let none = self::chain(&[Says::Fault(Class::Unauthorized)], Says::Bytes(b"good"));
        assert_eq!(blob(&none, 0).await, (b"good".to_vec(), None));
    }

    #[tokio::test]
    async fn a_peer_that_breaks_off_is_left_and_the_rest_comes_from_the_next() {
        let chain = chain(&[Says::BreaksOff(b"go"), Says::Bytes(b"good")], Says::Fault(Class::Other));
        assert_eq!(blob(&chain, 0).await, (b"go".to_vec(), Some(Class::Network)), "worth going on");
        assert_eq!(blob(&chain, 2).await, (b"od".to_vec(), None));
        assert_eq!(out(&chain), ["peer0"]);
    }

    #[tokio::test]
    async fn a_peer_that_lies_is_found_out_and_the_registry_is_believed_to_the_end() {
        let digest = Digest::sha256_of(b"good");
        let chain = chain(&[Says::Bytes(b"evil")], Says::Bytes(b"good"));
        assert_eq!(chain.manifest(digest.as_str()).await.unwrap().bytes, b"good");
        assert_eq!(out(&chain), ["peer0"]);
        let chain = self::chain(&[Says::Bytes(b"evil")], Says::Bytes(b"good"));
        assert_eq!(blob(&chain, 0).await.0, b"evil");
        assert!(chain.doubt(&digest).await, "there is somebody else");
        assert_eq!(blob(&chain, 0).await.0, b"good");
        assert!(!chain.doubt(&digest).await, "the registry was the last");
    }

    #[tokio::test]
    async fn what_a_tag_means_is_asked_of_the_registry_alone() {
        let chain = chain(&[Says::Bytes(b"evil")], Says::Bytes(b"good"));
        assert_eq!(chain.manifest("latest").await.unwrap().bytes, b"good");
    }
}
