//! Follows a background task to its end with live progress, through lost connections and restarts of the server.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar};
use reqwest::Response;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    base::{
        backoff::{Backoff, Waits},
        ids::TaskId,
    },
    cli::{
        self,
        api::{Client, Unopened},
        bars,
        failure::{Failure, Result},
        json,
        sse::Parser,
        task_detail::{self, Detail},
        text,
    },
};

/// The waits between attempts, and the limit for all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    waits: Backoff,
    in_all: Duration,
}

impl Default for Patience {
    /// Values that outlast a restart of the server (a second or two) and an upgrade of the machine (some minutes).
    fn default() -> Self {
        Self {
            waits: Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5)),
            in_all: Duration::from_mins(10),
        }
    }
}

/// The content of a task's event.
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
/// Ctrl-C ends the command, not the task.
pub(crate) async fn follow(client: &Client, id: TaskId, as_json: bool) -> Result<()> {
    let all = MultiProgress::new();
    let mut screen = Screen::new(&all);
    let ended = tokio::select! {
        ended = to_the_end(client, id, Patience::default(), &mut screen) => ended,
        never = bars::watch(client, id, &all) => match never {},
        _ = tokio::signal::ctrl_c() => {
            screen.clear();
            clear(&all);
            return Err(Failure::failed(format!("task {id}"), "still running on the server")
                .remedy(format!("follow it again with: wharf task follow {id}")));
        }
    };
    screen.clear();
    clear(&all);
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
    let mut tries = Tries::new(patience);
    watch(client, id, &mut tries, screen).await?;
    loop {
        match task_detail::find(client, id).await {
            Err(failure) if failure.may_pass() && tries.pause().await => {}
            Ok(task) if !task.has_ended() => {
                return Err(Failure::failed(format!("task {id}"), "the server gives no events for it")
                    .remedy(format!("see wharf task show {id}")));
            }
            found => return found,
        }
    }
}

/// Reads events until the task has ended, or the server has no events for it (any more).
async fn watch(client: &Client, id: TaskId, tries: &mut Tries, screen: &mut Screen) -> Result<()> {
    let mut last_id = None;
    loop {
        match client.events(id, last_id.as_deref()).await {
            Ok(response) => {
                if read(response, &mut last_id, tries, screen).await {
                    return Ok(());
                }
            }
            Err(Unopened::Unknown) => return Ok(()),
            Err(Unopened::Failed(failure)) if failure.may_pass() => {
                screen.lost(&failure);
                if tries.is_over() {
                    return Err(failure.remedy(format!("the task may go on: wharf task follow {id}")));
                }
            }
            Err(Unopened::Failed(failure)) => return Err(failure),
        }
        tries.pause().await;
    }
}

