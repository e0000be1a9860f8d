//! Seed first: one agent of a site fetches an image from the registry, and the others take it from that agent.
//!
//! [`way`] decides and is pure; [`Seeds`] remembers which agent fetches what.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::digest::Digest;
use crate::base::loopback;

/// The label that says which site an agent belongs to.
pub(in crate::transfer) const SITE: &str = "site";
/// Most peers named to an agent that may take an image from them. Each peer that does not answer costs some seconds.
const MOST_PEERS: usize = 4;

/// An agent from which others may take an image, now or once it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) struct Holder {
    /// Its id.
    pub(crate) agent: String,
    /// Whether the agent that asks can reach it.
    pub(crate) is_near: bool,
    /// How many agents are taking something from it now.
    pub(crate) guests: usize,
}

/// How an agent gets an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) enum Way {
    /// From these agents in this order, and from the registry if none of them has the image after all.
    Fetch { from: Vec<String> },
    /// From the registry, while the others wait for this agent.
    Seed,
    /// Not yet: the agent `seed` is fetching the image.
    Wait { seed: String },
}

/// Decides how an agent gets an image it lacks: `holders` have it, and `seed` is fetching it. No agent waits for one
/// that it can't reach or that does not hand out its images.
pub(in crate::transfer) fn way(
    agent: &str,
    hands_out: bool,
    holders: Vec<Holder>,
    seed: Option<&Holder>,
) -> Way {
    let mut near: Vec<Holder> =
        holders.into_iter().filter(|holder| holder.is_near && holder.agent != agent).collect();
    if !near.is_empty() {
        near.sort_by(|a, b| (a.guests, &a.agent).cmp(&(b.guests, &b.agent)));
        return Way::Fetch { from: near.into_iter().take(MOST_PEERS).map(|holder| holder.agent).collect() };
    }
    match seed {
        Some(seed) if seed.agent == agent => Way::Seed,
        Some(seed) if seed.is_near => Way::Wait { seed: seed.agent.clone() },
        None if hands_out => Way::Seed,
        Some(_) | None => Way::Fetch { from: Vec::new() },
    }
}

/// Whether an agent can reach a peer's address. `is_here` says that the agent is on the manager's own machine:
/// loopback addresses count only for agents there.
pub(in crate::transfer) fn gets_to(is_here: bool, url: Option<&Url>) -> bool {
    is_here || url.is_none_or(|url| !loopback::is_url(url))
}

/// Which agent fetches which image for which site. Clones share this.
#[derive(Clone, Default)]
pub(in crate::transfer) struct Seeds(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    flights: HashMap<(String, Digest), Flight>,
    begun: u64,
}

#[derive(Clone)]
struct Flight {
    id: u64,
    /// How many tasks have this agent fetch the image; they do so one after another.
    parts: usize,
    /// The number of the part that was begun last.
    number: u64,
    seed: String,
    url: Option<Url>,
    over: CancellationToken,
}

/// A task's part in a seed's fetch. When it is dropped, those who wait for it decide anew.
pub(in crate::transfer) struct Part {
    seeds: Seeds,
    key: (String, Digest),
    flight: u64,
    number: u64,
}

/// The agent that is already fetching an image.
pub(in crate::transfer) struct Busy {
    pub(crate) agent: String,
    pub(crate) url: Option<Url>,
    /// Cancelled when the agent has the image, or has given up.
    pub(crate) over: CancellationToken,
}

impl Seeds {
    /// Returns the agent that is fetching this image for this site.
    pub(in crate::transfer) fn busy(&self, site: &str, image: &Digest) -> Option<Busy> {
        let state = self.0.lock();
        let flight = state.flights.get(&(site.to_owned(), image.clone()))?;
        Some(Busy { agent: flight.seed.clone(), url: flight.url.clone(), over: flight.over.clone() })
    }

    /// Makes this agent the seed, unless another agent is; in that case returns the other one.
    ///
    /// An agent that was the seed before and was away for a moment resumes its part.
    pub(in crate::transfer) fn begin(
        &self,
        site: &str,
        image: &Digest,
        agent: &str,
        url: Option<Url>,
    ) -> Result<Part, Busy> {
        let key = (site.to_owned(), image.clone());
        let mut state = self.0.lock();
        state.begun += 1;
        let number = state.begun;
        let flight = match state.flights.get_mut(&key) {
            Some(flight) if flight.seed == agent => {
                flight.number = number;
                flight.parts += 1;
                flight.id
            }
            Some(flight) => {
                let Flight { seed, url, over, .. } = flight.clone();
                return Err(Busy { agent: seed, url, over });
            }
            None => {
                let over = CancellationToken::new();
                let flight = Flight { id: number, parts: 1, number, seed: agent.into(), url, over };
                state.flights.insert(key.clone(), flight);
                number
            }
        };
        Ok(Part { seeds: self.clone(), key, flight, number })
    }
}

