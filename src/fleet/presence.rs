//! Which images are on which agents: which name means what there.
//!
//! An agent's report lists everything its engine holds. Each held image is kept only once, with the set of the agents
//! that hold it, and each image of the catalog has the set of agents where its name means this image. So a report costs
//! one look and one bit for each of its images, and a question about one image over thousands of agents takes a few
//! words of bits.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::base::reference::as_told;
use crate::engine::image::Held;

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

/// An image on one agent.
#[derive(Debug, Clone)]
pub struct AgentPresence {
    /// The agent's id.
    pub(crate) agent: String,
    /// The presence of the image on this agent.
    pub(crate) presence: Presence,
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

impl Sought<'_> {
    /// Whether an engine has the image for one of its architectures.
    fn is_variant(&self, held: &Held) -> bool {
        self.variants.iter().any(|variant| held.is(variant))
    }
}

/// An image an engine holds, distinguished by all but its size.
#[derive(Debug, Clone)]
struct Kept(Arc<Held>);

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
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
    kept: HashMap<Kept, usize>,
    /// What is kept, by its place.
    places: Vec<Option<Place>>,
    /// The places that are free for another one.
    free: Vec<usize>,
    by_agent: HashMap<usize, Vec<Arc<Held>>>,
    by_name: HashMap<Arc<str>, Name>,
    images: Images,
}

/// An image that agents hold.
struct Place {
    held: Arc<Held>,
    agents: Bits,
    /// The numbers of the catalog's images that one of its names means.
    images: Vec<u32>,
}

/// A name that an agent has, or an image of the catalog.
#[derive(Default)]
struct Name {
    /// The places of what the name stands for somewhere.
    places: Vec<usize>,
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

    fn row_mut(&mut self, number: u32) -> Option<&mut Row> {
        self.rows.get_mut(number as usize).and_then(Option::as_mut)
    }
}

impl Holdings {
    /// Replaces an agent's last report with this one.
    pub(crate) fn report(&mut self, agent: usize, held: Vec<Held>) -> HoldingsChange {
        let now = held.into_iter().map(|held| self.keep(Arc::new(held))).collect();
        self.replace(agent, now)
    }

    /// Applies an agent's change: the images it now holds with these digests, and the digests it no longer holds.
    pub(crate) fn revise(&mut self, agent: usize, changed: Vec<Held>, gone: &[Digest]) -> HoldingsChange {
        let touched: HashSet<&Digest> = gone.iter().chain(changed.iter().map(|held| &held.digest)).collect();
        let stays = |held: &&Arc<Held>| !touched.contains(&held.digest);
        let now: Vec<Arc<Held>> = self.of_agent(agent).iter().filter(stays).cloned().collect();
        let now = now.into_iter().chain(changed.into_iter().map(Arc::new));
        let now = now.map(|held| self.keep(held)).collect();
        self.replace(agent, now)
    }

    /// Replaces what an agent holds by what is kept at these places.
    fn replace(&mut self, agent: usize, now: Vec<(usize, Arc<Held>)>) -> HoldingsChange {
        let before = self.by_agent.remove(&agent).unwrap_or_default();
        // Equal images are kept only once, so this compares addresses.
        let is_news = before.len() != now.len()
            || before.iter().zip(&now).any(|(old, (_, new))| !Arc::ptr_eq(old, new));
        if !is_news {
            self.by_agent.insert(agent, before);
            return HoldingsChange::default();
        }
        let (mut images, mut present) = (Bits::default(), Bits::default());
        let left: Vec<usize> = before.iter().filter_map(|held| self.place_of(held)).collect();
        for place in &left {
            self.mark(agent, *place, false, &mut images);
        }
        for (place, _) in &now {
            self.mark(agent, *place, true, &mut present);
        }
        images.toggle(&present);
        self.by_agent.insert(agent, now.into_iter().map(|(_, held)| held).collect());
        for place in left {
            self.forget_if_unheld(place);
        }
        HoldingsChange { is_any: true, images, before }
    }

    /// Forgets an agent.
    pub(crate) fn remove(&mut self, agent: usize) {
        self.report(agent, Vec::new());
        self.by_agent.remove(&agent);
    }

    fn place_of(&self, held: &Arc<Held>) -> Option<usize> {
        self.kept.get(&Kept(Arc::clone(held))).copied()
    }

