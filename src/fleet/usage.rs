//! When each image of an agent came, and when a container last used it.
//!
//! An image is in use as long as a container made from it exists, running or not. All times are the server's own: what an
//! agent's clock says does not count, so an agent whose clock is wrong loses nothing. Only what is not as it was when
//! the agent was first watched takes memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::engine::image::{Held, Uses};

/// How long an agent may be out of sight and still count as watched all the time.
const GAP: SignedDuration = SignedDuration::from_hours(24);
/// How many hexadecimal digits tell an image of an agent from its others.
const TELLING: usize = 16;

/// A moment on both clocks: the time of day to keep, and the steady time to measure by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The time of day.
    pub(crate) day: Timestamp,
    /// The steady time.
    pub(crate) steady: Instant,
}

/// What is known about the use of an agent's images.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Usage {
    /// Since when it is watched without a long gap; `None` before its first report. Nothing is known from before.
    since: Option<Timestamp>,
    /// The same on the steady clock, if it was since the server started.
    since_steady: Option<Instant>,
    /// Since when it tells what its containers use, without a long gap; `None` if it never did.
    told_since: Option<Timestamp>,
    /// When it last told that, while it does not.
    untold: Option<Timestamp>,
    in_use: BTreeSet<Digest>,
    marks: BTreeMap<Digest, Mark>,
    /// When it was last watched, while it is not: it is away, or the server has started.
    out_of_sight: Option<Timestamp>,
    /// The images it had when the server last stopped, until its first report.
    known: Option<HashSet<u64>>,
    /// Whether something is not stored yet.
    pub(in crate::fleet) is_unsaved: bool,
}

/// What is known about one image, if that is more than that it was there from the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// When it came, or got a name, or was last asked for.
    #[serde(default)]
    came: Option<Timestamp>,
    /// The same on the steady clock, if it was since the server started.
    #[serde(skip)]
    came_steady: Option<Instant>,
    /// When a container last used it.
    #[serde(default)]
    used: Option<Timestamp>,
}

/// What the store keeps of [`Usage`].
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct UsageRecord {
    since: Timestamp,
    #[serde(default)]
    told_since: Option<Timestamp>,
    #[serde(default)]
    untold: Option<Timestamp>,
    #[serde(default)]
    in_use: BTreeSet<Digest>,
    #[serde(default)]
    marks: BTreeMap<Digest, Mark>,
    /// The images that it has, by the first digits of their digests, 8 bytes each.
    #[serde(default, with = "serde_bytes")]
    images: Vec<u8>,
    /// When it was last watched, if that was before the server stopped.
    #[serde(default)]
    out_of_sight: Option<Timestamp>,
}

/// The use of one image on an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageUse {
    /// Whether a container made from it exists, running or not.
    pub(crate) is_in_use: bool,
    /// Whether the agent tells what its containers use. If not, nobody knows how long it was unused.
    pub(crate) is_told: bool,
    /// When a container last used it, as far as that was seen; now, if it is in use.
    pub(crate) last_used: Option<Timestamp>,
    /// No container was seen to use it since then: since its last use, since it came, or since somebody looks.
    pub(crate) idle_since: Timestamp,
    /// When it came, if that was seen.
    pub(crate) came: Option<Timestamp>,
    /// The same on the steady clock, if it was since the server started.
    pub(crate) came_steady: Option<Instant>,
    /// Since when its agent is watched: what was there by then may have come at any time before.
    pub(crate) watched: Option<Timestamp>,
    /// The same on the steady clock, if it was since the server started.
    pub(crate) watched_steady: Option<Instant>,
}

impl Usage {
    /// What was known when the server last stopped, which was at this time.
    pub(in crate::fleet) fn of(record: UsageRecord, stopped: Option<Timestamp>) -> Self {
        let (images, _) = record.images.as_chunks();
        let out_of_sight = record.out_of_sight.or(stopped).unwrap_or(record.since);
        let mut usage = Self {
            since: Some(record.since),
            since_steady: None,
            told_since: record.told_since,
            untold: record.untold,
            in_use: record.in_use,
            marks: record.marks,
            out_of_sight: None,
            known: Some(images.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()),
            is_unsaved: false,
        };
        usage.lose_sight(out_of_sight);
        usage
    }

