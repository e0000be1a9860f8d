//! What callers ask about rules. The rounds that act on them are in `rules::reconcile`.

use std::sync::Arc;

use jiff::Timestamp;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::{Error, Result};
use crate::catalog::service::Catalog;
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::fleet::service::Fleet;
use crate::rules::backoff::Backoffs;
use crate::rules::book::{self, Book};
use crate::rules::diff::Diff;
use crate::rules::memory::Memory;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::{self, Rule, RuleChange, parsed};
use crate::rules::status::Status;
use crate::rules::survey::{Agents, Parsed, look_at};
use crate::rules::window::WindowState;
use crate::store::Store;
use crate::tasks::queue::Queue;
use crate::transfer::service::Transfers;

/// The rules of this server. Clones share them.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(in crate::rules) store: Store,
    pub(in crate::rules) clock: Clock,
    audit: Audit,
    pub(in crate::rules) catalog: Catalog,
    pub(in crate::rules) fleet: Fleet,
    pub(in crate::rules) queue: Queue,
    pub(in crate::rules) transfers: Transfers,
    pub(in crate::rules) book: Book<Rule, Status>,
    pub(in crate::rules) memory: Arc<tokio::sync::Mutex<Memory>>,
}

/// A rule with its current state.
pub(crate) type Told = book::Told<Rule, Status>;

/// The state of a rule, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The rule is switched off.
    Disabled,
    /// No round has checked the rule yet.
    New,
    /// Images are missing, and the window is closed.
    Closed,
    /// Images are being loaded, or are about to be.
    Loading,
    /// Images are missing that can't be loaded now.
    Waiting,
    /// All images are present.
    Filled,
}

impl State {
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::New => "new",
            Self::Closed => "closed",
            Self::Loading => "loading",
            Self::Waiting => "waiting",
            Self::Filled => "filled",
        }
    }
}

/// What a rule would find now.
#[derive(Debug)]
pub(crate) struct Preview {
    /// The images, and which of them are missing.
    pub(crate) diff: Diff,
    /// The agents, with those that can't receive images now.
    pub(crate) agents: Agents,
}

impl Told {
    /// The state of the rule.
    pub(crate) fn state(&self) -> State {
        let Some(status) = self.status.as_deref().filter(|_| self.rule.enabled) else {
            return if self.rule.enabled { State::New } else { State::Disabled };
        };
        let tally = &status.tally;
        match status.missing() {
            0 if status.away_count == 0 => State::Filled,
            0 => State::Waiting,
            _ if tally.begun + tally.loading > 0 => State::Loading,
            _ if tally.due > 0 && matches!(self.standing, Some(WindowState::Closed(_))) => State::Closed,
            _ if tally.due > 0 => State::Loading,
            _ => State::Waiting,
        }
    }
}

impl Rules {
    /// Loads the rules from the store; nothing happens before `run`.
    pub(crate) fn load(
        store: &Store,
        clock: &Clock,
        audit: &Audit,
        catalog: &Catalog,
        fleet: &Fleet,
        queue: &Queue,
        transfers: &Transfers,
    ) -> Result<Self> {
        let (book, backoffs) = store.read_now(|r| Ok((Book::load(r)?, Backoffs::load(r, clock)?)))?;
        Ok(Self {
            store: store.clone(),
            clock: clock.clone(),
            audit: audit.clone(),
            catalog: catalog.clone(),
            fleet: fleet.clone(),
            queue: queue.clone(),
            transfers: transfers.clone(),
            book,
            memory: Arc::new(tokio::sync::Mutex::new(Memory::new(backoffs))),
        })
    }

    /// All rules, ordered by name. For super-admins.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<Told>> {
        caller.require_superadmin("preload_rules")?;
        Ok(self.book.told(self.clock.now(), |_| true))
    }

    /// One rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Told> {
        caller.require_superadmin("preload_rule")?;
        self.book.find(name, self.clock.now())
    }

    /// Adds a rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, [`Error::Conflict`] for a name that is taken or one rule
    /// too many.
    pub(crate) async fn add(&self, caller: &Caller, name: &str, wanted: RuleChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "create_preload_rule", name, |deed| async move {
                let now = self.clock.now();
                self.book.add(&deed, Rule::new(name, wanted, caller, now)?, now).await
            })
            .await
    }

    /// Changes a rule; what it has begun continues. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name, [`Error::Invalid`] for a value that can't be parsed.
    pub(crate) async fn change(&self, caller: &Caller, name: &str, change: RuleChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "modify_preload_rule", name, |deed| async move {
                let (own, now) = (caller.clone(), self.clock.now());
                let make = move |known: &Arc<Rule>| known.as_ref().clone().changed(change, &own, now);
                self.book.change(&deed, name, now, make).await
            })
            .await
    }

    /// Removes a rule; what it has begun continues, and nothing is removed from any agent. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) async fn remove(&self, caller: &Caller, name: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "delete_preload_rule", name, |deed| async move {
                self.book.remove(&deed, name).await
            })
            .await
    }

    /// What a rule for these images and agents would find now; nothing is started. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed.
    pub(crate) async fn preview(
        &self,
        caller: &Caller,
        images: &str,
        target_agents: &str,
        architecture: Option<&str>,
    ) -> Result<Preview> {
        caller.require_superadmin("preload_rule_preview")?;
        let asked = Parsed {
            images: ImagePattern::parse(images)?,
            architecture: architecture.map(rule::architecture).transpose()?.flatten(),
            agents: parsed(target_agents)?,
        };
        let mut seen = look_at(&self.catalog, &self.fleet, caller, vec![asked]).await?;
        let (diff, agents) =
            seen.rules.pop().ok_or_else(|| Error::internal("a rule that was not looked at"))?;
        Ok(Preview { diff, agents })
    }

    /// Checks that an expression can be parsed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it can't.
    pub(crate) fn check_agents(target_agents: &str) -> Result<()> {
        parsed(target_agents).map(drop)
    }

    /// Checks that an architecture can be read.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it can't.
    pub(crate) fn check_architecture(architecture: Option<&str>) -> Result<()> {
        architecture.map(rule::architecture).transpose().map(drop)
    }

    /// The time that decides whether windows are open.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The names in an expression that no agent has now, the first of them. For super-admins.
    pub(crate) fn unknown_names(&self, caller: &Caller, target_agents: &str) -> Result<Vec<String>> {
        let agents = self.fleet.agents(caller)?;
        let inventory = Inventory::new(agents.iter().map(crate::fleet::agent::Agent::view));
        Ok(evaluate_known(&parsed(target_agents)?, &inventory).unknown)
    }
}
