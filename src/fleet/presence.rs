//! Which images are on which agents: which name means what there.
//!
//! An agent's report lists everything its engine holds. Each held image is kept only once, however many agents hold
//! it. For each name there is a set of agents for each content that the name stands for somewhere, and for each image
//! of the catalog the set of agents where its name means this image. So a question about one image over thousands of
//! agents takes a few words of bits.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::engine::image::{self, Held, Part};

/// The presence of an image on an agent. Of several images of one name, the least says how the name stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Presence {
    /// The image's name means this image there.
    Present,
    /// The name is there and means another image.
    Stale,
    /// The name is not there, or means the image for another architecture.
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
    /// What identifies it.
    pub identity: Identity<'a>,
    /// The images with the same name, for all architectures: a name stands for only one of them on an agent, so an
    /// agent that has one is not stale for the others.
    pub variants: &'a [Identity<'a>],
}

/// An image an engine holds, distinguished by all but its size.
#[derive(Debug, Clone)]
struct Kept(Arc<Held>);

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        let (Held { digest, parts, names, manifests, size_bytes: _ }, other) = (&*self.0, &*other.0);
        *digest == other.digest
            && *names == other.names
            && *manifests == other.manifests
            && *parts == other.parts
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
        self.0.names.hash(state);
    }
}

/// What a name stands for on an agent: the engine's ID of it, and what the engine has of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    digest: Digest,
    parts: Vec<Part>,
}

impl Content {
    fn of(held: &Held) -> Self {
        Self { digest: held.digest.clone(), parts: held.parts.clone() }
    }

    fn is(&self, image: &Identity<'_>) -> bool {
        image::is(&self.digest, &self.parts, image)
    }
}

/// What a report changes about its agent.
#[derive(Debug, Default)]
pub(crate) struct HoldingsChange {
    /// Whether the report says anything new.
    pub(crate) is_any: bool,
    /// The numbers of the images that are now present on the agent and were not before, or no longer are.
    pub(crate) images: Bits,
    /// What the agent held before, if that is another thing.
    pub(crate) before: Vec<Arc<Held>>,
}

/// What all agents hold. Agents are numbers here; `fleet::service` knows their names.
#[derive(Default)]
pub(crate) struct Holdings {
    kept: HashSet<Kept>,
    by_agent: HashMap<usize, Vec<Arc<Held>>>,
    by_name: HashMap<Arc<str>, Name>,
    images: Images,
}

/// A name that an agent has, or an image of the catalog.
#[derive(Default)]
struct Name {
    /// What the name stands for, and the agents where it does.
    contents: HashMap<Content, Bits>,
    /// The numbers of the catalog's images of this name: one for each architecture.
    images: Vec<u32>,
}

/// The images of the catalog, by number, each with the agents that have it.
#[derive(Default)]
struct Images {
    rows: Vec<Option<Row>>,
    /// The numbers that are free for another image.
    free: Vec<u32>,
    /// The architectures that the rows share.
    architectures: HashSet<Arc<str>>,
}

struct Row {
    name: Arc<str>,
    config: Digest,
    manifest: Option<Digest>,
    index: Option<Digest>,
    architecture: Arc<str>,
    holders: Bits,
}

impl Row {
    fn identity(&self) -> Identity<'_> {
        Identity {
            config: &self.config,
            manifest: self.manifest.as_ref(),
            index: self.index.as_ref(),
            architecture: &self.architecture,
        }
    }
}

