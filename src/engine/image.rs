//! An image as an engine holds it, and the result of removing one.

use std::collections::{BTreeSet, HashMap};

use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::engine::name;

/// An image in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The engine's ID of the image: the digest of its config. Docker's containerd image store uses the digest of
    /// the manifest or index instead; compare by [`is`](Self::is).
    pub digest: Digest,
    /// What the engine has of the image, if its ID may be that of an index; sorted.
    pub parts: Vec<Part>,
    /// Its names in canonical form, `registry/name:tag`, sorted; empty for an image without a name.
    pub names: Vec<String>,
    /// The manifests or indexes it was pulled by, as far as the engine remembers; sorted, without duplicates.
    pub manifests: Vec<Digest>,
    /// Its bytes on disk, including layers shared with other images.
    pub size_bytes: u64,
}

/// What an engine has of an index: the image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Its architecture, in the catalog's spelling.
    pub architecture: String,
    /// The digest of its manifest, if the engine says.
    pub manifest: Option<Digest>,
}

impl Part {
    fn is(&self, id: &Digest, image: &Identity<'_>) -> bool {
        match &self.manifest {
            Some(manifest) => image.manifest == Some(manifest),
            None => image.index == Some(id) && image.architecture == self.architecture,
        }
    }
}

/// Whether what an engine has under this ID, with these parts of it, is that image.
///
/// A manifest counts only if the engine uses it as the ID or says that it has all of it; one that it merely remembers
/// proves nothing about what it holds.
pub(crate) fn is(id: &Digest, parts: &[Part], image: &Identity<'_>) -> bool {
    id == image.config || image.manifest == Some(id) || parts.iter().any(|part| part.is(id, image))
}

impl Held {
    /// The image from an engine's own words; `None` if its ID is not valid.
    pub(crate) fn read(id: &str, tags: &[String], digests: &[String], size_bytes: u64) -> Option<Self> {
        let mut names: Vec<_> = tags.iter().filter_map(|tag| name::canonical(tag)).collect();
        let mut manifests: Vec<_> = digests.iter().filter_map(|digest| name::manifest(digest)).collect();
        names.sort();
        names.dedup();
        manifests.sort();
        manifests.dedup();
        Some(Self { digest: name::image_id(id)?, parts: Vec::new(), names, manifests, size_bytes })
    }

    /// The same image, with these parts of it.
    #[must_use]
    pub(crate) fn with_parts(self, mut parts: Vec<Part>) -> Self {
        parts.sort();
        parts.dedup();
        Self { parts, ..self }
    }

    /// Whether this is that image.
    pub(crate) fn is(&self, image: &Identity<'_>) -> bool {
        is(&self.digest, &self.parts, image)
    }

    /// Every digest that a container may name it by.
    fn known_by(&self) -> impl Iterator<Item = &Digest> {
        self.digests().chain(&self.manifests)
    }

    /// Every digest that this image goes by: its ID, and the manifests that the engine has of it.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.digest).chain(self.parts.iter().filter_map(|part| part.manifest.as_ref()))
    }
}

/// Which images the containers of an engine use, by the images' IDs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Those that a container was made from that is there, running or not.
    pub now: BTreeSet<Digest>,
    /// Those that a container used a moment ago, which may be gone.
    pub lately: BTreeSet<Digest>,
}

impl Uses {
    /// The uses of these images: `now` has for each container what it calls its image, the surest first, and `lately`
    /// what containers called theirs. That is an ID, a name, or a digest of the manifest.
    pub(crate) fn of<'a>(
        held: &[Held],
        now: impl IntoIterator<Item: IntoIterator<Item = &'a str>>,
        lately: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let by_digest: HashMap<&Digest, &Digest> =
            held.iter().flat_map(|held| held.known_by().map(move |known| (known, &held.digest))).collect();
        let names =
            held.iter().flat_map(|held| held.names.iter().map(move |name| (name.as_str(), &held.digest)));
        let by_name: HashMap<&str, &Digest> = names.collect();
        let find = |reference: &str| {
            let digest = name::image_id(reference).or_else(|| name::manifest(reference));
            let of_digest = digest.and_then(|digest| by_digest.get(&digest).copied());
            let of_name = || by_name.get(name::canonical(reference)?.as_str()).copied();
            of_digest.or_else(of_name).cloned()
        };
        Self {
            now: now.into_iter().filter_map(|words| words.into_iter().find_map(find)).collect(),
            lately: lately.into_iter().filter_map(find).collect(),
        }
    }
}

/// The result of a request to remove an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone from disk.
    Removed {
        /// Bytes that became free, where the engine says.
        freed_bytes: Option<u64>,
    },
    /// The name is removed, if there was one; the image stays, since it has other names, by digest too, children, or a
    /// container behind another name.
    Untagged,
    /// Nothing was changed, since containers use the image.
    InUse {
        /// The containers' names, if we could find them, or their IDs.
        containers: Vec<String>,
    },
    /// There was no such image.
    Absent,
}

#[cfg(test)]
mod tests {
    use super::{Held, Uses};
    use crate::base::digest::Digest;

    #[test]
    fn a_container_names_its_image_by_id_by_name_or_by_manifest() {
        let digest = |text: &str| Digest::sha256_of(text.as_bytes());
        let held = |name: &str| Held {
            digest: digest(name),
            parts: Vec::new(),
            names: vec![format!("docker.io/library/{name}:latest")],
            manifests: vec![digest(&format!("{name} manifest"))],
            size_bytes: 1,
        };
        let all = ["a", "b", "c", "d"].map(held);
        let by_manifest = format!("docker.io/library/c@{}", digest("c manifest"));
        let uses = Uses::of(
            &all,
            [
                vec![digest("a").as_str(), "d"],
                vec![digest("b").hex()],
                vec![digest("x").as_str(), &by_manifest],
                vec!["", "gone:1"],
            ],
            ["d", digest("x").as_str()],
        );
        assert_eq!(uses.now, ["a", "b", "c"].map(digest).into());
        assert_eq!(uses.lately, [digest("d")].into(), "Docker calls it by its short name");
    }
}
