//! What came to nothing lately, image by image and agent by agent, and when it is worth another try.
//!
//! A transfer tries by itself what may pass in a minute. What it gives up is left for a while here, each time for longer,
//! so that an image that is broken makes no tasks for ever; another image under the same name is tried at once, for it
//! has another digest. It is kept in the store, so that a restart does not try all of it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::store::Table;
use crate::store::table::{Reader, Writer, pair};

const SETBACKS: Table<Setback> = Table::new("AGENT_AND_DIGEST_TO_SETBACK");

/// The wait after the first failure; each further one makes it so many times longer, up to the longest.
const FIRST_WAIT: SignedDuration = SignedDuration::from_mins(1);
const LONGER: i32 = 4;
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(6);
/// The wait after somebody cancelled a rule's task: they had a reason, and time to change the rule.
const AFTER_CANCEL: SignedDuration = SignedDuration::from_hours(1);
/// How long after its wait an entry is kept, so that its count goes on.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How many entries there may be: 500 agents on which 100 images fail.
const MAX_SETBACKS: usize = 50_000;

/// An image that came to nothing on an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// How often in a row.
    pub failures: u32,
    /// When it did last.
    pub ended_at: Timestamp,
    /// Not to be tried before this.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// It was given up.
    Failed(&'a str),
    /// It was said to be done. Where the agent then holds the image, the entry is forgotten at once.
    Done,
    /// Somebody cancelled it.
    Cancelled,
}

/// An agent's id, and a digest.
type Pair = (String, Digest);

/// All of them.
#[derive(Debug, Default)]
pub struct Setbacks {
    by_pair: BTreeMap<Pair, Setback>,
    unsaved: BTreeSet<Pair>,
}

impl Setbacks {
    /// Those in the store.
    pub fn load(reader: &Reader) -> Result<Self> {
        let mut by_pair = BTreeMap::new();
        reader.scan(&SETBACKS, [], |key, setback: Setback| {
            let key = std::str::from_utf8(key).map_err(Error::internal)?;
            if let Some((agent, digest)) = key.split_once('\0') {
                by_pair.insert((agent.to_owned(), digest.parse().map_err(Error::internal)?), setback);
            }
            Ok(())
        })?;
        Ok(Self { by_pair, unsaved: BTreeSet::new() })
    }

    /// Takes note of how an attempt ended, once, however often it is told.
    pub fn note(&mut self, agent: &str, digest: &Digest, ended_at: Timestamp, ending: Ending) {
        let pair = (agent.to_owned(), digest.clone());
        let known = self.by_pair.get(&pair);
        if known.is_some_and(|known| known.ended_at >= ended_at) {
            return;
        }
        let failures = known.map_or(0, |known| known.failures).saturating_add(1);
        let (wait, reason) = match ending {
            Ending::Failed(reason) => (wait(failures), reason),
            Ending::Done => (wait(failures), "it was loaded, and the agent does not show it"),
            Ending::Cancelled => (AFTER_CANCEL, "its task was cancelled"),
        };
        let until = ended_at.checked_add(wait).unwrap_or(Timestamp::MAX);
        self.by_pair.insert(pair.clone(), Setback { failures, ended_at, until, reason: reason.into() });
        self.unsaved.insert(pair);
    }

    /// The entry of an image and an agent.
    pub fn find(&self, agent: &str, digest: &Digest) -> Option<&Setback> {
        self.by_pair.get(&(agent.to_owned(), digest.clone()))
    }

    /// Keeps those that `stays` says of, and that are not too old or too many.
    pub fn tidy(&mut self, now: Timestamp, stays: impl Fn(&str, &Digest) -> bool) {
        let Self { by_pair, unsaved } = self;
        by_pair.retain(|(agent, digest), setback| {
            let is_kept = now.duration_since(setback.until) < REMEMBERED && stays(agent, digest);
            if !is_kept {
                unsaved.insert((agent.clone(), digest.clone()));
            }
            is_kept
        });
        if by_pair.len() > MAX_SETBACKS {
            let mut soonest: Vec<(Timestamp, Pair)> =
                by_pair.iter().map(|(pair, setback)| (setback.until, pair.clone())).collect();
            soonest.sort();
            for (_, pair) in soonest.into_iter().take(by_pair.len() - MAX_SETBACKS) {
                by_pair.remove(&pair);
                unsaved.insert(pair);
            }
        }
    }

    /// The agents, by number, on which each digest is not to be tried now.
    pub fn held_back(&self, now: Timestamp, number: impl Fn(&str) -> Option<usize>) -> HashMap<Digest, Bits> {
        let mut held_back: HashMap<Digest, Bits> = HashMap::new();
        for ((agent, digest), setback) in &self.by_pair {
            if let Some(number) = number(agent).filter(|_| setback.until > now) {
                held_back.entry(digest.clone()).or_default().insert(number);
            }
        }
        held_back
    }

