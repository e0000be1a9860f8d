//! `GET /events/background-task`: the events of a task, as server-sent events.
//!
//! The comments say what each generation of the official clients needs; all of these can be met at once.

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

/// The prefix of the official clients' user agent; their version follows.
const OFFICIAL: &str = "Backend.AI Client for Python ";
/// The delay before the first event. The clients of 23.9 to 26.9 end in an error when it comes with the response's
/// headers: their spinner is stopped before it has begun. With 50 ms none of forty runs failed; on a busy machine
/// their start takes longer.
const HEAD_START: Duration = Duration::from_millis(300);
/// How often a quiet stream sends a sign of life: before proxies lose patience.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The most events in transit to one client. A slow client is not waited for; it skips to the latest event (see
/// `tasks::feed`). With the connection's buffer, this is all that a client costs that reads nothing.
const IN_FLIGHT: usize = 1;
/// The most streams of one user: a class may share one account.
const MOST_OF_ONE: usize = 600;
/// The most streams in all; each takes some 60 kB if its client does not read.
const MOST: usize = 2_000;
/// The last words to the oldest stream when it has to give way. Without the second event, the client would come back.
const GIVEN_UP: &[u8] =
    b": too many streams are open; newer ones need this one's place\n\nevent: server_close\ndata: {}\n\n";
/// How long sending the last words may take.
const LAST_WORD: Duration = Duration::from_secs(2);
/// The most failures that the last event names.
const MAX_ERRORS: usize = 100;

/// Selects a task. The documentation says `taskId`, the clients say `task_id`.
#[derive(Deserialize)]
pub(crate) struct Which {
    task_id: Option<String>,
    #[serde(rename = "taskId")]
    camel: Option<String>,
}

/// The tracker that runs streams, and the token that ends them.
#[derive(Clone)]
pub(crate) struct Streams {
    /// The server's tasks.
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the server stops; otherwise the server would wait for open streams.
    pub(crate) shutdown: CancellationToken,
    slots: Slots<UserId>,
}

impl Streams {
    /// Returns an empty set of streams.
    pub(crate) fn new(tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { tracker, shutdown, slots: Slots::new(MOST, MOST_OF_ONE) }
    }
}

/// Follows a task: first its current state, then each change. The last event says how the task ended; `server_close`
/// follows.
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
    // Programs that use the official clients' library may send the second form.
    let is_theirs = user_agent.starts_with(OFFICIAL) || user_agent.starts_with("Python/");
    let head_start = if is_theirs { HEAD_START } else { Duration::ZERO };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let shutdown = streams.shutdown.clone();
    let (proofs, queue) = (proofs.clone(), queue.clone());
    let slot = streams.slots.take(caller.user);
    let may_hear = move || proofs.again(&caller).and_then(|caller| queue.task_of(&caller, &id)).is_ok();
    streams.tracker.spawn(async move {
        let speak = async {
            tokio::time::sleep(head_start).await;
            speak(live, dialect, after, may_hear, &sender).await
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = slot.given_up() => {
                // A client that reads nothing misses this, which does no harm.
                let _ = tokio::time::timeout(LAST_WORD, sender.send(Bytes::from_static(GIVEN_UP))).await;
            }
            _ = speak => {}
        }
    });
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store")
        // nginx would hold the stream back otherwise.
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

/// Sends events until the task ends, or until the caller may no longer hear of it: signed out, switched off or
/// demoted. Fails when the client is gone.
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
            // Without this event, clients connect again, with a date that gets too old.
            return sender.send(Bytes::from_static(b"event: server_close\ndata: {}\n\n")).await;
        }
    }
}

/// The names that the events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// `task_updated`, ...: clients of 2020.
    Task,
    /// `bgtask_updated`, ...: all later clients.
    BackgroundTask,
}

impl Dialect {
    /// Clients of 20.09 claim the API version of their successors but expect the old names, so the version does not
    /// decide.
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
    /// Clients from 25.19 on print these errors.
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
