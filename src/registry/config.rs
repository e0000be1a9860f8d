//! Image configurations: the labels and the platform of an image (image-spec v1.1, config.md).

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, Visitor},
};

use crate::base::digest::Digest;
use crate::registry::manifest::bounded_word;

/// Largest config read. Real ones have 5 to 50 kB; a long build history makes some hundred.
pub(crate) const MAX_CONFIG: usize = 8 * 1024 * 1024;
/// Most labels kept of one image. Backend.AI's kernels have about 20.
pub(crate) const MAX_LABELS: usize = 1000;
/// Longest key of a label kept, in bytes.
pub(crate) const MAX_LABEL_KEY: usize = 256;
/// Longest value of a label kept, in bytes. Base images carry whole build logs in labels, which no user searches.
pub(crate) const MAX_LABEL_VALUE: usize = 16 * 1024;
/// Most bytes of labels kept of one image, keys and values together: they stay in memory as long as the image does.
pub(crate) const MAX_LABEL_BYTES: usize = 256 * 1024;

/// Most layers read. Engines stop at 127.
pub(crate) const MAX_LAYERS: usize = 512;

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    /// The operating system: `linux`, …; empty in some old images. At most 64 characters, as are the next two.
    pub(crate) os: String,
    /// The processor's architecture: `amd64`, …
    pub(crate) architecture: String,
    /// The architecture's variant: `v8`, …
    pub(crate) variant: Option<String>,
    /// When the image was built, if the config says so in a readable way. Reproducible builds say 1970.
    pub(crate) created: Option<Timestamp>,
    /// The labels of `config`, or of `container_config` where that has none (old builders). Labels beyond
    /// [`MAX_LABELS`], longer than the limits, or not text are dropped rather than cut, because a cut value would be
    /// read as if it were whole.
    pub(crate) labels: BTreeMap<String, String>,
    /// The digests of the unpacked layers, from the base up; empty if one of them is not SHA-256.
    pub(crate) diff_ids: Vec<[u8; 32]>,
}

/// Why bytes are not an image config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image config: not the JSON expected, at line {line} column {column}")]
pub(crate) struct InvalidConfig {
    line: usize,
    column: usize,
}

/// Parses an image config. If a label occurs twice the last value counts, as it does for Docker.
///
/// # Errors
/// Broken JSON, JSON nested deeper than 128, or fields of another type.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<Config, InvalidConfig> {
    let raw: Fields<RawConfig> = serde_json::from_slice(bytes)
        .map_err(|error| InvalidConfig { line: error.line(), column: error.column() })?;
    let raw = raw.0;
    let labels = [raw.config, raw.container_config]
        .into_iter()
        .filter_map(|section| section.labels)
        .find(|labels| !labels.kept.is_empty() || labels.dropped > 0)
        .unwrap_or_default();
    Ok(Config {
        os: bounded_word(&raw.os.unwrap_or_default()),
        architecture: bounded_word(&raw.architecture.unwrap_or_default()),
        variant: raw.variant.map(|text| bounded_word(&text)).filter(|text| !text.is_empty()),
        created: raw.created.and_then(|text| text.parse().ok()),
        labels: labels.kept,
        diff_ids: raw.rootfs.binary(),
    })
}

/// An object that is read as Go reads it, and so Docker, Podman and containerd: keys are compared without letter case,
/// of several values the last one counts, and `null` says nothing.
struct Fields<T>(T);

/// What is read of an object.
trait Object: Default {
    /// Takes the value of this key, which is in lower case; false for a key that is not read.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

impl<'de, T: Object> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor(PhantomData))
    }
}

struct FieldsVisitor<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for FieldsVisitor<T> {
    type Value = Fields<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<T>, A::Error> {
        let mut object = T::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if !object.take(&key.to_ascii_lowercase(), &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Fields(object))
    }
}

/// Puts the next value of an object into `field`, unless it is `null`.
fn fill<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    field: &mut Option<T>,
    map: &mut A,
) -> Result<bool, A::Error> {
    if let Some(value) = map.next_value()? {
        *field = Some(value);
    }
    Ok(true)
}

/// Reads the next value of an object, another object, into `object`.
fn merge<'de, A: MapAccess<'de>, T: Object + Merge>(object: &mut T, map: &mut A) -> Result<bool, A::Error> {
    if let Some(Fields(other)) = map.next_value()? {
        object.merge(other);
    }
    Ok(true)
}

