//! Image manifests as a layout keeps them (image-spec v1.1), and the conversion of Docker's into them.

use serde::Deserialize;
use serde_json::Value;

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};

/// The type that a layout uses instead of [`DOCKER_IMAGE`]: other programs find an image by name only with this type.
pub(crate) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's media types, each with the OCI type for the same bytes.
const TYPES: [(&str, &str); 6] = [
    ("application/vnd.docker.container.image.v1+json", OCI_CONFIG),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ),
];
/// The type of an image's config.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The types that name nothing. A config of such a type is an image's: others are left out when they are read.
const NAMELESS: [&str; 3] = ["", "application/octet-stream", "application/json"];
/// The most layers of an image. Engines stop at 127.
const MAX_LAYERS: usize = 512;

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The config.
    pub(crate) config: Blob,
    /// The layers from the base up.
    pub(crate) layers: Vec<Blob>,
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Blob {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
}

impl Manifest {
    /// The config and the layers, each once.
    pub(crate) fn blobs(&self) -> Vec<&Blob> {
        let mut blobs: Vec<&Blob> = self.layers.iter().chain([&self.config]).collect();
        let mut seen = std::collections::HashSet::new();
        blobs.retain(|blob| seen.insert(&blob.digest));
        blobs
    }

    /// The bytes of config and layers together.
    pub(crate) fn size(&self) -> u64 {
        self.blobs().iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// A manifest as a layout keeps it, beside what it was converted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Converted {
    /// The manifest in OCI's types.
    pub(crate) bytes: Vec<u8>,
    /// The digest of these bytes.
    pub(crate) digest: Digest,
    /// The manifest as the registry served it; the same where it was in OCI's types.
    pub(crate) served: Vec<u8>,
    /// The digest of those bytes.
    pub(crate) served_as: Digest,
}

impl Converted {
    /// Converts a manifest of this media type that has this digest.
    ///
    /// # Errors
    /// A layer whose type has no OCI name.
    pub(crate) fn from_served(media_type: &str, served: Vec<u8>, served_as: Digest) -> Result<Self, Fault> {
        let bytes = as_oci(media_type, served.clone())?;
        Ok(Self { digest: Digest::sha256_of(&bytes), bytes, served, served_as })
    }
}

/// The part of a document that refers to blobs.
#[derive(Deserialize)]
struct Pointing {
    #[serde(default)]
    config: Option<Blob>,
    #[serde(default)]
    layers: Option<Vec<Blob>>,
    #[serde(default)]
    manifests: Option<Vec<Blob>>,
    #[serde(default)]
    blobs: Option<Vec<Blob>>,
    #[serde(default)]
    subject: Option<Blob>,
}

fn pointing(bytes: &[u8]) -> Result<Pointing, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Fault::new(Class::Other, format!("the manifest is not the JSON expected, at {place}"))
    })
}

/// Reads the manifest of one image.
///
/// # Errors
/// A document that is an index, an artifact without layers and config, or no manifest at all.
pub(crate) fn read(bytes: &[u8]) -> Result<Manifest, Fault> {
    let fail = |why: &str| Err(Fault::new(Class::Other, format!("the manifest {why}")));
    let read = pointing(bytes)?;
    if read.manifests.is_some() {
        return fail("is of several platforms; name the manifest of one");
    }
    let Some(config) = read.config else { return fail("has no config") };
    let layers = read.layers.unwrap_or_default();
    if layers.len() > MAX_LAYERS {
        return fail("has more layers than any engine takes");
    }
    Ok(Manifest { config, layers })
}

/// All blobs that a manifest or an index refers to: the documents to follow, and the others.
pub(crate) fn references(bytes: &[u8]) -> Result<(Vec<Blob>, Vec<Blob>), Fault> {
    let read = pointing(bytes)?;
    let documents = read.manifests.into_iter().flatten().chain(read.subject).collect();
    let others = [read.layers, read.blobs].into_iter().flatten().flatten().chain(read.config).collect();
    Ok((documents, others))
}

