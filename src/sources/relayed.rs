//! An engine of this machine whose images come from the nearest source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engine::address::EngineUrl;
use crate::engine::export::{Export, Reach};
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal, Uses};
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::source::Source;
use crate::engine::{About, Change, Disk, Engine};
use crate::sources::cache::Cache;
use crate::sources::relay::Relay;

/// How long an engine that did not come to the relay is left alone with it.
const UNREACHED: Duration = Duration::from_mins(10);

/// What a machine has for its engines.
#[derive(Clone, Default)]
pub(crate) struct Nearby {
    /// The relay, unless it is switched off.
    pub(crate) relay: Option<Relay>,
    /// The cache, if there is one on this machine.
    pub(crate) cache: Option<Arc<Cache>>,
}

/// An engine that takes images from the nearest source: one that fetches by itself through the relay, and if that
/// fails from the registry.
pub(crate) struct Relayed {
    engine: Arc<dyn Engine>,
    fetches_itself: bool,
    /// Whether it can share this machine's loopback.
    is_beside: bool,
    nearby: Nearby,
    /// When the engine did not come to the relay, and why.
    unreached: Mutex<Option<(Instant, String)>>,
}

impl Relayed {
    /// Wraps the engine at this address.
    pub(crate) fn new(url: &EngineUrl, engine: Arc<dyn Engine>, nearby: Nearby) -> Self {
        Self {
            engine,
            fetches_itself: url.kind.fetches_itself(),
            is_beside: url.is_beside(),
            nearby,
            unreached: Mutex::new(None),
        }
    }

    /// The source of a pull, with this machine's cache in front.
    fn source(&self, pull: &Pull) -> Option<Arc<dyn Source>> {
        let source = pull.source.as_ref()?;
        Some(match &self.nearby.cache {
            Some(cache) => cache.before(&pull.repository, source),
            None => Arc::clone(source),
        })
    }

    /// Pulls through the relay.
    async fn through(
        &self,
        relay: &Relay,
        source: Arc<dyn Source>,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        let before = self.unreached.lock().clone().filter(|(since, _)| since.elapsed() < UNREACHED);
        if let Some((_, why)) = before {
            return Err(Fault::new(Class::Other, why));
        }
        let offered = tokio::select! {
            offered = relay.offer(pull, source) => offered,
            () = stop.cancelled() => return Err(Fault::stopped()),
        };
        let offer = offered?;
        let pull = Pull { via: Some(offer.via.clone()), ..pull.clone() };
        let named = |now: Progress| {
            progress(Progress { message: offer.named(&now.message, &pull.repository), ..now });
        };
        let pulled = tokio::select! {
            pulled = self.engine.pull(&pull, &named, stop) => pulled,
            never = offer.keep() => never,
        };
        pulled.map_err(|fault| {
            let fault = offer.hidden_in(&fault);
            if offer.via.taken.is_asked() || is_final(&fault) {
                return fault;
            }
            let why = format!("it did not take it from this machine's loopback: {fault}");
            *self.unreached.lock() = Some((Instant::now(), why.clone()));
            Fault::new(fault.class, why)
        })
    }

    /// Pulls through the relay if something is nearer than the registry, and otherwise by the engine alone.
    async fn pull_nearest(
        &self,
        source: &Arc<dyn Source>,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        let Some(relay) = self.nearby.relay.as_ref().filter(|_| source.is_near()) else {
            return self.engine.pull(pull, progress, stop).await;
        };
        if !self.is_beside {
            let mut pulled = self.engine.pull(pull, progress, stop).await?;
            pulled
                .remarks
                .push("the engine fetched it from the registry by itself: it is on another machine".into());
            return Ok(pulled);
        }
        let there = self.engine.find(&pull.canonical()?).await?;
        if there.is_some_and(|held| pull.expects(&held)) {
            return self.engine.pull(pull, progress, stop).await;
        }
        let why = match self.through(relay, Arc::clone(source), pull, progress, stop).await {
            Err(fault) if !is_final(&fault) => fault,
            done => return done,
        };
        tracing::warn!(image = pull.name(), %why, "an engine fetches an image by itself");
        let mut pulled = self.engine.pull(pull, progress, stop).await?;
        pulled.remarks.push(format!("the engine fetched it from the registry by itself: {why}"));
        Ok(pulled)
    }
}

/// Whether the engine would fail by itself too.
fn is_final(fault: &Fault) -> bool {
    matches!(fault.class, Class::Stopped | Class::NoSpace | Class::EngineGone)
}

#[async_trait]
impl Engine for Relayed {
    async fn about(&self) -> Result<About, Fault> {
        self.engine.about().await
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        self.engine.images().await
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        self.engine.find(reference).await
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        let Some(source) = self.source(pull) else { return self.engine.pull(pull, progress, stop).await };
        let best = Mutex::new(Progress::default());
        // A second try begins at zero, and no number may go back.
        let rising = |now: Progress| {
            let mut best = best.lock();
            best.rise_to(now);
            progress(best.clone());
        };
        let mut pulled = if self.fetches_itself {
            self.pull_nearest(&source, pull, &rising, stop).await?
        } else {
            let pull = Pull { source: Some(Arc::clone(&source)), ..pull.clone() };
            self.engine.pull(&pull, &rising, stop).await?
        };
        pulled.remarks.extend(source.remarks());
        Ok(pulled)
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        self.engine.remove(reference).await
    }

