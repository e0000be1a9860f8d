//! A node of any kind: what tests do to an engine without wharf, with that engine's own command line.

use std::sync::Arc;

use wharf::engine::address::EngineUrl;
use wharf::engine::{self, Engine, EngineKind};

use super::containerd::RealContainerd;
use super::dockerd::{RealDocker, Store};
use super::podman::RealPodman;
use super::release::Release;

/// What runs on a node: an engine, of a release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Docker(Release, Store),
    Podman(Release),
    Containerd(Release),
}

impl Flavour {
    pub fn kind(self) -> EngineKind {
        match self {
            Self::Docker(..) => EngineKind::Docker,
            Self::Podman(_) => EngineKind::Podman,
            Self::Containerd(_) => EngineKind::Containerd,
        }
    }

    pub fn release(self) -> Release {
        match self {
            Self::Docker(release, _) | Self::Podman(release) | Self::Containerd(release) => release,
        }
    }
}

/// A real engine.
pub enum Node {
    Docker(RealDocker),
    Podman(RealPodman),
    Containerd(RealContainerd),
}

impl Node {
    /// Starts a fresh, empty one of the machine's own release; `None` if that is not possible here.
    pub async fn start(kind: EngineKind) -> Option<Self> {
        let release = Release::Own;
        Self::start_of(match kind {
            EngineKind::Docker => Flavour::Docker(release, Store::Docker),
            EngineKind::Podman => Flavour::Podman(release),
            EngineKind::Containerd => Flavour::Containerd(release),
            EngineKind::Oci => return None,
        })
        .await
    }

    /// Starts a fresh, empty one of this flavour; `None` if that is not possible here.
    pub async fn start_of(flavour: Flavour) -> Option<Self> {
        Some(match flavour {
            Flavour::Docker(release, store) => Self::Docker(RealDocker::start_of(release, store).await?),
            Flavour::Podman(release) => Self::Podman(RealPodman::start_of(release).await?),
            Flavour::Containerd(release) => Self::Containerd(RealContainerd::start_of(release).await?),
        })
    }

    pub fn url(&self) -> String {
        match self {
            Self::Docker(node) => node.url(),
            Self::Podman(node) => node.url(),
            Self::Containerd(node) => node.url(),
        }
    }

    /// Returns wharf's client for it, by its address.
    pub fn engine(&self) -> Arc<dyn Engine> {
        engine::connect(&EngineUrl::parse(&self.url(), None).expect("an address")).expect("an engine")
    }

    pub fn kill9(&mut self) {
        match self {
            Self::Docker(node) => node.kill9(),
            Self::Podman(node) => node.kill9(),
            Self::Containerd(node) => node.kill9(),
        }
    }

    pub async fn restart(&mut self) {
        match self {
            Self::Docker(node) => node.restart().await,
            Self::Podman(node) => node.restart().await,
            Self::Containerd(node) => node.restart().await,
        }
    }

    pub fn log(&self) -> String {
        match self {
            Self::Docker(node) => node.log(),
            Self::Podman(node) => node.log(),
            Self::Containerd(node) => node.log(),
        }
    }

    /// Returns the names it lists itself, sorted, each with what it says is behind it: the ID of the image; for
    /// containerd, whose command line shows no ID, the digest of the manifest.
    pub async fn listed(&self) -> Vec<String> {
        let format = ["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
        let text = match self {
            Self::Docker(node) => node.docker_ok(&format).await,
            Self::Podman(node) => node.podman_ok(&format).await,
            Self::Containerd(node) => {
                let table = node.ctr_ok(&["images", "ls"]).await;
                let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
                // Kubernetes' part of containerd also keeps each image under its ID and under its digest.
                let named = rows.filter(|row| !row[0].starts_with("sha256:") && !row[0].contains('@'));
                named.map(|row| format!("{} {}", row[0], row[2])).collect::<Vec<_>>().join("\n")
            }
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Returns all that it has of images by its own words: names, names by digest, and what has neither.
    pub async fn everything(&self) -> Vec<String> {
        let format = "{{.Repository}}:{{.Tag}}@{{.Digest}} {{.ID}}";
        let arguments = ["images", "--all", "--no-trunc", "--digests", "--format", format];
        let (text, mut rest) = match self {
            Self::Docker(node) => (node.docker_ok(&arguments).await, node.in_containerd().await),
            Self::Podman(node) => (node.podman_ok(&arguments).await, Vec::new()),
            Self::Containerd(node) => (node.ctr_ok(&["images", "ls", "-q"]).await, Vec::new()),
        };
        rest.extend(text.lines().map(str::to_owned));
        rest.sort();
        rest
    }

    /// Pulls a name.
    pub async fn pull(&self, name: &str) {
        match self {
            Self::Docker(node) => node.docker_ok(&["pull", name]).await,
            Self::Podman(node) => node.podman_ok(&["pull", name]).await,
            Self::Containerd(node) => node.ctr_ok(&["images", "pull", "--plain-http", name]).await,
        };
    }

    /// Gives an image another name.
    pub async fn tag(&self, name: &str, other: &str) {
        match self {
            Self::Docker(node) => node.docker_ok(&["tag", name, other]).await,
            Self::Podman(node) => node.podman_ok(&["tag", name, other]).await,
            Self::Containerd(node) => node.ctr_ok(&["images", "tag", name, other]).await,
        };
    }

    /// Removes a name, and with the last name the image.
    pub async fn untag(&self, name: &str) {
        match self {
            Self::Docker(node) => node.docker_ok(&["rmi", name]).await,
            Self::Podman(node) => node.podman_ok(&["rmi", name]).await,
            Self::Containerd(node) => {
                node.ctr_ok(&["images", "rm", "--sync", name]).await;
                if !self.listed().await.is_empty() {
                    return;
                }
                // Kubernetes' part of containerd added names of its own: its ID and its digest.
                let rest = node.ctr_ok(&["images", "ls", "-q"]).await;
                let rest: Vec<_> = rest.lines().collect();
                node.ctr_ok(&[&["images", "rm", "--sync"], rest.as_slice()].concat()).await
            }
        };
    }

    /// Creates a container from an image without starting it.
    pub async fn hold(&self, container: &str, name: &str) {
        match self {
            Self::Docker(node) => node.docker_ok(&["create", "--name", container, name, "/file"]).await,
            Self::Podman(node) => node.podman_ok(&["create", "--name", container, name, "/file"]).await,
            Self::Containerd(_) => panic!("there is no command line for containers of Kubernetes here"),
        };
    }

    /// Removes that container.
    pub async fn let_go(&self, container: &str) {
        match self {
            Self::Docker(node) => node.docker_ok(&["rm", container]).await,
            Self::Podman(node) => node.podman_ok(&["rm", container]).await,
            Self::Containerd(_) => panic!("there is no command line for containers of Kubernetes here"),
        };
    }
}
