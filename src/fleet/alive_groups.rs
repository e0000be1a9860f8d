//! The agents that are alive, by scaling group, and what each group holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use crate::base::bits::Bits;
use crate::fleet::presence::Holdings;

/// The numbers of the agents that are alive, by scaling group.
#[derive(Default)]
pub(crate) struct AliveGroups(HashMap<String, Group>);

#[derive(Default)]
struct Group {
    agents: Bits,
    /// What the group holds, once a caller has asked for it; see [`Holdings::held_by`].
    held: OnceLock<Bits>,
}

impl Group {
    /// Works out anew whether the group holds these images, if what it holds was asked for.
    fn look_again(&mut self, images: impl Iterator<Item = usize>, holdings: &Holdings) {
        let Some(held) = self.held.get_mut() else { return };
        for image in images {
            if holdings.is_held_by(&self.agents, image) {
                held.insert(image);
            } else {
                held.remove(image);
            }
        }
    }
}

impl AliveGroups {
    /// The alive agents of a scaling group, to be changed. What the group holds is worked out again when a caller
    /// next asks.
    pub(crate) fn change(&mut self, scaling_group: &str) -> &mut Bits {
        let group = self.0.entry(scaling_group.into()).or_default();
        group.held = OnceLock::new();
        &mut group.agents
    }

    /// Takes note that these images came to an agent of this scaling group, or left it.
    pub(crate) fn hear(&mut self, scaling_group: &str, images: &Bits, holdings: &Holdings) {
        if let Some(group) = self.0.get_mut(scaling_group) {
            group.look_again(images.iter(), holdings);
        }
    }

    /// Takes note that this number stands for another image than before, or for none.
    pub(crate) fn renumber(&mut self, image: u32, holdings: &Holdings) {
        for group in self.0.values_mut() {
            group.look_again(std::iter::once(image as usize), holdings);
        }
    }

    /// The numbers of the images that at least one alive agent has, in these scaling groups or in all.
    pub(crate) fn held(&self, scaling_groups: Option<&BTreeSet<String>>, holdings: &Holdings) -> Bits {
        let mut held = Bits::default();
        for (name, group) in &self.0 {
            if scaling_groups.is_none_or(|wanted| wanted.contains(name)) {
                held.union_with(group.held.get_or_init(|| holdings.held_by(&group.agents)));
            }
        }
        held
    }

    /// Those of these agents that are alive, by scaling group; groups without any are left out.
    pub(crate) fn among<'a>(&'a self, agents: &'a Bits) -> impl Iterator<Item = (&'a str, Bits)> {
        self.0.iter().filter(|(_, group)| group.agents.meets(agents)).map(|(name, group)| {
            let mut both = agents.clone();
            both.intersect_with(&group.agents);
            (name.as_str(), both)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::AliveGroups;
    use crate::base::bits::Bits;
    use crate::base::digest::Digest;
    use crate::base::identity::Identity;
    use crate::engine::image::Held;
    use crate::fleet::presence::Holdings;

    fn held(contents: &[&str]) -> Vec<Held> {
        let one = |content: &&str| Held {
            digest: Digest::sha256_of(content.as_bytes()),
            parts: Vec::new(),
            names: vec![format!("cr.io/{content}:1")],
            manifests: Vec::new(),
            size_bytes: 1,
        };
        contents.iter().map(one).collect()
    }

    /// Whatever agents report, and in whatever order, a group's holdings equal those worked out from scratch.
    #[test]
    fn what_a_group_holds_follows_each_report() {
        let (mut alive_groups, mut holdings) = (AliveGroups::default(), Holdings::default());
        for (agent, group) in ["gpu", "gpu", "cpu", "cpu"].into_iter().enumerate() {
            alive_groups.change(group).insert(agent);
        }
        for content in ["a", "b", "c", "d", "e", "f", "g"] {
            let config = Digest::sha256_of(content.as_bytes());
            let image = Identity { config: &config, manifest: None, index: None, architecture: "x86_64" };
            holdings.number(&format!("cr.io/{content}:1"), &image);
        }
        let reports: [(usize, &[&str]); 9] = [
            (0, &["a", "b"]),
            (1, &["b", "c"]),
            (2, &["a", "d"]),
            (0, &["b"]),
            (1, &[]),
            (2, &["e", "f"]),
            (0, &["g", "f"]),
            (3, &["f"]),
            (2, &[]),
        ];
        for (agent, contents) in reports {
            let group = if agent < 2 { "gpu" } else { "cpu" };
            let news = holdings.report(agent, held(contents));
            alive_groups.hear(group, &news.images, &holdings);
            for (group, agents) in [("gpu", [0, 1]), ("cpu", [2, 3])] {
                let anew = holdings.held_by(&agents.into_iter().collect::<Bits>());
                assert_eq!(alive_groups.held(Some(&[group.to_owned()].into()), &holdings), anew, "{group}");
            }
        }
    }

    /// A tag moves, and what an agent holds does not: the number of the old image becomes that of the new one.
    #[test]
    fn what_a_group_holds_follows_the_numbers_of_the_catalog() {
        let (mut alive_groups, mut holdings) = (AliveGroups::default(), Holdings::default());
        alive_groups.change("gpu").insert(0);
        let (old, new) = (Digest::sha256_of(b"a"), Digest::sha256_of(b"new"));
        let image = |config| Identity { config, manifest: None, index: None, architecture: "x86_64" };
        let number = holdings.number("cr.io/a:1", &image(&old));
        alive_groups.hear("gpu", &holdings.report(0, held(&["a"])).images, &holdings);
        let holds = |groups: &AliveGroups, holdings: &Holdings, number: u32| {
            groups.held(None, holdings).contains(number as usize)
        };
        assert!(holds(&alive_groups, &holdings, number));
        holdings.forget(number);
        alive_groups.renumber(number, &holdings);
        let moved = holdings.number("cr.io/a:1", &image(&new));
        alive_groups.renumber(moved, &holdings);
        assert!(moved == number && !holds(&alive_groups, &holdings, number), "it is another image now");
        // The catalog meets what the agent has had for long.
        let known = holdings.number("cr.io/a:1", &image(&old));
        alive_groups.renumber(known, &holdings);
        assert!(holds(&alive_groups, &holdings, known));
    }
}
