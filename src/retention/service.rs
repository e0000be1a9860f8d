//! What callers ask about retention rules. The rounds that act on them are in `retention::round`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::reference::shown;
use crate::base::signal::Signal;
use crate::base::{Error, Result};
use crate::fleet::agent::Agent;
use crate::fleet::service::Fleet;
use crate::retention::plan::{RetentionStatus, RulePlan, plan};
use crate::retention::rule::{RetentionChange, RetentionRule};
use crate::rules::window::WindowState;
use crate::store::{Store, Table};
use crate::tasks::queue::Queue;
use crate::transfer::rooms::Rooms;
use crate::transfer::service::Transfers;

const RULES: Table<RetentionRule> = Table::new("RETENTION_NAME_TO_RULE");

/// Most rules: people can't oversee more than a page.
const MAX_RULES: usize = 100;
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
    pub(in crate::retention) index: Arc<RwLock<Index>>,
    pub(in crate::retention) begun: Arc<Mutex<Begun>>,
    pub(in crate::retention) changes: Signal,
}

/// The rules in memory.
#[derive(Default)]
pub(in crate::retention) struct Index {
    pub(in crate::retention) rules: BTreeMap<String, Arc<RetentionRule>>,
    pub(in crate::retention) statuses: HashMap<String, Arc<RetentionStatus>>,
}

/// A rule with its current state.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The rule.
    pub(crate) rule: Arc<RetentionRule>,
    /// The status from the last round; `None` before the first.
    pub(crate) status: Option<Arc<RetentionStatus>>,
    /// The state of its window; `None` if it has none.
    pub(crate) standing: Option<WindowState>,
}

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
        let mut index = Index::default();
        store.read_now(|r| {
            r.scan(&RULES, [], |_, rule: RetentionRule| {
                index.rules.insert(rule.name.clone(), Arc::new(rule));
                Ok(())
            })
        })?;
        Ok(Self {
            clock: clock.clone(),
            audit: audit.clone(),
            fleet: fleet.clone(),
            queue: queue.clone(),
            transfers: transfers.clone(),
            rooms: transfers.rooms().clone(),
            index: Arc::new(RwLock::new(index)),
            begun: Arc::default(),
            changes: Signal::default(),
        })
    }

    /// All rules, ordered by name. For super-admins.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<Told>> {
        caller.require_superadmin("retention_rules")?;
        let (index, now) = (self.index.read(), self.clock.now());
        Ok(index.rules.values().map(|rule| index.told(rule, now)).collect())
    }

    /// One rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Told> {
        caller.require_superadmin("retention_rule")?;
        let index = self.index.read();
        let rule = index.rules.get(name.trim()).ok_or_else(|| missing(name))?;
        Ok(index.told(rule, self.clock.now()))
    }

    /// Adds a rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, [`Error::Conflict`] for a name that is taken or one rule too
    /// many, [`Error::Unconfirmed`] for a rule that would take more than half of what an agent has.
    pub(crate) async fn add(&self, caller: &Caller, name: &str, wanted: RetentionChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "create_retention_rule", name, |deed| async move {
                let rule = RetentionRule::new(name, wanted, caller, self.clock.now())?;
                self.check_is_free(&rule.name)?;
                self.check_is_confirmed(&rule).await?;
                let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
                let (rule, retention) = (Arc::new(rule), self.clone());
                let kept = Arc::clone(&rule);
                deed.write(move |w| {
                    // Decided inside the write, where memory and store agree.
                    retention.check_is_free(&kept.name)?;
                    w.put(&RULES, &kept.name, kept.as_ref())?;
                    w.on_commit(move || {
                        index.write().rules.insert(kept.name.clone(), kept);
                        changes.raise();
                    });
                    Ok(())
                })
                .await?;
                Ok(Index::default().told(&rule, self.clock.now()))
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
                let (name, now) = (name.trim().to_owned(), self.clock.now());
                let find = |index: &Index| index.rules.get(&name).cloned().ok_or_else(|| missing(&name));
                let known = find(&self.index.read())?;
                let rule = Arc::new(known.as_ref().clone().changed(change, caller, now)?);
                if rule.enabled {
                    self.check_is_confirmed(&rule).await?;
                }
                let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
                let (kept, name) = (Arc::clone(&rule), name.clone());
                deed.write(move |w| {
                    // Of two changes at the same time, the second is to see what the first did.
                    if !index.read().rules.get(&name).is_some_and(|now| Arc::ptr_eq(now, &known)) {
                        return Err(Error::Conflict(format!(
                            "rule {name} was changed meanwhile; look at it again"
                        )));
                    }
                    w.put(&RULES, &name, kept.as_ref())?;
                    w.on_commit(move || {
                        let mut index = index.write();
                        index.statuses.remove(&name);
                        index.rules.insert(name, kept);
                        changes.raise();
                    });
                    Ok(())
                })
                .await?;
                Ok(self.index.read().told(&rule, now))
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
                let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
                let name = name.trim().to_owned();
                deed.write(move |w| {
                    if !w.remove(&RULES, &name)? {
                        return Err(missing(&name));
                    }
                    w.on_commit(move || {
                        let mut index = index.write();
                        index.rules.remove(&name);
                        index.statuses.remove(&name);
                        changes.raise();
                    });
                    Ok(())
                })
                .await
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

    fn check_is_free(&self, name: &str) -> Result<()> {
        let index = self.index.read();
        if index.rules.contains_key(name) {
            let why = format!("there is a retention rule {name} already; change it, or choose another name");
            return Err(Error::Exists(why));
        }
        if index.rules.len() >= MAX_RULES {
            let why = format!("there are {MAX_RULES} retention rules, as many as may be; remove one");
            return Err(Error::LimitReached(why));
        }
        Ok(())
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

impl Index {
    fn told(&self, rule: &Arc<RetentionRule>, now: Timestamp) -> Told {
        Told {
            rule: Arc::clone(rule),
            status: self.statuses.get(&rule.name).cloned(),
            standing: rule.standing(now),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::missing("retention rule", shown(name.trim()))
}
