//! What the agents of a rule lack: a pure function of the state at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::catalog::image::Image;
use crate::rules::pattern::ImagePattern;

/// Most images of one rule that are considered: a pattern with more is too wide for any disk.
pub(crate) const MAX_IMAGES: usize = 5_000;

/// The state of the lab at one moment.
pub(crate) struct Scene<'a> {
    /// All images ordered by name, with the architectures of a name next to each other.
    pub(crate) images: &'a [Arc<Image>],
    /// The agents that can receive images now, by architecture.
    pub(crate) ready: &'a BTreeMap<String, Bits>,
    /// Returns the agents that have an image.
    pub(crate) held_by: &'a dyn Fn(&Image) -> Bits,
}

/// Which images of a rule are on its agents, and which are missing.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    /// How many names match the pattern.
    pub(crate) images: usize,
    /// The first of these names.
    pub(crate) names: Vec<String>,
    /// How many pairs of image and agent are present.
    pub(crate) present: usize,
    /// The images that are missing, ordered by name.
    pub(crate) lacking: Vec<Lacking>,
}

/// One name whose image some agents lack.
#[derive(Debug, Clone)]
pub(crate) struct Lacking {
    /// The images with that name, one for each architecture.
    pub(crate) images: Vec<Arc<Image>>,
    /// For each image, in the same order, the agents of its architecture that lack it.
    pub(crate) agents: Vec<Bits>,
}

impl Diff {
    /// Whether more images match than are considered.
    pub(crate) fn is_cut(&self) -> bool {
        self.images > MAX_IMAGES
    }

    /// How many pairs of image and agent are missing.
    pub(crate) fn missing(&self) -> usize {
        self.parts().map(|(_, agents)| agents.count()).sum()
    }

    /// How many bytes must be fetched in all, if agents share nothing with what they hold.
    pub(crate) fn bytes(&self) -> u64 {
        let of = |(image, agents): (&Arc<Image>, &Bits)| {
            image.record.size_bytes.saturating_mul(u64::try_from(agents.count()).unwrap_or(u64::MAX))
        };
        self.parts().map(of).fold(0, u64::saturating_add)
    }

    fn parts(&self) -> impl Iterator<Item = (&Arc<Image>, &Bits)> {
        self.lacking.iter().flat_map(Lacking::parts)
    }
}

impl Lacking {
    /// Each image with the agents that lack it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&Arc<Image>, &Bits)> {
        self.images.iter().zip(&self.agents)
    }
}

/// How many names [`Diff::names`] has.
const NAMED: usize = 20;

/// Compares the images that a pattern matches, of all architectures or of one, with these agents. Each agent should
/// have the image of its architecture; an agent for which there is none lacks nothing. An agent that holds another
/// image under that name lacks this one.
pub(crate) fn diff(pattern: &ImagePattern, architecture: Option<&str>, agents: &Bits, scene: &Scene) -> Diff {
    let mut ready = pattern.ready();
    let mut diff = Diff::default();
    let same_name = |a: &Arc<Image>, b: &Arc<Image>| {
        (&a.record.name, &a.record.tag, &a.record.registry)
            == (&b.record.name, &b.record.tag, &b.record.registry)
    };
    for images in scene.images.chunk_by(same_name) {
        let images = match architecture {
            None => images,
            Some(one) => {
                let found = images.iter().find(|image| image.record.architecture == one);
                found.map(std::slice::from_ref).unwrap_or_default()
            }
        };
        let Some(first) = images.first() else { continue };
        let canonical = first.record.canonical();
        if !ready.takes(canonical.as_str()) {
            continue;
        }
        diff.images += 1;
        if diff.images <= NAMED {
            diff.names.push(canonical.to_string());
        }
        if diff.images > MAX_IMAGES {
            continue;
        }
        let lacking: Vec<Bits> = images.iter().map(|image| diff.lack(image, agents, scene)).collect();
        if lacking.iter().any(|agents| !agents.is_empty()) {
            diff.lacking.push(Lacking { images: images.to_vec(), agents: lacking });
        }
    }
    diff
}

