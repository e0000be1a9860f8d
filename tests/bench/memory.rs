//! How long the server takes to start, and how much memory it holds.

use std::time::{Duration, Instant};

use super::report::{check, heading, mebibytes, milliseconds, note, number_after};
use super::support::app::{App, Launch};
use super::{images, stock};

const STARTS: usize = 5;
/// Time after a start until the memory that the start used is given back.
const SETTLING: Duration = Duration::from_millis(500);

pub async fn measure() {
    heading("memory: 10,000 images of 20 labels, no two configs alike");
    let (_, app) = start(10_000).await;
    check("resident, idle", mebibytes(resident(&app, "VmRSS:")), 60.0, " MiB");
    query(&app).await;
    note("resident, after one full images query", &format!("{:.1} MiB", mebibytes(resident(&app, "VmRSS:"))));
    drop(app);

    heading("memory: 100,000 images of 20 labels, no two configs alike");
    let (start, app) = start(100_000).await;
    note("start, from exec to taking requests, median", &milliseconds(start.time));
    // If other programs use the machine too, the whole time of a start depends more on them than on the server.
    check(
        "start, without waiting for a processor",
        start.time.saturating_sub(start.waiting).as_secs_f64(),
        1.0,
        " s",
    );
    check("resident, idle", mebibytes(resident(&app, "VmRSS:")), 400.0, " MiB");
    let received = query(&app).await;
    check("resident, after one full images query", mebibytes(resident(&app, "VmRSS:")), 400.0, " MiB");
    note("the answer to that query", &format!("{:.1} MB", f64::from(received) / 1e6));
    note("resident at most, ever", &format!("{:.1} MiB", mebibytes(resident(&app, "VmHWM:"))));
}

/// The duration of a start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    time: Duration,
    /// The part of the time in which the server was ready to run but no processor was free.
    waiting: Duration,
}

/// Starts a server with this many images several times; returns the median start, and the server started last.
async fn start(count: usize) -> (Start, App) {
    let launch = Launch::plain();
    stock::fill(&launch.data_dir(), count).await;
    // The first start in a directory makes the admin, which hashes a password.
    launch.clone().start().await.terminate().await;
    let mut starts = Vec::new();
    loop {
        let started = Instant::now();
        let mut app = launch.clone().start().await;
        starts.push(Start { time: started.elapsed(), waiting: waiting(&app) });
        if starts.len() == STARTS {
            tokio::time::sleep(SETTLING).await;
            starts.sort();
            return (starts[STARTS / 2], app);
        }
        app.terminate().await;
    }
}

/// How long the first thread, which opens the catalog, has waited for a processor.
fn waiting(app: &App) -> Duration {
    let text =
        std::fs::read_to_string(format!("/proc/{}/schedstat", app.process_id())).expect("its schedule");
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

async fn query(app: &App) -> u32 {
    let mut response = images::ask(&app.admin()).response().await;
    let mut received = 0;
    while let Some(chunk) = response.chunk().await.expect("the whole answer") {
        received += chunk.len();
    }
    tokio::time::sleep(SETTLING).await;
    u32::try_from(received).expect("an answer of less than 4 GB")
}

fn resident(app: &App, which: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process_id())).expect("its status");
    number_after(&status, which)
}
