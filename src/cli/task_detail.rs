//! A task with its items and its ledger: how commands fetch it, and what they show of it.

use serde::{Deserialize, Serialize};

use crate::{
    base::{error::Code, ids::TaskId, reference},
    cli::{
        api::Client,
        failure::{Failure, Result},
        json,
        operation::{One, Operation},
        table,
        text::{self, moment},
    },
};

/// Items per request.
const PAGE: usize = 1_000;
/// Most reasons in a summary; `wharf task show` lists all of them.
const SUMMARY_REASONS: usize = 20;

/// A task with all its details.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Detail {
    id: TaskId,
    #[serde(deserialize_with = "json::text")]
    kind: String,
    #[serde(deserialize_with = "json::text")]
    subject: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    #[serde(deserialize_with = "json::text")]
    message: String,
    #[serde(deserialize_with = "json::text")]
    created_at: String,
    ended_at: Option<String>,
    #[serde(deserialize_with = "json::count")]
    current_progress: u64,
    #[serde(deserialize_with = "json::count")]
    total_progress: u64,
    #[serde(default)]
    rule: Option<String>,
    /// The one architecture of images that the task is for.
    #[serde(default)]
    architecture: Option<String>,
    /// How many agents were left out, because theirs is another.
    #[serde(default, deserialize_with = "json::count")]
    left_out: u64,
    ledger: Option<Ledger>,
    #[serde(default, deserialize_with = "json::list")]
    items: Vec<Item>,
}

/// What a task did and did not do.
#[derive(Debug, Serialize, Deserialize)]
struct Ledger {
    #[serde(deserialize_with = "json::count")]
    added: u64,
    #[serde(deserialize_with = "json::count")]
    updated: u64,
    #[serde(deserialize_with = "json::count")]
    unchanged: u64,
    #[serde(deserialize_with = "json::count")]
    removed: u64,
    #[serde(deserialize_with = "json::count")]
    skipped_count: u64,
    #[serde(deserialize_with = "json::count")]
    failed_count: u64,
    #[serde(default, deserialize_with = "json::list")]
    skipped: Vec<Remark>,
    #[serde(default, deserialize_with = "json::list")]
    failed: Vec<Remark>,
}

/// The reason why something was not done.
#[derive(Debug, Serialize, Deserialize)]
struct Remark {
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    reason: String,
    /// The kind of failure, if a program may act on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// One piece of a task's work.
#[derive(Debug, Serialize, Deserialize)]
struct Item {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    #[serde(deserialize_with = "json::count")]
    attempts: u64,
    reason: Option<String>,
    #[serde(deserialize_with = "json::count")]
    current: u64,
    #[serde(deserialize_with = "json::count")]
    total: u64,
    started_at: Option<String>,
    ended_at: Option<String>,
}

const FILE: &str = include_str!("operations/task.graphql");
pub(crate) const SHOW: Operation<One<'_>, Detail> = Operation::new(FILE, "Task", "background_task");
pub(crate) const ITEMS: Operation<Rest<'_>, Items> = Operation::new(FILE, "TaskItems", "background_task");

/// The variables for the next page of a task's items.
#[derive(Default, Serialize)]
pub(crate) struct Rest<'a> {
    id: &'a str,
    offset: usize,
}

/// Fetches one task by its id, with all items.
pub(crate) async fn find(client: &Client, id: TaskId) -> Result<Detail> {
    let (what, id) = (format!("task {id}"), id.to_string());
    let found = client.find(&what, &SHOW, One { id: &id }).await?;
    let mut task = found.ok_or_else(|| {
        Failure::failed(&what, "no such task; tasks are kept for a day after their end")
            .remedy("see wharf task list")
    })?;
    // A full page means that there may be another.
    let mut is_full = task.items.len() == PAGE;
    while is_full {
        let page = client.find(&what, &ITEMS, Rest { id: &id, offset: task.items.len() }).await?;
        let items = page.map(|page| page.items).unwrap_or_default();
        is_full = items.len() == PAGE;
        task.items.extend(items);
    }
    Ok(task)
}

/// A page of a task's items.
#[derive(Deserialize)]
pub(crate) struct Items {
    #[serde(default, deserialize_with = "json::list")]
    items: Vec<Item>,
}

impl Detail {
    /// Whether the task has ended, so that nothing more will happen.
    pub(crate) fn has_ended(&self) -> bool {
        self.state != "started"
    }

