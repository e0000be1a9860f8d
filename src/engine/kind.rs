//! The kinds of engine.

use std::fmt;

/// The bytes that the built-in engine leaves free: wharf's own database may be on the same disk.
const OCI_RESERVE: u64 = 16 * 1024 * 1024;

/// The kinds of engine. Each method answers for all of them, so that a new kind must answer too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Docker Engine.
    Docker,
    /// Podman, by its Docker-compatible API.
    Podman,
    /// containerd, by the Kubernetes container runtime interface.
    Containerd,
    /// An OCI image layout on disk, kept by wharf itself.
    Oci,
}

impl EngineKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Docker, Self::Podman, Self::Containerd, Self::Oci];

    /// Whether it fetches images from the registry by itself; one that does not gets a
    /// [`source`](crate::engine::source) with each pull.
    pub(crate) fn fetches_itself(self) -> bool {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => true,
            Self::Oci => false,
        }
    }

    /// Whether its peers can take images from it.
    pub(crate) fn hands_out(self) -> bool {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => false,
            Self::Oci => true,
        }
    }

    /// Whether it pins the images that it pulls for wharf, so that no other program on the machine removes them.
    pub(crate) fn pins(self) -> bool {
        match self {
            Self::Containerd => true,
            Self::Docker | Self::Podman | Self::Oci => false,
        }
    }

    /// Whether it unpacks the layers that it fetches.
    pub(crate) fn unpacks(self) -> bool {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => true,
            Self::Oci => false,
        }
    }

    /// How many bytes it leaves free on its disk, whatever it is to fetch.
    pub(crate) fn reserve(self) -> u64 {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => 0,
            Self::Oci => OCI_RESERVE,
        }
    }

    /// The name in URLs and tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Oci => "oci",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
