//! Who wants which images on agents: preloads, rules, and people by their pins. Looked up once for many agents.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::base::reference::as_told;
use crate::catalog::image::{Image, ImageRecord};
use crate::engine::image::Held;
use crate::fleet::agent::Agent;
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::fleet::expression::Expression;
use crate::tasks::queue::WeakQueue;
use crate::transfer::pins::Pin;

/// What somebody wants on agents, again and again.
pub(crate) struct Claim {
    /// Who: `rule standard`.
    pub(crate) by: String,
    /// The expression for the agents.
    pub(crate) target_agents: String,
    /// Whether it is about an image.
    pub(crate) wants: Box<dyn Fn(&ImageRecord) -> bool + Send + Sync>,
}

/// Those who want images on agents, again and again.
pub(crate) trait Claims: Send + Sync {
    /// All that they want.
    fn all(&self) -> Vec<Claim>;
}

/// Those who are asked what they want.
pub(in crate::transfer) struct Wants {
    /// Those who want images again and again.
    pub(crate) claims: Arc<dyn Claims>,
    /// The tasks, of which the preloads want theirs.
    pub(crate) queue: WeakQueue,
}

/// What is wanted on some agents.
pub(in crate::transfer) struct Demand {
    /// The agents, by their place in the sets below.
    places: HashMap<String, usize>,
    /// The images that preloads load, by the name that engines tell.
    loading: HashMap<String, Bits>,
    /// The images that people pinned, by the same.
    pinned: HashMap<String, Bits>,
    /// `None` while nobody knows who wants something.
    claims: Option<Vec<(Claim, Bits)>>,
    /// Which of the claims are about images of a name.
    by_name: HashMap<String, Vec<usize>>,
}

impl Demand {
    /// Looks up what is wanted on these agents.
    pub(in crate::transfer) async fn on(agents: &[Agent], pins: &[Arc<Pin>], wants: Option<&Wants>) -> Self {
        let ids = agents.iter().map(|agent| agent.record.id.clone());
        let places: HashMap<String, usize> = ids.zip(0..).collect();
        let inventory = Inventory::new(agents.iter().map(Agent::view));
        let mut sets = Sets { places: &places, inventory: &inventory, known: HashMap::new() };
        let mut pinned: HashMap<String, Bits> = HashMap::new();
        for pin in pins {
            let agents = sets.of(&pin.target_agents).await;
            pinned.entry(as_told(&pin.image).into()).or_default().union_with(&agents);
        }
        let mut claims = None;
        if let Some(wants) = wants {
            let claims: &mut Vec<_> = claims.insert(Vec::new());
            for claim in wants.claims.all() {
                let agents = sets.of(&claim.target_agents).await;
                claims.push((claim, agents));
            }
        }
        let mut loading: HashMap<String, Bits> = HashMap::new();
        for (name, agents) in wants.map(|wants| wants.queue.loading_on(&places)).unwrap_or_default() {
            loading.entry(as_told(&name).into()).or_default().union_with(&agents);
        }
        Self { places, loading, pinned, claims, by_name: HashMap::new() }
    }

    /// Whether a person pinned an image on one of the agents.
    pub(in crate::transfer) fn is_pinned(&self, agent: &str, held: &Held) -> bool {
        let place = self.places.get(agent);
        place.is_some_and(|place| is_in(&self.pinned, held, *place))
    }

    /// Who wants an image on one of the agents. `variants` are the catalog's images of a name.
    pub(in crate::transfer) fn wanted_by(
        &mut self,
        agent: &str,
        held: &Held,
        variants: impl Fn(&str) -> Vec<Arc<Image>>,
    ) -> Option<String> {
        let (Some(claims), Some(place)) = (&self.claims, self.places.get(agent)) else {
            return Some("the server, which is starting,".into());
        };
        if is_in(&self.loading, held, *place) {
            return Some("a preload".into());
        }
        for name in &held.names {
            if !self.by_name.contains_key(name) {
                let images = variants(name);
                let is_about = |claim: &Claim| images.iter().any(|image| (claim.wants)(&image.record));
                let about = claims.iter().enumerate().filter(|(_, (claim, _))| is_about(claim));
                self.by_name.insert(name.clone(), about.map(|(number, _)| number).collect());
            }
            let about = self.by_name.get(name).into_iter().flatten();
            let mut about = about.filter_map(|number| claims.get(*number));
            if let Some((claim, _)) = about.find(|(_, agents)| agents.contains(*place)) {
                return Some(claim.by.clone());
            }
        }
        None
    }
}

