//! What may go from an agent to make room there: a function of what the agent has, who wants it, and how it was used.
//!
//! Nothing goes that a container uses, that somebody wants or pinned, or that came within the last hour.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catalog::image::Layer;
use crate::engine::image::Held;
use crate::fleet::usage::{ImageUse, Moment};

/// How long what came stays in any case: somebody is about to use it.
const FRESH: Duration = Duration::from_hours(1);

/// An image on an agent, with all that decides whether it may go.
#[derive(Debug, Clone)]
pub(crate) struct Resident {
    /// The image, as the agent last reported it.
    pub(crate) held: Arc<Held>,
    /// Its use.
    pub(crate) usage: ImageUse,
    /// Whether the catalog knows it: its content, or one of its names.
    pub(crate) is_known: bool,
    /// When it was made, if the catalog knows.
    pub(crate) made: Option<Timestamp>,
    /// Who wants it there: a rule, or a task that loads it.
    pub(crate) wanted_by: Option<String>,
    /// Whether a person pinned it there.
    pub(crate) is_pinned: bool,
    /// Its layers, from the base up; none if they are not known.
    pub(crate) layers: Arc<[Layer]>,
}

/// Why an image stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stay {
    /// A container was made from it and is there, running or not.
    InUse,
    /// That was so when its agent last told what its containers use.
    WasInUse,
    /// This rule or task wants it there.
    Wanted(String),
    /// A person pinned it.
    Pinned,
    /// It came, or was asked for, within the last hour.
    Fresh,
    /// Its agent is watched for less than an hour, so nobody knows whether it came within that.
    Unwatched,
    /// The server does not believe its clock, so nobody knows how old it is.
    Doubt,
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("a container uses it"),
            Self::WasInUse => f.write_str("a container used it when its agent last told"),
            Self::Wanted(by) => write!(f, "{by} wants it there"),
            Self::Pinned => f.write_str("it is pinned"),
            Self::Fresh => f.write_str("it came within the last hour"),
            Self::Unwatched => {
                f.write_str("its agent is watched for less than an hour, so it may have come a moment ago")
            }
            Self::Doubt => f.write_str("the server does not believe its clock"),
        }
    }
}

impl Resident {
    /// Why it stays, whoever wants its room; `None` if it may go.
    pub(crate) fn stay(&self, now: Moment) -> Option<Stay> {
        if self.usage.is_in_use {
            return Some(if self.usage.is_told { Stay::InUse } else { Stay::WasInUse });
        }
        if let Some(by) = &self.wanted_by {
            return Some(Stay::Wanted(by.clone()));
        }
        if self.is_pinned {
            return Some(Stay::Pinned);
        }
        // By both clocks: a clock that was set ahead by some hours must not take what came a moment ago.
        let is_fresh = |day: Option<Timestamp>, steady: Option<Instant>| {
            let hour = SignedDuration::try_from(FRESH).unwrap_or_default();
            day.is_some_and(|at| now.day.duration_since(at) < hour)
                || steady.is_some_and(|at| now.steady.saturating_duration_since(at) < FRESH)
        };
        let usage = &self.usage;
        if is_fresh(usage.came, usage.came_steady) {
            return Some(Stay::Fresh);
        }
        // Whatever was seen before, nobody knows what came while the agent was out of sight.
        is_fresh(usage.watched, usage.watched_steady).then_some(Stay::Unwatched)
    }

    fn repositories(&self) -> HashSet<&str> {
        let names = self.held.names.iter();
        names.map(|name| name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository)).collect()
    }
}

/// What is to go.
pub(crate) struct Terms<'a> {
    /// Whether an image is meant at all.
    pub(crate) takes: &'a (dyn Fn(&Resident) -> bool + Send + Sync),
    /// How many of each repository stay: those that were made last.
    pub(crate) keep_last: Option<usize>,
    /// How long no container may have been seen to use an image.
    pub(crate) unused_for: Option<SignedDuration>,
    /// How many bytes are to come free; `None` for all that may go.
    pub(crate) goal: Option<u64>,
}

