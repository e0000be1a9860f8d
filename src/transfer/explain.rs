//! Why an image is on an agent or is not: the facts in words, the most telling first. A pure function.

use jiff::Timestamp;

use crate::base::ids::{TaskId, UserId};
use crate::fleet::agent::{Agent, Status};
use crate::fleet::presence::Presence;
use crate::tasks::task::{Item, ItemState, Progress, TaskKind};
use crate::transfer::history::Transfer;
use crate::transfer::plan::Unfit;

/// The state of an image on an agent, and what it follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// The state.
    pub(crate) state: Presence,
    /// The state and its cause, in one sentence.
    pub(crate) because: String,
    /// All that is known about it, the most telling first.
    pub(crate) causes: Vec<Cause>,
}

/// Something that the state follows from, or that will change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Its kind.
    pub(crate) code: Code,
    /// The cause in words, without a full stop.
    pub(crate) text: String,
    /// Since when it holds, or when it happened.
    pub(crate) at: Option<Timestamp>,
    /// When something is tried or begun next.
    pub(crate) next_at: Option<Timestamp>,
    /// The task that it is about.
    pub(crate) task: Option<TaskId>,
    /// The standing rule that it is about.
    pub(crate) rule: Option<String>,
}

/// The kind of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// There is no such agent.
    NoAgent,
    /// The agent was not met since the server started, or never.
    Unreached,
    /// The agent is lost.
    Lost,
    /// The agent's link broke a moment ago.
    Away,
    /// The agent has not said yet what it holds.
    NotReported,
    /// The image is not for the agent's architecture.
    OtherArchitecture,
    /// The agent takes no new images.
    Draining,
    /// The name means another image there.
    OtherImage,
    /// A task has not come to it yet.
    Queued,
    /// A task waits for its turn, for the agent, or for another agent to have fetched it.
    Waiting,
    /// A task is loading it.
    Loading,
    /// A task is removing it, or is about to.
    Unloading,
    /// A task failed to load it.
    Failed,
    /// A task that was to load it was cancelled.
    Cancelled,
    /// A task failed to remove it.
    UnloadFailed,
    /// A task loaded it.
    Loaded,
    /// A task found it there.
    Found,
    /// A task loaded it, and it went away without one.
    Gone,
    /// A task removed it.
    Removed,
    /// A task removed it, and it came back without one.
    CameBack,
    /// It is there, and no known task has loaded it.
    Foreign,
    /// A rule wants it there and is switched off.
    RuleDisabled,
    /// A rule wants it there, and its window is closed.
    RuleWindow,
    /// A rule wants it there, and leaves it alone for a while.
    RuleHeldBack,
    /// A rule wants it there, and it does not fit.
    RuleRoom,
    /// A rule wants it there, and is about to load it.
    RuleDue,
    /// The name means another image there, and nothing is going to replace it.
    NoRule,
    /// No known task and no rule is for it.
    NeverAsked,
}

impl Code {
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoAgent => "no-agent",
            Self::Unreached => "unreached",
            Self::Lost => "lost",
            Self::Away => "away",
            Self::NotReported => "not-reported",
            Self::OtherArchitecture => "other-architecture",
            Self::Draining => "draining",
            Self::OtherImage => "other-image",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Unloading => "unloading",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::UnloadFailed => "unload-failed",
            Self::Loaded => "loaded",
            Self::Found => "found",
            Self::Gone => "gone",
            Self::Removed => "removed",
            Self::CameBack => "came-back",
            Self::Foreign => "foreign",
            Self::RuleDisabled => "rule-disabled",
            Self::RuleWindow => "rule-window",
            Self::RuleHeldBack => "rule-held-back",
            Self::RuleRoom => "rule-room",
            Self::RuleDue => "rule-due",
            Self::NoRule => "no-rule",
            Self::NeverAsked => "never-asked",
        }
    }
}

/// What a standing rule that names the image and the agent is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The rule's name.
    pub(crate) rule: String,
    /// What keeps the rule from loading it.
    pub(crate) hindrance: Hindrance,
}

/// What keeps a rule from loading an image onto an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// The rule is switched off.
    Disabled,
    /// The rule's window is closed until this time; `None` if it does not open within days.
    Window(Option<Timestamp>),
    /// The image failed there lately.
    HeldBack {
        /// When it is tried again.
        until: Timestamp,
        /// How many times in a row it failed.
        failures: u32,
        /// Why it failed.
        reason: String,
    },
    /// Nothing of the rule's own. If the last round could not begin what it had to, there is a reason.
    None(Option<String>),
}