impl Diff {
    fn lack(&mut self, image: &Image, agents: &Bits, scene: &Scene) -> Bits {
        let Some(ready) = scene.ready.get(&image.record.architecture) else { return Bits::default() };
        let mut wanted = agents.clone();
        wanted.intersect_with(ready);
        let all = wanted.count();
        wanted.subtract(&(scene.held_by)(image));
        self.present += all - wanted.count();
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::{Diff, MAX_IMAGES, Scene, diff};
    use crate::base::bits::Bits;
    use crate::catalog::image::Image;
    use crate::rules::pattern::ImagePattern;
    use crate::rules::tests::{bits, image};

    fn seen(pattern: &str, images: &[Arc<Image>], agents: &[usize], held: &[(&Arc<Image>, usize)]) -> Diff {
        seen_of(None, pattern, images, agents, held)
    }

    fn seen_of(
        architecture: Option<&str>,
        pattern: &str,
        images: &[Arc<Image>],
        agents: &[usize],
        held: &[(&Arc<Image>, usize)],
    ) -> Diff {
        let ready: BTreeMap<String, Bits> =
            [("x86_64".to_owned(), bits(&[0, 1, 2])), ("aarch64".to_owned(), bits(&[5, 6]))].into();
        let held_by = |image: &Image| {
            let holders = held.iter().filter(|(held, _)| held.record == image.record);
            bits(&holders.map(|(_, agent)| *agent).collect::<Vec<_>>())
        };
        let pattern = ImagePattern::parse(pattern).unwrap();
        diff(&pattern, architecture, &bits(agents), &Scene { images, ready: &ready, held_by: &held_by })
    }

    #[test]
    fn each_agent_lacks_the_image_of_its_architecture() {
        let images = [
            image("a:1", "aarch64"),
            image("a:1", "x86_64"),
            image("b:1", "x86_64"),
            image("c:1", "riscv64"),
        ];
        let found = seen("cr.lab/*", &images, &[0, 1, 3, 5], &[(&images[1], 1), (&images[1], 2)]);
        assert_eq!((found.images, found.present), (3, 1), "agent 3 is not ready, agent 2 not asked for");
        assert_eq!(found.names, ["cr.lab/a:1", "cr.lab/b:1", "cr.lab/c:1"]);
        let lacking: Vec<_> = found.lacking.iter().map(|l| (l.images.len(), l.agents.clone())).collect();
        assert_eq!(
            lacking,
            [(2, vec![bits(&[5]), bits(&[0])]), (1, vec![bits(&[0, 1])])],
            "nobody has the third one's processor"
        );
        assert_eq!((found.missing(), found.bytes()), (4, 400));
    }

    #[test]
    fn of_one_architecture_only_its_images_are_wanted() {
        let images = [image("a:1", "aarch64"), image("a:1", "x86_64"), image("b:1", "x86_64")];
        let found = seen_of(Some("aarch64"), "*", &images, &[0, 1, 5, 6], &[(&images[0], 6)]);
        assert_eq!((found.names, found.images, found.present), (vec!["cr.lab/a:1".to_owned()], 1, 1));
        let [lacking] = found.lacking.as_slice() else { panic!("one: {:?}", found.lacking) };
        assert_eq!((lacking.images.len(), &lacking.agents), (1, &vec![bits(&[5])]));
        assert_eq!(lacking.images[0].record.architecture, "aarch64");
        assert_eq!(seen_of(Some("riscv64"), "*", &images, &[0, 5], &[]).images, 0);
    }

    #[test]
    fn what_is_on_every_agent_is_not_told_of() {
        let images = [image("a:1", "x86_64")];
        let found = seen("cr.lab/a:*", &images, &[0], &[(&images[0], 0)]);
        assert!(found.lacking.is_empty() && found.present == 1);
        assert_eq!(seen("cr.lab/b:*", &images, &[0], &[]).images, 0);
    }

    #[test]
    fn a_pattern_that_is_too_wide_is_cut() {
        let images: Vec<_> = (0..MAX_IMAGES + 7).map(|n| image(&format!("a:{n:05}"), "x86_64")).collect();
        let found = seen("*", &images, &[0], &[]);
        assert!(found.is_cut() && found.images == MAX_IMAGES + 7 && found.lacking.len() == MAX_IMAGES);
    }
}