/// What a rule asks of an image that it takes, looked at again when it goes: a task may wait for hours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleTerms {
    /// How long no container may have been seen to use it, in seconds.
    #[serde(default)]
    pub(crate) unused_for: Option<u32>,
    /// How many of each repository stay: those that were made last.
    #[serde(default)]
    pub(crate) keep_last: Option<u32>,
    /// It stays once so many bytes are free.
    #[serde(default)]
    pub(crate) until: Option<u64>,
    /// Whether it may be one that the catalog does not know.
    #[serde(default)]
    pub(crate) unknown_images: bool,
}

impl RuleTerms {
    /// How long no container may have been seen to use it.
    pub(crate) fn idle_time(&self) -> Option<SignedDuration> {
        self.unused_for.map(|seconds| SignedDuration::from_secs(i64::from(seconds)))
    }

    /// How many of each repository stay.
    pub(crate) fn kept(&self) -> Option<usize> {
        self.keep_last.and_then(|count| usize::try_from(count).ok())
    }

    /// Why one of the images on an agent stays by these terms, where so many bytes are free; `None` if it may go.
    pub(in crate::transfer) fn keep(
        &self,
        residents: &[Resident],
        one: &Resident,
        free_bytes: Option<u64>,
        now: Moment,
    ) -> Option<String> {
        if !one.is_known && !self.unknown_images {
            return Some("the catalog does not know it any more".into());
        }
        if self.idle_time().is_some_and(|least| !is_idle(&one.usage, least, now)) {
            let why = if one.usage.is_told {
                "it is not known to be unused for so long any more"
            } else {
                "its engine does not tell any more what containers use"
            };
            return Some(why.into());
        }
        let last = self.kept().map(|count| last_made(residents, count)).unwrap_or_default();
        let place = residents.iter().position(|resident| resident.held.digest == one.held.digest);
        if place.is_some_and(|place| last.contains(&place)) {
            return Some("it is now among the last of its repository there".into());
        }
        match (self.until, free_bytes) {
            (Some(until), Some(free)) if free >= until => Some(format!("{free} bytes are free by now")),
            (Some(_), None) => Some("its engine does not tell any more what is free".into()),
            _ => None,
        }
    }
}

/// Whether no container was seen to use an image for so long. An agent that does not tell what its containers use may use
/// anything.
fn is_idle(usage: &ImageUse, least: SignedDuration, now: Moment) -> bool {
    usage.is_told && now.day.duration_since(usage.idle_since) >= least
}

/// An image that goes.
#[derive(Debug, Clone)]
pub(crate) struct Going {
    /// The image.
    pub(crate) resident: Resident,
    /// How many bytes come free with it, at most.
    pub(crate) frees: u64,
}

/// The images that go by these terms, those that were unused longest first. If only so many bytes are to come free, none
/// of them could be spared; if they don't suffice, all that may go.
pub(crate) fn going(residents: &[Resident], terms: &Terms, now: Moment) -> Vec<Going> {
    let kept = terms.keep_last.map(|count| last_made(residents, count)).unwrap_or_default();
    let is_idle = |usage: &ImageUse| terms.unused_for.is_none_or(|least| is_idle(usage, least, now));
    let mut chosen: Vec<usize> = Vec::new();
    for (place, resident) in residents.iter().enumerate() {
        let is_meant = (terms.takes)(resident) && !kept.contains(&place) && is_idle(&resident.usage);
        if is_meant && resident.stay(now).is_none() {
            chosen.push(place);
        }
    }
    let age = |place: &usize| {
        residents.get(*place).map(|resident| (resident.usage.idle_since, &resident.held.digest))
    };
    chosen.sort_by(|a, b| age(a).cmp(&age(b)));
    if let Some(goal) = terms.goal {
        chosen = no_more_than(residents, chosen, goal);
    }
    let bytes = frees(residents, &chosen);
    let pairs = chosen.into_iter().zip(bytes);
    pairs
        .filter_map(|(place, frees)| Some(Going { resident: residents.get(place)?.clone(), frees }))
        .collect()
}

