//! Which missing images begin now, and which wait and why: a pure function.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::catalog::image::Image;
use crate::rules::diff::{Diff, Lacking};

/// How many waiting images a rule's status names; any further ones are only counted.
pub(crate) const MAX_NAMED: usize = 100;
/// For how many pairs of image and agent that don't seem to fit it is checked how many bytes they share with what the
/// agent holds.
const MAX_UNFIT: usize = 2_000;

/// A rule as a round sees it.
pub(crate) struct RuleNeeds<'a> {
    /// What its agents lack.
    pub(crate) diff: &'a Diff,
    /// Whether the rule may begin something now.
    pub(crate) is_open: bool,
}

/// The limits of a round.
pub(crate) struct RoundLimits<'a> {
    /// How many tasks may be started, one for each image.
    pub(crate) tasks: usize,
    /// For each digest, the agents on which a task already works on it.
    pub(crate) busy: &'a HashMap<Digest, Bits>,
    /// For each digest, the agents on which it failed lately.
    pub(crate) held_back: &'a HashMap<Digest, Bits>,
    /// The free room of the agents, in bytes, less what is on its way; agents whose room is unknown are missing.
    pub(crate) free: HashMap<usize, u64>,
    /// Returns the room that an image takes on an agent, in bytes.
    pub(crate) need: &'a dyn Fn(usize, &Image) -> u64,
}

/// A task to start.
#[derive(Debug)]
pub(crate) struct PlannedTask {
    /// The index of its rule.
    pub(crate) rule: usize,
    /// Its images, all with one name.
    pub(crate) images: Vec<Arc<Image>>,
    /// The numbers of its agents.
    pub(crate) agents: Vec<usize>,
}

/// The state of a rule after a round, counted in pairs of image and agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pairs that begin now.
    pub(crate) begun: usize,
    /// Pairs that are being loaded by any task.
    pub(crate) loading: usize,
    /// Pairs that wait for the window, or for other tasks to end.
    pub(crate) due: usize,
    /// Pairs that failed lately.
    pub(crate) held_back: usize,
    /// Pairs that do not fit.
    pub(crate) unfit: usize,
}

/// An image that waits on one agent.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The agent's number.
    pub(crate) agent: usize,
    /// The image.
    pub(crate) image: Arc<Image>,
    /// Why it waits.
    pub(crate) why: Why,
}

/// Why an image waits, if the reason concerns this image on this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It failed lately.
    HeldBack,
    /// The image takes more room than is left; both in bytes.
    Unfit {
        /// The room the image takes.
        need: u64,
        /// The room that is left.
        free: u64,
    },
}

/// The result of a round.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// The tasks to start.
    pub(crate) orders: Vec<PlannedTask>,
    /// The tally of each rule.
    pub(crate) tallies: Vec<Tally>,
    /// The first waiting images of each rule.
    pub(crate) waiting: Vec<Vec<Waiting>>,
    /// The first pairs that do not fit according to `need`, to be checked more closely.
    pub(crate) unfit: Vec<(usize, Arc<Image>)>,
}

/// Shares out what may begin: one image of each rule in turn, so that no rule waits for one with many images. An
/// image that two rules want on one agent is begun for the first of them.
pub(crate) fn share(rules: &[RuleNeeds], mut limits: RoundLimits) -> Shares {
    let mut shares = Shares {
        orders: Vec::new(),
        tallies: rules.iter().map(|_| Tally::default()).collect(),
        waiting: rules.iter().map(|_| Vec::new()).collect(),
        unfit: Vec::new(),
    };
    let mut claimed: HashMap<Digest, Bits> = HashMap::new();
    let most = rules.iter().map(|needs| needs.diff.lacking.len()).max().unwrap_or(0);
    for turn in 0..most {
        for (rule, needs) in rules.iter().enumerate() {
            if let Some(lacking) = needs.diff.lacking.get(turn) {
                let may_begin = needs.is_open && shares.orders.len() < limits.tasks;
                shares.give(rule, lacking, may_begin, &mut limits, &mut claimed);
            }
        }
    }
    shares
}

