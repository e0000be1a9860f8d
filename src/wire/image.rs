//! What messages carry of images, pulls and engines. It is `engine`'s view in a form that stays as it is when that one
//! changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::digest::Digest;
use crate::base::secret::Secret;

/// An image an engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The engine's ID of it.
    pub id: Digest,
    /// Its names, `registry/name:tag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The manifests it was pulled by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Digest>,
    /// Bytes on disk.
    #[serde(default)]
    pub size: u64,
}

/// Room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Free for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free: Option<u64>,
    /// In all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
    /// What images take.
    #[serde(default)]
    pub(crate) images: u64,
}

/// Who an engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `docker`, `podman`, `containerd` or `oci`.
    pub kind: String,
    /// Its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: String,
    /// Its version.
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
    /// For people.
    pub message: String,
}

/// An image to pull.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pull {
    /// `registry/name`.
    pub repository: String,
    /// The tag it will have.
    pub tag: String,
    /// The manifest to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The config it must have in the end.
    pub config: Digest,
    /// The platform in OCI's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The layers, as far as they are known: digest and compressed bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<(Digest, u64)>,
    /// For the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The way to the registry, for an agent whose engine is `oci`: it goes there itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<Registry>,
    /// Who may have it nearer than the registry, in the order in which they are to be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<Peer>,
}

/// An agent that holds an image and hands it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) agent: String,
    /// Where it is; nothing where the manager itself hands it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<Url>,
    /// What it is to be shown: the password of the user `grant` in Basic authentication.
    pub(crate) grant: Secret,
}

/// A registry, as whoever fetches from it must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    /// What images call it: what `repository` begins with.
    pub(crate) host: String,
    /// Where it answers.
    pub(crate) url: Url,
    /// Whether its certificate is checked.
    #[serde(default = "checked", skip_serializing_if = "is_checked")]
    pub(crate) ssl_verify: bool,
    /// Certificates in PEM that may sign for it, besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
    /// Other hosts that an admin approved.
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How far a pull is. No number goes back, and none that is done passes its total.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that are there.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes known of.
    #[serde(default)]
    pub bytes_total: u64,
    /// Layers that are there.
    #[serde(default)]
    pub layers_done: u32,
    /// Layers known of.
    #[serde(default)]
    pub layers_total: u32,
    /// What the engine is at.
    #[serde(default)]
    pub message: String,
}

/// How a pull succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The image as the engine showed it afterwards.
    pub held: Held,
    /// Whether the registry was asked.
    pub fetched: bool,
}

/// What became of a request to remove an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// It is gone from disk.
    Removed {
        /// Bytes that became free.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freed: Option<u64>,
    },
    /// The name is gone; the image stays.
    Untagged,
    /// Nothing was changed, for containers use it.
    InUse {
        /// Their names.
        #[serde(default)]
        containers: Vec<String>,
    },
    /// There was no such image.
    Absent,
}