/// The first of these images that suffice, without those of them that can be spared; those used last are spared first.
fn no_more_than(residents: &[Resident], mut chosen: Vec<usize>, goal: u64) -> Vec<usize> {
    let sum = |chosen: &[usize]| frees(residents, chosen).into_iter().fold(0, u64::saturating_add);
    let mut enough = 0_u64;
    let is_needed = |bytes: &u64| {
        let is_needed = enough < goal;
        enough = enough.saturating_add(*bytes);
        is_needed
    };
    let needed = frees(residents, &chosen).into_iter().take_while(is_needed).count();
    chosen.truncate(needed);
    if sum(&chosen) < goal {
        return chosen;
    }
    for place in (0..chosen.len()).rev() {
        let mut fewer = chosen.clone();
        fewer.remove(place);
        if sum(&fewer) >= goal {
            chosen = fewer;
        }
    }
    chosen
}

/// The places of those that were made last, so many of each repository.
fn last_made(residents: &[Resident], count: usize) -> HashSet<usize> {
    let mut by_repository: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, resident) in residents.iter().enumerate() {
        for repository in resident.repositories() {
            by_repository.entry(repository).or_default().push(place);
        }
    }
    let made = |place: &usize| {
        let resident = residents.get(*place)?;
        // What the catalog does not know is as old as its stay.
        let known = (resident.made.is_some(), resident.made.or(resident.usage.came));
        Some((known, &resident.held.names))
    };
    let last = by_repository.into_values().flat_map(|mut places| {
        places.sort_by(|a, b| made(b).cmp(&made(a)));
        places.truncate(count);
        places
    });
    last.collect()
}

