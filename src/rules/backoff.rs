//! Which images failed lately on which agents, and when to try them again.
//!
//! A transfer itself retries failures that may pass within a minute. What it gives up is left alone here, each time
//! for longer, so that a broken image does not make tasks for ever. Another image under the same name is tried at
//! once, because it has another digest. The backoffs are in the store, so that a restart does not try everything
//! again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::backoff::Backoff;
use crate::base::bits::Bits;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::store::Table;
use crate::store::table::{Reader, Writer, pair};

const BACKOFFS: Table<PairBackoff> = Table::new("AGENT_AND_DIGEST_TO_SETBACK");

/// The waits after failures.
const WAITS: Backoff = Backoff::growing(Duration::from_mins(1), 4, LONGEST_WAIT.unsigned_abs());
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(6);
/// The wait after a user cancelled a rule's task: the user had a reason, and needs time to change the rule.
const AFTER_CANCEL: SignedDuration = SignedDuration::from_hours(1);
/// How long after its wait an entry is kept, so that its count continues.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Most entries: enough for 500 agents on which 100 images fail.
const MAX_BACKOFFS: usize = 50_000;

/// The backoff of an image that failed on an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PairBackoff {
    /// How many times in a row it failed.
    pub(crate) failures: u32,
    /// When it last failed.
    pub(crate) ended_at: Timestamp,
    /// Not to be tried before this time, by the clock as it was when this was written.
    pub(crate) until: Timestamp,
    /// Why it failed.
    pub(crate) reason: String,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending<'a> {
    /// The transfer gave up.
    Failed(&'a str),
    /// The transfer reported success. If the agent then holds the image, the entry is removed at once.
    Done,
    /// A user cancelled the task.
    Cancelled,
}

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The time of day.
    pub(crate) day: Timestamp,
    /// The time on the steady clock, by which waits are measured.
    pub(crate) steady: Instant,
}

/// A pair: an agent's id and a digest.
type Pair = (String, Digest);

/// An entry, and when its pair may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    backoff: PairBackoff,
    due: Instant,
}

/// All backoffs. Waits are measured on the steady clock; the store has the time of day.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    by_pair: BTreeMap<Pair, Known>,
    unsaved: BTreeSet<Pair>,
}

impl Backoffs {
    /// Loads the entries from the store. No wait becomes longer than it originally was.
    pub(crate) fn load(reader: &Reader, clock: &Clock) -> Result<Self> {
        let (today, now) = (clock.now(), clock.steady());
        let mut by_pair = BTreeMap::new();
        reader.scan(&BACKOFFS, [], |key, backoff: PairBackoff| {
            let key = std::str::from_utf8(key).map_err(Error::internal)?;
            if let Some((agent, digest)) = key.split_once('\0') {
                let left = backoff.until.duration_since(today).clamp(SignedDuration::ZERO, LONGEST_WAIT);
                let known = Known { backoff, due: now + left.unsigned_abs() };
                by_pair.insert((agent.to_owned(), digest.parse().map_err(Error::internal)?), known);
            }
            Ok(())
        })?;
        Ok(Self { by_pair, unsaved: BTreeSet::new() })
    }

    /// Whether an end at this time or a later one is already noted. Only a server that ran before can have noted it,
    /// because within one run the time of day is not reliable.
    pub(crate) fn has(&self, agent: &str, digest: &Digest, ended_at: Timestamp) -> bool {
        self.find(agent, digest).is_some_and(|known| known.ended_at >= ended_at)
    }

    /// Notes how an attempt ended. Call it once for each attempt.
    pub(crate) fn note(
        &mut self,
        agent: &str,
        digest: &Digest,
        ended_at: Timestamp,
        now: Moment,
        ending: Ending,
    ) {
        let pair = (agent.to_owned(), digest.clone());
        let failures = self.by_pair.get(&pair).map_or(0, |known| known.backoff.failures).saturating_add(1);
        let (wait, reason) = match ending {
            Ending::Failed(reason) => (wait(failures), reason),
            Ending::Done => (wait(failures), "it was loaded, and the agent does not show it"),
            Ending::Cancelled => (AFTER_CANCEL, "its task was cancelled"),
        };
        let until = now.day.checked_add(wait).unwrap_or(Timestamp::MAX);
        let backoff = PairBackoff { failures, ended_at, until, reason: reason.into() };
        self.by_pair.insert(pair.clone(), Known { backoff, due: now.steady + wait.unsigned_abs() });
        self.unsaved.insert(pair);
    }

    /// The entry of an agent and a digest.
    pub(crate) fn find(&self, agent: &str, digest: &Digest) -> Option<&PairBackoff> {
        self.by_pair.get(&(agent.to_owned(), digest.clone())).map(|known| &known.backoff)
    }