/// An object that may come several times, under keys that differ in their letter case.
trait Merge {
    /// Takes over what the later one says.
    fn merge(&mut self, later: Self);
}

#[derive(Default)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    config: Section,
    container_config: Section,
    rootfs: RootFs,
}

impl Object for RawConfig {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "os" => fill(&mut self.os, map),
            "architecture" => fill(&mut self.architecture, map),
            "variant" => fill(&mut self.variant, map),
            "created" => fill(&mut self.created, map),
            "config" => merge(&mut self.config, map),
            "container_config" => merge(&mut self.container_config, map),
            "rootfs" => merge(&mut self.rootfs, map),
            _ => Ok(false),
        }
    }
}

#[derive(Default)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl Object for RootFs {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        if key == "diff_ids" { fill(&mut self.diff_ids, map) } else { Ok(false) }
    }
}

impl Merge for RootFs {
    fn merge(&mut self, later: Self) {
        self.diff_ids = later.diff_ids.or_else(|| self.diff_ids.take());
    }
}

impl RootFs {
    fn binary(self) -> Vec<[u8; 32]> {
        let digests: Option<Vec<[u8; 32]>> = self
            .diff_ids
            .unwrap_or_default()
            .iter()
            .take(MAX_LAYERS + 1)
            .map(|text| text.parse::<Digest>().ok()?.sha256())
            .collect();
        digests.filter(|digests| digests.len() <= MAX_LAYERS).unwrap_or_default()
    }
}

#[derive(Default)]
struct Section {
    labels: Option<Labels>,
}

impl Object for Section {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        if key == "labels" { fill(&mut self.labels, map) } else { Ok(false) }
    }
}

impl Merge for Section {
    fn merge(&mut self, later: Self) {
        self.labels = later.labels.or_else(|| self.labels.take());
    }
}

/// Labels, kept within the limits while they are read.
#[derive(Default)]
struct Labels {
    kept: BTreeMap<String, String>,
    bytes: usize,
    dropped: usize,
}

impl Labels {
    fn add(&mut self, key: Cow<'_, str>, value: Option<Cow<'_, str>>) {
        let room = self.kept.len() < MAX_LABELS || self.kept.contains_key(key.as_ref());
        let fits = |value: &Cow<'_, str>| {
            value.len() <= MAX_LABEL_VALUE
                && key.len() <= MAX_LABEL_KEY
                && self.bytes + key.len() + value.len() <= MAX_LABEL_BYTES
        };
        match value.filter(|value| room && fits(value)) {
            Some(value) => {
                self.bytes += key.len() + value.len();
                self.kept.insert(key.into_owned(), value.into_owned());
            }
            None => self.dropped += 1,
        }
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let LabelValue(value) = map.next_value()?;
            labels.add(key, value);
        }
        Ok(labels)
    }
}

/// A label's text, or `None` for a value of another type.
struct LabelValue<'de>(Option<Cow<'de, str>>);

