//! The kinds of engine.

use std::fmt;

/// The kinds of engine. What sets them apart is asked of them here, where a new one has to answer.
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
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Docker, Self::Podman, Self::Containerd, Self::Oci];

    /// Whether it fetches images from the registry by itself; one that does not gets a
    /// [`source`](crate::engine::source) with each pull.
    pub(crate) fn fetches_itself(self) -> bool {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => true,
            Self::Oci => false,
        }
    }

    /// Whether its peers can have what it holds from it.
    pub(crate) fn hands_out(self) -> bool {
        match self {
            Self::Docker | Self::Podman | Self::Containerd => false,
            Self::Oci => true,
        }
    }

    /// Whether it pins what it is made to pull, so that nothing else on the machine takes it for garbage.
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
