//! Which images are on which agents, by digest.
//!
//! An agent's report lists everything its engine holds. Each held image is kept only once, however many agents hold
//! it, and for each digest and each name there is a set of agents, so a question about one image over thousands of
//! agents takes a few words of bits.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::engine::image::Held;

/// The presence of an image on an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The agent has the image at the digest that the catalog has.
    Present,
    /// The agent has another image under its name.
    Stale,
    /// The agent does not have it.
    Absent,
    /// The agent can't be asked, or has not been asked yet.
    Unknown,
}

impl Presence {
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Stale => "stale",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

/// An image of the catalog, in the form in which the fleet looks for it on agents.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// Its canonical name.
    pub name: &'a str,
    /// Its architecture.
    pub architecture: &'a str,
    /// The digest of its config.
    pub digest: &'a Digest,
    /// The digests of the images with the same name, for all architectures.
    pub variants: &'a [Digest],
}

/// An image an engine holds, distinguished by digest and names.
#[derive(Debug, Clone)]
struct Kept(Arc<Held>);

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
            && self.0.names == other.0.names
            && self.0.manifests == other.0.manifests
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
        self.0.names.hash(state);
    }
}

/// What a report changes about its agent.
#[derive(Debug, Default)]
pub(crate) struct HoldingsChange {
    /// Whether the report says anything new.
    pub(crate) is_any: bool,
    /// The numbers of the contents that the agent now holds and did not before, or no longer holds.
    pub(crate) contents: Bits,
}

/// What all agents hold. Agents are numbers here; `fleet::service` knows their names.
#[derive(Default)]
pub(crate) struct Holdings {
    kept: HashSet<Kept>,
    by_agent: HashMap<usize, Vec<Arc<Held>>>,
    contents: Contents,
    by_name: HashMap<String, HashMap<Digest, Bits>>,
}

/// The digests that agents hold or that a caller asked for, numbered, each with the agents that hold it.
#[derive(Default)]
struct Contents {
    numbers: HashMap<Digest, u32>,
    /// The contents, ordered by number.
    rows: Vec<Content>,
    /// The numbers that are free for another digest.
    free: Vec<u32>,
}

#[derive(Default)]
struct Content {
    holders: Bits,
    /// Whether a caller knows this number. It then stays this digest's until the caller gives it up.
    is_known: bool,
}

impl Contents {
    fn number(&mut self, digest: &Digest) -> u32 {
        if let Some(number) = self.numbers.get(digest) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Content::default());
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        self.numbers.insert(digest.clone(), number);
        number
    }

    fn holders(&self, digest: &Digest) -> Option<&Bits> {
        let number = self.numbers.get(digest)?;
        self.rows.get(*number as usize).map(|row| &row.holders)
    }

    fn forget_if_unheld(&mut self, digest: &Digest) {
        let is_over = |row: &Content| row.holders.is_empty() && !row.is_known;
        let Some(number) = self.numbers.get(digest).copied() else { return };
        if self.rows.get(number as usize).is_some_and(is_over) {
            self.numbers.remove(digest);
            self.free.push(number);
        }
    }
}

impl Holdings {
    /// Replaces an agent's last report with this one.
    pub(crate) fn report(&mut self, agent: usize, held: Vec<Held>) -> HoldingsChange {
        let now: Vec<Arc<Held>> = held.into_iter().map(|held| self.keep(held)).collect();
        self.replace(agent, now)
    }

    /// Applies an agent's change: the images it now holds with these digests, and the digests it no longer holds.
    pub(crate) fn revise(&mut self, agent: usize, changed: Vec<Held>, gone: &[Digest]) -> HoldingsChange {
        let touched: HashSet<&Digest> = gone.iter().chain(changed.iter().map(|held| &held.digest)).collect();
        let stays = |held: &&Arc<Held>| !touched.contains(&held.digest);
        let mut now: Vec<Arc<Held>> = self.of_agent(agent).iter().filter(stays).cloned().collect();
        now.extend(changed.into_iter().map(|held| self.keep(held)));
        self.replace(agent, now)
    }

    fn replace(&mut self, agent: usize, now: Vec<Arc<Held>>) -> HoldingsChange {
        let before = self.by_agent.remove(&agent).unwrap_or_default();
        // Equal images are kept only once, so this compares addresses.
        let is_news =
            before.len() != now.len() || before.iter().zip(&now).any(|(old, new)| !Arc::ptr_eq(old, new));
        if !is_news {
            self.by_agent.insert(agent, before);
            return HoldingsChange::default();
        }
        let mut contents: Bits = before.iter().filter_map(|held| self.mark(agent, held, false)).collect();
        contents.toggle(&now.iter().filter_map(|held| self.mark(agent, held, true)).collect());
        self.by_agent.insert(agent, now);
        for held in before {
            self.forget_if_unheld(&held);
        }
        HoldingsChange { is_any: true, contents }
    }

    /// Forgets an agent.
    pub(crate) fn remove(&mut self, agent: usize) {
        self.report(agent, Vec::new());
        self.by_agent.remove(&agent);
    }

