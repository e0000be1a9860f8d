//! What the labels and the tag of an image mean.
//!
//! Label meanings: Backend.AI, "Adding New Kernel Images" and its `LabelName` table.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::access::visibility::Owner;
use crate::catalog::labels::Labels;

const ROLE: &str = "ai.backend.role";
const RESOURCE: &str = "ai.backend.resource.";
const ACCELERATORS: &str = "ai.backend.accelerators";
const CUSTOMIZED_OWNER: &str = "ai.backend.customized-image.owner";
const FEATURES: &str = "ai.backend.features";
const BASE_DISTRO: &str = "ai.backend.base-distro";
const TITLE: &str = "org.opencontainers.image.title";
/// Marks an image made for Backend.AI; registries with `kernelspec_only` take no other images.
pub(crate) const KERNELSPEC: &str = "ai.backend.kernelspec";

/// What an image is for, as Backend.AI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageKind {
    /// For sessions.
    Compute,
    /// For serving a model.
    Service,
    /// For the system itself.
    System,
}

impl ImageKind {
    /// The word for it in every API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Service => "service",
            Self::System => "system",
        }
    }
}

/// How much of one resource an image needs, and may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceLimit {
    /// The resource slot: `cpu`, `mem`, `cuda.device`.
    pub(crate) key: Box<str>,
    /// The minimum, as the label writes it (`1`, `64m`); `0` if there is no label.
    pub(crate) min: Cow<'static, str>,
    /// The maximum; `Infinity`, as official clients print it, if there is no label.
    pub(crate) max: Cow<'static, str>,
}

/// The purpose of an image: `ai.backend.role` is `COMPUTE`, `INFERENCE` or `SYSTEM`, in upper or lower case.
/// `SERVICE`, like the kind itself, also means serving.
pub(crate) fn kind(labels: &Labels) -> ImageKind {
    let role = labels.find(ROLE).unwrap_or_default();
    let is = |word: &str| role.eq_ignore_ascii_case(word);
    if is("system") {
        ImageKind::System
    } else if is("inference") || is("service") {
        ImageKind::Service
    } else {
        ImageKind::Compute
    }
}

/// The limits in `ai.backend.resource.min.<slot>` and `.max.<slot>`, by slot.
pub(crate) fn resource_limits(labels: &Labels) -> Vec<ResourceLimit> {
    let mut limits: Vec<ResourceLimit> = Vec::new();
    for (key, value) in labels.iter() {
        let Some((bound, slot)) = key.strip_prefix(RESOURCE).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if slot.is_empty() || !matches!(bound, "min" | "max") {
            continue;
        }
        let place = limits.iter().position(|limit| *limit.key == *slot).unwrap_or_else(|| {
            limits.push(ResourceLimit { key: slot.into(), min: "0".into(), max: "Infinity".into() });
            limits.len() - 1
        });
        if let Some(limit) = limits.get_mut(place) {
            let side = if bound == "min" { &mut limit.min } else { &mut limit.max };
            *side = value.to_owned().into();
        }
    }
    limits.sort_by(|a, b| a.key.cmp(&b.key));
    limits
}

/// The accelerators an image runs with: those its label names and those its resource limits mention; `*` (any) if it
/// names none.
pub(crate) fn accelerators(labels: &Labels) -> Vec<Box<str>> {
    let named = labels.find(ACCELERATORS).unwrap_or_default().split(',').map(str::trim);
    let limited = labels
        .iter()
        .filter_map(|(key, _)| key.strip_prefix(RESOURCE)?.split_once('.'))
        .filter(|(bound, _)| matches!(*bound, "min" | "max"))
        .map(|(_, slot)| slot.split_once('.').map_or(slot, |(device, _)| device))
        .filter(|device| !matches!(*device, "cpu" | "mem"));
    let mut found: Vec<Box<str>> = Vec::new();
    for accelerator in named.chain(limited).filter(|name| !name.is_empty()) {
        if !found.iter().any(|known| **known == *accelerator) {
            found.push(accelerator.into());
        }
    }
    if found.is_empty() {
        found.push("*".into());
    }
    found
}

