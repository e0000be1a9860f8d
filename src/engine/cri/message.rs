//! The messages of the Kubernetes container runtime interface (`runtime.v1`), as far as we use them.
//!
//! Written by hand, with the field numbers of the published `api.proto`, so that a build needs no protocol compiler.
//! Fields that wharf does not read are left out; what an engine sends in them is skipped.

use std::collections::HashMap;

use prost::Message;

/// Asks for the engine's name and version.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionResponse {
    /// `containerd`, `cri-o`.
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
}

/// An image by name or ID.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(crate) image: String,
}

impl ImageSpec {
    pub(crate) fn of(reference: &str) -> Self {
        Self { image: reference.into() }
    }
}

/// An image in the engine.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Image {
    /// The digest of its config.
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) repo_tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) repo_digests: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(crate) size: u64,
    /// Whether the node's configuration wants it kept.
    #[prost(bool, tag = "8")]
    pub(crate) pinned: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListImagesRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageStatusResponse {
    /// Left out if there is no such image.
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<Image>,
}

/// User and password. They must not be shown, so this has no `Debug` that would.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct AuthConfig {
    #[prost(string, tag = "1")]
    pub(crate) username: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
    /// The only registry that they are for, as a URL.
    #[prost(string, tag = "4")]
    pub(crate) server_address: String,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    pub(crate) auth: Option<AuthConfig>,
}

/// The answer is not relied on: the image is read instead.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PullImageResponse {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemoveImageRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemoveImageResponse {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageFsInfoRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageFsInfoResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) image_filesystems: Vec<FilesystemUsage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FilesystemUsage {
    #[prost(message, optional, tag = "2")]
    pub(crate) fs_id: Option<FilesystemIdentifier>,
    #[prost(message, optional, tag = "3")]
    pub(crate) used_bytes: Option<UInt64Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FilesystemIdentifier {
    #[prost(string, tag = "1")]
    pub(crate) mountpoint: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UInt64Value {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListContainersRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) metadata: Option<ContainerMetadata>,
    /// The image as the container's creator named it.
    #[prost(message, optional, tag = "4")]
    pub(crate) image: Option<ImageSpec>,
    /// The image as the engine names it: its ID, or name and digest.
    #[prost(string, tag = "5")]
    pub(crate) image_ref: String,
    /// The image's ID; only newer releases tell it.
    #[prost(string, tag = "10")]
    pub(crate) image_id: String,
}

impl Container {
    /// All that the container says of its image.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let named = self.image.as_ref().map(|spec| spec.image.as_str());
        [Some(self.image_id.as_str()), Some(self.image_ref.as_str()), named].into_iter().flatten()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// A call of containerd itself that removes a single name, which CRI lacks (`containerd.services.images.v1`).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteImageRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Whether to answer only after unnamed contents are gone from disk.
    #[prost(bool, tag = "2")]
    pub(crate) sync: bool,
}

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

/// Asks containerd's own image service for an image by its name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetImageRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetImageResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<NamedImage>,
}

/// A name in containerd, and the image that it stands for.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedImage {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) labels: HashMap<String, String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) target: Option<Descriptor>,
}

/// `containerd.types.Descriptor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(crate) media_type: String,
    #[prost(string, tag = "2")]
    pub(crate) digest: String,
    #[prost(int64, tag = "3")]
    pub(crate) size: i64,
}

/// Changes some fields of a name; without a mask all of them. Without one it is also the request to make a name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpdateImageRequest {
    /// The whole image, though only the fields in the mask are changed: newer releases check the others too.
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<NamedImage>,
    #[prost(message, optional, tag = "2")]
    pub(crate) update_mask: Option<FieldMask>,
}

/// `google.protobuf.FieldMask`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub(crate) paths: Vec<String>,
}