    fn keep(&mut self, held: Held) -> Arc<Held> {
        let held = Kept(Arc::new(held));
        if let Some(known) = self.kept.get(&held) {
            return Arc::clone(&known.0);
        }
        self.kept.insert(held.clone());
        held.0
    }

    /// Notes that an agent holds this image, or no longer does; returns the number of its content.
    fn mark(&mut self, agent: usize, held: &Held, is_there: bool) -> Option<usize> {
        let set = |bits: &mut Bits| if is_there { bits.insert(agent) } else { bits.remove(agent) };
        for name in &held.names {
            // Almost always another agent has the image under this name already, so a report of many images copies no
            // names.
            let known = self.by_name.get_mut(name).and_then(|digests| digests.get_mut(&held.digest));
            if let Some(agents) = known {
                set(agents);
            } else {
                set(self.by_name.entry(name.clone()).or_default().entry(held.digest.clone()).or_default());
            }
        }
        let number = self.contents.number(&held.digest) as usize;
        set(&mut self.contents.rows.get_mut(number)?.holders);
        Some(number)
    }

    fn forget_if_unheld(&mut self, held: &Arc<Held>) {
        // One reference is in `kept`, one is the caller's.
        if Arc::strong_count(held) > 2 {
            return;
        }
        self.kept.remove(&Kept(Arc::clone(held)));
        self.contents.forget_if_unheld(&held.digest);
        for name in &held.names {
            if let Some(digests) = self.by_name.get_mut(name) {
                digests.retain(|_, agents| !agents.is_empty());
                if digests.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
    }

    /// The images an agent holds, according to its last report.
    pub(crate) fn of_agent(&self, agent: usize) -> &[Arc<Held>] {
        self.by_agent.get(&agent).map(Vec::as_slice).unwrap_or_default()
    }

    /// The agents that hold this digest.
    pub(crate) fn holders(&self, digest: &Digest) -> Option<&Bits> {
        self.contents.holders(digest)
    }

    /// Returns the digest's number, which stays valid until [`Holdings::forget`].
    pub(crate) fn number(&mut self, digest: &Digest) -> u32 {
        let number = self.contents.number(digest);
        if let Some(row) = self.contents.rows.get_mut(number as usize) {
            row.is_known = true;
        }
        number
    }

    /// Gives up this digest's number. The digest keeps it for as long as an agent holds it.
    pub(crate) fn forget(&mut self, digest: &Digest) {
        let number = self.contents.numbers.get(digest);
        if let Some(row) = number.and_then(|number| self.contents.rows.get_mut(*number as usize)) {
            row.is_known = false;
        }
        self.contents.forget_if_unheld(digest);
    }

    /// The numbers of the contents that at least one of these agents holds.
    pub(crate) fn held_by(&self, agents: &Bits) -> Bits {
        (0..self.contents.rows.len()).filter(|number| self.is_held_by(agents, *number)).collect()
    }

    /// Whether one of these agents holds the content with this number.
    pub(crate) fn is_held_by(&self, agents: &Bits, content: usize) -> bool {
        self.contents.rows.get(content).is_some_and(|row| row.holders.meets(agents))
    }

    /// The agents that hold another image under this name, and not the digest itself.
    pub(crate) fn stale(&self, name: &str, digest: &Digest) -> Bits {
        let mut stale = Bits::default();
        for (other, agents) in self.by_name.get(name).into_iter().flatten() {
            if other != digest {
                stale.union_with(agents);
            }
        }
        if let Some(present) = self.holders(digest) {
            stale.subtract(present);
        }
        stale
    }

    /// The presence of this image on one agent that has reported. An agent that has one of the `variants`, the images
    /// of the same name for other architectures, is not stale: a name stands for only one of them.
    pub(crate) fn on(&self, agent: usize, name: &str, digest: &Digest, variants: &[Digest]) -> Presence {
        if self.holders(digest).is_some_and(|agents| agents.contains(agent)) {
            return Presence::Present;
        }
        let mut named = self.by_name.get(name).into_iter().flatten();
        if named.any(|(other, agents)| agents.contains(agent) && !variants.contains(other)) {
            Presence::Stale
        } else {
            Presence::Absent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Holdings, Presence};
    use crate::base::digest::Digest;
    use crate::engine::image::Held;

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn held(content: &str, name: &str) -> Held {
        Held { digest: digest(content), names: vec![name.into()], manifests: Vec::new(), size_bytes: 1 }
    }

    #[test]
    fn an_image_is_present_stale_or_absent_by_digest() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("new", "cr.io/a:1")]);
        holdings.report(1, vec![held("old", "cr.io/a:1")]);
        holdings.report(2, vec![held("new", "cr.io/other:1")]);
        holdings.report(3, vec![held("x", "cr.io/b:1")]);
        let on = |agent| holdings.on(agent, "cr.io/a:1", &digest("new"), &[]);
        assert_eq!(
            [on(0), on(1), on(2), on(3)],
            [Presence::Present, Presence::Stale, Presence::Present, Presence::Absent]
        );
        let holders = holdings.holders(&digest("new")).unwrap();
        assert_eq!(holders.iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(holdings.stale("cr.io/a:1", &digest("new")).iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn another_architecture_of_an_image_does_not_make_it_stale() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("arm", "cr.io/a:1")]);
        holdings.report(1, vec![held("arm", "cr.io/a:1"), held("old", "cr.io/a:1")]);
        let on = |agent, content| {
            holdings.on(agent, "cr.io/a:1", &digest(content), &[digest("intel"), digest("arm")])
        };
        assert_eq!([on(0, "arm"), on(0, "intel")], [Presence::Present, Presence::Absent]);
        assert_eq!([on(1, "arm"), on(1, "intel")], [Presence::Present, Presence::Stale]);
    }