    /// How much longer a pair must not be tried.
    pub(crate) fn wait(&self, agent: &str, digest: &Digest, now: Instant) -> Option<Duration> {
        let known = self.by_pair.get(&(agent.to_owned(), digest.clone()))?;
        Some(known.due.saturating_duration_since(now))
    }

    /// The entry of a pair that must not be tried now, and until what time of day.
    pub(crate) fn standing(
        &self,
        agent: &str,
        digest: &Digest,
        now: Moment,
    ) -> Option<(&PairBackoff, Timestamp)> {
        let wait = self.wait(agent, digest, now.steady).filter(|wait| !wait.is_zero())?;
        let until = now.day.checked_add(SignedDuration::try_from(wait).ok()?).ok()?;
        Some((self.find(agent, digest)?, until))
    }

    /// Removes the entries that `stays` rejects, those beyond the limit and, if the date is known, those that are too
    /// old.
    pub(crate) fn tidy(&mut self, today: Option<Timestamp>, stays: impl Fn(&str, &Digest) -> bool) {
        let Self { by_pair, unsaved } = self;
        by_pair.retain(|(agent, digest), known| {
            let is_old = today.is_some_and(|today| today.duration_since(known.backoff.until) >= REMEMBERED);
            let is_kept = !is_old && stays(agent, digest);
            if !is_kept {
                unsaved.insert((agent.clone(), digest.clone()));
            }
            is_kept
        });
        if by_pair.len() > MAX_BACKOFFS {
            let mut soonest: Vec<(Instant, Pair)> =
                by_pair.iter().map(|(pair, known)| (known.due, pair.clone())).collect();
            soonest.sort();
            for (_, pair) in soonest.into_iter().take(by_pair.len() - MAX_BACKOFFS) {
                by_pair.remove(&pair);
                unsaved.insert(pair);
            }
        }
    }

    /// For each digest, the numbers of the agents on which it must not be tried now.
    pub(crate) fn held_back(
        &self,
        now: Instant,
        number: impl Fn(&str) -> Option<usize>,
    ) -> HashMap<Digest, Bits> {
        let mut held_back: HashMap<Digest, Bits> = HashMap::new();
        for ((agent, digest), known) in &self.by_pair {
            if let Some(number) = number(agent).filter(|_| known.due > now) {
                held_back.entry(digest.clone()).or_default().insert(number);
            }
        }
        held_back
    }

    /// The earliest time at which an entry may be tried again.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.by_pair.values().map(|known| known.due).filter(|due| *due > now).min()
    }

    /// The changes since the last call, for [`save`] to write.
    pub(crate) fn unsaved(&mut self) -> Vec<(Vec<u8>, Option<PairBackoff>)> {
        let changed = std::mem::take(&mut self.unsaved);
        let entry = |pair: Pair| {
            let backoff = self.by_pair.get(&pair).map(|known| known.backoff.clone());
            (self::pair(&pair.0, pair.1.as_str()), backoff)
        };
        changed.into_iter().map(entry).collect()
    }
}

/// Writes the changes that [`Backoffs::unsaved`] returned.
pub(crate) fn save(writer: &mut Writer, changed: &[(Vec<u8>, Option<PairBackoff>)]) -> Result<()> {
    for (key, backoff) in changed {
        match backoff {
            Some(backoff) => writer.put(&BACKOFFS, key, backoff)?,
            None => drop(writer.remove(&BACKOFFS, key)?),
        }
    }
    Ok(())
}