impl Shares {
    fn give(
        &mut self,
        rule: usize,
        lacking: &Lacking,
        may_begin: bool,
        limits: &mut RoundLimits,
        claimed: &mut HashMap<Digest, Bits>,
    ) {
        let (Some(tally), Some(waiting)) = (self.tallies.get_mut(rule), self.waiting.get_mut(rule)) else {
            return;
        };
        let mut wait = |agent, image: &Arc<Image>, why| {
            if waiting.len() < MAX_NAMED {
                waiting.push(Waiting { agent, image: Arc::clone(image), why });
            }
        };
        let mut agents = Vec::new();
        for (image, lacking) in lacking.parts() {
            let digest = &image.record.digest;
            let mut left = lacking.clone();
            let mut take = |others: Option<&Bits>| {
                let Some(others) = others else { return Bits::default() };
                let mut taken = left.clone();
                taken.intersect_with(others);
                left.subtract(&taken);
                taken
            };
            tally.loading += take(limits.busy.get(digest)).count() + take(claimed.get(digest)).count();
            for agent in take(limits.held_back.get(digest)).iter() {
                tally.held_back += 1;
                wait(agent, image, Why::HeldBack);
            }
            if !may_begin {
                tally.due += left.count();
                continue;
            }
            for agent in left.iter() {
                let need = (limits.need)(agent, image);
                match limits.free.get_mut(&agent) {
                    Some(free) if *free < need => {
                        tally.unfit += 1;
                        wait(agent, image, Why::Unfit { need, free: *free });
                        if self.unfit.len() < MAX_UNFIT {
                            self.unfit.push((agent, Arc::clone(image)));
                        }
                        continue;
                    }
                    Some(free) => *free -= need,
                    None => {}
                }
                tally.begun += 1;
                claimed.entry(digest.clone()).or_default().insert(agent);
                agents.push(agent);
            }
        }
        if !agents.is_empty() {
            self.orders.push(PlannedTask { rule, images: lacking.images.clone(), agents });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::{RoundLimits, RuleNeeds, Shares, Tally, Why, share};
    use crate::base::bits::Bits;
    use crate::base::digest::Digest;
    use crate::catalog::image::Image;
    use crate::rules::diff::{Diff, Lacking};
    use crate::rules::tests::{bits, image};

    struct Limits {
        tasks: usize,
        busy: HashMap<Digest, Bits>,
        held_back: HashMap<Digest, Bits>,
        free: HashMap<usize, u64>,
    }

    fn limits() -> Limits {
        Limits { tasks: 10, busy: HashMap::new(), held_back: HashMap::new(), free: HashMap::new() }
    }

    fn lacks(lacking: &[(&Arc<Image>, &[usize])]) -> Diff {
        let one = |(image, agents): &(&Arc<Image>, &[usize])| Lacking {
            images: vec![Arc::clone(image)],
            agents: vec![bits(agents)],
        };
        Diff { lacking: lacking.iter().map(one).collect(), ..Diff::default() }
    }

    /// Shares out among these rules, each of which is open or closed.
    fn shared(looks: &[(&Diff, bool)], limits: &Limits) -> Shares {
        let rules: Vec<_> =
            looks.iter().map(|(diff, is_open)| RuleNeeds { diff, is_open: *is_open }).collect();
        let limits = RoundLimits {
            tasks: limits.tasks,
            busy: &limits.busy,
            held_back: &limits.held_back,
            free: limits.free.clone(),
            need: &|_, image| image.record.size_bytes,
        };
        share(&rules, limits)
    }

    fn orders(shares: &Shares) -> Vec<(usize, &str, &[usize])> {
        shares
            .orders
            .iter()
            .map(|o| (o.rule, o.images[0].record.name.as_str(), o.agents.as_slice()))
            .collect()
    }

    #[test]
    fn an_image_is_one_task_for_all_its_agents() {
        let (a, b) = (image("a:1", "x86_64"), image("b:1", "x86_64"));
        let diff = lacks(&[(&a, &[0, 1, 2]), (&b, &[1])]);
        let shares = shared(&[(&diff, true)], &limits());
        assert_eq!(orders(&shares), [(0, "a", [0, 1, 2].as_slice()), (0, "b", &[1])]);
        assert_eq!(shares.tallies, [Tally { begun: 4, ..Tally::default() }]);
    }

    #[test]
    fn what_two_rules_want_is_begun_once() {
        let a = image("a:1", "x86_64");
        let (first, second) = (lacks(&[(&a, &[0, 1])]), lacks(&[(&a, &[1, 2])]));
        let shares = shared(&[(&first, true), (&second, true)], &limits());
        assert_eq!(orders(&shares), [(0, "a", [0, 1].as_slice()), (1, "a", &[2])]);
        assert_eq!(shares.tallies[1], Tally { begun: 1, loading: 1, ..Tally::default() });
        let closed = shared(&[(&first, false), (&second, true)], &limits());
        assert_eq!(
            orders(&closed),
            [(1, "a", [1, 2].as_slice())],
            "one whose window is closed claims nothing"
        );
        assert_eq!(closed.tallies[0], Tally { due: 2, ..Tally::default() });
    }

    #[test]
    fn what_is_on_its_way_or_failed_lately_is_left() {
        let a = image("a:1", "x86_64");
        let diff = lacks(&[(&a, &[0, 1, 2, 3])]);
        let digest = || a.record.digest.clone();
        let limits = Limits {
            busy: [(digest(), bits(&[0]))].into(),
            held_back: [(digest(), bits(&[0, 2]))].into(),
            ..limits()
        };
        let shares = shared(&[(&diff, true)], &limits);
        assert_eq!(orders(&shares), [(0, "a", [1, 3].as_slice())]);
        assert_eq!(shares.tallies, [Tally { begun: 2, loading: 1, held_back: 1, ..Tally::default() }]);
        let waiting: Vec<_> = shares.waiting[0].iter().map(|w| (w.agent, w.why)).collect();
        assert_eq!(waiting, [(2, Why::HeldBack)]);
    }

    #[test]
    fn what_does_not_fit_is_left_also_beside_what_just_began() {
        let (a, b) = (image("a:1", "x86_64"), image("b:1", "x86_64"));
        let diff = lacks(&[(&a, &[0, 1, 2]), (&b, &[0, 1, 2])]);
        let limits = Limits { free: [(0, 99), (1, 150)].into(), ..limits() };
        let shares = shared(&[(&diff, true)], &limits);
        assert_eq!(orders(&shares), [(0, "a", [1, 2].as_slice()), (0, "b", &[2])], "of 2 nothing is known");
        let waiting: Vec<_> = shares.waiting[0].iter().map(|w| (w.agent, w.why)).collect();
        let unfit = |free| Why::Unfit { need: 100, free };
        assert_eq!(waiting, [(0, unfit(99)), (0, unfit(99)), (1, unfit(50))]);
        assert_eq!((shares.tallies[0].unfit, shares.unfit.len()), (3, 3));
    }

    #[test]
    fn tasks_are_bounded_and_shared_between_rules() {
        let images: Vec<_> = (0..9).map(|n| image(&format!("a{n}:1"), "x86_64")).collect();
        let many: Vec<(&Arc<Image>, &[usize])> = images.iter().take(8).map(|i| (i, [0].as_slice())).collect();
        let (many, few) = (lacks(&many), lacks(&[(&images[8], &[0, 1])]));
        let shares = shared(&[(&many, true), (&few, true)], &Limits { tasks: 3, ..limits() });
        let of: Vec<_> = orders(&shares).iter().map(|(rule, name, _)| (*rule, (*name).to_owned())).collect();
        assert_eq!(of, [(0, "a0".into()), (1, "a8".into()), (0, "a1".into())]);
        assert_eq!(shares.tallies[0], Tally { begun: 2, due: 6, ..Tally::default() });
        let none = shared(&[(&many, true)], &Limits { tasks: 0, ..limits() });
        assert!(none.orders.is_empty() && none.tallies[0].due == 8);
    }

    #[test]
    fn the_architectures_of_a_name_are_one_task() {
        let images = vec![image("a:1", "aarch64"), image("a:1", "x86_64")];
        let lacking = Lacking { images, agents: vec![bits(&[5]), bits(&[0, 1])] };
        let diff = Diff { lacking: vec![lacking], ..Diff::default() };
        let shares = shared(&[(&diff, true)], &limits());
        assert_eq!(orders(&shares), [(0, "a", [5, 0, 1].as_slice())]);
    }

    #[test]
    fn what_waits_is_named_up_to_a_bound() {
        let a = image("a:1", "x86_64");
        let all: Vec<usize> = (0..500).collect();
        let diff = lacks(&[(&a, &all)]);
        let limits = Limits { held_back: [(a.record.digest.clone(), bits(&all))].into(), ..limits() };
        let shares = shared(&[(&diff, true)], &limits);
        assert_eq!((shares.tallies[0].held_back, shares.waiting[0].len()), (500, super::MAX_NAMED));
    }
}