    /// When the next of them is worth another try.
    pub fn next_try(&self, now: Timestamp) -> Option<Timestamp> {
        self.by_pair.values().map(|setback| setback.until).filter(|until| *until > now).min()
    }

    /// What has changed since the last call, to be written by [`save`].
    pub fn unsaved(&mut self) -> Vec<(Vec<u8>, Option<Setback>)> {
        let changed = std::mem::take(&mut self.unsaved);
        let entry = |pair: Pair| (self::pair(&pair.0, pair.1.as_str()), self.by_pair.get(&pair).cloned());
        changed.into_iter().map(entry).collect()
    }
}

/// Writes what [`Setbacks::unsaved`] gave.
pub fn save(writer: &mut Writer, changed: &[(Vec<u8>, Option<Setback>)]) -> Result<()> {
    for (key, setback) in changed {
        match setback {
            Some(setback) => writer.put(&SETBACKS, key, setback)?,
            None => drop(writer.remove(&SETBACKS, key)?),
        }
    }
    Ok(())
}

fn wait(failures: u32) -> SignedDuration {
    let times = LONGER.saturating_pow(failures.saturating_sub(1));
    FIRST_WAIT.checked_mul(times).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Ending, MAX_SETBACKS, Setbacks, save, wait};
    use crate::base::digest::Digest;
    use crate::rules::tests::bits;
    use crate::store::Store;

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn each_failure_is_waited_for_longer_up_to_a_bound() {
        let waits: Vec<i128> = (1..=7).map(|failures| wait(failures).as_secs().into()).collect();
        assert_eq!(waits, [60, 240, 960, 3840, 15360, 21600, 21600]);
        assert_eq!(wait(u32::MAX), wait(7));
    }

    #[test]
    fn a_failure_counts_once_and_a_success_ends_it() {
        let mut setbacks = Setbacks::default();
        let number = |agent: &str| agent.strip_prefix("i-").and_then(|n| n.parse().ok());
        for _ in 0..3 {
            setbacks.note("i-1", &digest("a"), at(0), Ending::Failed("broken"));
        }
        assert_eq!(setbacks.find("i-1", &digest("a")).unwrap().failures, 1);
        let held = |setbacks: &Setbacks, minutes| {
            setbacks.held_back(at(minutes), number).get(&digest("a")).cloned().unwrap_or_default()
        };
        assert_eq!(held(&setbacks, 0), bits(&[1]));
        assert!(held(&setbacks, 1).is_empty(), "the wait is over");
        assert_eq!(setbacks.next_try(at(0)), Some(at(1)));
        setbacks.note("i-1", &digest("a"), at(2), Ending::Failed("broken still"));
        assert_eq!(held(&setbacks, 5), bits(&[1]));
        assert!(held(&setbacks, 6).is_empty());
        setbacks.note("i-1", &digest("a"), at(7), Ending::Cancelled);
        assert_eq!(held(&setbacks, 66), bits(&[1]), "who cancels has an hour");
        setbacks.tidy(at(8), |_, _| false);
        assert!(held(&setbacks, 8).is_empty() && setbacks.next_try(at(8)).is_none());
    }

    #[test]
    fn they_are_kept_over_a_restart_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut setbacks = Setbacks::default();
        setbacks.note("i-1", &digest("a"), at(0), Ending::Failed("broken"));
        setbacks.note("i-2", &digest("a"), at(0), Ending::Done);
        let saved = |setbacks: &mut Setbacks| {
            let changed = setbacks.unsaved();
            store.write_now(|w| save(w, &changed)).unwrap();
            store.read_now(Setbacks::load).unwrap()
        };
        let mut again = saved(&mut setbacks);
        assert_eq!(again.by_pair, setbacks.by_pair);
        again.tidy(at(1), |agent, _| agent != "i-2");
        let mut again = saved(&mut again);
        assert_eq!(again.by_pair.len(), 1);
        assert_eq!(again.find("i-1", &digest("a")).unwrap().reason, "broken");
        again.tidy(at(8 * 24 * 60), |_, _| true);
        assert!(saved(&mut again).by_pair.is_empty());
    }

    #[test]
    fn there_are_so_many_at_most() {
        let mut setbacks = Setbacks::default();
        for minute in 0..i64::try_from(MAX_SETBACKS).unwrap() + 5 {
            setbacks.note(&format!("i-{minute}"), &digest("a"), at(minute), Ending::Failed("x"));
        }
        setbacks.tidy(at(1), |_, _| true);
        assert_eq!(setbacks.by_pair.len(), MAX_SETBACKS);
        assert!(setbacks.find("i-4", &digest("a")).is_none() && setbacks.find("i-5", &digest("a")).is_some());
    }
}
