//! What an engine holds at one moment, and what happened between two of them.
//!
//! CRI tells nobody when images come and go, so it is asked again and again and the answers are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::Instant;

use crate::base::digest::Digest;
use crate::engine::{Change, Engine as _, Event, cri::Cri, fault::Fault, image::Held};

/// The longest wait between two looks, however long one takes.
const LONGEST: Duration = Duration::from_mins(1);
/// How many times longer than a look the wait for the next one is, so that a busy engine is not kept busy by us.
const REST: u32 = 20;

/// The names of each image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(BTreeMap<Digest, BTreeSet<String>>);

impl Listing {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self(held.into_iter().map(|held| (held.digest, held.names.into_iter().collect())).collect())
    }

    /// What makes the older one this one: first what went, then what came.
    fn since(&self, older: &Self) -> Vec<Event> {
        let none = BTreeSet::new();
        let event = |change, digest: &Digest, name: Option<&String>| Event::ImageChanged {
            change,
            digest: Some(digest.clone()),
            name: name.cloned(),
        };
        let mut events = Vec::new();
        for (digest, names) in &older.0 {
            let now = self.0.get(digest);
            let lost = names.difference(now.unwrap_or(&none));
            events.extend(lost.map(|name| event(Change::Untagged, digest, Some(name))));
            if now.is_none() {
                events.push(event(Change::Deleted, digest, None));
            }
        }
        for (digest, names) in &self.0 {
            match older.0.get(digest) {
                // Whether it was pulled or imported can't be seen.
                None if names.is_empty() => events.push(event(Change::Pulled, digest, None)),
                None => events.extend(names.iter().map(|name| event(Change::Pulled, digest, Some(name)))),
                Some(before) => {
                    let gained = names.difference(before);
                    events.extend(gained.map(|name| event(Change::Tagged, digest, Some(name))));
                }
            }
        }
        events
    }
}

/// Looks every so often and tells what changed, until a look fails.
pub(crate) fn follow(
    engine: Cri,
    seen: Listing,
    every: Duration,
) -> BoxStream<'static, Result<Event, Fault>> {
    let looks = stream::unfold(Some((engine, seen, every)), move |state| async move {
        let (engine, seen, wait) = state?;
        tokio::time::sleep(wait).await;
        let began = Instant::now();
        match engine.images().await {
            Ok(held) => {
                let wait = (began.elapsed() * REST).clamp(every, LONGEST.max(every));
                let now = Listing::new(held);
                let events: Vec<_> = now.since(&seen).into_iter().map(Ok).collect();
                Some((events, Some((engine, now, wait))))
            }
            Err(fault) => Some((vec![Err(fault)], None)),
        }
    });
    looks.flat_map(stream::iter).boxed()
}

#[cfg(test)]
mod tests {
    use super::Listing;
    use crate::base::digest::Digest;
    use crate::engine::image::Held;
    use crate::engine::{Change, Event};

    fn listing(images: &[(&str, &[&str])]) -> Listing {
        let held = images.iter().map(|(content, names)| Held {
            digest: Digest::sha256_of(content.as_bytes()),
            names: names.iter().map(|&name| name.into()).collect(),
            manifests: Vec::new(),
            size_bytes: 1,
        });
        Listing::new(held.collect())
    }

    #[test]
    fn two_listings_tell_what_happened_between_them() {
        let event = |change, content: &str, name: Option<&str>| Event::ImageChanged {
            change,
            digest: Some(Digest::sha256_of(content.as_bytes())),
            name: name.map(Into::into),
        };
        let before = listing(&[("a", &["x:1", "x:2"]), ("b", &["y:1"]), ("c", &[])]);
        assert_eq!(before.since(&before), []);
        // A tag that moved, a name more, an image less, one without a name.
        let after = listing(&[("a", &["x:2"]), ("b", &["y:1", "x:1"]), ("d", &["z:1"]), ("e", &[])]);
        let mut events = after.since(&before);
        events.sort_by_key(|event| format!("{event:?}"));
        let mut expected = [
            event(Change::Untagged, "a", Some("x:1")),
            event(Change::Deleted, "c", None),
            event(Change::Tagged, "b", Some("x:1")),
            event(Change::Pulled, "d", Some("z:1")),
            event(Change::Pulled, "e", None),
        ];
        expected.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(events, expected);
    }
}