    async fn uses(&self, held: &[Held]) -> Result<Option<Uses>, Fault> {
        self.engine.uses(held).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        self.engine.events().await
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        self.engine.disk().await
    }

    fn export(&self) -> Option<Export> {
        self.engine.export()
    }

    fn reach(&self) -> Reach {
        let has_relay = self.is_beside && self.nearby.relay.is_some();
        Reach { takes_sources: !self.fetches_itself || has_relay, has_cache: self.nearby.cache.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::stream::BoxStream;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{Nearby, Relayed};
    use crate::base::digest::Digest;
    use crate::engine::address::EngineUrl;
    use crate::engine::fake::{about, held, pull};
    use crate::engine::fault::{Class, Fault};
    use crate::engine::image::{Held, Removal};
    use crate::engine::pull::{Progress, Pull, Pulled};
    use crate::engine::source::{Document, Flow, Source};
    use crate::engine::{About, Change, Disk, Engine};
    use crate::sources::relay::Relay;

    /// An engine whose loopback is another one.
    #[derive(Default)]
    struct Apart {
        offered: AtomicUsize,
    }

    #[async_trait]
    impl Engine for Apart {
        async fn about(&self) -> Result<About, Fault> {
            Ok(about())
        }

        async fn images(&self) -> Result<Vec<Held>, Fault> {
            Ok(Vec::new())
        }

        async fn find(&self, _: &str) -> Result<Option<Held>, Fault> {
            Ok(None)
        }

        async fn pull(
            &self,
            pull: &Pull,
            progress: &(dyn Fn(Progress) + Send + Sync),
            _: &CancellationToken,
        ) -> Result<Pulled, Fault> {
            if let Some(via) = &pull.via {
                self.offered.fetch_add(1, Ordering::SeqCst);
                let message = format!("{0}@x: Pulling from {1}", via.repository, via.repository);
                progress(Progress { bytes_done: 5, bytes_total: 9, message, ..Progress::default() });
                return Err(Fault::new(Class::Network, format!("dial {}: refused", via.repository)));
            }
            progress(Progress { bytes_done: 1, bytes_total: 9, ..Progress::default() });
            Ok(Pulled::new(held(&pull.name()), true))
        }

        async fn remove(&self, _: &str) -> Result<Removal, Fault> {
            Ok(Removal::Absent)
        }

        async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
            Err(Fault::new(Class::Other, "none"))
        }

        async fn disk(&self) -> Result<Disk, Fault> {
            Err(Fault::new(Class::Other, "none"))
        }
    }

    const MANIFEST: &[u8] = br#"{"config":{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3},"layers":[]}"#;

    #[derive(Debug)]
    struct Near;

    #[async_trait]
    impl Source for Near {
        async fn manifest(&self, _: &str) -> Result<Document, Fault> {
            Ok(Document::of(MANIFEST.to_vec()))
        }

        async fn blob(&self, _: &Digest, _: u64, _: u64) -> Result<Flow, Fault> {
            Err(Fault::new(Class::NotFound, "none"))
        }

        fn is_near(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn an_engine_that_does_not_come_to_the_relay_is_left_alone_and_the_pull_says_why() {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let relay = Relay::open(&tracker, &shutdown).unwrap();
        let (engine, nearby) = (Arc::new(Apart::default()), Nearby { relay: Some(relay), cache: None });
        let relayed = Relayed::new(&EngineUrl::local(), engine.clone(), nearby);
        assert!(relayed.reach().takes_sources);
        let pull = Pull {
            manifest: Some(Digest::sha256_of(MANIFEST)),
            config: Digest::sha256_of(b"abc"),
            source: Some(Arc::new(Near)),
            ..pull("cr.io/a")
        };
        for _ in 0..2 {
            let told = parking_lot::Mutex::new(Vec::new());
            let report = |progress: Progress| {
                assert!(!progress.message.contains("127.0.0.1"), "{}", progress.message);
                told.lock().push(progress.bytes_done);
            };
            let pulled = relayed.pull(&pull, &report, &shutdown).await.unwrap();
            let [remark] = pulled.remarks.as_slice() else { panic!("{:?}", pulled.remarks) };
            assert!(
                remark.contains("by itself: ") && remark.contains("refused") && remark.contains("[secret]"),
                "{remark}"
            );
            assert!(told.into_inner().is_sorted(), "no number goes back");
        }
        assert_eq!(engine.offered.load(Ordering::SeqCst), 1, "it is not tried again for a while");
        let far = EngineUrl::parse("tcp://10.0.0.1:2376", None).unwrap();
        assert!(!Relayed::new(&far, engine, Nearby::default()).reach().takes_sources);
        shutdown.cancel();
    }
}
