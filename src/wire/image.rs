//! What messages say about images, pulls and engines. These types mirror those of `engine`, but their form stays the
//! same when `engine` changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::digest::Digest;
use crate::base::secret::Secret;

/// An image an engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The id the engine gives the image.
    pub id: Digest,
    /// Its names, `registry/name:tag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The manifests by which the image was pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Digest>,
    /// What the engine has of the image, if the id may be that of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Bytes on disk.
    #[serde(default)]
    pub size: u64,
}

/// What an engine has of an index: the image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its architecture, as `uname -m` has it.
    pub architecture: String,
    /// Its manifest, if the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
}

/// Which images the containers of an engine use, by the ids that the engine gives the images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Those that a container was made from that is there, running or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub now: Vec<Digest>,
    /// Those that a container used a moment ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lately: Vec<Digest>,
}

/// Room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The room that is free for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free: Option<u64>,
    /// The size of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
    /// The room that images take.
    #[serde(default)]
    pub(crate) images: u64,
}

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `docker`, `podman`, `containerd` or `oci`.
    pub kind: String,
    /// The engine's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: String,
    /// The engine's version.
    #[serde(default)]
    pub version: String,
    /// The system its containers run on.
    #[serde(default)]
    pub os: String,
    /// The processor, as `uname -m` has it.
    pub architecture: String,
    /// The labels its operator gave it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The class, in the words of `engine::fault::Class`.
    pub class: String,
    /// The error message, for people.
    pub message: String,
}

/// An image to pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// `registry/name`.
    pub repository: String,
    /// The tag the image will have.
    pub tag: String,
    /// The manifest to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The index that the tag points to, if it points to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The config that the pulled image must have.
    pub config: Digest,
    /// The image's architecture, as `uname -m` has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// The platform in OCI's notation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The layers as far as they are known: digest and compressed size in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<(Digest, u64)>,
    /// The credentials for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How to reach the registry, for an agent that fetches from it itself: one whose engine is `oci`, or one with the
    /// feature `sources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<Registry>,
    /// The peers that may have the image nearer than the registry, in the order in which to ask them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<Peer>,
}

/// An agent that holds an image and hands it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// The agent's id.
    pub(crate) agent: String,
    /// The peer's address; none where the manager itself hands the image out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<Url>,
    /// The grant to show the peer: the password of the user `grant` in Basic authentication.
    pub(crate) grant: Secret,
    /// Whether the peer is a cache, which may have to fetch the image first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cache: bool,
}

/// What an agent must know about a registry to fetch from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    /// The registry's name in image names: what `repository` begins with.
    pub(crate) host: String,
    /// The registry's address.
    pub(crate) url: Url,
    /// Whether its certificate is checked.
    #[serde(default = "checked", skip_serializing_if = "is_checked")]
    pub(crate) ssl_verify: bool,
    /// Certificates in PEM that may sign for it, besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
    /// Other hosts that an admin approved for this registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted_hosts: Vec<String>,
}

fn checked() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to what it asks")]
fn is_checked(checked: &bool) -> bool {
    *checked
}

/// User and password for a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// The progress of a pull. No number ever decreases, and no "done" exceeds its total.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes fetched.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes known so far.
    #[serde(default)]
    pub bytes_total: u64,
    /// Layers fetched.
    #[serde(default)]
    pub layers_done: u32,
    /// Layers known so far.
    #[serde(default)]
    pub layers_total: u32,
    /// What the engine is doing.
    #[serde(default)]
    pub message: String,
}

/// How a pull succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The image as the engine showed it afterwards.
    pub held: Held,
    /// Whether the image's content was fetched.
    pub fetched: bool,
    /// What went wrong and was made good, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// The result of a request to remove an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// The image is gone from disk.
    Removed {
        /// Bytes that this freed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freed: Option<u64>,
    },
    /// The name is gone; the image stays.
    Untagged,
    /// Nothing changed, because containers use the image.
    InUse {
        /// The names of these containers.
        #[serde(default)]
        containers: Vec<String>,
    },
    /// The engine had no such image.
    Absent,
}
