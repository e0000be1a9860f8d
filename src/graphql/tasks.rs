//! Background tasks: their subject, progress and results.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::stretch;
use crate::graphql::kit::outcome::{Done, ErrorCode, outcome};
use crate::graphql::kit::scalar::BigInt;
use crate::tasks::live::Live;
use crate::tasks::queue::Queue;
use crate::tasks::task::{Item, Ledger, Page, Remark, Remarks, Task};

/// The most tasks that one request lists.
const MAX_TASKS: usize = 200;
/// The number of tasks listed if the request does not say.
const USUAL_TASKS: usize = 50;
/// The most items of a task that one request lists.
const MAX_ITEMS: usize = 1_000;

/// A background task.
pub(crate) struct BackgroundTask {
    live: Arc<Live>,
    task: Task,
}

impl From<Arc<Live>> for BackgroundTask {
    fn from(live: Arc<Live>) -> Self {
        Self { task: live.task(), live }
    }
}

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl BackgroundTask {
    /// Its id, which survives restarts of the server.
    async fn id(&self) -> String {
        self.task.id.to_string()
    }

    /// `rescan`, `preload` or `unload`.
    async fn kind(&self) -> &str {
        self.task.kind.as_str()
    }

    /// The registry or image that the task works on.
    async fn subject(&self) -> &str {
        &self.task.subject
    }

    /// The agents it is for, as the request named them.
    async fn target_agents(&self) -> Option<&str> {
        self.task.targets.as_ref().map(|targets| targets.expression.as_str())
    }

    /// The agents that the request's expression named when the task was created, without those that were left out,
    /// folded.
    async fn target_agents_folded(&self) -> Option<&str> {
        self.task.targets.as_ref().map(|targets| targets.folded.as_str())
    }

    /// The one architecture of images that it is for; null if it is for each agent's own.
    async fn architecture(&self) -> Option<&str> {
        self.task.targets.as_ref().and_then(|targets| targets.architecture.as_deref())
    }

    /// How many agents that the expression named were left out, because their architecture is not the one asked for.
    async fn left_out(&self) -> i32 {
        let left_out = self.task.targets.as_ref().map_or(0, |targets| targets.left_out);
        i32::try_from(left_out).unwrap_or(i32::MAX)
    }

    /// The standing preload that asked for it; null if a user asked for it.
    async fn rule(&self) -> Option<&str> {
        self.task.targets.as_ref().and_then(|targets| targets.rule.as_deref())
    }

    /// The retention rule that asked for it; null if another did.
    async fn retention(&self) -> Option<&str> {
        self.task.targets.as_ref().and_then(|targets| targets.retention.as_deref())
    }

    /// `started`, `done`, `failed` or `cancelled`.
    async fn state(&self) -> &str {
        self.task.state.as_str()
    }

    /// The latest message about its progress.
    async fn message(&self) -> &str {
        &self.task.message
    }

    /// When it was requested, in RFC 3339.
    async fn created_at(&self) -> String {
        self.task.created_at.to_string()
    }

    /// When it ended.
    async fn ended_at(&self) -> Option<String> {
        self.task.ended_at.map(|at| at.to_string())
    }

    /// How much is done so far, in the task's unit; tags for a rescan.
    async fn current_progress(&self) -> BigInt {
        BigInt(self.task.progress.current)
    }

    /// How much there is to do in all, as far as known; 0 if not known yet.
    async fn total_progress(&self) -> BigInt {
        BigInt(self.task.progress.total)
    }

    /// What it has changed, skipped and failed to do so far.
    async fn ledger(&self) -> TaskLedger {
        TaskLedger(self.live.ledger())
    }

    /// Its items, in order.
    async fn items(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Leave out so many.")] offset: Option<i32>,
        #[graphql(desc = "No more than so many; 1,000 at most.")] limit: Option<i32>,
        #[graphql(desc = "Only those to which nothing more will happen, or the others.")] is_final: Option<
            bool,
        >,
    ) -> FieldResult<Vec<TaskItem>> {
        let (offset, limit) = stretch(offset, limit, MAX_ITEMS, MAX_ITEMS)?;
        let items = ctx.data_unchecked::<Queue>().items(&self.live, Page { is_final, offset, limit }).await?;
        Ok(items.into_iter().map(TaskItem).collect())
    }
}

/// One unit of a task: a repository for a rescan, an image on an agent for a preload or unload.
pub(crate) struct TaskItem(Item);

#[Object(rename_fields = "snake_case")]
impl TaskItem {
    /// The name of the repository or image.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The agent it concerns; null if it concerns none.
    async fn agent(&self) -> Option<&str> {
        self.0.pair.as_ref().map(|pair| pair.agent.as_str())
    }

    /// The canonical name of the image it concerns; null if it concerns more than one.
    async fn reference(&self) -> Option<&str> {
        self.0.pair.as_ref().map(|pair| pair.image.as_str())
    }

