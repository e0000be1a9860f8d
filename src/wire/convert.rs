//! Converts between messages and the types of `engine`. What the other side sends is bounded here.

use crate::engine::fault::{Class, Fault, one_line};
use crate::engine::image::{Held, Part, Removal, Uses};
use crate::engine::pull::{Credentials, Layer, Progress, Pull, Pulled};
use crate::engine::source::{self, Origin};
use crate::engine::{About, Disk, EngineKind};
use crate::wire::{MAX_IMAGES, MAX_LAYERS, MAX_NAMES, MAX_PARTS, MAX_PEERS, MAX_TEXT, image};

/// Most containers named when an image is in use, and most labels of an engine.
const MAX_LISTED: usize = 64;
/// Most remarks about a pull.
const MAX_REMARKS: usize = 8;
const CLASSES: [Class; 8] = [
    Class::NoSpace,
    Class::Unauthorized,
    Class::NotFound,
    Class::WrongPlatform,
    Class::EngineGone,
    Class::Network,
    Class::InUse,
    Class::Stopped,
];

/// Something the other side sent that the protocol forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unacceptable(pub(crate) String);

fn bounded(what: &str, text: &str) -> Result<(), Unacceptable> {
    if text.len() > MAX_TEXT {
        return Err(Unacceptable(format!("{what} has more than {MAX_TEXT} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Unacceptable(format!("{what} has control characters")));
    }
    Ok(())
}

impl From<Held> for image::Held {
    fn from(held: Held) -> Self {
        let Held { digest, parts, mut names, mut manifests, size_bytes } = held;
        names.truncate(MAX_NAMES);
        manifests.truncate(MAX_NAMES);
        let parts = parts.into_iter().take(MAX_PARTS);
        let parts = parts.map(|Part { architecture, manifest }| image::Part { architecture, manifest });
        Self { id: digest, names, manifests, parts: parts.collect(), size: size_bytes }
    }
}

impl TryFrom<image::Held> for Held {
    type Error = Unacceptable;

    fn try_from(held: image::Held) -> Result<Self, Unacceptable> {
        if held.names.len() > MAX_NAMES || held.manifests.len() > MAX_NAMES {
            return Err(Unacceptable(format!("an image has more than {MAX_NAMES} names")));
        }
        if held.parts.len() > MAX_PARTS {
            return Err(Unacceptable(format!("an image has more than {MAX_PARTS} parts")));
        }
        held.names.iter().try_for_each(|name| bounded("the name of an image", name))?;
        held.parts.iter().try_for_each(|part| bounded("an architecture", &part.architecture))?;
        let image::Held { id, names, manifests, parts, size } = held;
        let parts = parts.into_iter();
        let parts = parts.map(|image::Part { architecture, manifest }| Part { architecture, manifest });
        Ok(Self { digest: id, parts: Vec::new(), names, manifests, size_bytes: size }
            .with_parts(parts.collect()))
    }
}

impl From<Uses> for image::Uses {
    fn from(uses: Uses) -> Self {
        Self { now: uses.now.into_iter().collect(), lately: uses.lately.into_iter().collect() }
    }
}

impl From<image::Uses> for Uses {
    fn from(said: image::Uses) -> Self {
        let bounded = |ids: Vec<_>| ids.into_iter().take(MAX_IMAGES).collect();
        Self { now: bounded(said.now), lately: bounded(said.lately) }
    }
}

impl From<Disk> for image::Disk {
    fn from(disk: Disk) -> Self {
        Self { free: disk.free_bytes, total: disk.total_bytes, images: disk.images_bytes }
    }
}

impl From<image::Disk> for Disk {
    fn from(disk: image::Disk) -> Self {
        Self { free_bytes: disk.free, total_bytes: disk.total, images_bytes: disk.images }
    }
}

impl From<About> for image::EngineInfo {
    fn from(about: About) -> Self {
        let About { kind, id, hostname, version, os, architecture, labels } = about;
        Self { kind: kind.as_str().into(), id, hostname, version, os, architecture, labels }
    }
}

impl TryFrom<image::EngineInfo> for About {
    type Error = Unacceptable;

    fn try_from(said: image::EngineInfo) -> Result<Self, Unacceptable> {
        let image::EngineInfo { kind, id, hostname, version, os, architecture, labels } = said;
        let known = EngineKind::ALL.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| {
            Unacceptable(format!("its engine is a {:?}, which this manager does not know", one_line(&kind)))
        })?;
        let texts = [id.as_deref().unwrap_or_default(), &hostname, &version, &os, &architecture];
        texts.into_iter().try_for_each(|text| bounded("what it says of its engine", text))?;
        let labels = labels.into_iter().take(MAX_LISTED);
        let labels =
            labels.filter(|(key, value)| bounded("", key).is_ok() && bounded("", value).is_ok()).collect();
        Ok(Self { kind, id, hostname, version, os, architecture, labels })
    }
}

impl From<Fault> for image::Fault {
    fn from(fault: Fault) -> Self {
        Self { class: fault.class.as_str().into(), message: fault.message }
    }
}

impl From<image::Fault> for Fault {
    fn from(fault: image::Fault) -> Self {
        let class = CLASSES.into_iter().find(|class| class.as_str() == fault.class);
        Self::new(class.unwrap_or(Class::Other), fault.message)
    }
}

impl From<&Pull> for image::Pull {
    fn from(pull: &Pull) -> Self {
        let credentials = pull.credentials.as_ref().map(|credentials| image::Credentials {
            username: credentials.username.clone(),
            password: credentials.password.clone(),
        });
        let layers = pull.layers.iter().take(MAX_LAYERS);
        Self {
            repository: pull.repository.clone(),
            tag: pull.tag.clone(),
            manifest: pull.manifest.clone(),
            index: pull.index.clone(),
            config: pull.config.clone(),
            architecture: pull.architecture.clone(),
            platform: pull.platform.clone(),
            layers: layers.map(|layer| (layer.digest.clone(), layer.size_bytes)).collect(),
            credentials,
            // Only for engines that need it: see `fleet::remote`.
            registry: None,
            peers: Vec::new(),
        }
    }
}

impl image::Pull {
    /// Adds where the image can be fetched from.
    #[must_use]
    pub(crate) fn with_origin(self, origin: Origin) -> Self {
        let source::Registry { host, url, ssl_verify, ca_pem, trusted_hosts } = origin.registry;
        let registry = Some(image::Registry { host, url, ssl_verify, ca_pem, trusted_hosts });
        let peers = origin.peers.into_iter().take(MAX_PEERS);
        let peers = peers
            .map(|source::Peer { agent, url, grant, is_cache }| image::Peer {
                agent,
                url,
                grant,
                cache: is_cache,
            })
            .collect();
        Self { registry, peers, ..self }
    }

    /// Returns where the image can be fetched from, if the message says so.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let image::Registry { host, url, ssl_verify, ca_pem, trusted_hosts } = self.registry.clone()?;
        let registry = source::Registry { host, url, ssl_verify, ca_pem, trusted_hosts };
        let peers = self.peers.iter().take(MAX_PEERS).cloned();
        let peers = peers.map(|image::Peer { agent, url, grant, cache }| source::Peer {
            agent,
            url,
            grant,
            is_cache: cache,
        });
        Some(Origin { registry, peers: peers.collect() })
    }
}

impl From<image::Pull> for Pull {
    fn from(pull: image::Pull) -> Self {
        let layers = pull.layers.into_iter().take(MAX_LAYERS);
        let credentials = pull.credentials.map(|credentials| Credentials {
            username: credentials.username,
            password: credentials.password,
        });
        Self {
            repository: pull.repository,
            tag: pull.tag,
            manifest: pull.manifest,
            index: pull.index,
            config: pull.config,
            architecture: pull.architecture,
            platform: pull.platform,
            layers: layers.map(|(digest, size_bytes)| Layer { digest, size_bytes }).collect(),
            credentials,
            // `agent::registries`, which has the clients, makes it from `registry`.
            source: None,
            via: None,
        }
    }
}

impl From<Progress> for image::Progress {
    fn from(progress: Progress) -> Self {
        let Progress { bytes_done, bytes_total, layers_done, layers_total, message } = progress;
        Self { bytes_done, bytes_total, layers_done, layers_total, message }
    }
}

impl From<image::Progress> for Progress {
    fn from(said: image::Progress) -> Self {
        let image::Progress { bytes_done, bytes_total, layers_done, layers_total, message } = said;
        Self { bytes_done, bytes_total, layers_done, layers_total, message: one_line(&message) }
    }
}

/// Whether progress may go from `before` to `now`.
pub(crate) fn is_honest(before: Option<&Progress>, now: &Progress) -> bool {
    let within = now.bytes_done <= now.bytes_total && now.layers_done <= now.layers_total;
    let onward = before.is_none_or(|before| {
        now.bytes_done >= before.bytes_done
            && now.bytes_total >= before.bytes_total
            && now.layers_done >= before.layers_done
            && now.layers_total >= before.layers_total
    });
    within && onward
}

impl From<Pulled> for image::Pulled {
    fn from(pulled: Pulled) -> Self {
        Self { held: pulled.held.into(), fetched: pulled.fetched, remarks: pulled.remarks }
    }
}

impl TryFrom<image::Pulled> for Pulled {
    type Error = Unacceptable;

    fn try_from(pulled: image::Pulled) -> Result<Self, Unacceptable> {
        let remarks = pulled.remarks.iter().take(MAX_REMARKS).map(|remark| one_line(remark)).collect();
        Ok(Self { held: pulled.held.try_into()?, fetched: pulled.fetched, remarks })
    }
}

impl From<Removal> for image::Removal {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Removed { freed_bytes } => Self::Removed { freed: freed_bytes },
            Removal::Untagged => Self::Untagged,
            Removal::InUse { containers } => Self::InUse { containers },
            Removal::Absent => Self::Absent,
        }
    }
}