    /// What to store for an agent that holds these images; `None` before its first report.
    pub(in crate::fleet) fn record(&self, held: &[Arc<Held>]) -> Option<UsageRecord> {
        let known = match &self.known {
            // It has not reported yet.
            Some(known) => known.iter().copied().flat_map(u64::to_be_bytes).collect(),
            None => held.iter().flat_map(|held| telling(&held.digest).to_be_bytes()).collect(),
        };
        Some(UsageRecord {
            since: self.since?,
            told_since: self.told_since,
            untold: self.untold,
            in_use: self.in_use.clone(),
            marks: self.marks.clone(),
            images: known,
            out_of_sight: self.out_of_sight,
        })
    }

    /// Takes a report: what the agent holds, and what it held before if that is another thing.
    pub(in crate::fleet) fn hear(&mut self, before: &[Arc<Held>], now: &[Arc<Held>], at: Moment) {
        let gap = self.out_of_sight.take();
        // What the store says of it is over.
        self.is_unsaved |= gap.is_some();
        if gap.is_some_and(|gap| at.day.duration_since(gap) > GAP) {
            // Nobody knows what was used meanwhile.
            self.begin(at);
            self.told_since = self.told_since.map(|_| at.day);
        }
        if self.since.is_none() {
            return self.begin(at);
        }
        let known = self.known.take();
        let has_marks = !self.marks.is_empty() || !self.in_use.is_empty();
        if known.is_none() && before.is_empty() && now.is_empty() && !has_marks {
            return;
        }
        let had: HashMap<&Digest, &Held> = before.iter().map(|held| (&held.digest, held.as_ref())).collect();
        let is_new = |held: &Held| match (&known, had.get(&held.digest)) {
            (Some(known), None) => !known.contains(&telling(&held.digest)),
            (_, Some(had)) => held.names.iter().any(|name| !had.names.contains(name)),
            (None, None) => true,
        };
        let has: HashSet<&Digest> = now.iter().map(|held| &held.digest).collect();
        let marks = self.marks.len();
        self.marks.retain(|digest, _| has.contains(digest));
        self.in_use.retain(|digest| has.contains(digest));
        self.is_unsaved |=
            marks != self.marks.len() || known.is_some() || had.keys().any(|had| !has.contains(had));
        for held in now.iter().filter(|held| is_new(held)) {
            self.came(&held.digest, at);
        }
    }

    /// Notes that an image came, or that somebody asked for it.
    pub(in crate::fleet) fn came(&mut self, digest: &Digest, at: Moment) {
        let mark = self.marks.entry(digest.clone()).or_default();
        mark.came = mark.came.max(Some(at.day));
        mark.came_steady = Some(at.steady);
        self.is_unsaved = true;
    }

    fn begin(&mut self, at: Moment) {
        (self.since, self.since_steady) = (Some(at.day), Some(at.steady));
        self.is_unsaved = true;
    }

    /// Notes which of the images that it holds its containers use.
    pub(in crate::fleet) fn note(&mut self, uses: &Uses, held: &[Arc<Held>], at: Moment) {
        let has: HashSet<&Digest> = held.iter().map(|held| &held.digest).collect();
        let held = |digests: &BTreeSet<Digest>| -> BTreeSet<Digest> {
            digests.iter().filter(|digest| has.contains(digest)).cloned().collect()
        };
        let in_use = held(&uses.now);
        let ended: Vec<Digest> = self.in_use.difference(&in_use).cloned().collect();
        for digest in ended.iter().chain(&held(&uses.lately)) {
            let mark = self.marks.entry(digest.clone()).or_default();
            mark.used = mark.used.max(Some(at.day));
            self.is_unsaved = true;
        }
        let gap = self.untold.take();
        let is_new = self.told_since.is_none() || gap.is_some_and(|gap| at.day.duration_since(gap) > GAP);
        if is_new {
            self.told_since = Some(at.day);
        }
        self.is_unsaved |= is_new || gap.is_some() || self.in_use != in_use;
        self.in_use = in_use;
    }