impl<'de> Deserialize<'de> for LabelValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value<'a> {
            Text(#[serde(borrow)] Cow<'a, str>),
            Other(serde::de::IgnoredAny),
        }
        Ok(match Value::deserialize(deserializer)? {
            Value::Text(text) => Self(Some(text)),
            Value::Other(_) => Self(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Config, MAX_LABEL_KEY, MAX_LABEL_VALUE, MAX_LABELS, parse_config};

    fn read(value: &Value) -> Config {
        parse_config(value.to_string().as_bytes()).unwrap()
    }

    fn labels(labels: &Value) -> Config {
        read(&json!({"config": {"Labels": labels}}))
    }

    #[test]
    fn labels_come_from_the_config_or_else_from_the_container_config() {
        let own = json!({"Labels": {"a": "own"}});
        let old = json!({"Labels": {"a": "old"}});
        for (config, container_config, expected) in [
            (own.clone(), old.clone(), Some("own")),
            (Value::Null, old.clone(), Some("old")),
            (json!({}), old.clone(), Some("old")),
            (json!({"Labels": null}), old.clone(), Some("old")),
            (json!({"Labels": {}}), old, Some("old")),
            (own, Value::Null, Some("own")),
            (Value::Null, Value::Null, None),
        ] {
            let config = read(&json!({"config": config, "container_config": container_config}));
            assert_eq!(config.labels.get("a").map(String::as_str), expected);
        }
    }

    #[test]
    fn platform_and_time_are_read_where_they_are_readable() {
        let config = read(
            &json!({"os": "linux", "architecture": "arm", "variant": "v7", "created": "2024-02-03T04:05:06.7+09:00"}),
        );
        assert_eq!(
            (config.os.as_str(), config.architecture.as_str(), config.variant.as_deref()),
            ("linux", "arm", Some("v7"))
        );
        assert_eq!(config.created.unwrap().to_string(), "2024-02-02T19:05:06.7Z");
        for created in ["", "yesterday", "0000-13-99", "999999-01-01T00:00:00Z"] {
            assert_eq!(read(&json!({"created": created})).created, None, "{created}");
        }
        assert_eq!(read(&json!({})), Config::default());
    }

    #[test]
    fn keys_are_read_without_letter_case_as_engines_do() {
        let id = format!("sha256:{}", "ab".repeat(32));
        for text in [
            r#"{"config":{"labels":{"a":"1"}},"rootfS":{"diff_ids":["ID"]},"OS":"linux"}"#,
            r#"{"Config":{"Labels":{"a":"1"}},"RootFS":{"Diff_IDs":["ID"]},"Os":"linux"}"#,
            r#"{"CONFIG":{"LABELS":{"a":"1"}},"ROOTFS":{"DIFF_IDS":["ID"]},"os":"linux"}"#,
            r#"{"config":{"Labels":{"a":"0"}},"Config":{"labels":{"a":"1"}},"rootfs":{"diff_ids":["ID"]},"os":"x","OS":"linux"}"#,
            r#"{"config":{"Labels":{"a":"1"},"labels":null},"config":null,"rootfs":{"diff_ids":["ID"]},"os":"linux","os":null}"#,
            r#"{"config":{"Labels":{"a":"1"}},"Config":{"Cmd":[]},"rootfs":{"diff_ids":["ID"]},"rootfs":{"type":"layers"},"os":"linux"}"#,
        ] {
            let config = parse_config(text.replace("\"ID\"", &format!("\"{id}\"")).as_bytes());
            let config = config.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(config.labels.get("a").map(String::as_str), Some("1"), "{text}");
            assert_eq!((config.os.as_str(), config.diff_ids.len()), ("linux", 1), "{text}");
        }
        let label = r#"{"config":{"Labels":{"Key":"1","key":"2"}}}"#;
        assert_eq!(parse_config(label.as_bytes()).unwrap().labels.len(), 2, "labels are no keys of ours");
    }

    #[test]
    fn labels_beyond_the_limits_are_dropped_whole() {
        let fits = labels(&json!({"k".repeat(MAX_LABEL_KEY): "v".repeat(MAX_LABEL_VALUE)}));
        assert_eq!(fits.labels.len(), 1);
        for bad in [
            json!({"k".repeat(MAX_LABEL_KEY + 1): "v"}),
            json!({"k": "v".repeat(MAX_LABEL_VALUE + 1)}),
            json!({"k": 5}),
            json!({"k": null}),
            json!({"k": {"deep": []}}),
        ] {
            let config = labels(&bad);
            assert_eq!(config.labels.len(), 0);
        }
        let many: serde_json::Map<String, Value> =
            (0..100_000).map(|number| (number.to_string(), json!("x"))).collect();
        let config = labels(&Value::Object(many));
        assert_eq!(config.labels.len(), MAX_LABELS);
        let twice = parse_config(br#"{"config":{"Labels":{"a":"first","a":"last"}}}"#).unwrap();
        assert_eq!(twice.labels["a"], "last");
    }

    #[test]
    fn a_label_of_fifty_megabytes_and_deep_nesting_do_no_harm() {
        let config = labels(&json!({"a": "x".repeat(50 << 20), "b": "kept"}));
        assert_eq!(config.labels.len(), 1);
        let deep = format!("{{\"config\":{{\"Labels\":{{\"a\":{}", "[".repeat(100_000));
        assert!(parse_config(deep.as_bytes()).is_err());
        for bad in
            ["", "[]x", "\u{feff}{}", "{\"os\":1}", "{\"os\":\"\\ud800\"}", "{\"config\":{\"Labels\":[]}}"]
        {
            assert!(parse_config(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
