//! Background tasks: what is being done, how far it is, and what came of it.

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

/// The most tasks one request lists.
const MAX_TASKS: usize = 200;
/// How many if nothing is said.
const USUAL_TASKS: usize = 50;
/// The most items of a task one request lists.
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

    /// What it is done to: a registry, an image.
    async fn subject(&self) -> &str {
        &self.task.subject
    }

    /// The agents it is for, as they were asked for.
    async fn target_agents(&self) -> Option<&str> {
        self.task.targets.as_ref().map(|targets| targets.expression.as_str())
    }

    /// The agents it is for, as that came to when it was made, folded.
    async fn target_agents_folded(&self) -> Option<&str> {
        self.task.targets.as_ref().map(|targets| targets.folded.as_str())
    }

    /// The standing rule that asked for it; null where a person did.
    async fn rule(&self) -> Option<&str> {
        self.task.targets.as_ref().and_then(|targets| targets.rule.as_deref())
    }

    /// `started`, `done`, `failed` or `cancelled`.
    async fn state(&self) -> &str {
        self.task.state.as_str()
    }

    /// The last thing worth saying about it.
    async fn message(&self) -> &str {
        &self.task.message
    }

    /// When it was asked for, in RFC 3339.
    async fn created_at(&self) -> String {
        self.task.created_at.to_string()
    }

    /// When it ended.
    async fn ended_at(&self) -> Option<String> {
        self.task.ended_at.map(|at| at.to_string())
    }

    /// How much of it is done: tags for a rescan.
    async fn current_progress(&self) -> BigInt {
        BigInt(self.task.progress.current)
    }

    /// All there is to do, as far as it is known by now; 0 while it is not.
    async fn total_progress(&self) -> BigInt {
        BigInt(self.task.progress.total)
    }

    /// What it has changed, passed over and failed to do so far.
    async fn ledger(&self) -> TaskLedger {
        TaskLedger(self.live.ledger())
    }

    /// Its pieces, in order.
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

/// A piece of a task: one repository for a rescan, an image and an agent for a preload or unload.
pub(crate) struct TaskItem(Item);

#[Object(rename_fields = "snake_case")]
impl TaskItem {
    /// What it is about.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The agent it is about; null where it is about none.
    async fn agent(&self) -> Option<&str> {
        self.0.pair.as_ref().map(|pair| pair.agent.as_str())
    }

    /// The image it is about, by its canonical name; null where it is about more than one.
    async fn reference(&self) -> Option<&str> {
        self.0.pair.as_ref().map(|pair| pair.image.as_str())
    }

    /// `waiting`, `running`, `done`, `failed` or `cancelled`.
    async fn state(&self) -> &str {
        self.0.state.as_str()
    }

    /// How often it was begun.
    async fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How fast it went so far, in its unit (tags, bytes) per second.
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

    /// How much of it is done.
    async fn current(&self) -> BigInt {
        BigInt(self.0.progress.current)
    }

    /// All there is to do in it; 0 while that is not known.
    async fn total(&self) -> BigInt {
        BigInt(self.0.progress.total)
    }

    /// When it was first begun.
    async fn started_at(&self) -> Option<String> {
        self.0.started_at.map(|at| at.to_string())
    }

    /// When it ended.
    async fn ended_at(&self) -> Option<String> {
        self.0.ended_at.map(|at| at.to_string())
    }

    /// The time it waits for.
    async fn not_before(&self) -> Option<String> {
        self.0.not_before.map(|at| at.to_string())
    }

    /// What came of it.
    async fn ledger(&self) -> TaskLedger {
        TaskLedger(Arc::new(self.0.ledger.clone()))
    }
}

/// An account of what was done.
pub(crate) struct TaskLedger(Arc<Ledger>);

#[Object(rename_fields = "snake_case")]
impl TaskLedger {
    /// Images that are new.
    async fn added(&self) -> BigInt {
        BigInt(self.0.added)
    }

    /// Images that changed.
    async fn updated(&self) -> BigInt {
        BigInt(self.0.updated)
    }

    /// Images that are as they were.
    async fn unchanged(&self) -> BigInt {
        BigInt(self.0.unchanged)
    }

    /// Images that were taken out.
    async fn removed(&self) -> BigInt {
        BigInt(self.0.removed)
    }

    /// How much was passed over.
    async fn skipped_count(&self) -> BigInt {
        BigInt(self.0.skipped.count)
    }

    /// How much could not be done.
    async fn failed_count(&self) -> BigInt {
        BigInt(self.0.failed.count)
    }

    /// What was passed over, and why; the first 1,000.
    async fn skipped(&self) -> Vec<LedgerEntry> {
        entries(&self.0.skipped)
    }

    /// What could not be done, and why; the first 1,000.
    async fn failed(&self) -> Vec<LedgerEntry> {
        entries(&self.0.failed)
    }
}

/// One thing and the reason it is listed.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct LedgerEntry {
    /// What it is about.
    reference: String,
    /// Why.
    reason: String,
    /// What kind of failure it is, where a program may go by it.
    code: Option<ErrorCode>,
}

fn entries(remarks: &Remarks) -> Vec<LedgerEntry> {
    let entry =
        |Remark { reference, reason, code }| LedgerEntry { reference, reason, code: code.map(Into::into) };
    remarks.named.iter().cloned().map(entry).collect()
}

outcome!(
    /// What came of `cancel_task`: whether the task was asked to stop.
    CancelTask
);

/// The queries.
#[derive(Default)]
pub(crate) struct TaskQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TaskQuery {
    /// One task, for super-admins. It can be asked about until 24 hours after its end.
    async fn background_task(&self, ctx: &Context<'_>, id: String) -> FieldResult<Option<BackgroundTask>> {
        let (caller, queue) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Queue>());
        Ok(Some(queue.task_of(caller, &id)?.into()))
    }

    /// The tasks, the newest first, for super-admins; nobody else has any.
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
    /// Asks a task to stop. What it has done stays done.
    async fn cancel_task(&self, ctx: &Context<'_>, id: String) -> CancelTask {
        let (caller, queue) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Queue>());
        queue.cancel(caller, &id).await.map(|()| Done::saying("cancelling")).into()
    }
}
