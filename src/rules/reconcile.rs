//! The rounds: each waits for a change, works out what the rules' agents lack, and makes tasks of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::signal::Follower;
use crate::catalog::image::Image;
use crate::fleet::agent::Agent;
use crate::rules::backoff::{Backoffs, Ending, Moment, save};
use crate::rules::book::Standing as _;
use crate::rules::memory::Memory;
use crate::rules::next::Next;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::{Rule, parsed};
use crate::rules::schedule::{self, PlannedTask, RoundLimits, RuleNeeds, Shares, Why};
use crate::rules::service::Rules;
use crate::rules::status::{Begun, Status, Waiting};
use crate::rules::survey::{Parsed, Seen, look_at};
use crate::rules::window::WindowState;
use crate::tasks::live::Live;
use crate::tasks::task::{Item, ItemState, Page, TaskKind};
use crate::transfer::plan::{Planner, taken};
use crate::transfer::service::{Attempt, Filling};

/// Changes that come together are handled together: a round begins after this much quiet, or after [`LONGEST_SETTLE`]
/// if there is none.
const SETTLE: Duration = Duration::from_secs(1);
const LONGEST_SETTLE: Duration = Duration::from_secs(10);
/// The quiet before a round while more could begin than may be under way at once. Each task is for one image, however
/// often there is a round, so this can be short.
const FULL_SETTLE: Duration = Duration::from_millis(200);
const LONGEST_FULL_SETTLE: Duration = Duration::from_secs(1);
/// After a round the loop rests this many times as long as the round took, up to [`LONGEST_REST`]: a large lab in
/// which something changes all the time must not keep a processor busy.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_mins(1);
/// The longest time between two rounds, even if no change is reported: disks fill and empty without a report.
const REGULAR: Duration = Duration::from_mins(10);
/// The wait after a round that failed.
const AFTER_FAULT: Duration = Duration::from_mins(1);
/// Most tasks of rules under way, each for one image.
const MAX_TASKS: usize = 16;
/// How many places for running tasks are reserved for people.
const LEFT_TO_PEOPLE: usize = 16;
/// Most agents that a status names as away.
const MAX_AWAY: usize = 100;

/// How long after the server's start agents may take to arrive. The first round waits for them; otherwise it would
/// take agents for lost that only need to dial again.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The sources of changes that a round waits for.
struct Changes {
    catalog: Follower,
    fleet: Follower,
    queue: Follower,
    rules: Follower,
}

impl Changes {
    async fn any(&mut self) {
        tokio::select! {
            () = self.catalog.changed() => {}
            () = self.fleet.changed() => {}
            () = self.queue.changed() => {}
            () = self.rules.changed() => {}
        }
    }

    /// Waits until no change was reported for a while.
    async fn settle(&mut self, is_full: bool) {
        let (quiet, longest) =
            if is_full { (FULL_SETTLE, LONGEST_FULL_SETTLE) } else { (SETTLE, LONGEST_SETTLE) };
        let latest = Instant::now() + longest;
        while Instant::now() < latest && tokio::time::timeout(quiet, self.any()).await.is_ok() {}
    }
}

/// What the running tasks are loading.
#[derive(Default)]
struct UnderWay {
    /// The agents on which a task works on each digest.
    busy: HashMap<Digest, Bits>,
    /// The room that this takes on each agent, in bytes.
    reserved: HashMap<usize, u64>,
    /// How many tasks belong to rules.
    tasks: usize,
}

/// A round in progress.
struct Round<'a> {
    now: Timestamp,
    steady: std::time::Instant,
    rules: Vec<Arc<Rule>>,
    by_number: &'a HashMap<usize, Agent>,
    seen: Seen,
}

