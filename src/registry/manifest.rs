//! Manifests: parses their bytes (image-spec v1.1, and Docker's image manifest V2, schema 2).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::IgnoredAny};

use crate::{base::digest::Digest, registry::error::visible};

/// Largest manifest, inclusive: what the distribution specification tells registries to support at least.
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// Longest media type accepted (RFC 6838: 127 + 1 + 127).
const MAX_MEDIA_TYPE: usize = 255;

/// The media types we ask for, in one header line: a registry that doesn't find a manifest's type here answers
/// `MANIFEST_UNKNOWN`, which looks like a deleted tag.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const INDEX: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const IMAGE: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// The media type that Docker gives the configs of images.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The media types of the configs of images that run.
const CONFIG: [&str; 2] = ["application/vnd.oci.image.config.v1+json", DOCKER_CONFIG];
/// The media types that say nothing: the content counts.
const GENERIC: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// The kind of a manifest, with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// An index or manifest list.
    Index(Vec<Child>),
    /// An image for one platform.
    Image(ImageManifest),
    /// Something that does not run: a Helm chart, a signature, a WASM module.
    Artifact {
        /// Its `artifactType`, else its config's media type.
        artifact_type: String,
    },
    /// Docker schema 1. It has no config and is not read further.
    Legacy,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// The digest of the child manifest.
    pub(crate) digest: Digest,
    /// The size of the child manifest, in bytes.
    pub(crate) size: u64,
    /// The media type of the child manifest, in lower case.
    pub(crate) media_type: String,
    /// The platform it runs on, if the index says.
    pub(crate) platform: Option<Platform>,
    /// Whether it is build provenance rather than an image: platform `unknown/unknown`, or the annotation
    /// `vnd.docker.reference.type` is `attestation-manifest`. Other annotations mean nothing.
    pub(crate) attestation: bool,
}

/// The platform an image runs on, as the index spells it; at most 64 characters per field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Platform {
    /// `linux`, …
    pub(crate) os: String,
    /// `amd64`, `arm64`, …
    pub(crate) architecture: String,
    /// `v8`, …
    pub(crate) variant: Option<String>,
}

/// A manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageManifest {
    /// Where to find the config.
    pub(crate) config: Descriptor,
    /// The layers from the base up. Foreign `urls` are not kept, because nothing should fetch them.
    pub(crate) layers: Vec<Descriptor>,
    /// The size of config and layers together, in bytes as transferred. Saturates at [`u64::MAX`].
    pub(crate) total_size: u64,
}

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// The digest of the blob.
    pub(crate) digest: Digest,
    /// The size of the blob, in bytes.
    pub(crate) size: u64,
    /// The media type of the blob, in lower case.
    pub(crate) media_type: String,
    /// The blob itself if the manifest carries it, already verified against `digest` and `size`.
    pub(crate) data: Option<Vec<u8>>,
}

impl Descriptor {
    /// Whether its media type says that it is the config of an image that runs.
    pub(crate) fn is_image_config(&self) -> bool {
        CONFIG.contains(&self.media_type.as_str())
    }
}

/// Why bytes are not a manifest. It prints as one line, and takes nothing from the manifest but bounded, escaped
/// names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid manifest: {0}")]
pub(crate) struct InvalidManifest(String);

impl InvalidManifest {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn json(error: &serde_json::Error) -> Self {
        // serde's own message may quote the document; the kind and place of the error are enough.
        Self(format!("not the JSON expected, at line {} column {}", error.line(), error.column()))
    }
}

