//! The rounds: each plans every rule and makes an unload task of what is to go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::fleet::agent::Agent;
use crate::retention::plan::{self, LeftOut, RetentionStatus, RulePlan, plan};
use crate::retention::rule::RetentionRule;
use crate::retention::service::Retention;
use crate::rules::book::Standing as _;
use crate::transfer::leaving::Retirement;
use crate::transfer::service::MAX_ITEMS;

/// How often the rules are looked at: images grow old and disks fill without anybody telling.
const REGULAR: Duration = Duration::from_mins(1);
/// After a round the loop rests this many times as long as the round took, so that a large lab keeps no processor busy.
const REST: u32 = 20;
/// How long what could not be removed is left alone.
const AGAIN: Duration = Duration::from_hours(1);
/// Most agents that a status names as away.
const MAX_AWAY: usize = 100;

impl Retention {
    /// Runs a round every minute and whenever a rule has changed, until the server stops.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut changes = self.book.changes().follow();
        let mut rest = REGULAR;
        loop {
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = changes.changed() => {}
                () = shutdown.cancelled() => return,
            }
            let begun = self.clock.steady();
            let round = async {
                if let Err(error) = self.round().await {
                    tracing::warn!(?error, "the retention rules could not be looked at; it is tried again");
                }
            };
            tokio::select! {
                () = round => {}
                () = shutdown.cancelled() => return,
            }
            let took = self.clock.steady().saturating_duration_since(begun);
            rest = REGULAR.max(took.saturating_mul(REST));
        }
    }

    /// Runs one round.
    pub(in crate::retention) async fn round(&self) -> Result<()> {
        let rules = self.book.enabled();
        if rules.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let roster: Vec<Agent> = self.fleet.roster().into_iter().map(|(_, agent)| agent).collect();
        let mut survey = self.rooms.survey(&roster).await;
        for rule in rules {
            let planned = plan(&rule, &roster, &mut survey, self.rooms.now(), &self.left_out()).await;
            match planned {
                Ok(plan) => self.act(&rule, plan, now).await,
                Err(error) => {
                    tracing::warn!(rule = rule.name, ?error, "a retention rule could not be planned");
                }
            }
        }
        Ok(())
    }

    /// What rounds have begun lately.
    pub(in crate::retention) fn left_out(&self) -> LeftOut {
        let (mut begun, steady) = (self.begun.lock(), self.clock.steady());
        begun.retain(|_, at| steady.saturating_duration_since(*at) < AGAIN);
        let mut left_out = LeftOut::new();
        for (agent, digest) in begun.keys() {
            left_out.entry(agent.clone()).or_default().insert(digest.clone());
        }
        left_out
    }

    /// Begins what a rule has planned, if it may, and notes how things stand.
    async fn act(&self, rule: &Arc<RetentionRule>, plan: RulePlan, now: Timestamp) {
        let held_back: Vec<String> =
            if rule.confirmed { Vec::new() } else { plan.most().into_iter().map(str::to_owned).collect() };
        let due = plan.agents.iter().map(|plan| (plan.going.len(), plan.frees()));
        let due = due.fold((0, 0_u64), |sum, one| (sum.0 + one.0, sum.1.saturating_add(one.1)));
        let mut status = RetentionStatus {
            at: now,
            agents: plan.agents.len(),
            folded: plan.folded(),
            away_count: plan.away.len(),
            away: plan.away.iter().take(MAX_AWAY).cloned().collect(),
            unknown: plan.unknown.clone(),
            unknown_count: plan.unknown_count,
            due,
            held_back,
            begun: None,
            problem: plan.problem.clone(),
        };
        if rule.is_open(now) && self.book.is_current(rule) {
            match self.begin(rule, plan, &status.held_back).await {
                Ok(Some((task, count))) => status.begun = Some(plan::Begun { at: now, task, count }),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(rule = rule.name, %error, "a task of a retention rule could not be started");
                    status.problem = Some(error.to_string());
                }
            }
        }
        self.book.note(rule, |before| {
            status.begun = status.begun.or_else(|| before?.begun.clone());
            status
        });
    }

    async fn begin(
        &self,
        rule: &RetentionRule,
        plan: RulePlan,
        held_back: &[String],
    ) -> Result<Option<(crate::base::ids::TaskId, usize)>> {
        let mut leaving = Vec::new();
        for agent in plan.agents.into_iter().filter(|plan| !held_back.contains(&plan.agent)) {
            leaving.extend(agent.going.into_iter().map(|going| (agent.agent.clone(), going.resident.held)));
        }
        leaving.truncate(MAX_ITEMS);
        if leaving.is_empty() || self.queue.room() == 0 {
            return Ok(None);
        }
        let (count, steady) = (leaving.len(), self.clock.steady());
        let keys: Vec<_> = leaving.iter().map(|(agent, held)| (agent.clone(), held.digest.clone())).collect();
        let retirement = Retirement {
            rule: rule.name.clone(),
            expression: rule.target_agents.clone(),
            terms: rule.terms(),
            leaving,
        };
        let task = self.transfers.retire(&rule.caller(), retirement).await?;
        self.begun.lock().extend(keys.into_iter().map(|key| (key, steady)));
        Ok(Some((task, count)))
    }
}
