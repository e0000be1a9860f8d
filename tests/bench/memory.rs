//! How long the server takes to start, and how much memory it holds.

use std::time::{Duration, Instant};

use super::report::{check, heading, mebibytes, median, note, number_after};
use super::support::app::{App, Launch};
use super::{images, stock};

const STARTS: usize = 5;
/// Long enough for what a start leaves behind to be given back.
const SETTLING: Duration = Duration::from_millis(500);

pub async fn measure() {
    heading("memory: 10,000 images of 20 labels, no two configs alike");
    let (_, app) = start(10_000).await;
    check("resident, idle", mebibytes(resident(&app, "VmRSS:")), 60.0, " MiB");
    query(&app).await;
    note("resident, after one full images query", &format!("{:.1} MiB", mebibytes(resident(&app, "VmRSS:"))));
    drop(app);

    heading("memory: 100,000 images of 20 labels, no two configs alike");
    let (time, app) = start(100_000).await;
    check("start, from exec to taking requests", time.as_secs_f64(), 1.0, " s");
    check("resident, idle", mebibytes(resident(&app, "VmRSS:")), 400.0, " MiB");
    let received = query(&app).await;
    check("resident, after one full images query", mebibytes(resident(&app, "VmRSS:")), 400.0, " MiB");
    note("the answer to that query", &format!("{:.1} MB", f64::from(received) / 1e6));
    note("resident at most, ever", &format!("{:.1} MiB", mebibytes(resident(&app, "VmHWM:"))));
}

/// A server on that many images, and how long such a server takes to start.
async fn start(count: usize) -> (Duration, App) {
    let launch = Launch::plain();
    stock::fill(&launch.data_dir(), count).await;
    // The first start makes the admin, once in a directory's life, which hashes a password.
    launch.clone().start().await.terminate().await;
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        let mut app = launch.clone().start().await;
        times.push(started.elapsed());
        if times.len() == STARTS {
            tokio::time::sleep(SETTLING).await;
            return (median(&times), app);
        }
        app.terminate().await;
    }
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
