//! The list of images: the server's time, compared with the time for only writing the finished answer.

use std::hint::black_box;
use std::time::{Duration, Instant};

use async_graphql::Request;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wharf::access::audit::Retention;
use wharf::access::first_admin::FirstAdmin;
use wharf::access::sessions::SessionLimits;
use wharf::base::clock::Clock;
use wharf::graphql::kit::answer::{self, Later};
use wharf::graphql::spec::{self, Outcome};
use wharf::http::peer::Proxies;
use wharf::server::{Server, Settings};

use super::report::{check, heading, median, milliseconds, note};
use super::stock;
use super::support::api::Api;
use super::support::app::Launch;

const IMAGES: usize = 10_000;
const ROUNDS: usize = 41;

pub async fn measure() {
    heading("images: 10,000 of 20 labels, every field of the seed");
    let launch = Launch::plain();
    stock::fill(&launch.data_dir(), IMAGES).await;
    // The running server holds its directory, so the measurement without HTTP gets a copy.
    let aside = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(launch.data_dir()).expect("the data directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, aside.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let api = spec_api(aside.path());
    let app = launch.start().await;
    let admin = app.admin();

    let body = ask(&admin).response().await.bytes().await.expect("the whole answer");
    let parsed: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(parsed["data"]["images"].as_array().map(Vec::len), Some(IMAGES));
    assert!(parsed["errors"].is_null(), "{}", parsed["errors"]);

    let (mut server, mut execution, mut writing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        server.push(over_http(&admin, body.len()).await);
        execution.push(without_http(&api).await);
        let started = Instant::now();
        black_box(serde_json::to_vec(black_box(&parsed)).expect("JSON"));
        writing.push(started.elapsed());
    }
    let (server, execution, writing) = (median(&server), median(&execution), median(&writing));
    note("answer", &format!("{:.1} MB", f64::from(u32::try_from(body.len()).unwrap_or(u32::MAX)) / 1e6));
    note("serde_json::to_vec of the parsed answer", &milliseconds(writing));
    note("the answer and answer::envelope, no HTTP", &milliseconds(execution));
    note("server, signed request to last byte, over loopback", &milliseconds(server));
    note("ratio without HTTP", &format!("{:.2}", execution.div_duration_f64(writing)));
    check("ratio", server.div_duration_f64(writing), 3.0, "");
}

/// The query over HTTP, ready to send.
pub fn ask(api: &Api) -> super::support::api::Call {
    api.call("POST", "/admin/gql").json(&json!({"query": stock::QUERY}))
}

async fn over_http(admin: &Api, length: usize) -> Duration {
    let call = ask(admin);
    let started = Instant::now();
    let mut response = call.response().await;
    let mut received = 0;
    while let Some(chunk) = response.chunk().await.expect("the whole answer") {
        received += chunk.len();
    }
    let taken = started.elapsed();
    assert_eq!(received, length);
    taken
}

async fn without_http(api: &spec::Api) -> Duration {
    let started = Instant::now();
    let later = Later::default();
    let request = Request::new(stock::QUERY).data(stock::superadmin()).data(later.clone());
    let Outcome::Answered(answer) = api.ask(request, false).await else { panic!("the query is refused") };
    answer::envelope(&answer, &later).for_each(|piece| drop(black_box(piece)));
    drop(answer);
    started.elapsed()
}

/// The API over a data directory, set up as the server does it.
pub fn spec_api(directory: &std::path::Path) -> spec::Api {
    let settings = Settings {
        data_dir: directory.to_owned(),
        hosts: Vec::new(),
        engines: Vec::new(),
        audit: Retention::default(),
        sessions: SessionLimits::default(),
        proxies: Proxies::default(),
        agent_silence: Duration::from_secs(30),
        agent_wait: Duration::from_hours(24),
        first_admin: Some(FirstAdmin::default()),
        seed_first: false,
        cache: None,
        relay: true,
        credentials_dir: None,
    };
    let server = Server::open(settings, Clock::system(), CancellationToken::new());
    server.expect("a server").api().clone()
}