/// Whether the image is for operation, not for users (`ai.backend.features` contains the word).
pub(crate) fn is_operation(labels: &Labels) -> bool {
    labels.find(FEATURES).is_some_and(|features| features.split_whitespace().any(|word| word == "operation"))
}

/// The user the image is for, if a user made it for personal use: only `user:` and the user's id name one.
pub(crate) fn owner(labels: &Labels) -> Option<Owner> {
    let id = labels.find(CUSTOMIZED_OWNER)?.strip_prefix("user:").and_then(|id| id.parse().ok());
    Some(id.map_or(Owner::Nobody, Owner::User))
}

/// A name for people: "Python 3.9, Ubuntu 20.04, CUDA 11.3", made from the repository, the tag and the labels; if
/// they say nothing readable, the repository's name.
pub(crate) fn humanize(name: &str, tag: &str, labels: &Labels) -> String {
    let mut words = tag.split('-');
    let Some(version) = words.next().filter(|word| is_version(word)) else { return name.into() };
    let version = version.strip_prefix('v').filter(|rest| is_version(rest)).unwrap_or(version);
    let mut parts = vec![format!("{} {version}", program(name, labels))];
    let base = labels.find(BASE_DISTRO).unwrap_or_default();
    let mut distro_named = false;
    for word in words.filter(|word| !word.is_empty()) {
        let part = component(word);
        distro_named |= part.as_ref().is_some_and(|(_, is_distro)| *is_distro);
        parts.push(part.map_or_else(|| word.into(), |(text, _)| text));
    }
    if let (false, Some((text, true))) = (distro_named, component(base)) {
        parts.insert(1, text);
    }
    parts.join(", ")
}

fn is_version(word: &str) -> bool {
    let digits = word.strip_prefix('v').unwrap_or(word);
    digits.starts_with(|c: char| c.is_ascii_digit())
}

/// The program in the repository, from its last path component: `stable/python-tensorflow` is TensorFlow.
fn program(name: &str, labels: &Labels) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let words: Vec<&str> = last.split(['-', '_']).filter(|word| !word.is_empty()).collect();
    let words = match words.as_slice() {
        ["python" | "kernel", rest @ ..] | [rest @ .., "base"] if !rest.is_empty() => rest,
        all => all,
    };
    if let (Some(title), false) = (labels.find(TITLE), words.iter().any(|word| spelling(word).is_some())) {
        let title = title.trim();
        if !title.is_empty() && title.len() <= 80 && !title.contains(char::is_control) {
            return title.into();
        }
    }
    let spelled: Vec<String> =
        words.iter().map(|word| spelling(word).map_or_else(|| capitalized(word), Into::into)).collect();
    spelled.join(" ")
}

/// Splits `ubuntu20.04` into ("Ubuntu 20.04", it is a distribution); `None` for an unknown word.
fn component(word: &str) -> Option<(String, bool)> {
    let split = word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len());
    let (stem, version) = word.split_at(split);
    let stem = stem.trim_end_matches('_');
    if let (Some((_, distro)), "") = (RELEASES.iter().find(|(name, _)| *name == stem), version) {
        return Some(((*distro).into(), true));
    }
    let name = spelling(stem)?;
    let version = match (stem, version.len()) {
        // `py36` and `py310` omit the dot.
        ("py", 2 | 3) if version.bytes().all(|b| b.is_ascii_digit()) => {
            let (major, minor) = version.split_at(1);
            format!("{major}.{minor}")
        }
        _ => version.into(),
    };
    let is_distro = DISTRIBUTIONS.contains(&name);
    Some((format!("{name} {version}").trim_end().into(), is_distro))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn spelling(word: &str) -> Option<&'static str> {
    let place = SPELLINGS.binary_search_by_key(&word, |(name, _)| name).ok()?;
    SPELLINGS.get(place).map(|(_, spelled)| *spelled)
}