/// Reads one stream while it lasts; returns whether the task's end was on it.
async fn read(
    mut response: Response,
    last_id: &mut Option<String>,
    tries: &mut Tries,
    screen: &mut Screen,
) -> bool {
    let mut parser = Parser::default();
    // Silence, a broken connection and the end of the stream are handled alike: ask again from the last event.
    while let Ok(Ok(Some(bytes))) = timeout(Client::silence(), response.chunk()).await {
        let Ok(events) = parser.push(&bytes) else { return false };
        for event in events {
            tries.reset();
            last_id.clone_from(&event.id);
            // Older servers send `task_…`, newer ones `bgtask_…`.
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

/// The attempts to reach the server, until patience is over.
struct Tries {
    waits: Waits,
    in_all: Duration,
    lost_since: Option<Instant>,
}

impl Tries {
    fn new(patience: Patience) -> Self {
        Self { waits: Waits::new(patience.waits), in_all: patience.in_all, lost_since: None }
    }

    fn reset(&mut self) {
        self.waits.reset();
        self.lost_since = None;
    }

    fn is_over(&self) -> bool {
        self.lost_since.is_some_and(|since| since.elapsed() >= self.in_all)
    }

    /// Waits before the next attempt; returns false if there is no point in another one.
    async fn pause(&mut self) -> bool {
        self.lost_since.get_or_insert_with(Instant::now);
        if self.is_over() {
            return false;
        }
        sleep(self.waits.longer()).await;
        true
    }
}

/// Where progress is shown: always stderr, so that stdout has only the result.
enum Screen {
    /// A bar that redraws itself.
    Bar(ProgressBar),
    /// A line for each change.
    Lines {
        /// The line written last.
        last: String,
        /// Where lines are written.
        to: Box<dyn Write>,
    },
}

impl Screen {
    fn new(all: &MultiProgress) -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines { last: String::new(), to: Box::new(io::stderr()) };
        }
        let bar = all.add(ProgressBar::no_length());
        bar.set_style(bars::style("{spinner} {elapsed} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Bar(bar)
    }

    fn show(&mut self, step: &Step) {
        let message = text::one_line(step.message.as_deref().unwrap_or_default());
        match self {
            Self::Bar(bar) => {
                if step.total_progress > 0 && bar.length() != Some(step.total_progress) {
                    bar.set_style(bars::style("{bar:30} {pos}/{len} {elapsed} {wide_msg}"));
                    bar.set_length(step.total_progress);
                }
                bar.set_position(step.current_progress);
                bar.set_message(message);
            }
            Self::Lines { .. } => {
                self.line(format!("{}/{} {message}", step.current_progress, step.total_progress));
            }
        }
    }

    fn lost(&mut self, failure: &Failure) {
        let message = format!("waiting for the server ({})", failure.reason());
        match self {
            Self::Bar(bar) => bar.set_message(message),
            Self::Lines { .. } => self.line(message),
        }
    }

    fn line(&mut self, line: String) {
        if let Self::Lines { last, to } = self
            && *last != line
        {
            // Failing to show progress is no reason to stop.
            let _ = writeln!(to, "{}", line.trim_end());
            *last = line;
        }
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn clear(all: &MultiProgress) {
    // A terminal that can't be written to does not need to be cleared.
    let _ = all.clear();
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use crate::{
        base::{backoff::Backoff, ids::TaskId},
        cli::{
            failure::Result,
            follow::{Patience, Screen, to_the_end},
            scripted::{Answer, Server, client},
            task_detail::Detail,
        },
    };

    const ID: &str = "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172";

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Follows the task on this server; returns how it ended and the lines that were shown.
    async fn followed(server: &Server) -> (Result<Detail>, String) {
        followed_for(Duration::from_mins(1), server).await
    }

    /// Follows the task, waiting for the server for this long in all; returns how it ended and the lines that were
    /// shown.
    async fn followed_for(in_all: Duration, server: &Server) -> (Result<Detail>, String) {
        let paper = Paper::default();
        let mut screen = Screen::Lines { last: String::new(), to: Box::new(paper.clone()) };
        let patience = Patience {
            waits: Backoff::doubling(Duration::from_millis(20), Duration::from_millis(40)),
            in_all,
        };
        let id: TaskId = ID.parse().unwrap();
        let ended = to_the_end(&client(server), id, patience, &mut screen).await;
        let lines = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        (ended, lines)
    }

    fn updated(id: u32, current: u32, message: &str) -> String {
        let data = serde_json::json!({"task_id": ID, "message": message, "current_progress": current, "total_progress": 3});
        format!("id: {id}\nevent: bgtask_updated\ndata: {data}\n\n")
    }

    fn last(id: u32, name: &str) -> String {
        format!(
            "id: {id}\nevent: {name}\ndata: {{\"task_id\": \"{ID}\", \"message\": \"\"}}\n\nevent: server_close\ndata: {{}}\n\n"
        )
    }

    fn task(state: &str) -> Answer {
        Answer::json(
            200,
            &format!(
                r#"{{"data": {{"background_task": {{
                    "id": "{ID}", "kind": "rescan", "subject": "cr.example.org", "state": "{state}", "message": "because",
                    "created_at": "2026-11-23T13:24:00Z", "ended_at": null, "current_progress": 3.0, "total_progress": "3",
                    "ledger": {{"added": 2, "updated": 0, "unchanged": 1, "removed": 0, "skipped_count": 1, "failed_count": 0,
                                "skipped": [{{"reference": "cr.example.org/a:\u001b[1m", "reason": "no image"}}], "failed": []}},
                    "items": []}}}}}}"#
            ),
        )
    }

    #[tokio::test]
    async fn a_task_is_followed_to_its_end_and_summed_up() {
        let stream = [updated(1, 1, "a"), updated(2, 2, "b\u{1b}[2J"), last(3, "bgtask_done")].concat();
        let server = Server::start(vec![Answer::Stream(stream), task("done")]).await;
        let (ended, lines) = followed(&server).await;
        assert_eq!(lines, "1/3 a\n2/3 b\\u{1b}[2J\n");
        let ended = ended.unwrap();
        assert!(ended.verdict().is_ok());
        assert_eq!(
            ended.summary(),
            "rescan cr.example.org done\nadded 2, updated 0, unchanged 1, removed 0, skipped 1, failed 0\n\
             skipped:\n  cr.example.org/a:\\u{1b}[1m: no image"
        );
    }

    #[tokio::test]
    async fn a_dropped_stream_is_taken_up_where_it_ended() {
        let server = Server::start(vec![
            Answer::Stream([updated(1, 1, "a"), "id: 2\nevent: bgtask_upd".into()].concat()),
            Answer::Drop,
            Answer::Stream([updated(2, 2, "b"), last(3, "task_done")].concat()),
            task("done"),
        ])
        .await;
        let (ended, lines) = followed(&server).await;
        assert!(ended.is_ok());
        assert!(
            lines.starts_with("1/3 a\nwaiting for the server") && lines.ends_with("\n2/3 b\n"),
            "{lines}"
        );
        let ids: Vec<_> =
            server.asked().iter().map(|asked| asked.header("last-event-id").map(String::from)).collect();
        assert_eq!(ids, [None, Some("1".into()), Some("1".into()), None]);
        let dates: Vec<_> =
            server.asked().iter().map(|asked| asked.header("date").unwrap().to_owned()).collect();
        assert_ne!(dates[0], dates[1], "every attempt is signed anew");
    }

    #[tokio::test]
    async fn a_restart_of_the_server_is_waited_for() {
        let server = Server::start(vec![
            Answer::Stream(updated(1, 1, "a")),
            Answer::Away(Duration::from_millis(200)),
            Answer::json(503, r#"{"title": "Starting."}"#),
            Answer::Stream(last(3, "bgtask_done")),
            Answer::Away(Duration::from_millis(200)),
            task("done"),
        ])
        .await;
        let (ended, _) = followed(&server).await;
        assert!(ended.unwrap().verdict().is_ok());
    }

    #[tokio::test]
    async fn a_server_that_stays_away_ends_the_following_with_the_way_back() {
        let server = Server::start(vec![Answer::Stream(updated(1, 1, "a"))]).await;
        let failure = followed_for(Duration::from_millis(800), &server).await.0.unwrap_err().to_string();
        assert!(failure.ends_with(&format!("the task may go on: wharf task follow {ID}")), "{failure}");
    }

    #[tokio::test]
    async fn a_task_that_failed_or_was_cancelled_is_a_failure() {
        for (event, state, expected) in [
            ("bgtask_failed", "failed", "because; see wharf task show"),
            ("bgtask_cancelled", "cancelled", "it was cancelled; what it had done stays"),
        ] {
            let server = Server::start(vec![Answer::Stream(last(1, event)), task(state)]).await;
            let failure = followed(&server).await.0.unwrap().verdict().unwrap_err().to_string();
            assert!(failure.contains(expected), "{failure}");
        }
    }

    #[tokio::test]
    async fn events_that_are_gone_are_no_failure_if_the_task_has_ended() {
        let gone = || Answer::json(404, r#"{"title": "No such background task."}"#);
        let server = Server::start(vec![gone(), task("done")]).await;
        assert!(followed(&server).await.0.is_ok());
        let nothing = Answer::json(200, r#"{"data": {"background_task": null}}"#);
        let server = Server::start(vec![gone(), nothing]).await;
        let failure = followed(&server).await.0.unwrap_err().to_string();
        assert!(failure.contains("no such task") && failure.contains("wharf task list"), "{failure}");
    }

    #[tokio::test]
    async fn a_refused_stream_is_not_tried_again() {
        let server =
            Server::start(vec![Answer::json(401, r#"{"title": "Credential/signature mismatch."}"#)]).await;
        assert!(followed(&server).await.0.unwrap_err().to_string().contains("check WHARF_ACCESS_KEY"));
        assert_eq!(server.asked().len(), 1);
    }
}
