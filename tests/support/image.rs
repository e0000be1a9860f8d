//! Images and other things a registry holds, made of real manifests and configs of a few hundred bytes.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::sign::to_hex;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Returns `sha256:…` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", to_hex(digest(&SHA256, bytes).as_ref()))
}

/// The shape of the top manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One image manifest.
    Single,
    /// An index (OCI) or a manifest list (Docker).
    Many,
}

/// An image to push, or an artifact that isn't one.
#[derive(Clone, Debug)]
pub struct Image {
    pub repository: String,
    pub tag: String,
    labels: Map<String, Value>,
    platforms: Vec<String>,
    shape: Shape,
    oci: bool,
    attested: bool,
    annotated: bool,
    content: String,
    created: String,
    layer_bytes: usize,
    archives: usize,
    config_type: Option<String>,
    layer_type: Option<String>,
    artifact_type: Option<String>,
}

impl Image {
    /// A Docker image for linux/amd64, labelled as a Backend.AI kernel.
    pub fn new(repository: &str, tag: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            labels: Map::new(),
            platforms: vec!["linux/amd64".to_owned()],
            shape: Shape::Single,
            oci: false,
            attested: false,
            annotated: false,
            content: format!("{repository}:{tag}"),
            created: "2024-01-01T00:00:00Z".to_owned(),
            layer_bytes: 64,
            archives: 0,
            config_type: None,
            layer_type: None,
            artifact_type: None,
        }
        .label("ai.backend.kernelspec", "1")
    }

    /// Returns an image without Backend.AI's labels.
    pub fn vanilla(repository: &str, tag: &str) -> Self {
        let mut image = Self::new(repository, tag);
        image.labels.clear();
        image
    }

    /// A Helm chart.
    pub fn helm(repository: &str, tag: &str) -> Self {
        let mut chart = Self::vanilla(repository, tag).oci();
        chart.config_type = Some("application/vnd.cncf.helm.config.v1+json".to_owned());
        chart.layer_type = Some("application/vnd.cncf.helm.chart.content.v1.tar+gzip".to_owned());
        chart
    }

    /// An OCI 1.1 artifact: an empty config and an `artifactType`.
    pub fn artifact(repository: &str, tag: &str, artifact_type: &str) -> Self {
        let mut artifact = Self::vanilla(repository, tag).oci();
        artifact.config_type = Some("application/vnd.oci.empty.v1+json".to_owned());
        artifact.artifact_type = Some(artifact_type.to_owned());
        artifact
    }

    /// The signature cosign leaves beside the manifest with that digest.
    pub fn cosign(repository: &str, digest: &str) -> Self {
        let mut signature = Self::vanilla(repository, &format!("{}.sig", digest.replace(':', "-"))).oci();
        signature.layer_type = Some("application/vnd.dev.cosign.simplesigning.v1+json".to_owned());
        signature
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.into());
        self
    }

    /// Sets the time of its making in its config.
    pub fn created(mut self, at: &str) -> Self {
        at.clone_into(&mut self.created);
        self
    }

    /// `linux/amd64`, `linux/arm64`, `linux/arm/v7`, …: the tag becomes an index of them.
    pub fn platforms(mut self, platforms: &[&str]) -> Self {
        self.platforms = platforms.iter().map(|&platform| platform.to_owned()).collect();
        self.shape = Shape::Many;
        self
    }

    /// One manifest for this platform, with no index above it.
    pub fn platform(mut self, platform: &str) -> Self {
        self.platforms = vec![platform.to_owned()];
        self
    }

    /// With OCI media types instead of Docker's.
    pub fn oci(mut self) -> Self {
        self.oci = true;
        self
    }

    /// An index in which each image has an attestation beside it, as `docker buildx` makes them.
    pub fn attested(mut self) -> Self {
        self.attested = true;
        self.shape = Shape::Many;
        self.oci()
    }

    /// An index in which every entry carries annotations, as Docker's official images have them.
    pub fn annotated(mut self) -> Self {
        self.annotated = true;
        self.shape = Shape::Many;
        self.oci()
    }

    /// Replaces the bytes under the same name; two images of the same content share their digests.
    pub fn content(mut self, content: &str) -> Self {
        content.clone_into(&mut self.content);
        self
    }

    pub fn layer_bytes(mut self, bytes: usize) -> Self {
        self.layer_bytes = bytes;
        self
    }

    /// Adds layers that an engine can unpack, each with one file of so many bytes; all layers differ.
    pub fn real_layers(mut self, count: usize, bytes: usize) -> Self {
        self.archives = count;
        self.layer_bytes(bytes)
    }

    /// Returns everything to upload, and what a catalog should record of it.
    pub fn build(&self) -> Built {
        let mut blobs = Vec::new();
        let mut manifests = Vec::new();
        let mut parts = Vec::new();
        let mut entries = Vec::new();
        for platform in &self.platforms {
            let part = self.part(platform, &mut blobs);
            let mut entry = json!({
                "mediaType": part.media_type, "digest": part.digest, "size": part.bytes.len(),
                "platform": split_platform(platform),
            });
            if self.annotated {
                entry["annotations"] = json!({"org.opencontainers.image.revision": "0123abc"});
            }
            entries.push(entry);
            if self.attested {
                entries.push(attestation(&part.digest, &mut blobs, &mut manifests));
            }
            parts.push(Part {
                architecture: architecture(platform).to_owned(),
                manifest: part.digest.clone(),
                config: part.config,
                size: part.size,
            });
            manifests.push(Manifest { media_type: part.media_type, digest: part.digest, bytes: part.bytes });
        }
        if self.shape == Shape::Many {
            let media_type = if self.oci { OCI_INDEX } else { DOCKER_LIST };
            let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
            manifests.push(Manifest::new(media_type, &index));
        }
        Built { repository: self.repository.clone(), tag: self.tag.clone(), blobs, manifests, parts }
    }

    fn part(&self, platform: &str, blobs: &mut Vec<Bytes>) -> BuiltPart {
        let layers = self.layers(platform);
        let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
        let config = if self.artifact_type.is_some() {
            json!({})
        } else {
            let mut config = split_platform(platform);
            config["created"] = self.created.clone().into();
            config["comment"] = self.content.clone().into();
            config["config"] = json!({"Labels": self.labels, "Cmd": ["/bin/true"]});
            config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
            config
        };
        let config = Bytes::from(config.to_string());
        let (manifest_type, config_type, layer_type) = if self.oci {
            (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        } else {
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
        };
        let config_type = self.config_type.as_deref().unwrap_or(config_type);
        let layer_type = self.layer_type.as_deref().unwrap_or(layer_type);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor(config_type, &config),
            "layers": layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>(),
        });
        if let Some(kind) = &self.artifact_type {
            manifest["artifactType"] = kind.clone().into();
        }
        let bytes = Bytes::from(manifest.to_string());
        let part = BuiltPart {
            media_type: manifest_type.to_owned(),
            digest: sha256(&bytes),
            bytes,
            config: sha256(&config),
            size: config.len() + layers.iter().map(Bytes::len).sum::<usize>(),
        };
        blobs.extend(layers);
        blobs.push(config);
        part
    }

    fn layers(&self, platform: &str) -> Vec<Bytes> {
        if self.archives == 0 {
            return vec![Bytes::from(vec![b'w'; self.layer_bytes])];
        }
        (0..self.archives)
            .map(|position| {
                let seed = format!("{} {platform} {position}", self.content);
                archive(&format!("file{position}"), &seed, self.layer_bytes)
            })
            .collect()
    }
}