const DISTRIBUTIONS: &[&str] =
    &["Ubuntu", "Debian", "Alpine", "CentOS", "Fedora", "Rocky Linux", "AlmaLinux", "UBI", "openSUSE"];

/// Distribution releases that are known by a name.
const RELEASES: &[(&str, &str)] = &[
    ("bionic", "Ubuntu 18.04"),
    ("focal", "Ubuntu 20.04"),
    ("jammy", "Ubuntu 22.04"),
    ("noble", "Ubuntu 24.04"),
    ("stretch", "Debian 9"),
    ("buster", "Debian 10"),
    ("bullseye", "Debian 11"),
    ("bookworm", "Debian 12"),
    ("trixie", "Debian 13"),
];

/// The owners' spelling of names that occur in repositories and tags; sorted, for binary search.
const SPELLINGS: &[(&str, &str)] = &[
    ("almalinux", "AlmaLinux"),
    ("alpine", "Alpine"),
    ("anaconda", "Anaconda"),
    ("caffe", "Caffe"),
    ("centos", "CentOS"),
    ("cpp", "C++"),
    ("cuda", "CUDA"),
    ("cudnn", "cuDNN"),
    ("debian", "Debian"),
    ("fedora", "Fedora"),
    ("gcc", "GCC"),
    ("go", "Go"),
    ("golang", "Go"),
    ("java", "Java"),
    ("julia", "Julia"),
    ("jupyter", "Jupyter"),
    ("jupyterlab", "JupyterLab"),
    ("keras", "Keras"),
    ("lua", "Lua"),
    ("mariadb", "MariaDB"),
    ("matlab", "MATLAB"),
    ("mxnet", "MXNet"),
    ("mysql", "MySQL"),
    ("ngc", "NGC"),
    ("nginx", "nginx"),
    ("node", "Node.js"),
    ("nodejs", "Node.js"),
    ("octave", "Octave"),
    ("openjdk", "OpenJDK"),
    ("opensuse", "openSUSE"),
    ("perl", "Perl"),
    ("php", "PHP"),
    ("postgres", "PostgreSQL"),
    ("py", "Python"),
    ("python", "Python"),
    ("pytorch", "PyTorch"),
    ("r", "R"),
    ("redis", "Redis"),
    ("rocky", "Rocky Linux"),
    ("rockylinux", "Rocky Linux"),
    ("rocm", "ROCm"),
    ("rstudio", "RStudio"),
    ("ruby", "Ruby"),
    ("rust", "Rust"),
    ("scala", "Scala"),
    ("swift", "Swift"),
    ("tensorflow", "TensorFlow"),
    ("tf", "TensorFlow"),
    ("theano", "Theano"),
    ("torch", "Torch"),
    ("tpu", "TPU"),
    ("triton", "Triton"),
    ("ubi", "UBI"),
    ("ubuntu", "Ubuntu"),
    ("vscode", "VS Code"),
];