/// Finds out what a manifest is, by its bytes alone: by its own `mediaType`, else by its shape. The type it was served as
/// plays no part, because what is found out is kept under its digest.
///
/// # Errors
/// JSON that is broken, nests deeper than 128, repeats a key we read, or has negative or oversized numbers; content that
/// is not what its `mediaType` says; both `manifests` and `layers` at once (CVE-2021-41190).
pub(crate) fn classify(bytes: &[u8]) -> Result<Manifest, InvalidManifest> {
    let raw: RawManifest = serde_json::from_slice(bytes).map_err(|error| InvalidManifest::json(&error))?;
    match raw.schema_version {
        Some(1) => return Ok(Manifest::Legacy),
        // Old registries took manifests without a version, and engines run such images.
        None | Some(0 | 2) => {}
        Some(_) => return Err(InvalidManifest::new("schemaVersion is not 2")),
    }
    let media_type = stated_type(raw.media_type.as_deref());
    let is_index = INDEX.contains(&media_type.as_str());
    let is_image = IMAGE.contains(&media_type.as_str());
    let is_any = media_type.is_empty();
    match (raw.manifests, raw.layers) {
        (Some(_), Some(_)) => Err(InvalidManifest::new("it has both manifests and layers")),
        (Some(children), None) if is_index || is_any => {
            children.into_iter().map(RawChild::read).collect::<Result<_, _>>().map(Manifest::Index)
        }
        // Go writes an empty list as null, and an image may have no layers.
        (None, layers) if is_image || (is_any && (layers.is_some() || raw.config.is_some())) => {
            image(raw.config, layers.unwrap_or_default(), raw.artifact_type)
        }
        (None, None) if is_index => Ok(Manifest::Index(Vec::new())),
        _ if is_index || is_image || is_any => {
            Err(InvalidManifest::new("its content is not what its type says"))
        }
        _ => Ok(Manifest::Artifact { artifact_type: bounded_type(raw.artifact_type.unwrap_or(media_type)) }),
    }
}

/// The media type of a manifest: its own, else one that fits its shape; the one it was served as is taken where that
/// fits.
///
/// # Errors
/// When it is no JSON object.
pub(crate) fn type_of(content_type: &str, bytes: &[u8]) -> Result<String, InvalidManifest> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "mediaType", default)]
        media_type: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        config: Option<Config>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
    }
    let typed: Typed = serde_json::from_slice(bytes).map_err(|error| InvalidManifest::json(&error))?;
    let stated = stated_type(typed.media_type.as_deref());
    if !stated.is_empty() {
        return Ok(stated);
    }
    let served = essence(content_type);
    let is_image = typed.layers.is_some() || typed.config.is_some();
    let fitting: &[&str] = match (is_image, typed.manifests.is_some()) {
        (true, _) => &IMAGE,
        (false, true) => &INDEX,
        (false, false) => return Ok(served),
    };
    if fitting.contains(&served.as_str()) {
        return Ok(served);
    }
    let config = typed.config.and_then(|config| config.media_type);
    let is_docker = config.is_some_and(|config| essence(&config) == DOCKER_CONFIG);
    let [oci, docker] = if is_image { IMAGE } else { INDEX };
    Ok(if is_docker { docker } else { oci }.to_owned())
}

/// A media type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The media type that a manifest states, empty if that says nothing.
fn stated_type(stated: Option<&str>) -> String {
    Some(essence(stated.unwrap_or_default()))
        .filter(|stated| !GENERIC.contains(&stated.as_str()))
        .unwrap_or_default()
}

fn image(
    config: Option<RawDescriptor>,
    layers: Vec<RawDescriptor>,
    artifact_type: Option<String>,
) -> Result<Manifest, InvalidManifest> {
    let config = config.ok_or_else(|| InvalidManifest::new("it has no config"))?.read()?;
    if let Some(artifact_type) = artifact_type.filter(|text| !text.is_empty()) {
        return Ok(Manifest::Artifact { artifact_type: bounded_type(artifact_type) });
    }
    if !config.is_image_config() && !GENERIC.contains(&config.media_type.as_str()) {
        return Ok(Manifest::Artifact { artifact_type: config.media_type });
    }
    let layers = layers.into_iter().map(RawDescriptor::read).collect::<Result<Vec<_>, _>>()?;
    let total_size = layers.iter().fold(config.size, |sum, layer| sum.saturating_add(layer.size));
    Ok(Manifest::Image(ImageManifest { config, layers, total_size }))
}

fn bounded_type(text: String) -> String {
    if text.len() <= MAX_MEDIA_TYPE && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        text
    } else {
        visible(&text)
    }
}