fn wait(failures: u32) -> SignedDuration {
    SignedDuration::try_from(WAITS.after(failures)).unwrap_or(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{Backoffs, Ending, LONGEST_WAIT, MAX_BACKOFFS, Moment, save, wait};
    use crate::base::clock::Clock;
    use crate::base::digest::Digest;
    use crate::store::Store;

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn day(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    fn moment(minutes: i64, steady: Instant) -> Moment {
        Moment { day: day(minutes), steady }
    }

    fn clock(minutes: i64) -> Clock {
        Clock::new(move || day(minutes))
    }

    /// On how many agents the image is held back after this many minutes.
    fn held(backoffs: &Backoffs, from: Instant, minutes: u64) -> usize {
        let number = |agent: &str| agent.strip_prefix("i-").and_then(|n| n.parse().ok());
        let held = backoffs.held_back(from + Duration::from_mins(minutes), number);
        held.get(&digest("a")).map_or(0, |agents| (0..9).filter(|n| agents.contains(*n)).count())
    }

    #[test]
    fn each_failure_is_waited_for_longer_up_to_a_bound() {
        let waits: Vec<i128> = (1..=7).map(|failures| wait(failures).as_secs().into()).collect();
        assert_eq!(waits, [60, 240, 960, 3840, 15360, 21600, 21600]);
        assert_eq!(wait(u32::MAX), wait(7));
    }

    #[test]
    fn a_wait_is_measured_and_a_success_ends_it() {
        let (mut backoffs, start) = (Backoffs::default(), Instant::now());
        let after = |minutes| start + Duration::from_mins(minutes);
        backoffs.note("i-1", &digest("a"), day(0), moment(0, start), Ending::Failed("broken"));
        assert_eq!(backoffs.find("i-1", &digest("a")).unwrap().failures, 1);
        assert!(backoffs.has("i-1", &digest("a"), day(0)) && !backoffs.has("i-1", &digest("a"), day(1)));
        assert_eq!(backoffs.wait("i-1", &digest("a"), start), Some(Duration::from_mins(1)));
        assert_eq!((held(&backoffs, start, 0), held(&backoffs, start, 1)), (1, 0), "the wait is over");
        assert_eq!(backoffs.next_try(start), Some(after(1)));
        let until = |minutes| {
            backoffs.standing("i-1", &digest("a"), moment(minutes, after(0))).map(|(_, until)| until)
        };
        assert_eq!(until(5), Some(day(6)), "by the time of day as it is now");
        assert_eq!(backoffs.standing("i-1", &digest("a"), moment(1, after(1))), None, "the wait is over");
        // Setting the clock back by a day meanwhile removes no failure and makes no wait longer.
        backoffs.note(
            "i-1",
            &digest("a"),
            day(-1_440),
            moment(-1_440, after(2)),
            Ending::Failed("broken still"),
        );
        assert_eq!(backoffs.find("i-1", &digest("a")).unwrap().failures, 2);
        assert_eq!((held(&backoffs, start, 5), held(&backoffs, start, 6)), (1, 0));
        backoffs.note("i-1", &digest("a"), day(7), moment(7, after(7)), Ending::Cancelled);
        assert_eq!(held(&backoffs, start, 66), 1, "who cancels has an hour");
        backoffs.tidy(Some(day(8)), |_, _| false);
        assert!(held(&backoffs, start, 8) == 0 && backoffs.next_try(after(8)).is_none());
    }

    #[test]
    fn they_are_kept_over_a_restart_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (mut backoffs, start) = (Backoffs::default(), Instant::now());
        backoffs.note("i-1", &digest("a"), day(0), moment(0, start), Ending::Failed("broken"));
        backoffs.note("i-2", &digest("a"), day(0), moment(0, start), Ending::Done);
        let saved = |backoffs: &mut Backoffs| {
            let changed = backoffs.unsaved();
            store.write_now(|w| save(w, &changed)).unwrap();
            store.read_now(|r| Backoffs::load(r, &clock(0))).unwrap()
        };
        let mut again = saved(&mut backoffs);
        let kept = |backoffs: &Backoffs| {
            backoffs.by_pair.values().map(|known| known.backoff.clone()).collect::<Vec<_>>()
        };
        assert_eq!(kept(&again), kept(&backoffs));
        assert_eq!(held(&again, Instant::now(), 0), 2);
        again.tidy(Some(day(1)), |agent, _| agent != "i-2");
        let mut again = saved(&mut again);
        assert_eq!(again.by_pair.len(), 1);
        assert_eq!(again.find("i-1", &digest("a")).unwrap().reason, "broken");
        again.tidy(None, |_, _| true);
        assert_eq!(saved(&mut again).by_pair.len(), 1, "it is not known what day it is");
        again.tidy(Some(day(8 * 24 * 60)), |_, _| true);
        assert!(saved(&mut again).by_pair.is_empty());
    }

    #[test]
    fn a_start_with_a_clock_that_is_behind_waits_no_longer_than_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut backoffs = Backoffs::default();
        backoffs.note("i-1", &digest("a"), day(0), moment(0, Instant::now()), Ending::Failed("broken"));
        let changed = backoffs.unsaved();
        store.write_now(|w| save(w, &changed)).unwrap();
        let again = store.read_now(|r| Backoffs::load(r, &clock(-10 * 365 * 1_440))).unwrap();
        let wait = again.wait("i-1", &digest("a"), Instant::now()).unwrap();
        assert!(wait <= LONGEST_WAIT.unsigned_abs(), "{wait:?}");
    }

    #[test]
    fn there_are_so_many_at_most() {
        let (mut backoffs, mut now) = (Backoffs::default(), Instant::now());
        for number in 0..MAX_BACKOFFS + 5 {
            now += Duration::from_mins(1);
            backoffs.note(&format!("i-{number}"), &digest("a"), day(0), moment(0, now), Ending::Failed("x"));
        }
        backoffs.tidy(Some(day(1)), |_, _| true);
        assert_eq!(backoffs.by_pair.len(), MAX_BACKOFFS);
        assert!(backoffs.find("i-4", &digest("a")).is_none() && backoffs.find("i-5", &digest("a")).is_some());
    }
}