impl Rules {
    /// Runs a round whenever something has changed, until the server stops.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut changes = Changes {
            catalog: self.catalog.changes(),
            fleet: self.fleet.changes(),
            queue: self.queue.ends(),
            rules: self.book.changes().follow(),
        };
        tokio::select! {
            () = self.arrival() => {}
            () = shutdown.cancelled() => {}
        }
        let mut next = Next::at(self.clock.steady());
        while !shutdown.is_cancelled() {
            let round = async {
                tokio::select! {
                    () = changes.any() => {}
                    () = next.is_due(&self.clock) => {}
                }
                changes.settle(next.is_full).await;
                let begun = Instant::now();
                let next = match self.round().await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(?error, "the rules could not be looked at; it is tried again");
                        Next::at(self.clock.steady() + AFTER_FAULT)
                    }
                };
                tokio::time::sleep((begun.elapsed() * REST).min(LONGEST_REST)).await;
                next
            };
            tokio::select! {
                again_at = round => next = again_at,
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Waits until every agent was reached since the start, or has had enough time.
    async fn arrival(&self) {
        let mut changes = self.fleet.changes();
        let all = async {
            while !self.fleet.is_complete() {
                changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(ARRIVAL, all).await;
    }

    /// Runs one round.
    pub(in crate::rules) async fn round(&self) -> Result<Next> {
        let mut memory = self.memory.lock().await;
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let rules = self.book.enabled();
        if rules.is_empty() {
            return Ok(Next::at(steady + REGULAR));
        }
        let by_number: HashMap<usize, Agent> = self.fleet.roster().into_iter().collect();
        let numbers: HashMap<&str, usize> =
            by_number.iter().map(|(number, agent)| (agent.record.id.as_str(), *number)).collect();
        // Before the agents' holdings are read: an image whose loading ends in between is then seen as present.
        let under_way = self.take_note(&mut memory, &numbers, &by_number).await?;
        let (rules, asked): (Vec<_>, Vec<_>) = rules.into_iter().filter_map(readable).unzip();
        let Some(caller) = rules.first().map(|rule| rule.caller()) else {
            return Ok(Next::at(steady + REGULAR));
        };
        let seen = look_at(&self.catalog, &self.fleet, &caller, asked).await?;
        let unsettled = seen.unsettled();
        memory.backoffs.tidy(self.clock.calendar(), |agent, digest| {
            numbers.get(agent).is_some_and(|number| unsettled(*number, digest))
        });
        drop(unsettled);
        let round = Round { now, steady, rules, by_number: &by_number, seen };
        let held_back = memory.backoffs.held_back(steady, |agent| numbers.get(agent).copied());
        let shares = self.share(&round, &under_way, &held_back).await?;
        let is_full = round.is_full(&shares);
        let begun = self.start(&round, &shares.orders, &mut memory).await;
        let is_stuck = begun.iter().any(|(_, problem)| problem.is_some());
        self.tell(&round, shares, begun, &memory.backoffs);
        let unsaved = memory.backoffs.unsaved();
        if !unsaved.is_empty() {
            self.store.write(move |w| save(w, &unsaved)).await?;
        }
        let opens = round.rules.iter().filter_map(|rule| match rule.standing(now) {
            Some(WindowState::Closed(opens)) => opens,
            _ => None,
        });
        let next_try = memory.backoffs.next_try(steady);
        let regular = steady + if is_stuck { AFTER_FAULT } else { REGULAR };
        Ok(Next { at: next_try.unwrap_or(regular).min(regular), opens: opens.min(), is_full })
    }

    /// Notes what has ended since the last round, and what is under way.
    async fn take_note(
        &self,
        memory: &mut Memory,
        numbers: &HashMap<&str, usize>,
        by_number: &HashMap<usize, Agent>,
    ) -> Result<UnderWay> {
        let mut under_way = UnderWay::default();
        let mut watched = std::mem::take(&mut memory.watched);
        for live in self.queue.running() {
            let task = live.task();
            if task.kind == TaskKind::Rescan {
                continue;
            }
            let mut seen = watched.remove(&task.id).unwrap_or_default();
            for (item, attempt) in seen.look(&live) {
                self.note(memory, &item, &attempt, task.kind, false);
            }
            for attempt in seen.open.values() {
                let number = numbers.get(attempt.agent.as_str()).copied();
                let Some((number, agent)) = number.and_then(|n| Some((n, by_number.get(&n)?))) else {
                    continue;
                };
                under_way.busy.entry(attempt.digest.clone()).or_default().insert(number);
                if task.kind == TaskKind::Preload {
                    *under_way.reserved.entry(number).or_default() += taken(attempt.size_bytes, agent);
                }
            }
            if let Some(rule) = task.targets.and_then(|targets| targets.rule) {
                under_way.tasks += 1;
                if !task.cancel_requested && only_waits_for_lost(&seen.open, numbers, by_number) {
                    self.withdraw(memory, &live, &rule).await;
                }
            }
            memory.watched.insert(task.id, seen);
        }
        for (id, mut seen) in watched {
            let withdrawn = memory.withdrawn.remove(&id);
            let Some(live) = self.queue.find(id) else { continue };
            let task = live.task();
            let is_rules = task.targets.is_some_and(|targets| targets.rule.is_some());
            for item in self.queue.items(&live, Page::ALL).await? {
                if let Some(attempt) = seen.take(&item) {
                    self.note(memory, &item, &attempt, task.kind, is_rules && !withdrawn);
                }
            }
        }
        memory.is_new = false;
        Ok(under_way)
    }

    /// Notes how an attempt ended.
    fn note(
        &self,
        memory: &mut Memory,
        item: &Item,
        attempt: &Attempt,
        kind: TaskKind,
        cancelled_counts: bool,
    ) {
        let Some(ended_at) = item.ended_at.filter(|_| kind == TaskKind::Preload) else { return };
        let ending = match item.state {
            ItemState::Failed => Ending::Failed(item.reason.as_deref().unwrap_or("it failed")),
            // Another rule may want the same content there under another name, which then has not failed.
            ItemState::Done if Attempt::is_there(item, &self.fleet) => return,
            ItemState::Done => Ending::Done,
            ItemState::Cancelled if cancelled_counts => Ending::Cancelled,
            _ => return,
        };
        let (agent, digest) = (&attempt.agent, &attempt.digest);
        if memory.is_new && memory.backoffs.has(agent, digest, ended_at) {
            return;
        }
        let now = Moment { day: self.clock.stamp(), steady: self.clock.steady() };
        memory.backoffs.note(agent, digest, ended_at, now, ending);
    }

    /// Cancels a task that only waits for lost agents: once they are back, a round checks them again. If left alone,
    /// such tasks would gradually fill the queue.
    async fn withdraw(&self, memory: &mut Memory, live: &Live, rule: &str) {
        let Some(rule) = self.book.get(rule) else { return };
        memory.withdrawn.insert(live.id());
        if let Err(error) = self.queue.cancel(&rule.caller(), &live.id().to_string()).await {
            tracing::warn!(task = %live.id(), %error, "a task that waits for lost agents could not be cancelled");
        }
    }

    /// Shares out what may begin. At first the need of an image is that of all its layers; where that does not fit,
    /// its need is worked out from the layers it shares with what the agent holds.
    async fn share(
        &self,
        round: &Round<'_>,
        under_way: &UnderWay,
        held_back: &HashMap<Digest, Bits>,
    ) -> Result<Shares> {
        let room = self.queue.room().saturating_sub(LEFT_TO_PEOPLE);
        let tasks = MAX_TASKS.saturating_sub(under_way.tasks).min(room);
        let mut known = HashMap::new();
        let first = round.share(tasks, under_way, held_back, &known);
        if first.unfit.is_empty() {
            return Ok(first);
        }
        let mut planner = Planner::new(&self.catalog, &self.fleet);
        for (number, image) in first.unfit {
            let Some(agent) = round.by_number.get(&number) else { continue };
            let name = image.record.canonical().to_string();
            let plan = planner.plan(agent, &name, std::slice::from_ref(&image)).await?;
            known.insert((number, image.record.digest.clone()), plan.bytes);
        }
        Ok(round.share(tasks, under_way, held_back, &known))
    }

    /// Starts the planned tasks; returns each rule's tasks, and why one could not be started.
    async fn start(
        &self,
        round: &Round<'_>,
        orders: &[PlannedTask],
        memory: &mut Memory,
    ) -> Vec<(Vec<TaskId>, Option<String>)> {
        let mut begun: Vec<(Vec<TaskId>, Option<String>)> = vec![(Vec::new(), None); round.rules.len()];
        for order in orders {
            let (Some(rule), Some((tasks, problem))) =
                (round.rules.get(order.rule), begun.get_mut(order.rule))
            else {
                continue;
            };
            let id = |number: &usize| round.by_number.get(number).map(|agent| agent.record.id.clone());
            let mut agents: Vec<String> = order.agents.iter().filter_map(id).collect();
            agents.sort();
            let filling = Filling {
                rule: rule.name.clone(),
                expression: rule.target_agents.clone(),
                images: order.images.clone(),
                architecture: rule.architecture.clone(),
                agents,
            };
            // A user may have changed the rule during this round.
            if !self.book.is_current(rule) {
                continue;
            }
            match self.transfers.fill(&rule.caller(), filling).await {
                Ok(task) => {
                    memory.watched.entry(task).or_default();
                    tasks.push(task);
                }
                Err(error) => {
                    tracing::warn!(rule = rule.name, %error, "a task of a rule could not be started");
                    problem.get_or_insert_with(|| error.to_string());
                    break;
                }
            }
        }
        begun
    }

    /// Stores the status of each rule.
    fn tell(
        &self,
        round: &Round,
        shares: Shares,
        begun: Vec<(Vec<TaskId>, Option<String>)>,
        backoffs: &Backoffs,
    ) {
        let parts = shares.tallies.into_iter().zip(shares.waiting).zip(begun);
        for ((rule, (diff, agents)), ((tally, waiting), (tasks, problem))) in
            round.rules.iter().zip(&round.seen.rules).zip(parts)
        {
            let count = tally.begun;
            let begun = (!tasks.is_empty()).then_some(Begun { at: round.now, tasks, count });
            // A rule that was changed or removed meanwhile is checked again at once.
            self.book.note(rule, |before| Status {
                at: round.now,
                images: diff.images,
                is_cut: diff.is_cut(),
                agents: agents.names.len(),
                left_out: agents.left_out,
                folded: agents.folded(),
                unknown: agents.unknown.clone(),
                unknown_count: agents.unknown_count,
                away: agents.away.iter().take(MAX_AWAY).cloned().collect(),
                away_count: agents.away.len(),
                present: diff.present,
                tally,
                waiting: waiting.iter().filter_map(|w| told(round, w, backoffs)).collect(),
                begun: begun.or_else(|| before?.begun.clone()),
                problem,
            });
        }
    }
}

/// Whether everything left of a task waits for lost agents.
fn only_waits_for_lost(
    open: &BTreeMap<u32, Attempt>,
    numbers: &HashMap<&str, usize>,
    by_number: &HashMap<usize, Agent>,
) -> bool {
    let is_lost = |attempt: &Attempt| {
        let agent = numbers.get(attempt.agent.as_str()).and_then(|number| by_number.get(number));
        agent.is_some_and(|agent| !agent.is_alive())
    };
    !open.is_empty() && open.values().all(is_lost)
}

/// Parses the parts of a rule; `None` if it was written by a server that parses them differently.
fn readable(rule: Arc<Rule>) -> Option<(Arc<Rule>, Parsed)> {
    match ImagePattern::parse(&rule.images).and_then(|images| Ok((images, parsed(&rule.target_agents)?))) {
        Ok((images, agents)) => {
            let architecture = rule.architecture.clone();
            Some((rule, Parsed { images, architecture, agents }))
        }
        Err(error) => {
            tracing::warn!(rule = rule.name, %error, "a rule can't be read, and does nothing; change it");
            None
        }
    }
}

impl Round<'_> {
    /// Whether an open rule has more to begin than it may.
    fn is_full(&self, shares: &Shares) -> bool {
        let mut rules = self.rules.iter().zip(&shares.tallies);
        rules.any(|(rule, tally)| tally.due > 0 && rule.is_open(self.now))
    }

    /// Shares out, given the bytes known to be missing of some images on some agents.
    fn share(
        &self,
        tasks: usize,
        under_way: &UnderWay,
        held_back: &HashMap<Digest, Bits>,
        known: &HashMap<(usize, Digest), u64>,
    ) -> Shares {
        let mut free = HashMap::new();
        for (number, agent) in self.by_number {
            if let Some(room) = agent.free_bytes() {
                let reserved = under_way.reserved.get(number).copied().unwrap_or_default();
                free.insert(*number, room.saturating_sub(reserved));
            }
        }
        let need = |number: usize, image: &Image| {
            let bytes = known.get(&(number, image.record.digest.clone())).copied();
            let bytes = bytes.unwrap_or(image.record.size_bytes);
            self.by_number.get(&number).map_or(bytes, |agent| taken(bytes, agent))
        };
        let needs = self.rules.iter().zip(&self.seen.rules);
        let needs = needs.map(|(rule, (diff, _))| RuleNeeds { diff, is_open: rule.is_open(self.now) });
        let terms = RoundLimits { tasks, busy: &under_way.busy, held_back, free, need: &need };
        schedule::share(&needs.collect::<Vec<_>>(), terms)
    }
}

fn told(round: &Round, waiting: &schedule::Waiting, backoffs: &Backoffs) -> Option<Waiting> {
    let agent = round.by_number.get(&waiting.agent)?.record.id.clone();
    let (reason, until) = match waiting.why {
        Why::HeldBack => {
            let digest = &waiting.image.record.digest;
            let now = Moment { day: round.now, steady: round.steady };
            let (backoff, until) = backoffs.standing(&agent, digest, now)?;
            let times =
                if backoff.failures == 1 { "once".into() } else { format!("{} times", backoff.failures) };
            (format!("came to nothing {times}: {}", backoff.reason), Some(until))
        }
        Why::Unfit { need, free } => {
            (format!("will not fit: it takes up to {need} bytes, and {free} are left"), None)
        }
    };
    Some(Waiting { agent, image: waiting.image.record.canonical().to_string(), reason, until })
}