    /// The text that a command that followed the task prints at its end.
    pub(crate) fn summary(&self) -> String {
        let title = [self.kind.as_str(), self.subject.as_str(), self.state.as_str()];
        let mut lines = vec![title.map(text::one_line).join(" ")];
        if self.is_transfer() {
            lines.extend(text::others(self.left_out).map(|others| format!("left out: {others}")));
            lines.extend(self.items.iter().map(Item::outcome));
            return lines.join("\n");
        }
        if let Some(ledger) = &self.ledger {
            lines.push(ledger.counts());
            lines.extend(reasons("skipped", &ledger.skipped, SUMMARY_REASONS));
            lines.extend(reasons("failed", &ledger.failed, SUMMARY_REASONS));
            if ledger.skipped.len().max(ledger.failed.len()) > SUMMARY_REASONS {
                lines.push(format!("all of them: wharf task show {}", self.id));
            }
            lines.extend(self.held_back(ledger));
        }
        lines.join("\n")
    }

    /// Returns a failure unless the task did what it was started for.
    pub(crate) fn verdict(&self) -> Result<()> {
        let what = format!("task {}", self.id);
        match self.state.as_str() {
            "done" => match self.items.iter().filter(|item| item.state != "done").count() {
                missed if missed > 0 && self.is_transfer() => {
                    let why = format!("not done on {missed} of {} agents", self.items.len());
                    Err(Failure::failed(what, why).remedy(format!("see wharf task show {}", self.id)))
                }
                _ => Ok(()),
            },
            "cancelled" => Err(Failure::failed(what, "it was cancelled").remedy("what it had done stays")),
            state => {
                let why = if self.message.is_empty() { state } else { &self.message };
                Err(Failure::failed(what, why).remedy(format!("see wharf task show {}", self.id)))
            }
        }
    }

    /// Whether the task's items are agents, which an image is loaded onto or removed from.
    fn is_transfer(&self) -> bool {
        matches!(self.kind.as_str(), "preload" | "unload")
    }

    /// The commands that remove what a rescan held back, ready to paste into a shell.
    fn held_back(&self, ledger: &Ledger) -> Vec<String> {
        // The subject is a registry, or a registry and a project: `cr.example.org/stable`.
        let project = self.subject.split_once('/').map(|(_, project)| project);
        let project = project.filter(|project| reference::is_repository(project));
        let held = ledger
            .failed
            .iter()
            .filter(|failed| failed.code.as_deref() == Some(Code::ConfirmationRequired.as_str()));
        // Users paste this text into a shell, so it must not contain anything but a host.
        held.filter(|failed| reference::is_registry_host(&failed.reference))
            .map(|Remark { reference: host, .. }| {
                let project = project.map(|project| format!(" --project {project}")).unwrap_or_default();
                format!("to remove them: wharf image rescan {host}{project} --confirm-removals")
            })
            .collect()
    }

    fn fields(&self) -> Vec<(&str, String)> {
        vec![
            ("id", self.id.to_string()),
            ("kind", text::one_line(&self.kind)),
            ("subject", text::one_line(&self.subject)),
            ("left out", text::others(self.left_out).unwrap_or_default()),
            ("rule", text::one_line(self.rule.as_deref().unwrap_or_default())),
            ("state", text::one_line(&self.state)),
            ("progress", progress(self.current_progress, self.total_progress)),
            ("started", moment(&self.created_at)),
            ("ended", self.ended_at.as_deref().map(moment).unwrap_or_default()),
            ("message", text::one_line(&self.message)),
        ]
    }

    pub(crate) fn page(&self) -> String {
        // The message of a task that ended well repeats its counts, which have a line of their own below.
        let repeats = self.ledger.as_ref().is_some_and(|ledger| ledger.is_said_by(&self.message));
        let fields = self.fields().into_iter().filter(|(name, _)| !(repeats && *name == "message"));
        let mut page = table::fields(fields);
        if let Some(ledger) = &self.ledger {
            page = [page, String::new(), ledger.counts()].join("\n");
            for lines in [
                reasons("skipped", &ledger.skipped, usize::MAX),
                reasons("failed", &ledger.failed, usize::MAX),
            ] {
                page.extend(lines.into_iter().flat_map(|line| ["\n".to_owned(), line]));
            }
            page.extend(self.held_back(ledger).into_iter().flat_map(|line| ["\n".to_owned(), line]));
        }
        if !self.items.is_empty() {
            let headers = ["ITEM", "STATE", "PROGRESS", "ATTEMPTS", "REASON"];
            page =
                [page, String::new(), table::rows(&headers, self.items.iter().map(Item::cells))].join("\n");
        }
        page
    }
}

