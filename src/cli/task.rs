//! `wharf task`: running and finished background tasks.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::{
    base::ids::TaskId,
    cli::{
        self,
        api::{Client, Outcome},
        connection::Connection,
        failure::Result,
        follow, json,
        operation::{One, Operation},
        table, task_detail,
        text::moment,
    },
};

/// List, follow and cancel background tasks
#[derive(Args)]
pub(crate) struct Task {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the running tasks and those that ended within a day, newest first
    List {
        /// At most this many tasks
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        limit: u32,
        /// Leave out this many of the newest tasks
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        offset: u32,
    },
    /// Show one task: its state, what it did, and what it did not do and why
    Show {
        /// The task
        #[arg(value_parser = id)]
        id: TaskId,
    },
    /// Show a task's progress until it ends; fails if the task fails or is cancelled
    Follow {
        /// The task
        #[arg(value_parser = id)]
        id: TaskId,
    },
    /// Cancel a task that is running
    Cancel {
        /// The task
        #[arg(value_parser = id)]
        id: TaskId,
    },
}

fn id(text: &str) -> Result<TaskId, &'static str> {
    text.parse().map_err(|_| "expected a task's UUID, as wharf task list shows it")
}

impl Task {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        cli::block_on(async {
            match self.verb {
                Verb::List { limit, offset } => list(&client, limit, offset, as_json).await,
                Verb::Show { id } => show(&client, id, as_json).await,
                Verb::Follow { id } => {
                    // The task is fetched first, to tell a task that never existed from one whose events are no longer
                    // kept.
                    task_detail::find(&client, id).await?;
                    follow::follow(&client, id, as_json).await
                }
                Verb::Cancel { id } => cancel(&client, id, as_json).await,
            }
        })
    }
}

/// A task, as it stands in lists.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
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
    /// The standing rule that started the task.
    #[serde(default)]
    rule: Option<String>,
}

const FILE: &str = include_str!("operations/task.graphql");
pub(crate) const LIST: Operation<Page, json::List<Row>> = Operation::new(FILE, "Tasks", "background_tasks");
pub(crate) const CANCEL: Operation<One<'_>, Outcome> = Operation::new(FILE, "CancelTask", "cancel_task");

/// A page of the list of tasks.
#[derive(Default, Serialize)]
pub(crate) struct Page {
    limit: u32,
    offset: u32,
}

async fn list(client: &Client, limit: u32, offset: u32, as_json: bool) -> Result<()> {
    let rows = client.ask(&LIST, Page { limit, offset }).await?.0;
    if as_json {
        return json::print(&rows);
    }
    if rows.is_empty() && cli::is_for_people() {
        return cli::print("No task within the last day; start one with: wharf image rescan");
    }
    let headers = ["ID", "KIND", "SUBJECT", "STATE", "PROGRESS", "STARTED", "MESSAGE"];
    cli::print(&table::rows(&headers, rows.iter().map(Row::cells)))
}

async fn show(client: &Client, id: TaskId, as_json: bool) -> Result<()> {
    let task = task_detail::find(client, id).await?;
    if as_json { json::print(&task) } else { cli::print(&task.page()) }
}

async fn cancel(client: &Client, id: TaskId, as_json: bool) -> Result<()> {
    let outcome = client.change(&format!("task {id}"), &CANCEL, One { id: &id.to_string() }).await?;
    cli::done(&outcome, &format!("cancelling task {id}; what it has done stays"), as_json)
}

impl Row {
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.subject.clone(),
            self.state.clone(),
            task_detail::progress(self.current_progress, self.total_progress),
            moment(&self.created_at),
            self.message.clone(),
        ]
    }
}
