//! What callers ask about retention rules. The rounds that act on them are in `retention::round`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::fleet::agent::Agent;
use crate::fleet::service::Fleet;
use crate::retention::plan::{RetentionStatus, RulePlan, plan};
use crate::retention::rule::{RetentionChange, RetentionRule};
use crate::rules::book::{self, Book};
use crate::rules::window::WindowState;
use crate::store::Store;
use crate::tasks::queue::Queue;
use crate::transfer::rooms::Rooms;
use crate::transfer::service::Transfers;

/// How many agents a refusal names.
const NAMED: usize = 5;

/// What rounds have begun lately: the images on agents, each with the time on the steady clock. One that is there all
/// the same is on its way, or could not be removed.
type Begun = HashMap<(String, Digest), Instant>;

/// The retention rules of this server. Clones share them.
#[derive(Clone)]
pub(crate) struct Retention {
    pub(in crate::retention) clock: Clock,
    audit: Audit,
    pub(in crate::retention) fleet: Fleet,
    pub(in crate::retention) queue: Queue,
    pub(in crate::retention) transfers: Transfers,
    pub(in crate::retention) rooms: Rooms,
    pub(in crate::retention) book: Book<RetentionRule, RetentionStatus>,
    pub(in crate::retention) begun: Arc<Mutex<Begun>>,
}

/// A rule with its current state.
pub(crate) type Told = book::Told<RetentionRule, RetentionStatus>;

impl Told {
    /// The state of the rule in one word.
    pub(crate) fn state(&self) -> &'static str {
        let Some(status) = self.status.as_deref().filter(|_| self.rule.enabled) else {
            return if self.rule.enabled { "new" } else { "disabled" };
        };
        match status.due.0 {
            _ if !status.held_back.is_empty() => "held",
            0 => "kept",
            _ if matches!(self.standing, Some(WindowState::Closed(_))) => "closed",
            _ => "removing",
        }
    }
}

impl Retention {
    /// Loads the rules from the store; nothing happens before `run`.
    pub(crate) fn load(
        store: &Store,
        clock: &Clock,
        audit: &Audit,
        fleet: &Fleet,
        queue: &Queue,
        transfers: &Transfers,
    ) -> Result<Self> {
        Ok(Self {
            clock: clock.clone(),
            audit: audit.clone(),
            fleet: fleet.clone(),
            queue: queue.clone(),
            transfers: transfers.clone(),
            rooms: transfers.rooms().clone(),
            book: store.read_now(Book::load)?,
            begun: Arc::default(),
        })
    }

    /// All rules, ordered by name. For super-admins.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<Told>> {
        caller.require_superadmin("retention_rules")?;
        Ok(self.book.told(self.clock.now(), |_| true))
    }

    /// One rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Told> {
        caller.require_superadmin("retention_rule")?;
        self.book.find(name, self.clock.now())
    }

    /// Adds a rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, [`Error::Conflict`] for a name that is taken or one rule too
    /// many, [`Error::Unconfirmed`] for a rule that would take more than half of what an agent has.
    pub(crate) async fn add(&self, caller: &Caller, name: &str, wanted: RetentionChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "create_retention_rule", name, |deed| async move {
                let now = self.clock.now();
                let rule = RetentionRule::new(name, wanted, caller, now)?;
                self.book.check_is_free(&rule.name)?;
                self.check_is_confirmed(&rule).await?;
                self.book.add(&deed, rule, now).await
            })
            .await
    }

    /// Changes a rule; what it has begun continues. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name, and those of [`Retention::add`].
    pub(crate) async fn change(&self, caller: &Caller, name: &str, change: RetentionChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "modify_retention_rule", name, |deed| async move {
                let now = self.clock.now();
                let known = self.book.find(name, now)?.rule;
                let rule = known.as_ref().clone().changed(change, caller, now)?;
                if rule.enabled {
                    self.check_is_confirmed(&rule).await?;
                }
                let make = move |current: &Arc<RetentionRule>| {
                    // Of two changes at the same time, the second is to see what the first did.
                    if Arc::ptr_eq(current, &known) {
                        return Ok(rule);
                    }
                    let why = format!("rule {} was changed meanwhile; look at it again", known.name);
                    Err(Error::Conflict(why))
                };
                self.book.change(&deed, name, now, make).await
            })
            .await
    }

    /// Removes a rule; what it has begun continues. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) async fn remove(&self, caller: &Caller, name: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "delete_retention_rule", name, |deed| async move {
                self.book.remove(&deed, name).await
            })
            .await
    }

    /// What a rule with these values would take now; nothing is started. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed.
    pub(crate) async fn preview(&self, caller: &Caller, wanted: RetentionChange) -> Result<RulePlan> {
        caller.require_superadmin("retention_preview")?;
        self.plan_now(&RetentionRule::new("preview", wanted, caller, self.clock.now())?).await
    }

    /// What a rule would take now; nothing is started. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) async fn plan(&self, caller: &Caller, name: &str) -> Result<RulePlan> {
        let rule = self.find(caller, name)?.rule;
        self.plan_now(&rule).await
    }

    async fn plan_now(&self, rule: &RetentionRule) -> Result<RulePlan> {
        let roster: Vec<Agent> = self.fleet.roster().into_iter().map(|(_, agent)| agent).collect();
        let mut survey = self.rooms.survey(&roster).await;
        plan(rule, &roster, &mut survey, self.rooms.now(), &self.left_out()).await
    }

    /// Refuses a rule that would take most of what an agent has, unless a person confirmed it.
    async fn check_is_confirmed(&self, rule: &RetentionRule) -> Result<()> {
        if rule.confirmed {
            return Ok(());
        }
        let plan = self.plan_now(rule).await?;
        let most = plan.most();
        if most.is_empty() {
            return Ok(());
        }
        let named = most.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = most.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::Unconfirmed(format!(
            "it would take more than half of what there is from {named}{more}; look at its plan, and confirm it if \
             that is meant"
        )))
    }
}