/// Cuts a platform's field to 64 characters; real ones have at most ten.
pub(crate) fn bounded_word(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawChild>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawChild {
    digest: String,
    size: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<RawAnnotations>,
}

/// The one annotation that matters. A map of all annotations would take ten times the manifest's size.
#[derive(Deserialize)]
struct RawAnnotations {
    #[serde(rename = "vnd.docker.reference.type", default)]
    reference_type: Option<String>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
}

impl RawDescriptor {
    fn read(self) -> Result<Descriptor, InvalidManifest> {
        let digest = digest(&self.digest)?;
        let data = self.data.map(|text| embedded(&text, &digest, self.size)).transpose()?;
        let media_type = bounded_type(essence(&self.media_type.unwrap_or_default()));
        Ok(Descriptor { digest, size: self.size, media_type, data })
    }
}

impl RawChild {
    fn read(self) -> Result<Child, InvalidManifest> {
        let marked = self.annotations.is_some_and(|annotations| {
            annotations.reference_type.is_some_and(|kind| kind == "attestation-manifest")
        });
        let platform = self.platform.map(RawPlatform::read);
        let unknown = platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown");
        Ok(Child {
            digest: digest(&self.digest)?,
            size: self.size,
            media_type: bounded_type(essence(&self.media_type.unwrap_or_default())),
            platform,
            attestation: marked || unknown,
        })
    }
}

impl RawPlatform {
    fn read(self) -> Platform {
        let word = |text: Option<String>| bounded_word(&text.unwrap_or_default());
        Platform {
            os: word(self.os),
            architecture: word(self.architecture),
            variant: Some(word(self.variant)).filter(|variant| !variant.is_empty()),
        }
    }
}

fn digest(text: &str) -> Result<Digest, InvalidManifest> {
    text.parse().map_err(|error| InvalidManifest::new(format!("{} is {error}", visible(text))))
}

fn embedded(text: &str, digest: &Digest, size: u64) -> Result<Vec<u8>, InvalidManifest> {
    STANDARD
        .decode(text)
        .ok()
        .filter(|data| u64::try_from(data.len()) == Ok(size) && digest.matches(data))
        .ok_or_else(|| InvalidManifest::new("embedded data is not what its descriptor says"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Manifest, classify, type_of};
    use crate::base::digest::Digest;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

    fn descriptor(media_type: &str, size: u64) -> Value {
        json!({"mediaType": media_type, "digest": Digest::sha256_of(b"x"), "size": size})
    }

    fn image(size: u64, layers: &[u64]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|size| descriptor("layer", *size)).collect();
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, size), "layers": layers})
    }

    fn read(value: &Value) -> Result<Manifest, String> {
        classify(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn with(mut value: Value, key: &str, new: Value) -> Value {
        value[key] = new;
        value
    }

    fn without(mut value: Value, key: &str) -> Value {
        value.as_object_mut().unwrap().remove(key);
        value
    }

    #[test]
    fn every_kind_of_manifest_is_told_apart_by_its_content() {
        let kind = |value: Value| match read(&value) {
            Ok(Manifest::Index(_)) => "index".to_owned(),
            Ok(Manifest::Image(_)) => "image".to_owned(),
            Ok(Manifest::Artifact { artifact_type }) => format!("artifact {artifact_type}"),
            Ok(Manifest::Legacy) => "legacy".to_owned(),
            Err(error) => error,
        };
        let helm = "application/vnd.cncf.helm.config.v1+json";
        let config = |media_type: &str| with(image(1, &[]), "config", descriptor(media_type, 1));
        for (value, expected) in [
            (image(1, &[1]), "image"),
            (with(image(1, &[1]), "mediaType", json!(DOCKER)), "image"),
            (
                with(image(1, &[1]), "mediaType", json!("Application/vnd.OCI.image.manifest.v1+json; x=y")),
                "image",
            ),
            (without(image(1, &[1]), "mediaType"), "image"),
            (with(image(1, &[1]), "mediaType", json!("application/json")), "image"),
            (with(image(1, &[1]), "mediaType", json!("")), "image"),
            (with(image(1, &[]), "mediaType", Value::Null), "image"),
            (with(image(1, &[]), "layers", Value::Null), "image"),
            (without(without(image(1, &[]), "layers"), "mediaType"), "image"),
            (without(image(1, &[1]), "schemaVersion"), "image"),
            (with(image(1, &[1]), "schemaVersion", json!(0)), "image"),
            (json!({"mediaType": INDEX, "manifests": []}), "index"),
            (json!({"schemaVersion": 2, "mediaType": INDEX}), "index"),
            (json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": null}), "index"),
            (json!({"schemaVersion": 2, "manifests": []}), "index"),
            // A config of no type may be an image's: its content tells.
            (config("application/octet-stream"), "image"),
            (config("application/json"), "image"),
            (config(""), "image"),
            (config(helm), &format!("artifact {helm}")),
            (with(image(1, &[]), "artifactType", json!("a/b")), "artifact a/b"),
            (with(image(1, &[]), "artifactType", json!("")), "image"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "legacy"),
            (json!({"schemaVersion": 1, "fsLayers": [], "mediaType": IMAGE}), "legacy"),
            (
                json!({"schemaVersion": 2, "mediaType": "application/vnd.other+json"}),
                "artifact application/vnd.other+json",
            ),
        ] {
            assert_eq!(kind(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn a_manifest_of_no_type_gets_the_one_that_fits_its_shape() {
        let bare = without(image(1, &[1]), "mediaType");
        let docker = with(bare.clone(), "config", descriptor(super::DOCKER_CONFIG, 1));
        for (served, value, expected) in [
            (INDEX, image(1, &[1]), IMAGE),
            (DOCKER, bare.clone(), DOCKER),
            (INDEX, bare.clone(), IMAGE),
            ("binary/octet-stream", bare, IMAGE),
            ("", docker, DOCKER),
            (IMAGE, json!({"manifests": []}), INDEX),
            ("application/vnd.other+json", json!({}), "application/vnd.other+json"),
        ] {
            assert_eq!(type_of(served, value.to_string().as_bytes()).unwrap(), expected, "{served} {value}");
        }
    }

    #[test]
    fn manifests_that_mean_two_things_are_refused() {
        let mut both = image(1, &[]);
        both["manifests"] = json!([]);
        for (value, reason) in [
            (both.clone(), "both"),
            (with(both.clone(), "mediaType", Value::Null), "both"),
            (with(both, "mediaType", json!(INDEX)), "both"),
            (with(image(1, &[]), "mediaType", json!(INDEX)), "not what its type"),
            (json!({"schemaVersion": 2, "mediaType": IMAGE, "manifests": []}), "not what its type"),
            (json!({"schemaVersion": 2}), "not what its type"),
            (json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": []}), "no config"),
            (json!({"schemaVersion": 3, "layers": []}), "schemaVersion"),
            (json!({"schemaVersion": 2, "manifests": [{"digest": "md5:x", "size": 1}]}), "not a digest"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }

    #[test]
    fn only_attestations_are_marked_not_everything_annotated() {
        let child = |platform: Value, annotations: Value| json!({"digest": Digest::sha256_of(b"x"), "size": 1, "platform": platform, "annotations": annotations});
        let key = "vnd.docker.reference.type";
        let index = json!({"schemaVersion": 2, "manifests": [
            child(json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), json!({"a": "b"})),
            child(json!({"os": "unknown", "architecture": "unknown"}), Value::Null),
            child(Value::Null, json!({key: "attestation-manifest"})),
            child(Value::Null, json!({key: "other"})),
            child(json!({"os": "linux", "architecture": "unknown"}), json!({})),
        ]});
        let Manifest::Index(children) = read(&index).unwrap() else { panic!("no index") };
        let marked: Vec<bool> = children.iter().map(|child| child.attestation).collect();
        assert_eq!(marked, [false, true, true, false, false]);
        let platform = children[0].platform.as_ref().unwrap();
        assert_eq!((platform.architecture.as_str(), platform.variant.as_deref()), ("arm64", Some("v8")));
        assert_eq!(children[2].platform, None);
    }

    #[test]
    fn sizes_are_summed_without_wrapping_and_never_negative() {
        let total = |value: &Value| match read(value).unwrap() {
            Manifest::Image(image) => image.total_size,
            other => panic!("{other:?}"),
        };
        assert_eq!(total(&image(7, &[1, 2])), 10);
        assert_eq!(total(&image(1 << 63, &[1 << 63, 5])), u64::MAX);
        for size in
            ["-1", "1.5", "1e400", "-0.0", "18446744073709551616", "NaN", "Infinity", "\"5\"", "null", "[]"]
        {
            let text = image(77, &[]).to_string().replace("77", size);
            assert!(classify(text.as_bytes()).is_err(), "{size}");
        }
    }

    #[test]
    fn broken_json_is_an_error_that_quotes_nothing() {
        let good = image(1, &[]).to_string();
        let deep = |open: &str, close: &str| {
            good.replace(
                "\"layers\":[]",
                &format!("\"layers\":{}{}", open.repeat(100_000), close.repeat(100_000)),
            )
        };
        let mut utf16: Vec<u8> = vec![0xff, 0xfe];
        utf16.extend(good.encode_utf16().flat_map(u16::to_le_bytes));
        let invalid_utf8 = [&good.as_bytes()[..10], b"\xff", &good.as_bytes()[10..]].concat();
        let cases: Vec<Vec<u8>> = vec![
            vec![],
            b"{".to_vec(),
            good.as_bytes()[..good.len() - 1].to_vec(),
            format!("{good}x").into(),
            format!("\u{feff}{good}").into(),
            utf16,
            invalid_utf8,
            deep("[", "]").into(),
            deep("{\"a\":", "}").into(),
            good.replace("\"layers\":[]", "\"layers\":[],\"layers\":[]").into(),
            good.replace("\"size\":1", "\"size\":1,\"size\":2").into(),
            good.replace("layer", "la\0yer").into(),
            good.replace(IMAGE, "\\ud800").into(),
            b"null".to_vec(),
            b"[]".to_vec(),
            b"\"secret\"".to_vec(),
        ];
        for bytes in cases {
            let error = classify(&bytes).unwrap_err().to_string();
            assert!(error.len() < 200 && !error.contains("secret"), "{error}");
        }
        // Fields we don't read may hold anything, however deep.
        let ignored = format!("{{\"x\":{}{},{}", "[".repeat(100), "]".repeat(100), &good[1..]);
        assert!(classify(ignored.as_bytes()).is_ok());
        let bomb = format!("{{\"x\":{}{},{}", "[".repeat(100_000), "]".repeat(100_000), &good[1..]);
        let _ = classify(bomb.as_bytes());
        assert!(classify(good.replace("layers\":[]", "layers\":[],\"x\":\"\\u0000\"").as_bytes()).is_ok());
    }

    #[test]
    fn embedded_data_is_used_only_when_it_is_right() {
        let mut value = image(1, &[]);
        value["config"]["data"] = json!("eA==");
        let Manifest::Image(read_image) = read(&value).unwrap() else { panic!("no image") };
        assert_eq!(read_image.config.data.as_deref(), Some(&b"x"[..]));
        for (data, size) in [("eQ==", 1), ("eA==", 2), ("!", 1), ("", 1)] {
            value["config"]["data"] = json!(data);
            value["config"]["size"] = json!(size);
            assert!(read(&value).unwrap_err().contains("embedded"), "{data}");
        }
    }

    #[test]
    fn foreign_words_are_bounded() {
        let index = json!({"schemaVersion": 2, "manifests": [{
            "digest": Digest::sha256_of(b"x"), "size": 1, "mediaType": "\u{1b}".repeat(1000),
            "platform": {"os": "o\n".repeat(1000), "architecture": "a"},
        }]});
        let Manifest::Index(children) = read(&index).unwrap() else { panic!("no index") };
        assert!(children[0].media_type.len() <= 80 && !children[0].media_type.contains('\u{1b}'));
        assert_eq!(children[0].platform.as_ref().unwrap().os, "o".repeat(64));
    }
}