/// The facts that an explanation puts into words.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The image's canonical name.
    pub(crate) image: &'a str,
    /// The architectures that count of those the image has.
    pub(crate) architectures: &'a [&'a str],
    /// The id that was asked about.
    pub(crate) id: &'a str,
    /// The agent with that id.
    pub(crate) agent: Option<&'a Agent>,
    /// The state of the image there.
    pub(crate) state: Presence,
    /// What tasks do and did with it: first those that have not ended, then those that ended last.
    pub(crate) transfers: &'a [Transfer],
    /// What rules want of it.
    pub(crate) wishes: &'a [Wish],
    /// Whether it fits, if it does not.
    pub(crate) unfit: Option<Unfit>,
    /// Returns the address of a user, unless the account is gone.
    pub(crate) email: &'a dyn Fn(UserId) -> Option<String>,
}

/// Explains the state of an image on an agent.
pub(crate) fn explain(facts: &Facts<'_>) -> Explanation {
    let Facts { image, id, state, .. } = facts;
    let causes = facts.causes();
    let said = match state {
        Presence::Present => format!("{image} is on {id}"),
        Presence::Stale => format!("{image} is stale on {id}"),
        Presence::Absent => format!("{image} is not on {id}"),
        Presence::Unknown => format!("it is not known whether {image} is on {id}"),
    };
    // Of a stale image the first cause says what the name means; what becomes of it is as important.
    let told = if *state == Presence::Stale { 2 } else { 1 };
    let why = causes.iter().take(told).map(|cause| cause.text.as_str()).collect::<Vec<_>>().join("; ");
    Explanation { state: *state, because: format!("{said}: {}", why.trim_end_matches('.')), causes }
}

