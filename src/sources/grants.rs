//! Grants: who may take which image from us, and for how long.
//!
//! A grant is a random secret that the manager makes for one pull and sends to both sides. It opens the parts of one
//! image and nothing else. Only hashes of grants are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::digest::{Digest, hex};
use crate::base::secret::Secret;
use crate::engine::fault::{Class, Fault};
use crate::engine::pull::Taken;
use crate::engine::source::Source;

/// How long a grant is valid unless it is renewed. This is short, because over plain HTTP the grant can be read on
/// the way.
pub(crate) const LIFE: Duration = Duration::from_mins(2);
/// The longest life a grant can get, whatever was asked for.
const MAX_LIFE: Duration = Duration::from_mins(10);
/// Most grants at once. An agent with sixteen peers has sixteen.
const MAX_GRANTS: usize = 1_024;
/// Random bytes in a grant.
const BYTES: usize = 24;
/// Longest text that is looked up as a grant, in bytes.
const MAX_TEXT: usize = 256;

/// The grants that are valid now.
#[derive(Default)]
pub(crate) struct Grants {
    held: Mutex<HashMap<Digest, Grant>>,
}

struct Grant {
    parts: Parts,
    until: Instant,
}

/// What a grant opens: the parts of one image, and where their bytes are read from.
pub(crate) struct Parts {
    /// The image's id.
    pub(crate) image: Digest,
    /// Each part with its size in bytes.
    pub(crate) sizes: HashMap<Digest, u64>,
    /// Where the parts are read from.
    pub(crate) source: Arc<dyn Source>,
    /// What was taken of them so far.
    pub(crate) taken: Arc<Taken>,
}

impl Parts {
    /// The bytes of all parts but this manifest.
    pub(crate) fn blob_bytes(&self, manifest: &Digest) -> u64 {
        let blobs = self.sizes.iter().filter(|(digest, _)| *digest != manifest);
        blobs.fold(0, |sum: u64, (_, size)| sum.saturating_add(*size))
    }
}

/// What a grant allows for one part of an image.
pub(crate) enum Access {
    /// There is no such grant, or it has expired.
    Unknown,
    /// The grant is for another image.
    Outside,
    /// The grant opens this part.
    Open {
        /// The size of the part in bytes.
        size: u64,
        /// Where it is read from.
        source: Arc<dyn Source>,
        /// What was taken with this grant so far.
        taken: Arc<Taken>,
    },
}

/// Makes a new grant.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn random() -> Result<Secret, Fault> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::new(Class::Other, format!("no randomness: {error}")))?;
    Ok(Secret::new(hex(&bytes)))
}

impl Grants {
    /// Lets a holder of this grant read these parts of an image for this long from `now`.
    ///
    /// # Errors
    /// An image that is not whole; a grant that is too short, or is for another image; too many grants.
    pub(crate) fn admit(
        &self,
        grant: &Secret,
        parts: Parts,
        life: Duration,
        now: Instant,
    ) -> Result<(), Fault> {
        let length = grant.expose().len();
        if !(2 * BYTES..=MAX_TEXT).contains(&length) {
            return Err(Fault::new(Class::Other, "the grant is too short or too long to be one"));
        }
        if parts.sizes.is_empty() {
            let why = format!("{} is not here, or not whole", parts.image);
            return Err(Fault::new(Class::NotFound, why));
        }
        let mut held = self.held.lock();
        held.retain(|_, grant| grant.until > now);
        let key = hashed(grant.expose());
        if held.get(&key).is_some_and(|known| known.parts.image != parts.image) {
            return Err(Fault::new(Class::Other, "the grant is for another image already"));
        }
        if held.len() >= MAX_GRANTS && !held.contains_key(&key) {
            return Err(Fault::new(Class::Other, format!("{MAX_GRANTS} grants are given already")));
        }
        let until = now + life.min(MAX_LIFE);
        held.insert(key, Grant { parts, until });
        Ok(())
    }

    /// Keeps a grant for this long from `now`. Returns false if it is not one for this image that is still valid.
    pub(crate) fn extend(&self, grant: &Secret, image: &Digest, life: Duration, now: Instant) -> bool {
        let mut held = self.held.lock();
        let known = held.get_mut(&hashed(grant.expose()));
        let Some(known) = known.filter(|known| known.until > now && known.parts.image == *image) else {
            return false;
        };
        known.until = now + life.min(MAX_LIFE);
        true
    }