impl Ledger {
    /// Whether a message says the same as [`Ledger::counts`], and no more.
    fn is_said_by(&self, message: &str) -> bool {
        let Self { added, updated, unchanged, removed, skipped_count, failed_count, .. } = self;
        *message
            == format!(
                "{added} added, {updated} updated, {unchanged} unchanged, {removed} removed, \
                 {skipped_count} skipped, {failed_count} failed"
            )
    }

    fn counts(&self) -> String {
        format!(
            "added {}, updated {}, unchanged {}, removed {}, skipped {}, failed {}",
            self.added, self.updated, self.unchanged, self.removed, self.skipped_count, self.failed_count
        )
    }
}

impl Item {
    /// The item's outcome, on one line: `gpu01: loaded`, `gpu02: failed: …`.
    fn outcome(&self) -> String {
        let reason = self.reason.as_deref().filter(|reason| !reason.is_empty());
        let line = match (self.state.as_str(), reason) {
            ("done", Some(reason)) => format!("{}: {reason}", self.name),
            (state, Some(reason)) => format!("{}: {state}: {reason}", self.name),
            (state, None) => format!("{}: {state}", self.name),
        };
        text::one_line(&line)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            progress(self.current, self.total),
            self.attempts.to_string(),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

/// The progress as `3/16`; empty if there is nothing to count, or not yet.
pub(crate) fn progress(current: u64, total: u64) -> String {
    if total == 0 { String::new() } else { format!("{current}/{total}") }
}

fn reasons(title: &str, reasons: &[Remark], at_most: usize) -> Vec<String> {
    if reasons.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("{title}:")];
    for Remark { reference, reason, .. } in reasons.iter().take(at_most) {
        lines.push(format!("  {}: {}", text::one_line(reference), text::one_line(reason)));
    }
    if reasons.len() > at_most {
        lines.push(format!("  … and {} more", reasons.len() - at_most));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::task_detail::Detail;

    #[test]
    fn what_was_held_back_comes_with_the_command_that_removes_it() {
        let ends_with = |subject: &str, host: &str| {
            let task = json!({
                "id": "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172", "kind": "rescan", "subject": subject,
                "state": "done", "message": "", "created_at": "", "ended_at": null,
                "current_progress": 1, "total_progress": 1,
                "ledger": {
                    "added": 0, "updated": 0, "unchanged": 0, "removed": 0, "skipped_count": 0, "failed_count": 1,
                    "failed": [{"reference": host, "reason": "most are gone", "code": "CONFIRMATION_REQUIRED"}],
                },
            });
            let task: Detail = serde_json::from_value(task).unwrap();
            task.summary().lines().last().unwrap().to_owned()
        };
        for (subject, expected) in [
            ("cr.io:5000", "to remove them: wharf image rescan cr.io:5000 --confirm-removals"),
            ("cr.io:5000/a", "to remove them: wharf image rescan cr.io:5000 --project a --confirm-removals"),
            ("every registry", "to remove them: wharf image rescan cr.io:5000 --confirm-removals"),
        ] {
            assert_eq!(ends_with(subject, "cr.io:5000"), expected);
        }
        assert!(!ends_with("x", "$(reboot)").contains("wharf image"));
    }

    #[test]
    fn a_transfer_ends_with_a_line_per_agent_and_fails_with_any_of_them() {
        let task = |states: [&str; 2]| -> Detail {
            let item = |name: &str, state: &str, reason: Option<&str>| {
                json!({
                    "name": name, "state": state, "reason": reason, "attempts": 1, "current": 0, "total": 0,
                    "started_at": null, "ended_at": null,
                })
            };
            serde_json::from_value(json!({
                "id": "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172", "kind": "unload", "subject": "a:1 on gpu[1-2]",
                "state": "done", "message": "", "created_at": "", "ended_at": null,
                "current_progress": 1, "total_progress": 1, "ledger": null,
                "items": [item("gpu1", states[0], Some("removed")), item("gpu2", states[1], None)],
            }))
            .unwrap()
        };
        let mut done = task(["done", "done"]);
        assert_eq!(done.summary(), "unload a:1 on gpu[1-2] done\ngpu1: removed\ngpu2: done");
        assert!(done.verdict().is_ok());
        done.left_out = 2;
        let title = "unload a:1 on gpu[1-2] done\nleft out: 2 agents of other architectures\ngpu1: ";
        assert!(done.summary().starts_with(title), "{}", done.summary());
        let failed = task(["failed", "done"]);
        assert!(failed.summary().contains("gpu1: failed: removed"));
        let failure = failed.verdict().unwrap_err().to_string();
        assert!(failure.contains("not done on 1 of 2 agents; see wharf task show"), "{failure}");
    }
}
