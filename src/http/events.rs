//! `GET /events/background-task`: what happens to a task, as server-sent events.
//!
//! What the official clients need, by generation, is in each comment; together they can be true at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use poem::http::{StatusCode, header};
use poem::web::{Data, Query};
use poem::{Body, Request, Response, handler};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::ids::UserId;
use crate::base::slots::Slots;
use crate::http::caller::{Listening, Proofs};
use crate::http::problem::Problem;
use crate::tasks::feed::Event;
use crate::tasks::live::Live;
use crate::tasks::queue::Queue;
use crate::tasks::task::State;

/// How the official clients begin the name they give themselves; their version follows.
const OFFICIAL: &str = "Backend.AI Client for Python ";
/// The clients of 23.9 to 26.9 end in an error when the first event comes with the response's headers: their spinner
/// is stopped before it has begun. With 50 ms none of forty runs did; on a busy machine theirs takes longer.
const HEAD_START: Duration = Duration::from_millis(300);
/// How often a quiet stream says that it is still there: more often than proxies lose patience.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events on their way to one client; a slow one is not waited for, it skips to the latest (see `tasks::feed`). With what
/// the connection holds that is all that a client costs who reads nothing.
const IN_FLIGHT: usize = 1;
/// Streams of one user: a class may sit behind one account.
const MOST_OF_ONE: usize = 600;
/// Streams in all, of some 60 kB each where nobody reads them.
const MOST: usize = 2_000;
/// What the oldest is told that has to give way. Clients would come back for more without the second.
const GIVEN_UP: &[u8] =
    b": too many streams are open; newer ones need this one's place\n\nevent: server_close\ndata: {}\n\n";
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How many failures the last event names.
const MAX_ERRORS: usize = 100;

/// Which task; the documentation says `taskId`, the clients say `task_id`.
#[derive(Deserialize)]
pub(crate) struct Which {
    task_id: Option<String>,
    #[serde(rename = "taskId")]
    camel: Option<String>,
}

/// Where streams run, and what ends them.
#[derive(Clone)]
pub(crate) struct Streams {
    /// The server's tasks.
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the server stops: it waits for open streams otherwise.
    pub(crate) shutdown: CancellationToken,
    places: Slots<UserId>,
}

impl Streams {
    /// None yet.
    pub(crate) fn new(tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { tracker, shutdown, places: Slots::new(MOST, MOST_OF_ONE) }
    }
}

/// Follows a task: its state now, then each change; the last event says how it ended, then comes `server_close`.
#[handler]
pub(crate) fn follow(
    request: &Request,
    Query(which): Query<Which>,
    Listening(caller): Listening,
    Data(queue): Data<&Queue>,
    Data(streams): Data<&Streams>,
    Data(proofs): Data<&Proofs>,
) -> Result<Response, Problem> {
    let id = which.task_id.or(which.camel).ok_or_else(|| Problem::bad_parameter("task_id is missing"))?;
    let live = queue.task_of(&caller, &id).map_err(|_| Problem::not_found("No such background task."))?;
    let after = request.header("Last-Event-ID").and_then(|id| id.trim().parse().ok());
    let user_agent = request.header(header::USER_AGENT).unwrap_or_default();
    let dialect = Dialect::of(user_agent);
    // The second kind is what a program made with their library may call itself.
    let is_theirs = user_agent.starts_with(OFFICIAL) || user_agent.starts_with("Python/");
    let head_start = if is_theirs { HEAD_START } else { Duration::ZERO };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let shutdown = streams.shutdown.clone();
    let (proofs, queue) = (proofs.clone(), queue.clone());
    let place = streams.places.take(caller.user);
    let may_hear = move || proofs.again(&caller).and_then(|caller| queue.task_of(&caller, &id)).is_ok();
    streams.tracker.spawn(async move {
        let speak = async {
            tokio::time::sleep(head_start).await;
            speak(live, dialect, after, may_hear, &sender).await
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = place.given_up() => {
                // One that reads nothing does not hear it, and need not.
                let _ = tokio::time::timeout(LAST_WORD, sender.send(Bytes::from_static(GIVEN_UP))).await;
            }
            _ = speak => {}
        }
    });
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store")
        // nginx holds streams back otherwise.
        .header("X-Accel-Buffering", "no")
        .body(Body::from_bytes_stream(Receiving(receiver))))
}

/// A receiver as a stream.
struct Receiving(mpsc::Receiver<Bytes>);

impl Stream for Receiving {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(Ok))
    }
}

/// Ends with the task, or when the caller may not hear of it any more: signed out, switched off or demoted; with an error
/// when the client is gone.
async fn speak(
    live: Arc<Live>,
    dialect: Dialect,
    after: Option<u64>,
    may_hear: impl Fn() -> bool + Send,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let mut follower = live.follow(after);
    loop {
        let event = tokio::time::timeout(KEEP_ALIVE, follower.next()).await;
        if !may_hear() {
            return Ok(());
        }
        let Ok(event) = event else {
            sender.send(Bytes::from_static(b": still here\n\n")).await?;
            continue;
        };
        let is_last = event.state != State::Started;
        let told = event.told(dialect as usize, || dialect.write(&live, &event));
        sender.send(told).await?;
        if is_last {
            // Without it clients come back for more, with a date that ages.
            return sender.send(Bytes::from_static(b"event: server_close\ndata: {}\n\n")).await;
        }
    }
}

/// Which names the events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// `task_updated`, ...: clients of 2020.
    Task,
    /// `bgtask_updated`, ...: all later ones.
    BackgroundTask,
}

impl Dialect {
    /// 20.09 claims the API version of its successors but reads the old names, so the version can't tell.
    fn of(user_agent: &str) -> Self {
        match user_agent.strip_prefix(OFFICIAL) {
            Some(version) if version.starts_with("20.") || version.starts_with("19.") => Self::Task,
            _ => Self::BackgroundTask,
        }
    }

    fn write(self, live: &Live, event: &Event) -> String {
        let prefix = match self {
            Self::Task => "task",
            Self::BackgroundTask => "bgtask",
        };
        let name = match event.state {
            State::Started => "updated",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        };
        let is_last = event.state != State::Started;
        let data = Told {
            task_id: live.id().to_string(),
            message: &event.message,
            current_progress: event.progress.current,
            total_progress: event.progress.total,
            status: is_last.then_some(name),
            errors: if is_last { errors(live) } else { Vec::new() },
        };
        let data = serde_json::to_string(&data).unwrap_or_default();
        format!("id: {}\nevent: {prefix}_{name}\ndata: {data}\n\n", event.number)
    }
}

/// The data of an event.
#[derive(Serialize)]
struct Told<'a> {
    task_id: String,
    message: &'a str,
    current_progress: u64,
    total_progress: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// Clients from 25.19 on print these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

fn errors(live: &Live) -> Vec<String> {
    let ledger = live.ledger();
    let failed = ledger.failed.named.iter().take(MAX_ERRORS);
    failed.map(|failed| format!("{}: {}", failed.reference, failed.reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    #[test]
    fn the_clients_of_2020_get_the_old_names() {
        for version in ["20.03.10", "20.09.9", "19.09.1"] {
            assert_eq!(Dialect::of(&format!("Backend.AI Client for Python {version}")), Dialect::Task);
        }
        for agent in
            ["Backend.AI Client for Python 21.09.5", "Backend.AI Client for Python 26.9.6", "curl/8", ""]
        {
            assert_eq!(Dialect::of(agent), Dialect::BackgroundTask, "{agent}");
        }
    }
}