/// Returns a tar archive of one executable file of that many bytes, made from the seed. Engines look at the bytes,
/// not at the media type, so it needs no compression.
fn archive(name: &str, seed: &str, bytes: usize) -> Bytes {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{bytes:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let pattern = sha256(seed.as_bytes());
    let mut content = pattern.as_bytes().repeat(bytes / pattern.len() + 1);
    content.truncate(bytes);
    let mut archive = header.to_vec();
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive.into()
}

struct BuiltPart {
    media_type: String,
    digest: String,
    bytes: Bytes,
    config: String,
    size: usize,
}

/// An image ready to be uploaded.
#[derive(Clone, Debug)]
pub struct Built {
    pub repository: String,
    pub tag: String,
    pub blobs: Vec<Bytes>,
    /// The manifests, children first; the tag points at the last one.
    pub manifests: Vec<Manifest>,
    /// One per platform.
    pub parts: Vec<Part>,
}

impl Built {
    /// Returns the digest that the tag points at.
    pub fn digest(&self) -> &str {
        &self.manifests.last().expect("an image has a manifest").digest
    }

    /// The part for an architecture, as Backend.AI names it (`x86_64`, `aarch64`).
    pub fn part(&self, architecture: &str) -> &Part {
        let part = self.parts.iter().find(|part| part.architecture == architecture);
        part.unwrap_or_else(|| panic!("{}:{} has no {architecture}", self.repository, self.tag))
    }
}

/// One manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub media_type: String,
    pub digest: String,
    pub bytes: Bytes,
}

impl Manifest {
    pub fn new(media_type: &str, content: &Value) -> Self {
        let bytes = Bytes::from(content.to_string());
        Self { media_type: media_type.to_owned(), digest: sha256(&bytes), bytes }
    }
}

/// What the catalog should record of one platform of an image.
#[derive(Clone, Debug)]
pub struct Part {
    pub architecture: String,
    pub manifest: String,
    /// The config digest: `digest` in the GraphQL API.
    pub config: String,
    /// Config and layers.
    pub size: usize,
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

/// An attestation for the image manifest `subject`, uploaded beside it; returns its entry in the index.
fn attestation(subject: &str, blobs: &mut Vec<Bytes>, manifests: &mut Vec<Manifest>) -> Value {
    let statement = Bytes::from(
        json!({"predicateType": "https://slsa.dev/provenance/v0.2", "subject": subject}).to_string(),
    );
    let config = Bytes::from(json!({"architecture": "unknown", "os": "unknown", "config": {}}).to_string());
    let manifest = Manifest::new(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": [descriptor("application/vnd.in-toto+json", &statement)],
        }),
    );
    let entry = json!({
        "mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
        "platform": {"architecture": "unknown", "os": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": subject,
        },
    });
    blobs.extend([statement, config]);
    manifests.push(manifest);
    entry
}

fn split_platform(platform: &str) -> Value {
    let mut words = platform.split('/');
    let (os, architecture) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut value = json!({"os": os, "architecture": architecture});
    if let Some(variant) = words.next() {
        value["variant"] = variant.into();
    }
    value
}

/// Backend.AI's name for a platform's architecture.
fn architecture(platform: &str) -> &str {
    match platform.split('/').nth(1).unwrap_or_default() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}