#[cfg(test)]
mod tests {
    use super::{ImageKind, SPELLINGS, accelerators, humanize, is_operation, kind, owner, resource_limits};
    use crate::access::visibility::Owner;
    use crate::catalog::labels::Labels;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn spellings_are_in_order() {
        assert!(SPELLINGS.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn a_readable_name_comes_from_the_repository_and_the_tag() {
        for (name, tag, expected) in [
            ("stable/python", "3.9-ubuntu20.04-cuda11.3", "Python 3.9, Ubuntu 20.04, CUDA 11.3"),
            ("stable/python-tensorflow", "2.3-py36-cuda10.1", "TensorFlow 2.3, Python 3.6, CUDA 10.1"),
            ("lablup/kernel-pytorch", "1.11-py310", "PyTorch 1.11, Python 3.10"),
            ("library/node", "v20.1-alpine3.18", "Node.js 20.1, Alpine 3.18"),
            ("library/python", "3.12-slim-bookworm", "Python 3.12, slim, Debian 12"),
            ("team/my-tool", "1.0", "My Tool 1.0"),
            ("stable/r-base", "4.3-debian12", "R 4.3, Debian 12"),
            ("library/alpine", "latest", "library/alpine"),
            ("team/tool", "nightly-3", "team/tool"),
        ] {
            assert_eq!(humanize(name, tag, &Labels::default()), expected);
        }
    }

    #[test]
    fn labels_fill_in_what_the_tag_leaves_out() {
        let distro = labels(&[("ai.backend.base-distro", "ubuntu16.04")]);
        assert_eq!(humanize("stable/lua", "5.3", &distro), "Lua 5.3, Ubuntu 16.04");
        assert_eq!(humanize("stable/lua", "5.3-alpine3.8", &distro), "Lua 5.3, Alpine 3.8");
        let title = labels(&[("org.opencontainers.image.title", "Segment Anything")]);
        assert_eq!(humanize("lab/sam", "2.1", &title), "Segment Anything 2.1");
    }

    #[test]
    fn resource_limits_come_from_the_labels_by_slot() {
        let limits = resource_limits(&labels(&[
            ("ai.backend.resource.min.mem", "64m"),
            ("ai.backend.resource.min.cpu", "1"),
            ("ai.backend.resource.max.cuda.device", "2"),
            ("ai.backend.resource.min", "7"),
            ("ai.backend.resource.min.", "7"),
            ("ai.backend.resource.avg.cpu", "7"),
        ]));
        let text: Vec<_> = limits.iter().map(|l| format!("{} {} {}", l.key, l.min, l.max)).collect();
        assert_eq!(text, ["cpu 1 Infinity", "cuda.device 0 2", "mem 64m Infinity"]);
    }

    #[test]
    fn a_role_says_what_an_image_is_for() {
        for (role, meant) in [
            ("COMPUTE", ImageKind::Compute),
            ("inference", ImageKind::Service),
            ("SERVICE", ImageKind::Service),
            ("System", ImageKind::System),
            ("toy", ImageKind::Compute),
        ] {
            assert_eq!(kind(&labels(&[("ai.backend.role", role)])), meant, "{role}");
        }
        assert_eq!(kind(&Labels::default()), ImageKind::Compute);
    }

    #[test]
    fn accelerators_are_those_named_and_those_limited() {
        let named =
            labels(&[("ai.backend.accelerators", "cuda, rocm,,cuda"), ("ai.backend.resource.min.cpu", "1")]);
        assert_eq!(accelerators(&named), ["cuda".into(), "rocm".into()]);
        assert_eq!(accelerators(&labels(&[("ai.backend.resource.min.cuda.shares", "0.1")])), ["cuda".into()]);
        assert_eq!(accelerators(&Labels::default()), ["*".into()]);
    }

    #[test]
    fn operation_images_are_marked_by_a_word() {
        assert!(is_operation(&labels(&[("ai.backend.features", "batch operation private")])));
        assert!(!is_operation(&labels(&[("ai.backend.features", "cooperation")])));
        assert!(!is_operation(&Labels::default()));
    }

    #[test]
    fn a_customized_image_names_its_owner() {
        let of = |value: &str| owner(&labels(&[("ai.backend.customized-image.owner", value)]));
        let id = "0e9c2b34-0000-4000-8000-000000000001";
        assert_eq!(of(&format!("user:{id}")), Some(Owner::User(id.parse().expect("an id"))));
        for text in [id, "user:ann", "group:1", ""] {
            assert_eq!(of(text), Some(Owner::Nobody), "{text}");
        }
        assert_eq!(owner(&Labels::default()), None);
    }
}
