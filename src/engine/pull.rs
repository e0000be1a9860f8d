//! A pull: what to pull, its progress, and its result.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::{digest::Digest, identity::Identity, secret::Secret};
use crate::engine::{
    fault::{Class, Fault},
    image::Held,
    name,
    source::Source,
};

/// An image to pull.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The repository as it will be called on the node, `registry/name`.
    pub repository: String,
    /// The tag it will have on the node.
    pub tag: String,
    /// The manifest of the wanted platform. With it, a tag that moves meanwhile does no harm: the engine fetches this
    /// manifest and then gives it the name. Without it, the tag is pulled, and the result is compared.
    pub manifest: Option<Digest>,
    /// The index that the tag points to, if it points to one: an engine may have pulled the image by it.
    pub index: Option<Digest>,
    /// The digest of the image's config, which must be there in the end.
    pub config: Digest,
    /// The image's architecture, in the catalog's spelling.
    pub architecture: String,
    /// The platform in OCI's words (`linux/amd64`, `linux/arm/v7`); the engine's own if not given.
    pub platform: Option<String>,
    /// The layers with their compressed sizes, as far as the catalog knows them. They determine what 100 % is,
    /// including layers that the engine has already.
    pub layers: Vec<Layer>,
    /// User and password for the registry, for an engine that fetches by itself.
    pub credentials: Option<Credentials>,
    /// The source to fetch from, for an engine that has no client of its own.
    pub source: Option<Arc<dyn Source>>,
    /// The relay to take the content from, for an engine that fetches by itself. It takes a `manifest`.
    pub via: Option<Via>,
}

/// A relay: a registry on this machine's loopback that has the content of one image for one pull.
#[derive(Debug, Clone)]
pub struct Via {
    /// Where the image is found by the digest of its manifest, over plain HTTP: `127.0.0.1:PORT/GRANT`.
    pub(crate) repository: String,
    /// The bytes of the image's config and layers.
    pub(crate) total_bytes: u64,
    /// What the engine has taken so far.
    pub(crate) taken: Arc<Taken>,
}

/// How often to tell how much an engine has taken from a relay.
pub(crate) const TOLD: Duration = Duration::from_millis(500);
/// How long a relay may take to accept a connection on loopback.
const AT_HOME: Duration = Duration::from_secs(1);
/// How long to wait for a relay's name to go after a pull was stopped.
pub(crate) const LEAVING: Duration = Duration::from_secs(3);

impl Via {
    /// The image's name there.
    pub(crate) fn name(&self, manifest: &Digest) -> String {
        format!("{}@{manifest}", self.repository)
    }

    /// Whether this name was given by a relay that is gone: its process was killed before it could take it back.
    pub(crate) async fn is_left(&self, named: &str) -> bool {
        let repository = named.split('@').next().unwrap_or_default();
        match (name::relay(repository), name::relay(&self.repository)) {
            (None, _) => false,
            (of, own) if of == own => false,
            // Another process on this machine may be at work with the same engine.
            (Some(other), _) => {
                let connected = timeout(AT_HOME, TcpStream::connect(other)).await;
                connected.is_ok_and(|connected| {
                    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                })
            }
        }
    }

    /// How far the engine is, going by what it took, for one that does not say so itself.
    pub(crate) fn progress(&self) -> Progress {
        let bytes_done = self.taken.bytes().min(self.total_bytes);
        let message = if bytes_done < self.total_bytes { "fetching" } else { "unpacking" };
        Progress { bytes_done, bytes_total: self.total_bytes, message: message.into(), ..Progress::default() }
    }
}

/// What clients took of one image.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Taken {
    /// Counts a request.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of blobs.
    pub(crate) fn note_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether there was a request at all.
    pub(crate) fn is_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// The bytes of blobs so far. What was asked for twice counts twice.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Pull {
    /// The canonical name it will have, `registry/name:tag`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// The canonical name in the form for engines; a fault if it is no valid name.
    pub(crate) fn canonical(&self) -> Result<String, Fault> {
        name::canonical(&self.name())
            .filter(|_| name::repository(&self.repository).is_some())
            .ok_or_else(|| Fault::new(Class::Other, format!("{:?} is no image reference", self.name())))
    }

    /// What identifies the wanted image.
    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity {
            config: &self.config,
            manifest: self.manifest.as_ref(),
            index: self.index.as_ref(),
            architecture: &self.architecture,
        }
    }

    /// Whether this is the wanted image.
    pub(crate) fn expects(&self, held: &Held) -> bool {
        held.is(&self.identity())
    }

    /// Checks what the engine shows under the name after a successful pull: returns the image, or why it is the wrong
    /// one.
    pub(crate) fn proven(&self, shown: Option<Held>) -> Result<Held, Fault> {
        match shown {
            Some(held) if self.expects(&held) => Ok(held),
            Some(held) => Err(Fault::new(
                Class::Other,
                format!(
                    "{} is {} on the node, not the expected {}; has the tag moved since the last scan?",
                    self.name(),
                    held.digest,
                    self.config
                ),
            )),
            None => Err(Fault::new(
                Class::Other,
                format!("the engine ended the pull without an error, and yet has no {}", self.name()),
            )),
        }
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the compressed bytes.
    pub(crate) digest: Digest,
    /// The number of compressed bytes.
    pub(crate) size_bytes: u64,
}

/// User and password for a registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name there.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
}

/// The progress of a pull. From one report to the next no number decreases, and no number done exceeds its total.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Compressed bytes that are there.
    pub bytes_done: u64,
    /// Compressed bytes in all. Without [`Pull::layers`] it grows as the engine learns of them.
    pub bytes_total: u64,
    /// Layers that are there and unpacked.
    pub layers_done: u32,
    /// Layers in all, as far as they are known.
    pub layers_total: u32,
    /// What the engine is doing, in its own words: one short line.
    pub message: String,
}

impl Progress {
    /// Takes over a later report, except where its numbers are lower: a second try begins anew.
    pub(crate) fn rise_to(&mut self, now: Self) {
        self.bytes_total = self.bytes_total.max(now.bytes_total);
        self.bytes_done = self.bytes_done.max(now.bytes_done);
        self.layers_total = self.layers_total.max(now.layers_total);
        self.layers_done = self.layers_done.max(now.layers_done);
        self.message = now.message;
    }
}

/// The result of a successful pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image as the engine showed it afterwards.
    pub held: Held,
    /// Whether its content was fetched; false if the image was there already, under this or another name.
    pub fetched: bool,
    /// What went wrong and was made good, for people.
    pub remarks: Vec<String>,
}

impl Pulled {
    /// A pull without remarks.
    pub(crate) fn new(held: Held, fetched: bool) -> Self {
        Self { held, fetched, remarks: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::Via;

    #[tokio::test]
    async fn only_the_names_of_a_relay_that_is_gone_are_left_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let grant = "0123456789abcdef".repeat(3);
        let via = Via { repository: format!("127.0.0.1:1/{grant}"), total_bytes: 0, taken: Arc::default() };
        let by_digest = format!("sha256:{}", "0".repeat(64));
        let name = |at: &str| format!("{at}/{grant}@{by_digest}");
        assert!(!via.is_left(&name("127.0.0.1:1")).await, "it is its own");
        assert!(!via.is_left(&name(&other.to_string())).await, "the other one is at work");
        assert!(!via.is_left(&name("cr.io/lab")).await && !via.is_left("127.0.0.1:2/app:1").await);
        drop(listener);
        assert!(via.is_left(&name(&other.to_string())).await);
    }
}
