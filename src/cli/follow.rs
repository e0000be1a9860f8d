//! Following a background task to its end: live progress, through lost connections and restarts of the server.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Response;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    base::ids::TaskId,
    cli::{
        self,
        api::{Client, Unopened},
        failure::{Failure, Result},
        json,
        sse::Parser,
        task::{self, Detail},
        text,
    },
};

/// How long we wait between attempts, and for how long in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    first: Duration,
    longest: Duration,
    in_all: Duration,
}

impl Default for Patience {
    /// A restart takes a second or two; an upgrade of the machine some minutes.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
            in_all: Duration::from_mins(10),
        }
    }
}

/// What a task's event says.
#[derive(Debug, Deserialize)]
struct Step {
    #[serde(default, deserialize_with = "json::count")]
    current_progress: u64,
    #[serde(default, deserialize_with = "json::count")]
    total_progress: u64,
    #[serde(default)]
    message: Option<String>,
}

/// Follows a task and prints how it ended. A task that failed or was cancelled is a failure.
///
/// Ctrl-C ends the following, not the task.
pub(crate) async fn follow(client: &Client, id: TaskId, as_json: bool) -> Result<()> {
    let mut screen = Screen::new();
    let ended = tokio::select! {
        ended = to_the_end(client, id, Patience::default(), &mut screen) => ended,
        _ = tokio::signal::ctrl_c() => {
            screen.clear();
            return Err(Failure::failed(format!("task {id}"), "goes on without us")
                .remedy(format!("follow it again with: wharf task follow {id}")));
        }
    };
    screen.clear();
    let task = ended?;
    if as_json {
        json::print(&task)?;
    } else {
        cli::print(&task.summary())?;
    }
    task.verdict()
}

/// Waits for the end of a task and fetches it with its ledger.
async fn to_the_end(client: &Client, id: TaskId, patience: Patience, screen: &mut Screen) -> Result<Detail> {
    let mut backoff = Backoff::new(patience);
    watch(client, id, &mut backoff, screen).await?;
    loop {
        match task::find(client, id).await {
            Err(failure) if failure.may_pass() && backoff.pause().await => {}
            Ok(task) if !task.has_ended() => {
                return Err(Failure::failed(format!("task {id}"), "the server gives no events for it")
                    .remedy(format!("see wharf task show {id}")));
            }
            found => return found,
        }
    }
}

/// Returns when the task has ended, or when the server has no events for it (any more).
async fn watch(client: &Client, id: TaskId, backoff: &mut Backoff, screen: &mut Screen) -> Result<()> {
    let mut last_id = None;
    loop {
        match client.events(id, last_id.as_deref()).await {
            Ok(response) => {
                if read(response, &mut last_id, backoff, screen).await {
                    return Ok(());
                }
            }
            Err(Unopened::Unknown) => return Ok(()),
            Err(Unopened::Failed(failure)) if failure.may_pass() => {
                screen.lost(&failure);
                if backoff.is_over() {
                    return Err(failure.remedy(format!("the task may go on: wharf task follow {id}")));
                }
            }
            Err(Unopened::Failed(failure)) => return Err(failure),
        }
        backoff.pause().await;
    }
}

/// Reads one stream while it lasts; true if the task's end was on it.
async fn read(
    mut response: Response,
    last_id: &mut Option<String>,
    backoff: &mut Backoff,
    screen: &mut Screen,
) -> bool {
    let mut parser = Parser::default();
    // Silence, a broken connection and the end of the stream are all the same to us: ask again from here on.
    while let Ok(Ok(Some(bytes))) = timeout(Client::silence(), response.chunk()).await {
        let Ok(events) = parser.push(&bytes) else { return false };
        for event in events {
            backoff.reset();
            last_id.clone_from(&event.id);
            // Servers of the seed's era say `task_…`, later ones `bgtask_…`.
            match event.name.trim_start_matches("bg") {
                "task_updated" => {
                    if let Ok(step) = serde_json::from_str(&event.data) {
                        screen.show(&step);
                    }
                }
                "task_done" | "task_partial_success" | "task_failed" | "task_cancelled" => return true,
                _ => {}
            }
        }
    }
    false
}

/// Growing pauses, until patience is over.
struct Backoff {
    patience: Patience,
    next: Duration,
    lost_since: Option<Instant>,
}

impl Backoff {
    fn new(patience: Patience) -> Self {
        Self { patience, next: patience.first, lost_since: None }
    }

    fn reset(&mut self) {
        (self.next, self.lost_since) = (self.patience.first, None);
    }

    fn is_over(&self) -> bool {
        self.lost_since.is_some_and(|since| since.elapsed() >= self.patience.in_all)
    }

    /// Waits; false if there is no point in trying again.
    async fn pause(&mut self) -> bool {
        self.lost_since.get_or_insert_with(Instant::now);
        if self.is_over() {
            return false;
        }
        sleep(self.next).await;
        self.next = self.patience.longest.min(self.next * 2);
        true
    }
}

/// Where progress is shown: always on stderr, so that stdout has only the result.
enum Screen {
    /// A bar that redraws itself.
    Bar(ProgressBar),
    /// A line whenever something changed; holds the last one.
    Lines(String),
}

impl Screen {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines(String::new());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Bar(bar)
    }

    fn show(&mut self, step: &Step) {
        let message = text::one_line(step.message.as_deref().unwrap_or_default());
        match self {
            Self::Bar(bar) => {
                if step.total_progress > 0 && bar.length() != Some(step.total_progress) {
                    bar.set_style(style("{bar:30} {pos}/{len} {elapsed} {wide_msg}"));
                    bar.set_length(step.total_progress);
                }
                bar.set_position(step.current_progress);
                bar.set_message(message);
            }
            Self::Lines(_) => {
                self.line(format!("{}/{} {message}", step.current_progress, step.total_progress));
            }
        }
    }

    fn lost(&mut self, failure: &Failure) {
        let message = format!("waiting for the server ({failure})");
        match self {
            Self::Bar(bar) => bar.set_message(message),
            Self::Lines(_) => self.line(message),
        }
    }

    fn line(&mut self, line: String) {
        if let Self::Lines(last) = self
            && *last != line
        {
            // Progress that nobody reads is no reason to stop.
            let _ = writeln!(io::stderr(), "{}", line.trim_end());
            *last = line;
        }
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