    /// `waiting`, `running`, `done`, `failed` or `cancelled`.
    async fn state(&self) -> &str {
        self.0.state.as_str()
    }

    /// How many times it was started.
    async fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Its average speed so far, in its unit (tags, bytes) per second.
    async fn speed(&self) -> Option<f64> {
        let begun = self.0.started_at?;
        let until = self.0.ended_at.unwrap_or_else(jiff::Timestamp::now);
        let seconds = until.duration_since(begun).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a speed is for people")]
        let done = self.0.progress.current as f64;
        (seconds > 0.0).then(|| done / seconds)
    }

    /// Why it failed or waits, or how it ended.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// How much of it is done, in its unit.
    async fn current(&self) -> BigInt {
        BigInt(self.0.progress.current)
    }

    /// How much there is to do in it, in its unit; 0 if not known yet.
    async fn total(&self) -> BigInt {
        BigInt(self.0.progress.total)
    }

    /// When it was first started.
    async fn started_at(&self) -> Option<String> {
        self.0.started_at.map(|at| at.to_string())
    }

    /// When it ended.
    async fn ended_at(&self) -> Option<String> {
        self.0.ended_at.map(|at| at.to_string())
    }

    /// The time before which it is not tried again.
    async fn not_before(&self) -> Option<String> {
        self.0.not_before.map(|at| at.to_string())
    }

    /// What it has changed, skipped and failed to do.
    async fn ledger(&self) -> TaskLedger {
        TaskLedger(Arc::new(self.0.ledger.clone()))
    }
}

/// What a task or an item has done.
pub(crate) struct TaskLedger(Arc<Ledger>);

#[Object(rename_fields = "snake_case")]
impl TaskLedger {
    /// How many images were added.
    async fn added(&self) -> BigInt {
        BigInt(self.0.added)
    }

    /// How many images were updated.
    async fn updated(&self) -> BigInt {
        BigInt(self.0.updated)
    }

    /// How many images were unchanged.
    async fn unchanged(&self) -> BigInt {
        BigInt(self.0.unchanged)
    }

    /// How many images were removed.
    async fn removed(&self) -> BigInt {
        BigInt(self.0.removed)
    }

    /// How many things were skipped.
    async fn skipped_count(&self) -> BigInt {
        BigInt(self.0.skipped.count)
    }

    /// How many things failed.
    async fn failed_count(&self) -> BigInt {
        BigInt(self.0.failed.count)
    }

    /// What was skipped, and why; the first 1,000.
    async fn skipped(&self) -> Vec<LedgerEntry> {
        entries(&self.0.skipped)
    }

    /// What failed, and why; the first 1,000.
    async fn failed(&self) -> Vec<LedgerEntry> {
        entries(&self.0.failed)
    }
}

/// One thing that was skipped or failed, and the reason.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct LedgerEntry {
    /// What it is: an image, a repository, an agent.
    reference: String,
    /// Why.
    reason: String,
    /// What kind of failure it is, for programs; null if there is no code for it.
    code: Option<ErrorCode>,
}

fn entries(remarks: &Remarks) -> Vec<LedgerEntry> {
    let entry =
        |Remark { reference, reason, code }| LedgerEntry { reference, reason, code: code.map(Into::into) };
    remarks.named.iter().cloned().map(entry).collect()
}

outcome!(
    /// The result of `cancel_task`: whether the task was asked to stop.
    CancelTask
);

/// The queries.
#[derive(Default)]
pub(crate) struct TaskQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TaskQuery {
    /// One task, for super-admins. It can be queried until 24 hours after its end.
    async fn background_task(&self, ctx: &Context<'_>, id: String) -> FieldResult<Option<BackgroundTask>> {
        let (caller, queue) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Queue>());
        Ok(Some(queue.task_of(caller, &id)?.into()))
    }

    /// The tasks, newest first. For super-admins; other users have no tasks.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn background_tasks(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "No more than so many; 200 at most, 50 if not given.")] limit: Option<i32>,
        #[graphql(desc = "Leave out so many.")] offset: Option<i32>,
    ) -> FieldResult<Option<Vec<BackgroundTask>>> {
        let (caller, queue) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Queue>());
        let (offset, limit) = stretch(offset, limit, USUAL_TASKS, MAX_TASKS)?;
        if !caller.is_superadmin() {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(queue.list(offset, limit).into_iter().map(Into::into).collect()))
    }
}

/// The mutations.
#[derive(Default)]
pub(crate) struct TaskMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TaskMutation {
    /// Asks a task to stop. What it has already done stays done.
    async fn cancel_task(&self, ctx: &Context<'_>, id: String) -> CancelTask {
        let (caller, queue) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Queue>());
        queue.cancel(caller, &id).await.map(|()| Done::saying("cancelling")).into()
    }
}