impl Facts<'_> {
    fn causes(&self) -> Vec<Cause> {
        let Some(agent) = self.agent else {
            return vec![Cause::of(Code::NoAgent, "there is no agent with this id".into())];
        };
        if self.state == Presence::Present {
            let mut causes: Vec<Cause> = self.open(TaskKind::Unload).collect();
            causes.extend(self.attempt(TaskKind::Unload));
            causes.extend(self.origin());
            causes.extend(self.open(TaskKind::Preload));
            if causes.is_empty() {
                causes.push(Cause::of(Code::Foreign, "no known task has loaded it".into()));
            }
            return causes;
        }
        let mut causes = Vec::new();
        if self.state == Presence::Stale {
            causes.push(self.other_image());
        }
        causes.extend(reach(agent));
        let excluded = self.other_architecture(agent);
        let is_excluded = excluded.is_some();
        causes.extend(excluded);
        if agent.record.draining {
            causes.push(Cause::of(Code::Draining, "the agent is draining and takes no new images".into()));
        }
        let of_agent = causes.len();
        causes.extend(self.open(TaskKind::Preload));
        let is_under_way = causes.len() > of_agent;
        causes.extend(self.open(TaskKind::Unload));
        causes.extend(self.attempt(TaskKind::Preload));
        if self.state != Presence::Stale {
            causes.extend(self.last_change());
        }
        if !is_under_way && !is_excluded {
            causes.extend(self.wishes.iter().map(|wish| self.wish(wish, agent)));
        }
        if self.state == Presence::Stale && !is_under_way && self.wishes.is_empty() {
            let why = "no task is replacing it, and no rule wants it there";
            causes.push(Cause::of(Code::NoRule, why.into()));
        }
        if self.state == Presence::Absent && causes.len() == of_agent && !is_excluded {
            let why = "no known task was for it there, and no rule wants it there";
            causes.push(Cause::of(Code::NeverAsked, why.into()));
        }
        causes
    }

    fn other_architecture(&self, agent: &Agent) -> Option<Cause> {
        let own = agent.about.as_ref()?.architecture.as_str();
        if self.architectures.contains(&own) {
            return None;
        }
        let text = format!("the agent is {own}; the image is for {}", self.architectures.join(", "));
        Some(Cause::of(Code::OtherArchitecture, text))
    }

    /// What tasks are doing, or are about to do.
    fn open(&self, kind: TaskKind) -> impl Iterator<Item = Cause> {
        let open = self
            .transfers
            .iter()
            .filter(move |transfer| transfer.kind == kind && !transfer.item.state.is_final());
        open.map(|transfer| self.under_way(transfer))
    }

    fn under_way(&self, transfer: &Transfer) -> Cause {
        let Transfer { kind, item, .. } = transfer;
        let Item { state, reason, progress, not_before, started_at, .. } = item;
        let task = format!("a task of {}", self.who(transfer));
        let (to_do, doing) = match kind {
            TaskKind::Unload => ("remove", "removing"),
            _ => ("load", "loading"),
        };
        let (code, text) = match (state, reason, not_before) {
            (ItemState::Waiting, Some(reason), Some(at)) => {
                let times = times(item.attempts);
                let again = format!("the next try is at {}", when(*at));
                (Code::Failed, format!("{task} failed to {to_do} it {times}: {reason}; {again}"))
            }
            (_, Some(reason), _) => (Code::Waiting, format!("{task} is to {to_do} it: {reason}")),
            (ItemState::Waiting, None, _) => {
                (Code::Queued, format!("{task} is to {to_do} it, and has not come to it yet"))
            }
            (_, None, _) => (Code::Loading, format!("{task} is {doing} it{}", bytes(*progress))),
        };
        let code = match kind {
            TaskKind::Unload => Code::Unloading,
            _ => code,
        };
        Cause { at: *started_at, next_at: *not_before, ..Cause::of_task(code, text, transfer) }
    }

    /// The last attempt of this kind, if it came to nothing and nothing has ended well since.
    fn attempt(&self, kind: TaskKind) -> Option<Cause> {
        let mut transfers = self.transfers.iter().take_while(|transfer| !has_changed(transfer));
        let transfer = transfers.find(|transfer| transfer.kind == kind && is_vain(transfer))?;
        let at = transfer.item.ended_at;
        let (who, moment) = (self.who(transfer), at.map(when).unwrap_or_default());
        if transfer.item.state == ItemState::Cancelled {
            let text = format!("a task of {who} was cancelled at {moment} before it was done");
            return Some(Cause { at, ..Cause::of_task(Code::Cancelled, text, transfer) });
        }
        let (code, what) = match kind {
            TaskKind::Unload => (Code::UnloadFailed, "remove"),
            _ => (Code::Failed, "load"),
        };
        let tried = match transfer.item.attempts {
            0 => String::new(),
            attempts => format!(", after it tried {}", times(attempts)),
        };
        let reason = transfer.item.reason.as_deref().unwrap_or("it failed");
        let next_at = self.next_try().filter(|_| kind == TaskKind::Preload);
        let next = next_at.map(|at| format!("; the next try is at {}", when(at))).unwrap_or_default();
        let text = format!("a task of {who} failed to {what} it at {moment}{tried}: {reason}{next}");
        Some(Cause { at, next_at, ..Cause::of_task(code, text, transfer) })
    }

    /// When a rule tries again what failed.
    fn next_try(&self) -> Option<Timestamp> {
        let until = |wish: &Wish| match wish.hindrance {
            Hindrance::HeldBack { until, .. } => Some(until),
            _ => None,
        };
        self.wishes.iter().filter_map(until).min()
    }

    fn last_change(&self) -> Option<Cause> {
        let transfer = self.transfers.iter().find(|transfer| has_changed(transfer))?;
        // An open unload may have removed it a moment ago.
        let is_gone = self.state == Presence::Absent && self.open(TaskKind::Unload).next().is_none();
        let (code, text) = match (transfer.kind, is_gone) {
            (TaskKind::Unload, _) => (Code::Removed, self.change(transfer)),
            (_, true) => {
                (Code::Gone, format!("{}, and it is gone since without wharf", self.change(transfer)))
            }
            (_, false) => (found(transfer), self.change(transfer)),
        };
        Some(Cause { at: transfer.item.ended_at, ..Cause::of_task(code, text, transfer) })
    }

    /// How an image that is there came there, as far as tasks know.
    fn origin(&self) -> Option<Cause> {
        let transfer = self.transfers.iter().find(|transfer| has_changed(transfer))?;
        let is_by_it = transfer.kind == TaskKind::Preload && transfer.is_current;
        // Otherwise an open preload may have loaded it a moment ago.
        if !is_by_it && self.open(TaskKind::Preload).next().is_some() {
            return None;
        }
        let (code, text) = match (transfer.kind, transfer.is_current) {
            (TaskKind::Unload, _) => {
                (Code::CameBack, format!("{}, and it came back without wharf", self.change(transfer)))
            }
            (_, false) => {
                (Code::Foreign, format!("{}, and this one came without wharf", self.change(transfer)))
            }
            (_, true) => (found(transfer), self.change(transfer)),
        };
        Some(Cause { at: transfer.item.ended_at, ..Cause::of_task(code, text, transfer) })
    }

    /// What a transfer that ended well did.
    fn change(&self, transfer: &Transfer) -> String {
        let (who, moment) = (self.who(transfer), transfer.item.ended_at.map(when).unwrap_or_default());
        let what = if transfer.is_current { "it" } else { "another image of this name" };
        match (transfer.kind, found(transfer)) {
            (TaskKind::Unload, _) => format!("{who} removed it at {moment}"),
            (_, Code::Found) => format!("a task of {who} found {what} there at {moment}"),
            _ => format!("{who} loaded {what} at {moment}"),
        }
    }

    fn other_image(&self) -> Cause {
        let means = "the name means another image there";
        let Some(transfer) = self.transfers.iter().find(|transfer| has_changed(transfer)) else {
            return Cause::of(Code::OtherImage, means.into());
        };
        let since = match (transfer.kind, transfer.is_current) {
            (TaskKind::Unload, _) => "and another came without wharf",
            (_, true) => "and the name was given to another one there since, without wharf",
            (_, false) => "and the name means a newer one in the registry",
        };
        let text = format!("{means}: {}, {since}", self.change(transfer));
        Cause { at: transfer.item.ended_at, ..Cause::of_task(Code::OtherImage, text, transfer) }
    }

    fn wish(&self, wish: &Wish, agent: &Agent) -> Cause {
        let Wish { rule, hindrance } = wish;
        let wants = format!("rule {rule} wants it there");
        let is_ready = agent.is_schedulable() && agent.away.is_none() && agent.has_reported;
        let (code, next_at, text) = match hindrance {
            Hindrance::Disabled => (Code::RuleDisabled, None, format!("{wants}, and is switched off")),
            Hindrance::Window(Some(opens)) => {
                (Code::RuleWindow, Some(*opens), format!("{wants}, and its window opens at {}", when(*opens)))
            }
            Hindrance::Window(None) => {
                (Code::RuleWindow, None, format!("{wants}, and its window does not open for days"))
            }
            Hindrance::HeldBack { until, failures, reason } => {
                let (tries, moment) = (times(*failures), when(*until));
                let text = format!(
                    "{wants}, and leaves it alone until {moment}: it came to nothing {tries}: {reason}"
                );
                (Code::RuleHeldBack, Some(*until), text)
            }
            Hindrance::None(_) if !is_ready => {
                (Code::RuleDue, None, format!("{wants}, and loads it once the agent can take it"))
            }
            Hindrance::None(Some(problem)) => {
                (Code::RuleDue, None, format!("{wants}, and could not begin yet: {problem}"))
            }
            Hindrance::None(None) => match self.unfit {
                Some(Unfit { need, free }) => {
                    let room = format!("it takes up to {need} bytes, and {free} are left");
                    (Code::RuleRoom, None, format!("{wants}, and waits for room: {room}"))
                }
                None => (Code::RuleDue, None, format!("{wants}, and loads it in one of its next rounds")),
            },
        };
        Cause { next_at, rule: Some(rule.clone()), ..Cause::of(code, text) }
    }

    /// Who asked for a task: a rule, or a person.
    fn who(&self, transfer: &Transfer) -> String {
        match (&transfer.rule, &transfer.retention) {
            (Some(rule), _) => format!("rule {rule}"),
            (None, Some(retention)) => format!("retention {retention}"),
            (None, None) => {
                (self.email)(transfer.owner).unwrap_or_else(|| format!("user {}", transfer.owner))
            }
        }
    }
}