    /// The place of an image, which it gets if it is new, and the one that is kept of all that are equal.
    fn keep(&mut self, held: Arc<Held>) -> (usize, Arc<Held>) {
        let held = Kept(held);
        if let Some((known, place)) = self.kept.get_key_value(&held) {
            return (*place, Arc::clone(&known.0));
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let mut images = Vec::new();
        for name in &held.0.names {
            let known = match self.by_name.get_mut(name.as_str()) {
                Some(known) => known,
                None => self.by_name.entry(name.as_str().into()).or_default(),
            };
            known.places.push(place);
            let is = |number: &&u32| self.images.row(**number).is_some_and(|row| held.0.is(&row.identity()));
            images.extend(known.images.iter().filter(is));
        }
        let new = Place { held: Arc::clone(&held.0), agents: Bits::default(), images };
        if let Some(free) = self.places.get_mut(place) {
            *free = Some(new);
        }
        self.kept.insert(held.clone(), place);
        (place, held.0)
    }

    /// Notes that an agent holds what is kept here, or no longer does; adds the numbers of the catalog's images that it
    /// is.
    fn mark(&mut self, agent: usize, place: usize, is_there: bool, images: &mut Bits) {
        let set = |bits: &mut Bits| if is_there { bits.insert(agent) } else { bits.remove(agent) };
        let Some(place) = self.places.get_mut(place).and_then(Option::as_mut) else { return };
        set(&mut place.agents);
        for number in &place.images {
            if let Some(row) = self.images.row_mut(*number) {
                set(&mut row.holders);
                images.insert(*number as usize);
            }
        }
    }

    fn forget_if_unheld(&mut self, number: usize) {
        let is_unheld = |place: &mut Place| place.agents.is_empty();
        let Some(place) = self.places.get_mut(number).and_then(|place| place.take_if(is_unheld)) else {
            return;
        };
        self.free.push(number);
        self.kept.remove(&Kept(Arc::clone(&place.held)));
        for name in &place.held.names {
            if let Some(known) = self.by_name.get_mut(name.as_str()) {
                known.places.retain(|known| *known != number);
            }
            self.tidy(name);
        }
    }

    /// Forgets a name once nothing has it.
    fn tidy(&mut self, name: &str) {
        if self.by_name.get(name).is_some_and(|known| known.places.is_empty() && known.images.is_empty()) {
            self.by_name.remove(name);
        }
    }

    /// The images an agent holds, according to its last report.
    pub(crate) fn of_agent(&self, agent: usize) -> &[Arc<Held>] {
        self.by_agent.get(&agent).map(Vec::as_slice).unwrap_or_default()
    }

    /// The agents where this name means this image.
    pub(crate) fn present(&self, name: &str, image: &Identity<'_>) -> Bits {
        self.agents(name, |held| held.is(image))
    }

    /// The agents where this name stands for such an image.
    fn agents(&self, name: &str, is_such: impl Fn(&Held) -> bool) -> Bits {
        let mut found = Bits::default();
        for place in self.named(name).filter(|place| is_such(&place.held)) {
            found.union_with(&place.agents);
        }
        found
    }

    /// What this name stands for.
    fn named(&self, name: &str) -> impl Iterator<Item = &Place> {
        let places = self.by_name.get(&*as_told(name)).into_iter().flat_map(|known| &known.places);
        places.filter_map(|place| self.places.get(*place)?.as_ref())
    }

    /// Takes in an image of the catalog and returns its number, which stays valid until [`Holdings::forget`].
    pub(crate) fn number(&mut self, name: &str, image: &Identity<'_>) -> u32 {
        let holders = self.present(name, image);
        let name = as_told(name);
        let key = match self.by_name.get_key_value(&*name) {
            Some((key, _)) => Arc::clone(key),
            None => name.into(),
        };
        let number = self.images.add(Arc::clone(&key), image, holders);
        let known = self.by_name.entry(key).or_default();
        known.images.push(number);
        for place in &known.places {
            let place = self.places.get_mut(*place).and_then(Option::as_mut);
            if let Some(place) = place.filter(|place| place.held.is(image)) {
                place.images.push(number);
            }
        }
        number
    }

    /// Gives up a number: its image left the catalog.
    pub(crate) fn forget(&mut self, number: u32) {
        let Some(row) = self.images.rows.get_mut(number as usize).and_then(Option::take) else { return };
        self.images.free.push(number);
        if let Some(known) = self.by_name.get_mut(&row.name) {
            known.images.retain(|known| *known != number);
            for place in &known.places {
                if let Some(place) = self.places.get_mut(*place).and_then(Option::as_mut) {
                    place.images.retain(|known| *known != number);
                }
            }
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
        self.agents(name, |held| !held.is(image))
    }

    /// How the name of an image stands on all agents.
    pub(crate) fn standing(&self, image: &Sought<'_>) -> Standing {
        Standing {
            present: self.present(image.name, &image.identity),
            stale: self.agents(image.name, |held| !image.is_variant(held)),
        }
    }

    /// The presence of this image on one agent that has reported.
    pub(crate) fn on(&self, agent: usize, image: &Sought<'_>) -> Presence {
        let mut presence = Presence::Absent;
        for place in self.named(image.name).filter(|place| place.agents.contains(agent)) {
            if place.held.is(&image.identity) {
                return Presence::Present;
            }
            if !image.is_variant(&place.held) {
                presence = Presence::Stale;
            }
        }
        presence
    }
}

/// How the name of an image stands, for each agent.
pub(crate) struct Standing {
    present: Bits,
    stale: Bits,
}

impl Standing {
    /// The presence of the image on an agent that has reported.
    pub(crate) fn on(&self, agent: usize) -> Presence {
        if self.present.contains(agent) {
            Presence::Present
        } else if self.stale.contains(agent) {
            Presence::Stale
        } else {
            Presence::Absent
        }
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
    fn an_image_is_present_however_its_registry_was_stored() {
        let mut holdings = Holdings::default();
        holdings.report(0, vec![held("new", "docker.io/library/alpine:3"), held("a", "cr.io/a:1")]);
        for (name, config) in [
            ("docker.io/library/alpine:3", "new"),
            ("index.docker.io/library/alpine:3", "new"),
            ("registry-1.docker.io/library/alpine:3", "new"),
            ("CR.io/a:1", "a"),
        ] {
            assert_eq!(on(&holdings, 0, name, config), Presence::Present, "{name}");
            assert_eq!(on(&holdings, 0, name, "other"), Presence::Stale, "{name}");
            let number = holdings.number(name, &Digests::new(config).identity());
            assert!(holdings.holders(number).unwrap().contains(0), "{name}");
            holdings.report(0, Vec::new());
            assert!(!holdings.holders(number).unwrap().contains(0), "{name}");
            holdings.report(0, vec![held("new", "docker.io/library/alpine:3"), held("a", "cr.io/a:1")]);
            assert!(holdings.holders(number).unwrap().contains(0), "{name}");
            holdings.forget(number);
        }
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
