//! What callers ask about rules. The rounds that act on them are in `rules::reconcile`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::reference::shown;
use crate::base::signal::Signal;
use crate::base::{Error, Result};
use crate::catalog::service::Catalog;
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::fleet::service::Fleet;
use crate::rules::backoff::Backoffs;
use crate::rules::diff::Diff;
use crate::rules::memory::Memory;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::{self, Rule, RuleChange, parsed};
use crate::rules::status::Status;
use crate::rules::survey::{Agents, Parsed, look_at};
use crate::rules::window::WindowState;
use crate::store::{Store, Table};
use crate::tasks::queue::Queue;
use crate::transfer::service::Transfers;

const RULES: Table<Rule> = Table::new("RULE_NAME_TO_RULE");

/// Most rules: each is checked whenever something changes, and people can't oversee more than a page.
pub(crate) const MAX_RULES: usize = 100;

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
    pub(in crate::rules) index: Arc<RwLock<Index>>,
    pub(in crate::rules) memory: Arc<tokio::sync::Mutex<Memory>>,
    pub(in crate::rules) changes: Signal,
}

/// The rules in memory.
#[derive(Default)]
pub(in crate::rules) struct Index {
    pub(in crate::rules) rules: BTreeMap<String, Arc<Rule>>,
    pub(in crate::rules) statuses: HashMap<String, Arc<Status>>,
}

/// A rule with its current state.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// The status from the last round; `None` before the first.
    pub(crate) status: Option<Arc<Status>>,
    /// The state of its window; `None` if it has none.
    pub(crate) standing: Option<WindowState>,
}

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
        let mut index = Index::default();
        let backoffs = store.read_now(|r| {
            r.scan(&RULES, [], |_, rule: Rule| {
                index.rules.insert(rule.name.clone(), Arc::new(rule));
                Ok(())
            })?;
            Backoffs::load(r, clock)
        })?;
        Ok(Self {
            store: store.clone(),
            clock: clock.clone(),
            audit: audit.clone(),
            catalog: catalog.clone(),
            fleet: fleet.clone(),
            queue: queue.clone(),
            transfers: transfers.clone(),
            index: Arc::new(RwLock::new(index)),
            memory: Arc::new(tokio::sync::Mutex::new(Memory::new(backoffs))),
            changes: Signal::default(),
        })
    }

    /// All rules, ordered by name. For super-admins.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<Told>> {
        caller.require_superadmin("preload_rules")?;
        Ok(self.told(|_| true))
    }

    /// Those of the rules that are meant, ordered by name, without asking who the caller is.
    pub(in crate::rules) fn told(&self, is_meant: impl Fn(&Rule) -> bool) -> Vec<Told> {
        let (index, now) = (self.index.read(), self.clock.now());
        index.rules.values().filter(|rule| is_meant(rule)).map(|rule| index.told(rule, now)).collect()
    }

    /// One rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Told> {
        caller.require_superadmin("preload_rule")?;
        let index = self.index.read();
        let rule = index.rules.get(name.trim()).ok_or_else(|| missing(name))?;
        Ok(index.told(rule, self.clock.now()))
    }

    /// Adds a rule. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, [`Error::Conflict`] for a name that is taken or one rule
    /// too many.
    pub(crate) async fn add(&self, caller: &Caller, name: &str, wanted: RuleChange) -> Result<Told> {
        self.audit
            .superadmin(caller, "create_preload_rule", name, |deed| async move {
                let rule = Rule::new(name, wanted, caller, self.clock.now())?;
                let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
                let told = rule.clone();
                deed.write(move |w| {
                    // Decided inside the write, where memory and store agree.
                    check_is_free(&index.read(), &rule.name)?;
                    w.put(&RULES, &rule.name, &rule)?;
                    w.on_commit(move || {
                        index.write().rules.insert(rule.name.clone(), Arc::new(rule));
                        changes.raise();
                    });
                    Ok(())
                })
                .await?;
                Ok(Index::default().told(&Arc::new(told), self.clock.now()))
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
                let (index, changes, now) = (Arc::clone(&self.index), self.changes.clone(), self.clock.now());
                let (own, name) = (caller.clone(), name.trim().to_owned());
                let rule = deed
                    .write(move |w| {
                        let known = index.read().rules.get(&name).cloned().ok_or_else(|| missing(&name))?;
                        let rule = Arc::new(known.as_ref().clone().changed(change, &own, now)?);
                        w.put(&RULES, &name, rule.as_ref())?;
                        let kept = Arc::clone(&rule);
                        w.on_commit(move || {
                            let mut index = index.write();
                            index.statuses.remove(&name);
                            index.rules.insert(name, kept);
                            changes.raise();
                        });
                        Ok(rule)
                    })
                    .await?;
                Ok(self.index.read().told(&rule, now))
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
                let (index, changes, name) =
                    (Arc::clone(&self.index), self.changes.clone(), name.trim().to_owned());
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

impl Index {
    fn told(&self, rule: &Arc<Rule>, now: Timestamp) -> Told {
        Told {
            rule: Arc::clone(rule),
            status: self.statuses.get(&rule.name).cloned(),
            standing: rule.standing(now),
        }
    }
}

fn check_is_free(index: &Index, name: &str) -> Result<()> {
    if index.rules.contains_key(name) {
        return Err(Error::Exists(format!(
            "there is a rule {name} already; change it, or choose another name"
        )));
    }
    if index.rules.len() >= MAX_RULES {
        let why =
            format!("there are {MAX_RULES} rules, as many as may be; remove one, or widen one's pattern");
        return Err(Error::LimitReached(why));
    }
    Ok(())
}

fn missing(name: &str) -> Error {
    Error::missing("preload rule", shown(name.trim()))
}