/// Whether an agent is in the set of one of an image's names.
fn is_in(by_name: &HashMap<String, Bits>, held: &Held, place: usize) -> bool {
    held.names.iter().any(|name| by_name.get(name).is_some_and(|agents| agents.contains(place)))
}

/// The agents that expressions name, each evaluated once.
struct Sets<'a> {
    places: &'a HashMap<String, usize>,
    inventory: &'a Inventory<'a>,
    known: HashMap<String, Bits>,
}

impl Sets<'_> {
    async fn of(&mut self, expression: &str) -> Bits {
        if let Some(known) = self.known.get(expression) {
            return known.clone();
        }
        // Among thousands of agents each takes a while.
        tokio::task::yield_now().await;
        let mut agents = Bits::default();
        match Expression::parse(expression) {
            Ok(parsed) => {
                let names = evaluate_known(&parsed, self.inventory).names;
                names
                    .iter()
                    .filter_map(|name| self.places.get(*name))
                    .for_each(|place| agents.insert(*place));
            }
            // What can't be read any more keeps its images everywhere.
            Err(_) => self.places.values().for_each(|place| agents.insert(*place)),
        }
        self.known.insert(expression.to_owned(), agents.clone());
        agents
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::Timestamp;

    use super::{Claim, Claims, Demand, Wants};
    use crate::catalog::image::fake;
    use crate::engine::fake::held;
    use crate::fleet::agent::Agent;
    use crate::tasks::queue::WeakQueue;
    use crate::transfer::pins::Pin;

    /// A rule for an image on agents.
    struct Rule(&'static str);

    impl Claims for Rule {
        fn all(&self) -> Vec<Claim> {
            let (by, target_agents) = ("rule a".into(), self.0.into());
            vec![Claim { by, target_agents, wants: Box::new(|_| true) }]
        }
    }

    fn pin(image: &str, target_agents: &str) -> Arc<Pin> {
        let (image, target_agents) = (image.to_owned(), target_agents.to_owned());
        let (created_at, created_by) = (Timestamp::UNIX_EPOCH, String::new());
        Arc::new(Pin { image, target_agents, created_at, created_by })
    }

    async fn demand(expression: &'static str) -> Demand {
        let agents = ["gpu01", "gpu02"].map(Agent::fake);
        let pins = [
            pin("cr.io/a:1", "gpu02"),
            pin("cr.io/b:1", "*"),
            pin("cr.io/c:1", "gpu[2-1]"),
            pin("index.docker.io/library/e:1", "*"),
        ];
        let wants = Wants { claims: Arc::new(Rule(expression)), queue: WeakQueue::default() };
        Demand::on(&agents, &pins, Some(&wants)).await
    }

    #[tokio::test]
    async fn a_pin_counts_on_its_agents_and_everywhere_if_it_can_not_be_read() {
        let demand = demand("*").await;
        let on = |image: &str| ["gpu01", "gpu02"].map(|agent| demand.is_pinned(agent, &held(image)));
        assert_eq!(on("cr.io/a:1"), [false, true]);
        assert_eq!(on("cr.io/b:1"), [true, true]);
        assert_eq!(on("cr.io/c:1"), [true, true]);
        assert_eq!(on("cr.io/d:1"), [false, false]);
        assert_eq!(on("docker.io/library/e:1"), [true, true], "as engines tell what was stored otherwise");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_agents() {
        let (mut demand, asked) = (demand("gpu02").await, AtomicUsize::new(0));
        let mut wanted_by = |agent: &str, images: Vec<_>| {
            demand.wanted_by(agent, &held("cr.lab/a:1"), |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                images.clone()
            })
        };
        let images = vec![fake("a:1", "x86_64")];
        assert_eq!(wanted_by("gpu01", images.clone()), None);
        assert_eq!(wanted_by("gpu02", images.clone()).as_deref(), Some("rule a"));
        assert_eq!(wanted_by("gpu02", images.clone()).as_deref(), Some("rule a"));
        assert!(wanted_by("gpu03", images).is_some(), "nobody asked what is wanted there");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