impl From<image::Removal> for Removal {
    fn from(removal: image::Removal) -> Self {
        match removal {
            image::Removal::Removed { freed } => Self::Removed { freed_bytes: freed },
            image::Removal::Untagged => Self::Untagged,
            image::Removal::InUse { containers } => Self::InUse {
                containers: containers.iter().take(MAX_LISTED).map(|name| one_line(name)).collect(),
            },
            image::Removal::Absent => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, is_honest};
    use crate::base::digest::Digest;
    use crate::engine::fault::{Class, Fault};
    use crate::engine::image::Held;
    use crate::engine::pull::Progress;
    use crate::wire::{MAX_NAMES, MAX_TEXT, image};

    #[test]
    fn a_fault_comes_through_with_its_class_and_an_unknown_class_is_other() {
        for class in CLASSES.into_iter().chain([Class::Other]) {
            let fault = Fault::new(class, "why");
            assert_eq!(Fault::from(image::Fault::from(fault.clone())), fault);
        }
        let strange = image::Fault { class: "tired".into(), message: "a\nb".into() };
        assert_eq!(Fault::from(strange), Fault::new(Class::Other, "a b"));
    }

    #[test]
    fn an_image_that_is_too_much_is_refused() {
        let held = |names: Vec<String>| {
            let id = Digest::sha256_of(b"x");
            Held::try_from(image::Held { id, names, manifests: Vec::new(), parts: Vec::new(), size: 1 })
        };
        assert!(held(vec!["cr.io/a:1".into(); MAX_NAMES]).is_ok());
        assert!(held(vec!["cr.io/a:1".into(); MAX_NAMES + 1]).is_err());
        assert!(held(vec!["x".repeat(MAX_TEXT + 1)]).is_err());
        assert!(held(vec!["a\u{1b}[2J".into()]).is_err());
    }

    #[test]
    fn progress_is_honest_while_it_goes_on_and_stays_within_its_total() {
        let at = |bytes_done, bytes_total| Progress { bytes_done, bytes_total, ..Progress::default() };
        assert!(is_honest(None, &at(0, 0)) && is_honest(Some(&at(1, 5)), &at(5, 9)));
        assert!(!is_honest(None, &at(2, 1)));
        assert!(!is_honest(Some(&at(3, 5)), &at(2, 5)), "done goes back");
        assert!(!is_honest(Some(&at(3, 5)), &at(3, 4)), "the total goes back");
    }
}