impl Images {
    fn add(&mut self, name: Arc<str>, image: &Identity<'_>, holders: Bits) -> u32 {
        let architecture = self.architectures.get(image.architecture).cloned().unwrap_or_else(|| {
            let architecture: Arc<str> = image.architecture.into();
            self.architectures.insert(Arc::clone(&architecture));
            architecture
        });
        let row = Some(Row {
            name,
            config: image.config.clone(),
            manifest: image.manifest.cloned(),
            index: image.index.cloned(),
            architecture,
            holders,
        });
        if let Some((number, place)) =
            self.free.pop().and_then(|number| Some((number, self.rows.get_mut(number as usize)?)))
        {
            *place = row;
            return number;
        }
        self.rows.push(row);
        u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.rows.get(number as usize).and_then(Option::as_ref)
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
        let (mut images, mut present) = (Bits::default(), Bits::default());
        for held in &before {
            self.mark(agent, held, false, &mut images);
        }
        for held in &now {
            self.mark(agent, held, true, &mut present);
        }
        images.toggle(&present);
        self.by_agent.insert(agent, now);
        for held in &before {
            self.forget_if_unheld(held);
        }
        HoldingsChange { is_any: true, images, before }
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

    /// Notes that an agent holds this image, or no longer does; adds the numbers of the catalog's images that it is.
    fn mark(&mut self, agent: usize, held: &Held, is_there: bool, images: &mut Bits) {
        let set = |bits: &mut Bits| if is_there { bits.insert(agent) } else { bits.remove(agent) };
        let content = Content::of(held);
        for name in &held.names {
            // Almost always another agent has the image under this name already, so a report of many images copies no
            // names.
            let known = match self.by_name.get_mut(name.as_str()) {
                Some(known) => known,
                None => self.by_name.entry(name.as_str().into()).or_default(),
            };
            match known.contents.get_mut(&content) {
                Some(agents) => set(agents),
                None => set(known.contents.entry(content.clone()).or_default()),
            }
            for number in &known.images {
                let row = self.images.rows.get_mut(*number as usize).and_then(Option::as_mut);
                if let Some(row) = row.filter(|row| content.is(&row.identity())) {
                    set(&mut row.holders);
                    images.insert(*number as usize);
                }
            }
        }
    }

    fn forget_if_unheld(&mut self, held: &Arc<Held>) {
        // One reference is in `kept`, one is in what was there before.
        if Arc::strong_count(held) > 2 {
            return;
        }
        self.kept.remove(&Kept(Arc::clone(held)));
        for name in &held.names {
            self.tidy(name);
        }
    }

    /// Forgets what a name no longer stands for anywhere, and the name itself once nothing has it.
    fn tidy(&mut self, name: &str) {
        let Some(known) = self.by_name.get_mut(name) else { return };
        known.contents.retain(|_, agents| !agents.is_empty());
        if known.contents.is_empty() && known.images.is_empty() {
            self.by_name.remove(name);
        }
    }

    /// The images an agent holds, according to its last report.
    pub(crate) fn of_agent(&self, agent: usize) -> &[Arc<Held>] {
        self.by_agent.get(&agent).map(Vec::as_slice).unwrap_or_default()
    }

    /// The agents where this name means this image.
    pub(crate) fn present(&self, name: &str, image: &Identity<'_>) -> Bits {
        self.agents(name, |content| content.is(image))
    }

    /// The agents where this name stands for such a content.
    fn agents(&self, name: &str, is_such: impl Fn(&Content) -> bool) -> Bits {
        let mut found = Bits::default();
        for (_, agents) in self.contents(name).filter(|(content, _)| is_such(content)) {
            found.union_with(agents);
        }
        found
    }

    /// What this name stands for, each with the agents where it does.
    fn contents(&self, name: &str) -> impl Iterator<Item = (&Content, &Bits)> {
        self.by_name.get(name).into_iter().flat_map(|known| &known.contents)
    }

    /// Takes in an image of the catalog and returns its number, which stays valid until [`Holdings::forget`].
    pub(crate) fn number(&mut self, name: &str, image: &Identity<'_>) -> u32 {
        let holders = self.present(name, image);
        let key = match self.by_name.get_key_value(name) {
            Some((key, _)) => Arc::clone(key),
            None => name.into(),
        };
        let number = self.images.add(Arc::clone(&key), image, holders);
        self.by_name.entry(key).or_default().images.push(number);
        number
    }

    /// Gives up a number: its image left the catalog.
    pub(crate) fn forget(&mut self, number: u32) {
        let Some(row) = self.images.rows.get_mut(number as usize).and_then(Option::take) else { return };
        self.images.free.push(number);
        if let Some(known) = self.by_name.get_mut(&row.name) {
            known.images.retain(|known| *known != number);
        }
        self.tidy(&row.name);
    }

    /// The agents that have the image with this number.
    pub(crate) fn holders(&self, number: u32) -> Option<&Bits> {
        self.images.row(number).map(|row| &row.holders)
    }

    /// The numbers of the images that at least one of these agents has.
    pub(crate) fn held_by(&self, agents: &Bits) -> Bits {
        (0..self.images.rows.len()).filter(|number| self.is_held_by(agents, *number)).collect()
    }

    /// Whether one of these agents has the image with this number.
    pub(crate) fn is_held_by(&self, agents: &Bits, number: usize) -> bool {
        let row = self.images.rows.get(number).and_then(Option::as_ref);
        row.is_some_and(|row| row.holders.meets(agents))
    }

    /// The agents where this name means another image.
    pub(crate) fn stale(&self, name: &str, image: &Identity<'_>) -> Bits {
        self.agents(name, |content| !content.is(image))
    }

    /// The presence of this image on one agent that has reported.
    pub(crate) fn on(&self, agent: usize, image: &Sought<'_>) -> Presence {
        let mut is_stale = false;
        for (content, _) in self.contents(image.name).filter(|(_, agents)| agents.contains(agent)) {
            if content.is(&image.identity) {
                return Presence::Present;
            }
            is_stale |= !image.variants.iter().any(|variant| content.is(variant));
        }
        if is_stale { Presence::Stale } else { Presence::Absent }
    }
}

#[cfg(test)]
mod tests {
    use super::{Holdings, Presence, Sought};
    use crate::base::digest::Digest;
    use crate::base::identity::Identity;
    use crate::engine::image::{Held, Part};

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn held(content: &str, name: &str) -> Held {
        Held {
            digest: digest(content),
            parts: Vec::new(),
            names: vec![name.into()],
            manifests: Vec::new(),
            size_bytes: 1,
        }
    }