/// The manifest in OCI's types: Docker's with the types changed, any other as it is. The blobs are the same bytes, so
/// the image's ID stays the same.
///
/// # Errors
/// A layer whose type has no OCI name.
fn as_oci(media_type: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
    if media_type != DOCKER_IMAGE {
        return Ok(bytes);
    }
    let broken = |why: &str| Fault::new(Class::Other, format!("Docker's manifest {why}"));
    let mut manifest: Value = serde_json::from_slice(&bytes).map_err(|_| broken("is no JSON"))?;
    let fields = manifest.as_object_mut().ok_or_else(|| broken("is no object"))?;
    fields.insert("mediaType".into(), OCI_IMAGE.into());
    let mut descriptors: Vec<&mut Value> = Vec::new();
    for (key, value) in fields.iter_mut() {
        match (key.as_str(), value) {
            ("config", config) => {
                name_config(config);
                descriptors.push(config);
            }
            ("layers", Value::Array(layers)) => descriptors.extend(layers),
            _ => {}
        }
    }
    for descriptor in descriptors {
        let field = descriptor.get_mut("mediaType").ok_or_else(|| broken("has a blob of no type"))?;
        let docker = field.as_str().unwrap_or_default();
        if docker.starts_with("application/vnd.oci.") {
            continue;
        }
        let known = TYPES.iter().find(|(of_docker, _)| *of_docker == docker);
        let (_, oci) = known.ok_or_else(|| broken("has a blob of a type that no image layout has"))?;
        *field = Value::from(*oci);
    }
    serde_json::to_vec(&manifest).map_err(|error| broken(&error.to_string()))
}

/// Gives a config its type, if it has none that says something.
fn name_config(config: &mut Value) {
    let Some(fields) = config.as_object_mut() else { return };
    let kind = fields.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    if NAMELESS.contains(&kind) {
        fields.insert("mediaType".into(), OCI_CONFIG.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{DOCKER_IMAGE, OCI_IMAGE, as_oci, read, references};
    use crate::base::digest::Digest;

    fn descriptor(kind: &str, content: &str) -> Value {
        json!({"mediaType": kind, "digest": Digest::sha256_of(content.as_bytes()), "size": content.len()})
    }

    fn docker() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": DOCKER_IMAGE,
            "config": descriptor("application/vnd.docker.container.image.v1+json", "config"),
            "layers": [
                descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "a"),
                descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "b"),
            ],
        })
    }

    #[test]
    fn dockers_manifest_becomes_one_of_the_same_blobs() {
        let before = docker().to_string().into_bytes();
        let after = as_oci(DOCKER_IMAGE, before.clone()).unwrap();
        assert_eq!(read(&after).unwrap(), read(&before).unwrap());
        let after: Value = serde_json::from_slice(&after).unwrap();
        assert_eq!(after["mediaType"], OCI_IMAGE);
        assert_eq!(after["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
        assert_eq!(after["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(as_oci(OCI_IMAGE, before.clone()).unwrap(), before, "no other one is touched");
        let mut strange = docker();
        strange["layers"][0]["mediaType"] = "application/x-strange".into();
        assert!(as_oci(DOCKER_IMAGE, strange.to_string().into_bytes()).is_err());
    }

    #[test]
    fn a_config_whose_type_says_nothing_is_an_images() {
        for kind in [Value::Null, "".into(), "application/octet-stream".into(), "application/json".into()] {
            let mut before = docker();
            before["config"]["mediaType"] = kind.clone();
            if kind.is_null() {
                before["config"].as_object_mut().unwrap().remove("mediaType");
            }
            let after = as_oci(DOCKER_IMAGE, before.to_string().into_bytes()).unwrap();
            let after: Value = serde_json::from_slice(&after).unwrap();
            assert_eq!(after["config"]["mediaType"], super::OCI_CONFIG, "{kind}");
        }
        let mut before = docker();
        before["layers"][0].as_object_mut().unwrap().remove("mediaType");
        assert!(as_oci(DOCKER_IMAGE, before.to_string().into_bytes()).is_err(), "a layer may be compressed");
    }

    #[test]
    fn what_is_no_image_of_one_platform_is_refused() {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(OCI_IMAGE, "x")]}).to_string();
        for (bytes, why) in [
            (index.as_str(), "several platforms"),
            ("{}", "no config"),
            ("nonsense", "line 1"),
            (r#"{"config": {"digest": "sha256:1", "size": 1}}"#, "JSON expected"),
        ] {
            let fault = read(bytes.as_bytes()).unwrap_err();
            assert!(fault.message.contains(why), "{fault}");
        }
        let mut deep = docker();
        deep["layers"] = (0..513).map(|n| descriptor("x", &n.to_string())).collect();
        assert!(read(deep.to_string().as_bytes()).is_err());
    }

    #[test]
    fn all_that_is_pointed_at_is_found() {
        let (documents, blobs) = references(docker().to_string().as_bytes()).unwrap();
        assert_eq!((documents.len(), blobs.len()), (0, 3));
        let index = json!({
            "manifests": [descriptor(OCI_IMAGE, "x")], "subject": descriptor(OCI_IMAGE, "y"), "layers": null,
        });
        let (documents, blobs) = references(index.to_string().as_bytes()).unwrap();
        assert_eq!((documents.len(), blobs.len()), (2, 0));
    }
}