    /// Notes that it does not tell what its containers use, or not now: what was in use may be still.
    pub(in crate::fleet) fn note_untold(&mut self, now: Timestamp) {
        if self.told_since.is_none() || self.untold.is_some() {
            return;
        }
        self.untold = Some(now);
        self.mark_uses(now);
    }

    /// Notes that the agent can't be watched from now on.
    pub(in crate::fleet) fn lose_sight(&mut self, now: Timestamp) {
        if self.since.is_none() || self.out_of_sight.is_some() {
            return;
        }
        self.out_of_sight = Some(now);
        if self.untold.is_none() {
            self.mark_uses(now);
        }
        self.is_unsaved = true;
    }

    fn mark_uses(&mut self, now: Timestamp) {
        for digest in &self.in_use {
            self.marks.entry(digest.clone()).or_default().used = Some(now);
        }
        self.is_unsaved = true;
    }

    /// What is known about one image.
    pub(in crate::fleet) fn of_image(&self, digest: &Digest, now: Timestamp) -> ImageUse {
        let mark = self.marks.get(digest);
        let (came, used) = mark.map_or((None, None), |mark| (mark.came, mark.used));
        let is_in_use = self.in_use.contains(digest);
        let is_seen = self.out_of_sight.is_none() && self.untold.is_none();
        let last_used = if is_in_use && is_seen { Some(now) } else { used };
        ImageUse {
            is_in_use,
            is_told: self.told_since.is_some() && self.untold.is_none(),
            last_used,
            idle_since: last_used.max(came).max(self.told_since).max(self.since).unwrap_or(now),
            came,
            came_steady: mark.and_then(|mark| mark.came_steady),
            watched: self.since,
            watched_steady: self.since_steady,
        }
    }
}