impl Cause {
    fn of(code: Code, text: String) -> Self {
        Self { code, text, at: None, next_at: None, task: None, rule: None }
    }

    fn of_task(code: Code, text: String, transfer: &Transfer) -> Self {
        Self { task: Some(transfer.task), rule: transfer.rule.clone(), ..Self::of(code, text) }
    }
}

/// Why nothing can be asked of an agent now.
fn reach(agent: &Agent) -> Option<Cause> {
    match (&agent.status, &agent.away) {
        (Status::Lost { since, reason }, _) => {
            let (code, said) = match agent.about {
                None => (Code::Unreached, format!("the agent has not been reached: {reason}")),
                Some(_) => (Code::Lost, format!("the agent is lost since {}: {reason}", when(*since))),
            };
            Some(Cause { at: Some(*since), ..Cause::of(code, said) })
        }
        (Status::Alive, Some(reason)) => {
            Some(Cause::of(Code::Away, format!("the agent can't be reached at the moment: {reason}")))
        }
        (Status::Alive, None) if !agent.has_reported => {
            Some(Cause::of(Code::NotReported, "the agent has not said yet what it holds".into()))
        }
        (Status::Alive, None) => None,
    }
}

/// Whether a transfer ended well and says how things stood after it. One that skipped its image, or left it where it is,
/// says nothing.
fn has_changed(transfer: &Transfer) -> bool {
    let ledger = &transfer.item.ledger;
    let is_kept = transfer.kind == TaskKind::Unload && ledger.unchanged > 0;
    transfer.item.state == ItemState::Done && ledger.skipped.count == 0 && !is_kept
}