/// How many bytes come free with each of these images, if they go one after the other: a layer goes with the last image
/// that has it.
pub(in crate::transfer) fn frees(residents: &[Resident], chosen: &[usize]) -> Vec<u64> {
    let mut holders: HashMap<&[u8; 32], usize> = HashMap::new();
    for layer in residents.iter().flat_map(|resident| resident.layers.iter()) {
        *holders.entry(&layer.diff_id).or_default() += 1;
    }
    let places = chosen.iter().filter_map(|place| residents.get(*place));
    let bytes = places.map(|resident| {
        let (mut own, mut all) = (0_u64, 0_u64);
        for layer in resident.layers.iter() {
            all = all.saturating_add(layer.size);
            let left = holders.entry(&layer.diff_id).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                own = own.saturating_add(layer.size);
            }
        }
        let size = resident.held.size_bytes;
        if all == 0 {
            return size;
        }
        u64::try_from(u128::from(size) * u128::from(own) / u128::from(all)).unwrap_or(size)
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{Resident, RuleTerms, Stay, Terms, going};
    use crate::catalog::image::Layer;
    use crate::engine::fake::held;
    use crate::engine::image::Held;
    use crate::fleet::usage::{ImageUse, Moment};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Moment {
        Moment { day: Timestamp::UNIX_EPOCH + DAY * 1000, steady: Instant::now() + Duration::from_hours(2) }
    }

    /// An image that was idle for so many days, with layers of ten bytes each.
    fn idle(name: &str, days: i32, layers: &[u8]) -> Resident {
        let layer = |id: &u8| Layer { diff_id: [*id; 32], size: 10 };
        let size_bytes = 10 * u64::try_from(layers.len()).unwrap();
        Resident {
            held: Arc::new(Held { size_bytes, ..held(name) }),
            usage: ImageUse {
                is_in_use: false,
                is_told: true,
                last_used: None,
                idle_since: now().day - DAY * days,
                came: None,
                came_steady: None,
                watched: Some(now().day - DAY * 100),
                watched_steady: None,
            },
            is_known: true,
            made: Some(Timestamp::UNIX_EPOCH + DAY * (900 - days)),
            wanted_by: None,
            is_pinned: false,
            layers: layers.iter().map(layer).collect(),
        }
    }

    const ALL: Terms<'static> = Terms { takes: &|_| true, keep_last: None, unused_for: None, goal: None };

    fn gone(residents: &[Resident], terms: &Terms) -> Vec<(String, u64)> {
        let gone = going(residents, terms, now());
        gone.into_iter().map(|going| (going.resident.held.names.concat(), going.frees)).collect()
    }

    fn names(residents: &[Resident], terms: &Terms) -> Vec<String> {
        gone(residents, terms).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn nothing_goes_that_is_used_wanted_pinned_or_fresh() {
        let fresh = now().day - SignedDuration::from_mins(59);
        let old = now().day - SignedDuration::from_mins(61);
        let change = |change: fn(&mut Resident)| {
            let mut resident = idle("cr.io/a:1", 9, &[1]);
            change(&mut resident);
            resident.stay(now())
        };
        assert_eq!(change(|_| ()), None);
        assert_eq!(change(|r| r.usage.is_in_use = true), Some(Stay::InUse));
        assert_eq!(change(|r| r.wanted_by = Some("rule a".into())), Some(Stay::Wanted("rule a".into())));
        assert_eq!(change(|r| r.is_pinned = true), Some(Stay::Pinned));
        assert_eq!(
            change(|r| (r.usage.is_in_use, r.usage.is_told) = (true, false)),
            Some(Stay::WasInUse),
            "nobody knows whether it still is"
        );
        let seen = |mins| {
            let mut resident = idle("cr.io/a:1", 9, &[1]);
            resident.usage.watched = Some(now().day - SignedDuration::from_mins(mins));
            resident.stay(now())
        };
        assert_eq!(seen(59), Some(Stay::Unwatched), "it may have come just before its agent was first seen");
        assert_eq!(seen(61), None);
        let came = |day, steady| {
            let mut resident = idle("cr.io/a:1", 9, &[1]);
            (resident.usage.came, resident.usage.came_steady) = (Some(day), steady);
            resident.stay(now())
        };
        assert_eq!(came(fresh, None), Some(Stay::Fresh));
        assert_eq!(came(old, None), None);
        let a_moment_ago = now().steady.checked_sub(Duration::from_secs(5));
        assert_eq!(came(old, a_moment_ago), Some(Stay::Fresh), "the clock was set ahead");
        assert_eq!(came(now().day + DAY, None), Some(Stay::Fresh), "the clock was set back");
        let mut again = idle("cr.io/a:1", 9, &[1]);
        (again.usage.came, again.usage.watched) = (Some(old), Some(fresh));
        assert_eq!(
            again.stay(now()),
            Some(Stay::Unwatched),
            "it may have gone and come while its agent was away"
        );
    }

    #[test]
    fn what_was_unused_longest_goes_first_and_no_more_than_needed() {
        let all = [idle("a", 1, &[1]), idle("b", 9, &[2]), idle("c", 5, &[3, 4, 5]), idle("d", 7, &[6])];
        assert_eq!(names(&all, &ALL), ["b", "d", "c", "a"]);
        let goal = |goal| Terms { goal: Some(goal), ..ALL };
        assert_eq!(names(&all, &goal(0)), [""; 0]);
        assert_eq!(names(&all, &goal(10)), ["b"]);
        assert_eq!(names(&all, &goal(11)), ["b", "d"]);
        assert_eq!(names(&all, &goal(30)), ["c"], "with c, the others can be spared");
        assert_eq!(names(&all, &goal(40)), ["b", "c"], "and d was used later than b");
        assert_eq!(names(&all, &goal(99)), ["b", "d", "c", "a"], "all that may go does not suffice");
    }

    #[test]
    fn a_layer_comes_free_with_the_last_image_that_has_it() {
        let base = [idle("a", 9, &[1, 2]), idle("b", 8, &[1, 3]), idle("c", 7, &[1])];
        let of = |name: &str, bytes| (name.to_owned(), bytes);
        assert_eq!(gone(&base, &ALL), [of("a", 10), of("b", 10), of("c", 10)]);
        assert_eq!(gone(&base[..2], &ALL), [of("a", 10), of("b", 20)]);
        let mut unpacked = base[0].clone();
        unpacked.held = Arc::new(Held { size_bytes: 50, ..unpacked.held.as_ref().clone() });
        assert_eq!(gone(&[unpacked, base[2].clone()], &ALL)[0], of("a", 25), "half of what it takes there");
        let unknown = Resident { layers: [].into(), ..base[0].clone() };
        assert_eq!(gone(&[unknown], &ALL), [of("a", 20)]);
    }

    #[test]
    fn the_last_of_each_repository_stay_also_if_they_are_unused() {
        let all = [
            idle("cr.io/a:1", 9, &[1]),
            idle("cr.io/a:2", 8, &[2]),
            idle("cr.io/a:3", 7, &[3]),
            idle("cr.io/b:1", 9, &[4]),
        ];
        let last = |count| Terms { keep_last: Some(count), ..ALL };
        assert_eq!(names(&all, &last(1)), ["cr.io/a:1", "cr.io/a:2"]);
        assert_eq!(names(&all, &last(2)), ["cr.io/a:1"]);
        let terms = Terms { unused_for: Some(DAY * 8), ..last(1) };
        assert_eq!(names(&all, &terms), ["cr.io/a:1", "cr.io/a:2"]);
        let mut named = all.clone();
        let both = vec!["cr.io/a:1".to_owned(), "cr.io/c:1".to_owned()];
        named[0].held = Arc::new(Held { names: both, ..named[0].held.as_ref().clone() });
        assert_eq!(names(&named, &last(1)), ["cr.io/a:2"], "it is the last of the other repository");
    }

    #[test]
    fn only_what_is_known_to_be_unused_for_so_long_goes() {
        let mut all = [idle("a", 30, &[1]), idle("b", 29, &[2]), idle("c", 90, &[3])];
        all[2].usage.is_told = false;
        let terms = Terms { unused_for: Some(DAY * 30), ..ALL };
        assert_eq!(names(&all, &terms), ["a"], "of c nobody knows");
        let known = Terms { takes: &|resident| resident.is_known, ..terms };
        all[0].is_known = false;
        assert_eq!(names(&all, &known), [""; 0]);
    }

    #[test]
    fn what_a_rule_asks_is_asked_again_when_the_image_goes() {
        let mut all = [idle("cr.io/a:1", 30, &[1]), idle("cr.io/a:2", 20, &[2])];
        let none = RuleTerms::default();
        let keep = |all: &[Resident], terms: &RuleTerms, free| terms.keep(all, &all[0], free, now());
        let unused = RuleTerms { unused_for: Some(30 * 24 * 60 * 60), ..none };
        let last = RuleTerms { keep_last: Some(1), ..none };
        let room = RuleTerms { until: Some(50), ..none };
        for terms in [&unused, &last, &room] {
            assert_eq!(keep(&all, terms, Some(49)), None);
        }
        assert_eq!(keep(&all, &room, Some(50)).unwrap(), "50 bytes are free by now");
        assert!(keep(&all, &room, None).unwrap().contains("does not tell any more what is free"));
        assert!(keep(&all[..1], &last, None).unwrap().contains("among the last"), "the newer one went");
        all[0].usage.idle_since += DAY;
        assert!(keep(&all, &unused, None).unwrap().contains("not known to be unused"));
        all[0].usage.is_told = false;
        assert!(keep(&all, &unused, None).unwrap().contains("what containers use"));
        all[0].is_known = false;
        assert!(keep(&all, &none, None).unwrap().contains("the catalog does not know it"));
        assert_eq!(keep(&all, &RuleTerms { unknown_images: true, ..none }, None), None);
    }
}
