//! The images of containers that an engine's events told of: a container may come and go between two lists.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an event counts: longer than it takes until the engine is read because of it.
const KEPT: Duration = Duration::from_secs(30);
/// Most images that are remembered; further ones are found in the lists of containers.
const MAX_IMAGES: usize = 1_000;

/// The images that events named, each with the time of the last event.
#[derive(Default)]
pub(crate) struct Lately(Mutex<HashMap<String, Instant>>);

impl Lately {
    /// Notes an event of a container that was made from this image.
    pub(crate) fn note(&self, image: &str) {
        let mut images = self.0.lock();
        if images.len() < MAX_IMAGES || images.contains_key(image) {
            images.insert(image.into(), Instant::now());
        }
    }

    /// The images of the last moments.
    pub(crate) fn images(&self) -> Vec<String> {
        let mut images = self.0.lock();
        images.retain(|_, at| at.elapsed() < KEPT);
        images.keys().cloned().collect()
    }
}