    /// What engines may show of the image `config`, whose manifest and index are called after it.
    struct Digests {
        config: Digest,
        manifest: Digest,
        index: Digest,
        architecture: &'static str,
    }

    impl Digests {
        fn new(config: &str) -> Self {
            let of = |what: &str| digest(&format!("{config} {what}"));
            let (manifest, index) = (of("manifest"), of("index"));
            Self { config: digest(config), manifest, index, architecture: "x86_64" }
        }

        fn identity(&self) -> Identity<'_> {
            Identity {
                config: &self.config,
                manifest: Some(&self.manifest),
                index: Some(&self.index),
                architecture: self.architecture,
            }
        }
    }

    fn on(holdings: &Holdings, agent: usize, name: &str, config: &str) -> Presence {
        holdings.on(agent, &Sought { name, identity: Digests::new(config).identity(), variants: &[] })
    }

    #[test]
    fn an_image_is_present_where_its_name_means_it_and_stale_where_the_name_means_another() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("new", "cr.io/a:1")]);
        holdings.report(1, vec![held("old", "cr.io/a:1")]);
        holdings.report(2, vec![held("new", "cr.io/other:1")]);
        holdings.report(3, vec![held("new", "cr.io/other:1"), held("old", "cr.io/a:1")]);
        holdings.report(4, vec![held("x", "cr.io/b:1")]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|agent| on(&holdings, agent, "cr.io/a:1", "new")),
            [Presence::Present, Presence::Stale, Presence::Absent, Presence::Stale, Presence::Absent],
            "the content under another name does not count: a container of this name would not start it"
        );
        let new = Digests::new("new");
        assert_eq!(holdings.present("cr.io/a:1", &new.identity()).iter().collect::<Vec<_>>(), [0]);
        assert_eq!(holdings.stale("cr.io/a:1", &new.identity()).iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn an_engine_may_call_an_image_by_its_manifest_or_by_the_part_of_an_index_that_it_has() {
        let image = Digests::new("a");
        let part = |architecture: &str, manifest: Option<&Digest>| Part {
            architecture: architecture.into(),
            manifest: manifest.cloned(),
        };
        let of = |id: &Digest, parts: Vec<Part>| {
            Held { digest: id.clone(), ..held("", "cr.io/a:1") }.with_parts(parts)
        };
        let other = digest("another index");
        let mut holdings = Holdings::default();
        for (agent, held, presence) in [
            (0, of(&image.manifest, vec![]), Presence::Present),
            (1, of(&image.index, vec![part("x86_64", None)]), Presence::Present),
            (2, of(&image.index, vec![part("aarch64", None)]), Presence::Stale),
            (3, of(&image.index, vec![]), Presence::Stale),
            (4, of(&other, vec![part("x86_64", Some(&image.manifest))]), Presence::Present),
            (5, of(&other, vec![part("x86_64", None)]), Presence::Stale),
            (6, of(&image.index, vec![part("x86_64", Some(&other))]), Presence::Stale),
            // A manifest that it was once pulled by says nothing.
            (7, Held { manifests: vec![image.manifest.clone()], ..of(&other, vec![]) }, Presence::Stale),
        ] {
            holdings.report(agent, vec![held]);
            let sought = Sought { name: "cr.io/a:1", identity: image.identity(), variants: &[] };
            assert_eq!(holdings.on(agent, &sought), presence, "agent {agent}");
        }
    }

    #[test]
    fn another_architecture_of_an_image_does_not_make_it_stale() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("arm", "cr.io/a:1")]);
        holdings.report(1, vec![held("old", "cr.io/a:1")]);
        let (intel, arm) = (Digests::new("intel"), Digests::new("arm"));
        let variants = [intel.identity(), arm.identity()];
        let on = |agent, image: &Digests| {
            holdings.on(agent, &Sought { name: "cr.io/a:1", identity: image.identity(), variants: &variants })
        };
        assert_eq!([on(0, &arm), on(0, &intel)], [Presence::Present, Presence::Absent]);
        assert_eq!([on(1, &arm), on(1, &intel)], [Presence::Stale, Presence::Stale]);
    }

    #[test]
    fn a_change_touches_only_the_digests_it_names() {
        let mut holdings = Holdings::default();
        for content in ["a", "b", "c"] {
            holdings.number(&format!("cr.io/{content}:1"), &Digests::new(content).identity());
        }
        holdings.report(0, vec![held("a", "cr.io/a:1"), held("b", "cr.io/b:1"), held("c", "cr.io/c:1")]);
        let news = holdings.revise(0, vec![held("a", "cr.io/a:2")], &[digest("b")]);
        assert_eq!(news.images.count(), 2, "b is gone, and a has another name");
        assert_eq!(on(&holdings, 0, "cr.io/a:2", "a"), Presence::Present);
        assert_eq!(on(&holdings, 0, "cr.io/a:1", "x"), Presence::Absent, "the name went away");
        assert_eq!(on(&holdings, 0, "cr.io/b:1", "b"), Presence::Absent);
        assert_eq!(on(&holdings, 0, "cr.io/c:1", "c"), Presence::Present);
        assert_eq!(holdings.of_agent(0).len(), 2);
    }

    #[test]
    fn a_report_replaces_the_one_before_and_leaves_nothing_of_it() {
        let mut holdings = Holdings::default();
        let numbers = ["a", "b"]
            .map(|content| holdings.number(&format!("cr.io/{content}:1"), &Digests::new(content).identity()));
        let (a, b) = (held("a", "cr.io/a:1"), held("b", "cr.io/b:1"));
        let mut changes = |agent, held: Vec<Held>| {
            let news = holdings.report(agent, held);
            (news.is_any, news.images.count())
        };
        assert_eq!(changes(0, vec![a.clone(), b]), (true, 2));
        assert_eq!(changes(1, vec![a.clone()]), (true, 1));
        assert_eq!(changes(0, vec![a.clone()]), (true, 1), "b is gone");
        assert_eq!(changes(0, vec![a]), (false, 0), "it says nothing new");
        assert_eq!(changes(0, vec![held("a", "cr.io/a:2")]), (true, 1), "the same by another name");
        assert_eq!(on(&holdings, 0, "cr.io/b:1", "b"), Presence::Absent);
        holdings.report(1, Vec::new());
        holdings.remove(0);
        for number in numbers {
            holdings.forget(number);
        }
        assert!(holdings.kept.is_empty() && holdings.by_name.is_empty());
        assert!(holdings.of_agent(0).is_empty());
    }

    #[test]
    fn an_image_has_its_number_until_it_is_given_up_whoever_came_first() {
        let mut holdings = Holdings::default();
        let held_by = |holdings: &Holdings, agents: &[usize]| {
            let found = holdings.held_by(&agents.iter().copied().collect());
            found.iter().map(|number| u32::try_from(number).unwrap()).collect::<Vec<_>>()
        };
        holdings.report(0, vec![held("a", "cr.io/a:1")]);
        let (a, b) = (Digests::new("a"), Digests::new("b"));
        let of_a = holdings.number("cr.io/a:1", &a.identity());
        let of_b = holdings.number("cr.io/b:1", &b.identity());
        assert_eq!(held_by(&holdings, &[0, 300]), [of_a], "the agent reported before the catalog had it");
        holdings.report(1, vec![held("b", "cr.io/b:1")]);
        assert_eq!(held_by(&holdings, &[1]), [of_b]);
        assert_eq!(held_by(&holdings, &[0, 1]), [of_a, of_b]);

        holdings.forget(of_a);
        assert_eq!(held_by(&holdings, &[0]), [0; 0]);
        assert_eq!(
            holdings.number("cr.io/c:1", &Digests::new("c").identity()),
            of_a,
            "numbers are used again"
        );
        assert_eq!(held_by(&holdings, &[0]), [0; 0]);
        for n in 0..1_000 {
            let passing = holdings.number("cr.io/passing:1", &Digests::new(&n.to_string()).identity());
            holdings.forget(passing);
        }
        assert_eq!(holdings.by_name.len(), 3);
        assert!(holdings.images.rows.len() <= 3, "{}", holdings.images.rows.len());
    }
}