    #[test]
    fn a_change_touches_only_the_digests_it_names() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("a", "cr.io/a:1"), held("b", "cr.io/b:1"), held("c", "cr.io/c:1")]);
        let news = holdings.revise(0, vec![held("a", "cr.io/a:2")], &[digest("b")]);
        assert_eq!(news.contents.count(), 1, "b is gone");
        let on = |name, content| holdings.on(0, name, &digest(content), &[]);
        assert_eq!(on("cr.io/a:2", "a"), Presence::Present);
        assert_eq!(on("cr.io/a:1", "x"), Presence::Absent, "the name went away");
        assert_eq!(on("cr.io/b:1", "b"), Presence::Absent);
        assert_eq!(on("cr.io/c:1", "c"), Presence::Present);
        assert_eq!(holdings.of_agent(0).len(), 2);
    }

    #[test]
    fn a_report_replaces_the_one_before_and_leaves_nothing_of_it() {
        let mut holdings = Holdings::default();
        let (a, b) = (held("a", "cr.io/a:1"), held("b", "cr.io/b:1"));
        let mut changes = |agent, held: Vec<Held>| {
            let news = holdings.report(agent, held);
            (news.is_any, news.contents.count())
        };
        assert_eq!(changes(0, vec![a.clone(), b]), (true, 2));
        assert_eq!(changes(1, vec![a.clone()]), (true, 1));
        assert_eq!(changes(0, vec![a.clone()]), (true, 1), "b is gone");
        assert_eq!(changes(0, vec![a]), (false, 0), "it says nothing new");
        assert_eq!(changes(0, vec![held("a", "cr.io/a:2")]), (true, 0), "the same by another name");
        assert_eq!(holdings.on(0, "cr.io/b:1", &digest("b"), &[]), Presence::Absent);
        holdings.report(1, Vec::new());
        holdings.remove(0);
        assert!(
            holdings.kept.is_empty() && holdings.contents.numbers.is_empty() && holdings.by_name.is_empty()
        );
        assert!(holdings.of_agent(0).is_empty());
    }

    #[test]
    fn a_number_that_was_told_stays_and_others_are_given_anew() {
        let mut holdings = Holdings::default();
        let held_by = |holdings: &Holdings, agents: &[usize]| {
            holdings.held_by(&agents.iter().copied().collect()).iter().collect::<Vec<_>>()
        };
        let told = holdings.number(&digest("told")) as usize;
        assert_eq!(held_by(&holdings, &[0, 1]), Vec::<usize>::new());
        holdings.report(0, vec![held("passing", "cr.io/a:1")]);
        holdings.report(1, vec![held("told", "cr.io/b:1")]);
        assert_eq!(held_by(&holdings, &[1]), [told]);
        assert_eq!(held_by(&holdings, &[0, 1, 300]).len(), 2);
        let passing = held_by(&holdings, &[0]);
        holdings.report(0, vec![held("next", "cr.io/a:1")]);
        holdings.report(0, vec![held("other", "cr.io/a:1")]);
        assert_eq!(held_by(&holdings, &[0]), passing, "numbers are used again");
        holdings.report(1, Vec::new());
        assert_eq!(holdings.number(&digest("told")) as usize, told);
        assert_ne!(holdings.number(&digest("new")) as usize, told);
    }

    #[test]
    fn a_number_that_nobody_goes_by_is_given_anew_once_nobody_holds_its_digest() {
        let mut holdings = Holdings::default();
        let told = holdings.number(&digest("told"));
        holdings.report(0, vec![held("told", "cr.io/a:1")]);
        holdings.forget(&digest("told"));
        assert_ne!(holdings.number(&digest("other")), told, "an agent has it");
        holdings.report(0, Vec::new());
        assert_eq!(holdings.number(&digest("next")), told);
        for n in 0..1_000 {
            let passing = digest(&n.to_string());
            holdings.number(&passing);
            holdings.forget(&passing);
        }
        assert_eq!(holdings.contents.numbers.len(), 2);
        assert!(holdings.contents.rows.len() <= 3, "{}", holdings.contents.rows.len());
    }
}