impl Part {
    /// Whether this is the latest part of its fetch.
    pub(in crate::transfer) fn is_current(&self) -> bool {
        let state = self.seeds.0.lock();
        state.flights.get(&self.key).is_some_and(|flight| flight.number == self.number)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut state = self.seeds.0.lock();
        let Some(flight) = state.flights.get_mut(&self.key).filter(|flight| flight.id == self.flight) else {
            return;
        };
        flight.parts -= 1;
        // Even if another task continues it: the image may be there by now.
        std::mem::take(&mut flight.over).cancel();
        if flight.parts == 0 {
            state.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Holder, MOST_PEERS, Seeds, Way, gets_to, way};
    use crate::base::digest::Digest;

    fn holder(agent: &str, is_near: bool, guests: usize) -> Holder {
        Holder { agent: agent.into(), is_near, guests }
    }

    fn fetch(from: &[&str]) -> Way {
        Way::Fetch { from: from.iter().map(|&agent| agent.into()).collect() }
    }

    #[test]
    fn the_first_is_the_seed_and_the_others_wait_for_it_and_then_take_it_from_those_that_have_it() {
        assert_eq!(way("a", true, vec![], None), Way::Seed);
        let seed = holder("a", true, 0);
        assert_eq!(way("b", true, vec![], Some(&seed)), Way::Wait { seed: "a".into() });
        assert_eq!(way("a", true, vec![], Some(&seed)), Way::Seed, "it was away and is back");
        assert_eq!(way("b", true, vec![holder("a", true, 0)], None), fetch(&["a"]));
        assert_eq!(way("c", true, vec![holder("a", true, 0)], Some(&holder("b", true, 0))), fetch(&["a"]));
    }

    #[test]
    fn those_who_are_asked_least_are_asked_first_and_never_too_many() {
        let busy =
            vec![holder("a", true, 3), holder("c", true, 0), holder("b", true, 0), holder("me", true, 0)];
        assert_eq!(way("me", true, busy, None), fetch(&["b", "c", "a"]));
        let many = (0..10).map(|number| holder(&format!("g{number}"), true, 0)).collect();
        let Way::Fetch { from } = way("me", true, many, None) else { panic!("it waits") };
        assert_eq!(from.len(), MOST_PEERS);
    }

    #[test]
    fn nobody_waits_for_one_that_would_be_of_no_use() {
        let far = holder("a", false, 0);
        assert_eq!(way("b", true, vec![], Some(&far)), fetch(&[]), "it can't be reached");
        assert_eq!(way("b", true, vec![far], None), Way::Seed);
        assert_eq!(way("b", false, vec![], None), fetch(&[]), "who hands out nothing is no seed");
        assert_eq!(way("b", false, vec![], Some(&holder("a", true, 0))), Way::Wait { seed: "a".into() });
    }

    #[test]
    fn an_address_of_one_machine_is_for_agents_on_that_machine() {
        let url = |text| Url::parse(text).unwrap();
        assert!(gets_to(true, Some(&url("http://127.0.0.1:7000"))));
        assert!(!gets_to(false, Some(&url("http://127.0.0.1:7000"))));
        assert!(gets_to(false, Some(&url("http://10.0.0.5:7000"))));
        assert!(gets_to(false, None), "the manager's own");
    }

    #[test]
    fn a_part_ends_with_whoever_plays_it_and_wakes_those_who_wait() {
        let (seeds, image) = (Seeds::default(), Digest::sha256_of(b"x"));
        let first = seeds.begin("lab", &image, "a", None).unwrap_or_else(|_| panic!("nobody else"));
        let Err(busy) = seeds.begin("lab", &image, "b", None) else { panic!("two seeds") };
        assert_eq!(busy.agent, "a");
        assert!(seeds.begin("other", &image, "b", None).is_ok(), "each site has its own");
        // The same agent resumes after a moment away, and the end of its earlier part does not end the new one.
        let again = seeds.begin("lab", &image, "a", None).unwrap_or_else(|_| panic!("its own part"));
        assert!(!first.is_current() && again.is_current());
        drop(first);
        assert!(busy.over.is_cancelled(), "whoever waits looks anew");
        let busy = seeds.busy("lab", &image).expect("the part that goes on");
        // Another task wants the image on the same agent and is cancelled: that does not end the first task's part.
        drop(seeds.begin("lab", &image, "a", None));
        let still = seeds.busy("lab", &image).expect("the part that goes on");
        assert!(busy.over.is_cancelled() && !still.over.is_cancelled());
        drop(again);
        assert!(still.over.is_cancelled());
        assert!(seeds.busy("lab", &image).is_none());
        assert!(seeds.begin("lab", &image, "b", None).is_ok(), "another is the seed");
    }
}
