//! Blobs of invented images: real tar layers, real configs, real manifests, each under its own digest.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::base::digest::hex;

/// The media type of an index (OCI image specification).
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of one platform's manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A block of a tar file.
const BLOCK: usize = 512;

/// Bytes with their media type.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// The media type, as a registry states it.
    pub(crate) media_type: &'static str,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// Blobs by digest. Equal blobs are kept only once.
#[derive(Debug, Default)]
pub(crate) struct Blobs(HashMap<Arc<str>, Blob>);

/// What a manifest says of a blob.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    media_type: &'static str,
    /// Its digest.
    pub(crate) digest: Arc<str>,
    size: usize,
}

impl Descriptor {
    fn json(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": *self.digest, "size": self.size })
    }

    fn for_platform(&self, os: &str, architecture: &str) -> Value {
        let mut value = self.json();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("platform".into(), json!({ "os": os, "architecture": architecture }));
        }
        value
    }
}

impl Blobs {
    /// The blob with this digest.
    pub(crate) fn find(&self, digest: &str) -> Option<&Blob> {
        self.0.get(digest)
    }

    fn put(&mut self, media_type: &'static str, bytes: Vec<u8>) -> Descriptor {
        let digest: Arc<str> = format!("sha256:{}", hex(&Sha256::digest(&bytes))).into();
        let size = bytes.len();
        self.0.insert(Arc::clone(&digest), Blob { media_type, bytes: bytes.into() });
        Descriptor { media_type, digest, size }
    }

    /// Makes a layer with one file of this many bytes, always the same for the same name.
    pub(crate) fn layer(&mut self, name: &str, size: usize) -> Descriptor {
        self.put(LAYER, tar(name, &noise(name, size)))
    }

    /// Makes an image for one platform: its config and its manifest.
    pub(crate) fn image(
        &mut self,
        architecture: &str,
        created: &str,
        labels: &[(&str, String)],
        layers: &[Descriptor],
    ) -> Descriptor {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| &*layer.digest).collect();
        let config = json!({
            "created": created, "architecture": architecture, "os": "linux",
            "config": { "Labels": labels, "Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.put(CONFIG, config.to_string().into_bytes());
        self.manifest(&config, layers)
    }

    /// Makes a manifest over a config and layers.
    fn manifest(&mut self, config: &Descriptor, layers: &[Descriptor]) -> Descriptor {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.json(),
            "layers": layers.iter().map(Descriptor::json).collect::<Vec<_>>(),
        });
        self.put(MANIFEST, manifest.to_string().into_bytes())
    }

    /// Makes an index over the manifests of several architectures.
    pub(crate) fn index(&mut self, images: &[(&str, Descriptor)]) -> Descriptor {
        let entries: Vec<Value> =
            images.iter().map(|(architecture, image)| image.for_platform("linux", architecture)).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.put(INDEX, index.to_string().into_bytes())
    }

    /// Makes a chart for Kubernetes: not an image, but common in registries.
    pub(crate) fn chart(&mut self, name: &str) -> Descriptor {
        const CHART: &str = "application/vnd.cncf.helm.config.v1+json";
        let config = self.put(CHART, json!({ "name": name, "version": "1.4.0" }).to_string().into_bytes());
        let layer = self.layer(name, 4 * 1024);
        self.manifest(&config, &[layer])
    }

    /// Makes a manifest whose config is missing.
    pub(crate) fn without_config(&mut self, name: &str) -> Descriptor {
        let config = self.put(CONFIG, name.as_bytes().to_vec());
        self.0.remove(&config.digest);
        let layer = self.layer(name, 4 * 1024);
        self.manifest(&config, &[layer])
    }
}

/// A tar file that holds one file (POSIX ustar).
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(field) = header.get_mut(at..at + text.len()) {
            field.copy_from_slice(text);
        }
    };
    put(0, format!("opt/{name}").as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    // The checksum is computed with spaces in its own place.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(field) = header.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut file = Vec::with_capacity(content.len() + 4 * BLOCK);
    file.extend_from_slice(&header);
    file.extend_from_slice(content);
    // A file fills whole blocks, and two empty blocks end the archive.
    file.resize(file.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    file
}

/// Returns bytes that do not compress, always the same for the same name (`SplitMix64`).
fn noise(name: &str, size: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Blobs, tar};

    #[test]
    fn a_layer_is_an_archive_that_tar_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer.tar");
        std::fs::write(&path, tar("python", b"hello")).unwrap();
        let listed = std::process::Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("opt/python") && listed.contains(" 5 "), "{listed}");
    }

    #[test]
    fn the_same_layer_is_kept_once() {
        let mut blobs = Blobs::default();
        let (first, second) = (blobs.layer("base", 1000), blobs.layer("base", 1000));
        assert_eq!(first.digest, second.digest);
        assert_ne!(first.digest, blobs.layer("other", 1000).digest);
        assert_eq!(blobs.0.len(), 2);
    }
}
