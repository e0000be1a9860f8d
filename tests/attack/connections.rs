//! Connections that the client holds open: half requests, too many connections, another protocol.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::beside::Beside;
use crate::support::app::App;
use crate::support::wait::{PATIENCE, until};

/// Longest time that the server may keep a half request: ten times its own limit.
const SOON: Duration = Duration::from_secs(100);

/// Beginnings of requests that are never completed.
const HALVES: [&str; 5] = [
    "P",
    "POST /server/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le",
    "POST /server/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n",
    "POST /server/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    "PRI * HTTP/2.0\r\n",
];

fn address(app: &App) -> SocketAddr {
    app.url().trim_start_matches("http://").parse().expect("an address")
}

async fn connect(app: &App) -> TcpStream {
    // The server may refuse a connection at once, or close it later.
    timeout(SOON, TcpStream::connect(address(app))).await.expect("room to connect").expect("a connection")
}

/// Sends a text, and holds the connection.
async fn send(app: &App, text: &str) -> TcpStream {
    let mut stream = connect(app).await;
    let _ = stream.write_all(text.as_bytes()).await;
    stream
}

/// Reads everything until the server ends the connection.
async fn to_the_end(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset also ends the connection.
    let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("the server ends the connection");
    said
}

/// Raises this process's limit on descriptors, for the sockets of the test.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("more descriptors");
}

#[tokio::test]
async fn half_requests_end() {
    let app = App::start().await;
    let beside = Beside::start(&app).await;
    let mut halves = Vec::new();
    for n in 0..100 {
        halves.push(send(&app, HALVES[n % HALVES.len()]).await);
    }
    for half in halves {
        to_the_end(half).await;
    }
    beside.was_served(&app).await;
}

#[tokio::test]
async fn who_holds_connections_shuts_nobody_out_when_descriptors_run_out() {
    raise_own_limit();
    let app = App::start().await;
    // The limit is lower than the one that the server found at its start, so that accepting connections fails.
    let few = Rlimit { current: Some(128), maximum: Some(128) };
    let process = Pid::from_raw(i32::try_from(app.process_id()).expect("a process id"));
    prlimit(process, Resource::Nofile, few).expect("fewer descriptors");
    let beside = Beside::start(&app).await;
    let mut held = Vec::new();
    for n in 0..400 {
        held.push(send(&app, HALVES[n % HALVES.len()]).await);
    }
    beside.was_served(&app).await;
    drop(held);
    let lines = app.logs().matches("a connection could not be taken").count();
    assert!((1..=3).contains(&lines), "one a minute, however many could not: {lines}");
}

#[tokio::test]
async fn one_address_holds_so_many_connections_and_the_oldest_goes_first() {
    raise_own_limit();
    let app = App::start().await;
    let beside = Beside::start(&app).await;
    let mut held = Vec::new();
    for _ in 0..1_300 {
        held.push(connect(&app).await);
    }
    // A thousand connections fit: a class behind one address.
    let young = held.split_off(300);
    let mut ended = 0;
    for stream in held {
        let mut byte = [0];
        if timeout(Duration::from_secs(1), async { stream.peek(&mut byte).await }).await.is_ok() {
            ended += 1;
        } else {
            break;
        }
    }
    assert!(ended >= 100, "only {ended} of the oldest were ended");
    let mut last = young.into_iter().next_back().expect("the last");
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .await
        .expect("open");
    let said = to_the_end(last).await;
    assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    beside.was_served(&app).await;
}

#[tokio::test]
async fn http2_is_refused_in_its_own_words() {
    let app = App::start().await;
    let beside = Beside::start(&app).await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for _ in 0..50 {
        let mut stream = send(&app, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let _ = stream.write_all(&settings).await;
        // An HTTP/2 HEADERS frame for `POST /` that does not end its stream, sent over and over.
        let head = [0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x84, 0x86];
        for _ in 0..1_000 {
            if stream.write_all(&head).await.is_err() {
                break;
            }
        }
        let said = to_the_end(stream).await;
        assert_eq!(said[..9], settings, "settings come first");
        assert_eq!(said[9..18], [0, 0, 8, 7, 0, 0, 0, 0, 0], "then a GOAWAY");
        assert_eq!(said[18..], [0, 0, 0, 0, 0, 0, 0, 0x0d], "HTTP_1_1_REQUIRED, and nothing was done");
    }
    beside.was_served(&app).await;
}

#[tokio::test]
async fn a_body_that_stops_on_its_way_is_told_so() {
    let app = App::start().await;
    let said = to_the_end(send(&app, HALVES[3]).await).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("stopped on its way"), "{said}");
}

#[tokio::test]
async fn a_request_for_two_hosts_is_refused() {
    let app = App::start().await;
    for head in [
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    ] {
        let said = to_the_end(send(&app, &format!("{head}Connection: close\r\n\r\n")).await).await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("more than one host"), "{head}: {said}");
    }
}

/// How many bytes of a connection the system keeps for the server: those not sent and those not acknowledged.
fn kept_by_the_system(app: &App, client: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", app.process_id())).expect("the sockets");
    let ends = [format!(":{:04X}", address(app).port()), format!(":{:04X}", client.port())];
    let row = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()).find(|row| {
        matches!(row.as_slice(), [_, local, remote, ..] if local.ends_with(&ends[0]) && remote.ends_with(&ends[1]))
    })?;
    u64::from_str_radix(row[4].split(':').next()?, 16).ok()
}

#[tokio::test]
async fn an_answer_that_is_not_read_waits_in_the_server() {
    let app = App::start().await;
    let page = app.anonymous().call("GET", "/graphiql.js").send().await;
    assert!(page.status == 200 && page.body.len() > 1 << 20, "{}: {} bytes", page.status, page.body.len());
    let once = "GET /graphiql.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let stream = send(&app, &once.repeat(10)).await;
    let client = stream.local_addr().expect("its address");
    let mut before = None;
    let kept = until("the server to stop sending", PATIENCE, async || {
        let now = kept_by_the_system(&app, client).filter(|kept| *kept > 0);
        std::mem::replace(&mut before, now).filter(|before| Some(*before) == now)
    })
    .await;
    println!("{kept} bytes are kept");
    assert!(kept < 512 << 10, "{kept} bytes are kept");
}