    /// Ends a grant.
    pub(crate) fn end(&self, grant: &Secret) {
        self.held.lock().remove(&hashed(grant.expose()));
    }

    /// Returns what this grant allows for this part.
    pub(crate) fn access(&self, grant: &str, part: &Digest, now: Instant) -> Access {
        if grant.len() > MAX_TEXT {
            return Access::Unknown;
        }
        let held = self.held.lock();
        match held.get(&hashed(grant)) {
            Some(grant) if grant.until <= now => Access::Unknown,
            Some(Grant { parts, .. }) => parts.sizes.get(part).map_or(Access::Outside, |size| Access::Open {
                size: *size,
                source: Arc::clone(&parts.source),
                taken: Arc::clone(&parts.taken),
            }),
            None => Access::Unknown,
        }
    }
}

fn hashed(grant: &str) -> Digest {
    Digest::sha256_of(grant.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use async_trait::async_trait;

    use super::{Access, Grants, MAX_GRANTS, MAX_LIFE, random};
    use crate::base::digest::Digest;
    use crate::base::secret::Secret;
    use crate::engine::export::LocalExport;
    use crate::engine::fault::Fault;
    use crate::sources::peer::held_parts;

    struct Two;

    #[async_trait]
    impl LocalExport for Two {
        async fn parts(&self, image: &Digest) -> Result<HashMap<Digest, u64>, Fault> {
            let is_here = *image == digest("image");
            Ok(if is_here { HashMap::from([(digest("a"), 1), (digest("b"), 1)]) } else { HashMap::new() })
        }

        async fn open(&self, _: &Digest) -> Result<Option<(File, u64)>, Fault> {
            Ok(None)
        }
    }

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    async fn admit(grants: &Grants, grant: &Secret, image: &str, life: Duration, now: Instant) -> bool {
        let parts = held_parts(Arc::new(Two), &digest(image)).await.unwrap();
        grants.admit(grant, parts, life, now).is_ok()
    }

    fn opens(grants: &Grants, grant: &str, part: &str, now: Instant) -> &'static str {
        match grants.access(grant, &digest(part), now) {
            Access::Unknown => "unknown",
            Access::Outside => "outside",
            Access::Open { .. } => "open",
        }
    }

    #[tokio::test]
    async fn a_grant_opens_the_parts_of_its_image_for_its_time_and_nothing_else() {
        let (grants, grant, minute) = (Grants::default(), random().unwrap(), Duration::from_mins(1));
        let mut now = Instant::now();
        assert_eq!(opens(&grants, grant.expose(), "a", now), "unknown");
        assert!(admit(&grants, &grant, "image", minute, now).await);
        assert_eq!(opens(&grants, grant.expose(), "a", now), "open");
        assert_eq!(opens(&grants, grant.expose(), "c", now), "outside");
        assert_eq!(opens(&grants, random().unwrap().expose(), "a", now), "unknown");
        assert_eq!(opens(&grants, "", "a", now), "unknown");
        now += minute / 2;
        assert!(admit(&grants, &grant, "image", minute, now).await);
        now += minute * 3 / 4;
        assert_eq!(opens(&grants, grant.expose(), "a", now), "open", "it was renewed");
        now += minute;
        assert_eq!(opens(&grants, grant.expose(), "a", now), "unknown");
        assert!(admit(&grants, &grant, "image", Duration::MAX, now).await);
        assert_eq!(opens(&grants, grant.expose(), "a", now + MAX_LIFE), "unknown", "nothing is for ever");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_granted_and_neither_is_too_much() {
        let (grants, minute, now) = (Grants::default(), Duration::from_mins(1), Instant::now());
        assert!(!admit(&grants, &random().unwrap(), "absent", minute, now).await);
        assert!(!admit(&grants, &Secret::new("short"), "image", minute, now).await);
        for _ in 0..MAX_GRANTS {
            assert!(admit(&grants, &random().unwrap(), "image", minute, now).await);
        }
        let one_more = random().unwrap();
        assert!(!admit(&grants, &one_more, "image", minute, now).await);
        assert!(admit(&grants, &one_more, "image", minute, now + minute).await);
        assert_eq!(grants.held.lock().len(), 1, "what is over is gone");
    }
}