/// The first digits of a digest as a number.
fn telling(digest: &Digest) -> u64 {
    let digits = digest.hex().get(..TELLING).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use jiff::{SignedDuration, Timestamp};

    use super::{Moment, Usage};
    use crate::base::digest::Digest;
    use crate::engine::fake::held;
    use crate::engine::image::{Held, Uses};

    fn at(hours: i64) -> Moment {
        let day = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 + hours);
        Moment { day, steady: Instant::now() }
    }

    fn all(names: &[&str]) -> Vec<Arc<Held>> {
        names.iter().map(|name| Arc::new(held(name))).collect()
    }

    fn id(name: &str) -> Digest {
        held(name).digest
    }

    fn idle(usage: &Usage, name: &str, now: i64) -> i64 {
        at(now).day.duration_since(usage.of_image(&id(name), at(now).day).idle_since).as_hours()
    }

    fn uses(now: &[&str], lately: &[&str]) -> Uses {
        Uses {
            now: now.iter().map(|name| id(name)).collect(),
            lately: lately.iter().map(|name| id(name)).collect(),
        }
    }

    /// An agent that has a and b since the hour 0, and c since the hour 10.
    fn watched() -> (Usage, Vec<Arc<Held>>) {
        let mut usage = Usage::default();
        let (first, then) = (all(&["a", "b"]), all(&["a", "b", "c"]));
        usage.hear(&[], &first, at(0));
        usage.hear(&first, &then, at(10));
        (usage, then)
    }

    #[test]
    fn an_image_is_idle_since_its_last_use_or_since_it_came_or_since_the_agent_is_watched() {
        let (mut usage, held) = watched();
        usage.note(&Uses::default(), &held, at(0));
        usage.note(&uses(&["a"], &[]), &held, at(20));
        let of_a = usage.of_image(&id("a"), at(30).day);
        assert!(of_a.is_in_use && of_a.is_told && of_a.last_used == Some(at(30).day));
        usage.note(&uses(&[], &["c"]), &held, at(40));
        assert_eq!(["a", "b", "c"].map(|name| idle(&usage, name, 50)), [10, 50, 10]);
        assert_eq!(usage.of_image(&id("b"), at(50).day).last_used, None, "it was never seen to be used");
        assert_eq!(usage.of_image(&id("c"), at(50).day).came, Some(at(10).day));
    }

    #[test]
    fn a_new_name_is_as_good_as_a_new_image() {
        let (mut usage, before) = watched();
        let mut named = before.clone();
        named[0] = Arc::new(Held { names: vec!["a".into(), "other".into()], ..held("a") });
        usage.hear(&before, &named, at(40));
        assert_eq!(idle(&usage, "a", 50), 10);
        usage.hear(&named, &before, at(45));
        assert_eq!(idle(&usage, "a", 50), 10, "and the loss of one is not");
    }

    #[test]
    fn what_is_known_outlives_the_server_and_what_came_meanwhile_is_new() {
        let (mut usage, held) = watched();
        usage.note(&Uses::default(), &held, at(0));
        usage.note(&uses(&["a"], &[]), &held, at(20));
        let stored = || rmp_serde::to_vec_named(&usage.record(&held).unwrap()).unwrap();
        let mut back = Usage::of(rmp_serde::from_slice(&stored()).unwrap(), Some(at(25).day));
        assert_eq!(usage.of_image(&id("a"), at(30).day).last_used, Some(at(30).day));
        assert_eq!(
            back.of_image(&id("a"), at(30).day).last_used,
            Some(at(25).day),
            "it was not watched since"
        );
        assert!(back.record(&[]).is_some_and(|record| record.images.len() == 24));
        let then = all(&["a", "b", "d"]);
        back.hear(&[], &then, at(30));
        back.note(&Uses::default(), &then, at(30));
        assert_eq!(["a", "b", "d"].map(|name| idle(&back, name, 40)), [10, 40, 10]);
    }

    #[test]
    fn after_a_long_time_out_of_sight_nothing_is_known_to_have_been_idle() {
        let (mut usage, held) = watched();
        usage.lose_sight(at(20).day);
        usage.lose_sight(at(30).day);
        usage.hear(&held, &held, at(40));
        assert_eq!(idle(&usage, "b", 50), 50);
        usage.lose_sight(at(50).day);
        usage.hear(&held, &held, at(80));
        assert_eq!(idle(&usage, "b", 90), 10);
    }

    #[test]
    fn where_nobody_looked_nothing_is_known_to_have_been_idle() {
        let (mut usage, held) = watched();
        assert!(!usage.of_image(&id("b"), at(50).day).is_told);
        usage.note(&Uses::default(), &held, at(50));
        assert!(usage.of_image(&id("b"), at(60).day).is_told);
        assert_eq!(idle(&usage, "b", 60), 10, "since it tells, and not since it was first seen");
        usage.note(&uses(&["a"], &[]), &held, at(60));
        usage.note_untold(at(70).day);
        let of_a = usage.of_image(&id("a"), at(75).day);
        assert!(of_a.is_in_use && !of_a.is_told && of_a.last_used == Some(at(70).day));
        usage.note(&Uses::default(), &held, at(80));
        assert_eq!([idle(&usage, "a", 90), idle(&usage, "b", 90)], [10, 40], "a moment's failure is no gap");
        usage.note_untold(at(90).day);
        let record = usage.record(&held).unwrap();
        assert!(!Usage::of(record, None).of_image(&id("b"), at(100).day).is_told, "after a restart too");
        usage.note(&Uses::default(), &held, at(120));
        assert_eq!(idle(&usage, "b", 130), 10, "what was used in the gap is not known");
    }

    #[test]
    fn nothing_is_kept_of_images_that_are_not_there() {
        let mut usage = Usage::default();
        usage.hear(&[], &[], at(0));
        usage.came(&id("a"), at(1));
        usage.note(&uses(&["b"], &["c"]), &[], at(2));
        usage.hear(&[], &[], at(3));
        assert!(usage.marks.is_empty() && usage.in_use.is_empty());
    }
}