/// Whether a transfer that ended well loaded its image or found it there.
fn found(transfer: &Transfer) -> Code {
    if transfer.item.ledger.added > 0 { Code::Loaded } else { Code::Found }
}

/// Whether a transfer ended without what it was for.
fn is_vain(transfer: &Transfer) -> bool {
    matches!(transfer.item.state, ItemState::Failed | ItemState::Cancelled)
}

fn bytes(Progress { current, total }: Progress) -> String {
    if total == 0 { String::new() } else { format!(": {current} of {total} bytes") }
}

fn times(count: u32) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}

/// A time for people, to the second.
fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Code, Explanation, Facts, Hindrance, Wish, explain};
    use crate::base::ids::{TaskId, UserId};
    use crate::fleet::agent::{Agent, Status};
    use crate::fleet::presence::Presence;
    use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Progress, TaskKind};
    use crate::transfer::history::Transfer;
    use crate::transfer::plan::Unfit;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + 60 * minute).unwrap()
    }

    /// What is known about an image on an agent: at first, that it is not there.
    struct World {
        agent: Option<Agent>,
        architectures: Vec<&'static str>,
        state: Presence,
        transfers: Vec<Transfer>,
        wishes: Vec<Wish>,
        unfit: Option<Unfit>,
    }

    impl World {
        fn new() -> Self {
            Self {
                agent: Some(Agent::fake("gpu01")),
                architectures: vec!["x86_64"],
                state: Presence::Absent,
                transfers: Vec::new(),
                wishes: Vec::new(),
                unfit: None,
            }
        }

        fn of(state: Presence) -> Self {
            Self { state, ..Self::new() }
        }

        /// Adds an older transfer.
        fn with(mut self, kind: TaskKind, change: impl FnOnce(&mut Transfer)) -> Self {
            let item = NewItem { name: "gpu01".into(), pair: None, phase: 0, work: Vec::new() }.numbered(0);
            let mut transfer = Transfer {
                kind,
                task: TaskId::default(),
                owner: UserId::default(),
                rule: None,
                retention: None,
                is_current: true,
                item,
            };
            change(&mut transfer);
            self.transfers.push(transfer);
            self
        }

        fn wanted(mut self, hindrance: Hindrance) -> Self {
            self.wishes.push(Wish { rule: "nightly".into(), hindrance });
            self
        }

        fn explained(&self) -> Explanation {
            explain(&Facts {
                image: "cr.lab/a:1",
                architectures: &self.architectures,
                id: "gpu01",
                agent: self.agent.as_ref(),
                state: self.state,
                transfers: &self.transfers,
                wishes: &self.wishes,
                unfit: self.unfit,
                email: &|_| Some("ann@lab".into()),
            })
        }

        /// The words for all causes, and the sentence.
        fn told(&self) -> (Vec<&'static str>, String) {
            let Explanation { causes, because, state } = self.explained();
            assert_eq!(state, self.state);
            (causes.iter().map(|cause| cause.code.as_str()).collect(), because)
        }
    }

    fn done(minute: i64, ledger: Ledger) -> impl FnOnce(&mut Transfer) {
        move |transfer| {
            transfer.item.state = ItemState::Done;
            transfer.item.ended_at = Some(at(minute));
            transfer.item.ledger = ledger;
        }
    }

    fn loaded(minute: i64) -> impl FnOnce(&mut Transfer) {
        done(minute, Ledger { added: 1, ..Ledger::default() })
    }

    fn removed(minute: i64) -> impl FnOnce(&mut Transfer) {
        done(minute, Ledger { removed: 1, ..Ledger::default() })
    }

    fn failed(minute: i64, attempts: u32, reason: &str) -> impl FnOnce(&mut Transfer) {
        move |transfer| {
            let item = transfer.item.clone();
            let (ended_at, reason) = (Some(at(minute)), Some(reason.into()));
            transfer.item = Item { state: ItemState::Failed, attempts, ended_at, reason, ..item };
        }
    }

    fn says(world: &World, codes: &[&str], sentence: &str) {
        let (told, because) = world.told();
        assert_eq!((told.as_slice(), because.as_str()), (codes, sentence));
    }

    #[test]
    fn an_agent_that_can_not_be_asked_says_why() {
        let unknown = "it is not known whether cr.lab/a:1 is on gpu01";
        let world = |change: fn(&mut Agent)| {
            let mut agent = Agent::fake("gpu01");
            change(&mut agent);
            World { agent: Some(agent), ..World::of(Presence::Unknown) }
        };
        let nobody = World { agent: None, ..World::of(Presence::Unknown) };
        says(&nobody, &["no-agent"], &format!("{unknown}: there is no agent with this id"));
        let lost = world(|agent| agent.status = Status::Lost { since: at(1), reason: "no route".into() });
        let since = "the agent is lost since 2026-01-01 00:01:00 UTC: no route";
        says(&lost, &["lost"], &format!("{unknown}: {since}"));
        assert_eq!(lost.explained().causes[0].at, Some(at(1)));
        let unmet = world(|agent| {
            agent.about = None;
            agent.status = Status::Lost { since: at(1), reason: "not reached yet".into() };
        });
        says(&unmet, &["unreached"], &format!("{unknown}: the agent has not been reached: not reached yet"));
        let silent = world(|agent| agent.has_reported = false);
        says(&silent, &["not-reported"], &format!("{unknown}: the agent has not said yet what it holds"));
        let away = World {
            agent: Some(Agent { away: Some("reset".into()), ..Agent::fake("gpu01") }),
            ..World::new()
        };
        assert_eq!(away.told().0, ["away", "never-asked"]);
    }

    #[test]
    fn what_is_lost_is_still_told_of() {
        let status = Status::Lost { since: at(9), reason: "no route".into() };
        let lost =
            World { agent: Some(Agent { status, ..Agent::fake("gpu01") }), ..World::of(Presence::Unknown) };
        let waits =
            |transfer: &mut Transfer| transfer.item.reason = Some("waiting for the agent: no route".into());
        let world = lost.with(TaskKind::Preload, waits).with(TaskKind::Preload, loaded(1));
        assert_eq!(world.told().0, ["lost", "waiting", "loaded"]);
    }

    #[test]
    fn an_image_for_other_agents_is_not_waited_for() {
        let world = World { architectures: vec!["aarch64", "riscv64"], ..World::new() };
        let why = "cr.lab/a:1 is not on gpu01: the agent is x86_64; the image is for aarch64, riscv64";
        says(&world, &["other-architecture"], why);
        let world = world.wanted(Hindrance::None(None));
        says(&world, &["other-architecture"], why);
    }

    #[test]
    fn an_agent_that_drains_takes_nothing() {
        let mut draining = Agent::fake("gpu01");
        draining.record.draining = true;
        let world = World { agent: Some(draining), ..World::new() }.wanted(Hindrance::None(None));
        let why = "cr.lab/a:1 is not on gpu01: the agent is draining and takes no new images";
        says(&world, &["draining", "rule-due"], why);
        let last = world.explained().causes.pop().unwrap();
        assert_eq!(last.text, "rule nightly wants it there, and loads it once the agent can take it");
        assert_eq!(last.rule.as_deref(), Some("nightly"));
    }

    #[test]
    fn what_a_task_is_at_is_told_in_the_words_of_its_item() {
        let not = "cr.lab/a:1 is not on gpu01: a task of ann@lab";
        let of = |change: fn(&mut Item)| {
            World::new()
                .with(TaskKind::Preload, |transfer| change(&mut transfer.item))
                .wanted(Hindrance::None(None))
        };
        says(&of(|_| {}), &["queued"], &format!("{not} is to load it, and has not come to it yet"));
        let fetches = of(|item| item.reason = Some("waits for gpu02 to have fetched it".into()));
        says(&fetches, &["waiting"], &format!("{not} is to load it: waits for gpu02 to have fetched it"));
        let turn = of(|item| {
            item.state = ItemState::Running;
            item.reason = Some("waiting for its turn".into());
        });
        says(&turn, &["waiting"], &format!("{not} is to load it: waiting for its turn"));
        let begun = of(|item| item.state = ItemState::Running);
        says(&begun, &["loading"], &format!("{not} is loading it"));
        let half = of(|item| {
            item.state = ItemState::Running;
            item.progress = Progress { current: 3, total: 4 };
            item.started_at = Some(at(2));
        });
        says(&half, &["loading"], &format!("{not} is loading it: 3 of 4 bytes"));
        let cause = half.explained().causes.remove(0);
        assert_eq!((cause.at, cause.task), (Some(at(2)), Some(TaskId::default())));
        let again = of(|item| {
            item.attempts = 2;
            item.reason = Some("reset by peer".into());
            item.not_before = Some(at(5));
        });
        let why = "failed to load it 2 times: reset by peer; the next try is at 2026-01-01 00:05:00 UTC";
        says(&again, &["failed"], &format!("{not} {why}"));
        assert_eq!(again.explained().causes[0].next_at, Some(at(5)));
    }

    #[test]
    fn a_failure_is_told_with_the_next_try_of_a_rule() {
        let by_rule = |transfer: &mut Transfer| {
            failed(3, 6, "no such manifest")(transfer);
            transfer.rule = Some("nightly".into());
        };
        let world = World::new().with(TaskKind::Preload, by_rule).with(TaskKind::Unload, removed(1));
        let failure = "a task of rule nightly failed to load it at 2026-01-01 00:03:00 UTC, after it tried 6 times: \
                       no such manifest";
        says(&world, &["failed", "removed"], &format!("cr.lab/a:1 is not on gpu01: {failure}"));
        let reason = "no such manifest".to_owned();
        let world = world.wanted(Hindrance::HeldBack { until: at(7), failures: 1, reason });
        let next = "the next try is at 2026-01-01 00:07:00 UTC";
        says(
            &world,
            &["failed", "removed", "rule-held-back"],
            &format!("cr.lab/a:1 is not on gpu01: {failure}; {next}"),
        );
        let causes = world.explained().causes;
        assert_eq!((causes[0].at, causes[0].next_at), (Some(at(3)), Some(at(7))));
        let held = "rule nightly wants it there, and leaves it alone until 2026-01-01 00:07:00 UTC: it came to \
                    nothing once: no such manifest";
        assert_eq!((causes[2].text.as_str(), causes[2].next_at), (held, Some(at(7))));
        let cancelled = World::new().with(TaskKind::Preload, |transfer| {
            transfer.item.state = ItemState::Cancelled;
            transfer.item.ended_at = Some(at(4));
        });
        let why = "a task of ann@lab was cancelled at 2026-01-01 00:04:00 UTC before it was done";
        says(&cancelled, &["cancelled"], &format!("cr.lab/a:1 is not on gpu01: {why}"));
    }

    #[test]
    fn a_failure_before_something_that_ended_well_says_nothing() {
        let world =
            World::new().with(TaskKind::Unload, removed(2)).with(TaskKind::Preload, failed(1, 1, "x"));
        let why = "cr.lab/a:1 is not on gpu01: ann@lab removed it at 2026-01-01 00:02:00 UTC";
        says(&world, &["removed"], why);
    }

    #[test]
    fn who_removed_it_is_told_and_what_went_by_itself_too() {
        let skipped = |transfer: &mut Transfer| {
            let mut ledger = Ledger::default();
            ledger.skipped.push("cr.lab/a:1", "not there");
            done(5, ledger)(transfer);
        };
        let world = World::new().with(TaskKind::Unload, skipped).with(TaskKind::Preload, loaded(1));
        let why = "ann@lab loaded it at 2026-01-01 00:01:00 UTC, and it is gone since without wharf";
        says(&world, &["gone"], &format!("cr.lab/a:1 is not on gpu01: {why}"));
        let found =
            World::new().with(TaskKind::Preload, done(1, Ledger { unchanged: 1, ..Ledger::default() }));
        let why =
            "a task of ann@lab found it there at 2026-01-01 00:01:00 UTC, and it is gone since without wharf";
        says(&found, &["gone"], &format!("cr.lab/a:1 is not on gpu01: {why}"));
    }

    #[test]
    fn a_rule_that_wants_it_says_what_it_waits_for() {
        let not = "cr.lab/a:1 is not on gpu01: rule nightly wants it there, and";
        let until = |minute| format!("2026-01-01 00:{minute:02}:00 UTC");
        for (hindrance, code, words) in [
            (Hindrance::Disabled, Code::RuleDisabled, "is switched off".into()),
            (Hindrance::Window(Some(at(8))), Code::RuleWindow, format!("its window opens at {}", until(8))),
            (Hindrance::Window(None), Code::RuleWindow, "its window does not open for days".into()),
            (
                Hindrance::HeldBack { until: at(9), failures: 3, reason: "x".into() },
                Code::RuleHeldBack,
                format!("leaves it alone until {}: it came to nothing 3 times: x", until(9)),
            ),
            (
                Hindrance::None(Some("64 tasks are running already".into())),
                Code::RuleDue,
                "could not begin yet: 64 tasks are running already".into(),
            ),
            (Hindrance::None(None), Code::RuleDue, "loads it in one of its next rounds".into()),
        ] {
            says(&World::new().wanted(hindrance), &[code.as_str()], &format!("{not} {words}"));
        }
        let full = World { unfit: Some(Unfit { need: 200, free: 99 }), ..World::new() };
        let words = "waits for room: it takes up to 200 bytes, and 99 are left";
        says(&full.wanted(Hindrance::None(None)), &["rule-room"], &format!("{not} {words}"));
        let none = "cr.lab/a:1 is not on gpu01: no known task was for it there, and no rule wants it there";
        says(&World::new(), &["never-asked"], none);
    }

    #[test]
    fn of_an_image_that_is_there_it_is_told_how_it_came() {
        let is = "cr.lab/a:1 is on gpu01:";
        let world = || World::of(Presence::Present);
        let foreign = format!("{is} no known task has loaded it");
        says(&world(), &["foreign"], &foreign);
        let by_ann = world().with(TaskKind::Preload, loaded(1));
        says(&by_ann, &["loaded"], &format!("{is} ann@lab loaded it at 2026-01-01 00:01:00 UTC"));
        assert_eq!(by_ann.explained().causes[0].task, Some(TaskId::default()));
        let back = world().with(TaskKind::Unload, removed(2));
        let why = "ann@lab removed it at 2026-01-01 00:02:00 UTC, and it came back without wharf";
        says(&back, &["came-back"], &format!("{is} {why}"));
        let older = world().with(TaskKind::Preload, |transfer| {
            loaded(2)(transfer);
            transfer.is_current = false;
        });
        assert_eq!(older.told().0, ["foreign"]);
        let kept = world()
            .with(TaskKind::Unload, failed(3, 1, "in use by 1 container: web"))
            .with(TaskKind::Preload, loaded(1));
        assert_eq!(kept.told().0, ["unload-failed", "loaded"]);
        let going = world().with(TaskKind::Unload, |transfer| transfer.item.state = ItemState::Running);
        says(&going, &["unloading"], &format!("{is} a task of ann@lab is removing it"));
    }

    #[test]
    fn what_a_task_has_just_done_is_not_told_as_if_nobody_had() {
        let running = |transfer: &mut Transfer| transfer.item.state = ItemState::Running;
        let there = World::of(Presence::Present).with(TaskKind::Preload, running);
        says(&there, &["loading"], "cr.lab/a:1 is on gpu01: a task of ann@lab is loading it");
        let back =
            World::of(Presence::Present).with(TaskKind::Preload, running).with(TaskKind::Unload, removed(1));
        assert_eq!(back.told().0, ["loading"]);
        let off = World::new().with(TaskKind::Unload, running).with(TaskKind::Preload, loaded(1));
        assert_eq!(off.told().0, ["unloading", "loaded"]);
    }

    #[test]
    fn of_a_stale_image_it_is_told_what_the_name_means_and_whether_a_rule_replaces_it() {
        let is = "cr.lab/a:1 is stale on gpu01: the name means another image there";
        let world = || World::of(Presence::Stale);
        let nobody = "no task is replacing it, and no rule wants it there";
        says(&world(), &["other-image", "no-rule"], &format!("{is}; {nobody}"));
        let moved = |transfer: &mut Transfer| {
            loaded(1)(transfer);
            transfer.is_current = false;
        };
        let since = "ann@lab loaded another image of this name at 2026-01-01 00:01:00 UTC, and the name means a newer \
                     one in the registry";
        let replaced = "rule nightly wants it there, and loads it in one of its next rounds";
        says(
            &world().with(TaskKind::Preload, moved).wanted(Hindrance::None(None)),
            &["other-image", "rule-due"],
            &format!("{is}: {since}; {replaced}"),
        );
        let under_way = world().with(TaskKind::Preload, |_| {}).wanted(Hindrance::None(None));
        assert_eq!(under_way.told().0, ["other-image", "queued"]);
    }
}
