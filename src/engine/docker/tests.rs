//! The engine against a small server that speaks Docker's API over a socket and misbehaves.

mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::{
    Change, Engine, EngineKind,
    address::{EngineLocation, EngineUrl},
    docker::{Docker, Patience},
    fault::{Class, Fault},
    image::Removal,
    pull::{Credentials, Progress, Pull, Pulled},
};

const REPOSITORY: &str = "cr.test/lab/python";

/// The fake server's answer to a request.
enum Answer {
    /// A status and a document.
    Reply(u16, Value),
    /// 200 and these bytes, chunk by chunk, then the end.
    Stream(Vec<Vec<u8>>),
    /// 200 and these bytes, then the connection breaks.
    Broken(Vec<u8>),
    /// 200 and these bytes, then nothing, for as long as the client waits.
    Stuck(Vec<u8>),
    /// The version of the API, in the answer to a ping.
    Greeting(&'static str),
    /// No answer at all.
    Silence,
    /// Zeros without end.
    Flood,
}

/// The parts of a request that matter.
struct Asked {
    method: String,
    /// Path and query below the version.
    target: String,
    credentials: Option<String>,
    version: String,
}

type Script = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

struct FakeDocker {
    folder: TempDir,
    accepting: JoinHandle<()>,
    log: Arc<Mutex<Vec<String>>>,
    patience: Patience,
}

impl FakeDocker {
    /// Answers as scripted. Pings are answered as Docker 20.10 does, unless the script is silent for them.
    fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let script: Script = Arc::new(script);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&log);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&written)));
            }
        });
        // More time than any machine needs, so that only the script can cause a failure.
        let minute = Duration::from_mins(1);
        let patience = Patience { answer: minute, gather: minute, quiet: minute };
        Self { folder, accepting, log, patience }
    }

    /// Makes the client wait only briefly.
    fn hurried(mut self) -> Self {
        let short = Duration::from_millis(400);
        self.patience = Patience { answer: short, gather: short, quiet: short / 4 };
        self
    }

    fn engine(&self) -> Docker {
        let place = EngineLocation::Socket(self.folder.path().join("docker.sock"));
        Docker::new(&EngineUrl { kind: EngineKind::Docker, place }).unwrap().with_patience(self.patience)
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: UnixStream, script: Script, log: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let versioned = target.strip_prefix("/v").and_then(|rest| rest.split_once('/'));
    let (version, target) = match versioned {
        Some((version, rest)) => (version.to_owned(), format!("/{rest}")),
        None => (String::new(), target),
    };
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    let asked = Asked { method, target, credentials: header("x-registry-auth"), version };
    log.lock().push(format!("{} {}", asked.method, asked.target));
    let answer = script(&asked);
    if asked.target == "/_ping" && !matches!(answer, Answer::Silence) {
        let version = if let Answer::Greeting(version) = answer { version } else { "1.41" };
        let pong = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\nContent-Length: 2\r\n\r\nOK");
        return stream.write_all(pong.as_bytes()).await.ok();
    }
    let open = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    match answer {
        Answer::Reply(status, body) => {
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
        }
        Answer::Stream(chunks) => {
            stream.write_all(open.as_bytes()).await.ok()?;
            for bytes in chunks {
                chunk(&mut stream, &bytes).await?;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        Answer::Broken(bytes) => {
            stream.write_all(open.as_bytes()).await.ok()?;
            chunk(&mut stream, &bytes).await?;
        }
        Answer::Stuck(bytes) => {
            stream.write_all(open.as_bytes()).await.ok()?;
            chunk(&mut stream, &bytes).await?;
            // Waits until the client hangs up, as it must.
            let _ = stream.read_u8().await;
            log.lock().push("hung up".into());
        }
        Answer::Silence | Answer::Greeting(_) => {
            let _ = stream.read_u8().await;
            log.lock().push("hung up".into());
        }
        Answer::Flood => {
            stream.write_all(open.as_bytes()).await.ok()?;
            loop {
                chunk(&mut stream, &[b' '; 16384]).await?;
            }
        }
    }
    stream.shutdown().await.ok()
}

async fn chunk(stream: &mut BufReader<UnixStream>, bytes: &[u8]) -> Option<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    stream.write_all(b"\r\n").await.ok()
}

fn config() -> Digest {
    Digest::sha256_of(b"config")
}

fn manifest() -> Digest {
    Digest::sha256_of(b"manifest")
}

fn a_pull() -> Pull {
    Pull {
        repository: REPOSITORY.into(),
        tag: "1".into(),
        manifest: Some(manifest()),
        index: None,
        config: config(),
        architecture: "x86_64".into(),
        platform: Some("linux/amd64".into()),
        layers: Vec::new(),
        credentials: None,
        source: None,
        via: None,
    }
}

fn image(id: &Digest) -> Answer {
    Answer::Reply(
        200,
        json!({
            "Id": id, "RepoTags": [format!("{REPOSITORY}:1"), "alpine:3"],
            "RepoDigests": [format!("{REPOSITORY}@{}", manifest())], "Size": 5,
        }),
    )
}

fn absent() -> Answer {
    Answer::Reply(404, json!({"message": "No such image: x"}))
}

/// An engine that answers the pull with `pulled`. If `shown` is given, it has the image under that ID afterwards.
fn pulling(pulled: impl Fn() -> Answer + Send + Sync + 'static, shown: Option<Digest>) -> FakeDocker {
    let done = Arc::new(Mutex::new(false));
    FakeDocker::start(move |asked| match (asked.method.as_str(), asked.target.as_str()) {
        ("POST", target) if target.starts_with("/images/create?") => {
            *done.lock() = true;
            pulled()
        }
        ("POST", target) if target.contains("/tag?") => Answer::Reply(201, json!({})),
        ("GET", target) if target.starts_with("/images/sha256:") => absent(),
        ("GET", target) if target.starts_with("/images/") => match &shown {
            Some(id) if *done.lock() => image(id),
            _ => absent(),
        },
        _ => Answer::Reply(200, json!({})),
    })
}

async fn run(fake: &FakeDocker) -> (Result<Pulled, Fault>, Vec<Progress>) {
    let seen = Mutex::new(Vec::new());
    let engine = fake.engine();
    let pull = engine.pull(&a_pull(), &|now| seen.lock().push(now), &CancellationToken::new()).await;
    (pull, seen.into_inner())
}

fn lines(lines: &[&str]) -> Answer {
    Answer::Stream(lines.iter().map(|line| format!("{line}\r\n").into_bytes()).collect())
}

#[tokio::test]
async fn a_pull_is_by_manifest_then_named_then_looked_at() {
    let fake = pulling(|| lines(&[r#"{"status":"Pulling from lab/python","id":"1"}"#]), Some(config()));
    let (pulled, seen) = run(&fake).await;
    let pulled = pulled.unwrap();
    assert_eq!(pulled.held.names, [format!("{REPOSITORY}:1"), "docker.io/library/alpine:3".into()]);
    assert_eq!((pulled.held.manifests, seen.len()), (vec![manifest()], 2));
    let name = format!("/images/{REPOSITORY}:1/json");
    assert_eq!(
        fake.log(),
        [
            "GET /_ping".to_owned(),
            format!("GET {name}"),
            format!("GET /images/{}/json", config()),
            format!(
                "POST /images/create?fromImage=cr.test%2Flab%2Fpython&tag={}&platform=linux%2Famd64",
                manifest().as_str().replace(':', "%3A")
            ),
            format!("POST /images/{REPOSITORY}@{}/tag?repo=cr.test%2Flab%2Fpython&tag=1", manifest()),
            format!("GET {name}"),
        ]
    );
}

#[tokio::test]
async fn an_error_after_200_is_an_error() {
    let fake = pulling(
        || {
            lines(&[
                r#"{"status":"Pulling fs layer","progressDetail":{},"id":"64bf449abeed"}"#,
                r#"{"errorDetail":{"message":"write /x: no space left on device"},"error":"write /x"}"#,
            ])
        },
        Some(config()),
    );
    assert_eq!(run(&fake).await.0.unwrap_err().class, Class::NoSpace);
}

#[tokio::test]
async fn success_is_what_the_engine_shows_and_nothing_else() {
    // The pull ends without a final status, and that is a success.
    let quiet = || lines(&[r#"{"status":"Extracting","id":"64bf449abeed"}"#]);
    assert!(run(&pulling(quiet, Some(config()))).await.0.is_ok());
    assert!(run(&pulling(|| Answer::Stream(vec![]), Some(config()))).await.0.is_ok());
    // Docker's containerd store calls an image by its manifest.
    assert!(run(&pulling(quiet, Some(manifest()))).await.0.is_ok());
    // The server claims success and has no image, or another one.
    let claim = || lines(&[r#"{"status":"Status: Downloaded newer image for cr.test/lab/python:1"}"#]);
    let fault = run(&pulling(claim, None)).await.0.unwrap_err();
    assert!(fault.message.contains("yet has no"), "{fault}");
    let other = Digest::sha256_of(b"other");
    let fault = run(&pulling(claim, Some(other.clone()))).await.0.unwrap_err();
    assert!(fault.message.contains(other.as_str()), "{fault}");
}

#[tokio::test]
async fn broken_lines_are_faults() {
    for (answer, class, words) in [
        (lines(&["{\"status\":"]), Class::Other, "can't be read"),
        (lines(&["<html>"]), Class::Other, "can't be read"),
        (lines(&["[1]"]), Class::Other, "can't be read"),
        (lines(&[&format!("{{\"status\":\"{}\"}}", "x".repeat(10_000_000))]), Class::Other, "a line of more"),
        (Answer::Flood, Class::Other, "a line of more"),
        (Answer::Broken(b"{\"status\":\"x\"}\n{\"sta".to_vec()), Class::EngineGone, ""),
        (
            Answer::Reply(500, json!({"message": "unauthorized: authentication required"})),
            Class::Unauthorized,
            "",
        ),
        (Answer::Reply(500, json!({})), Class::Other, "{}"),
    ] {
        let answer = Mutex::new(Some(answer));
        let fake = pulling(move || answer.lock().take().unwrap(), Some(config()));
        let fault = run(&fake).await.0.unwrap_err();
        assert!(fault.class == class && fault.message.contains(words), "{fault}");
        assert!(fault.to_string().len() < 600);
    }
}

#[tokio::test]
async fn a_line_may_come_in_pieces_and_many_in_one() {
    let pieces = || {
        Answer::Stream(vec![
            b"{\"status\":\"Downloading\",\"id\":\"64bf449abeed\",\"progressDetail\":{\"current\":1,"
                .to_vec(),
            b"\"total\":9}}\n\n  \r\n{\"status\":\"Pull complete\",\"id\":\"64bf449abeed\"}\n{\"status\":"
                .to_vec(),
            b"\"the last, with no end\"}".to_vec(),
        ])
    };
    let (pulled, seen) = run(&pulling(pieces, Some(config()))).await;
    assert!(pulled.is_ok());
    let done: Vec<_> = seen.iter().map(|p| (p.bytes_done, p.bytes_total, p.layers_done)).collect();
    assert_eq!(done, [(1, 9, 0), (9, 9, 1), (9, 9, 1), (9, 9, 1)]);
    assert_eq!(seen[2].message, "the last, with no end");
}

#[tokio::test]
async fn a_slow_registry_is_waited_for_and_a_dead_engine_is_not() {
    // The server answers all pings, so the pull outlasts many quiet moments, until it is stopped.
    let fake = pulling(|| Answer::Stuck(b"{\"status\":\"Waiting\"}\n".to_vec()), Some(config())).hurried();
    let (engine, stop) = (fake.engine(), CancellationToken::new());
    let token = stop.clone();
    let task = tokio::spawn(async move { engine.pull(&a_pull(), &|_| (), &token).await });
    let pings = || fake.log().iter().filter(|line| line.ends_with("_ping")).count();
    while pings() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!task.is_finished());
    stop.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().class, Class::Stopped);
    // The engine learns of it when the connection closes.
    while !fake.log().contains(&"hung up".into()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let pinged = Arc::new(Mutex::new(0));
    let fake = FakeDocker::start(move |asked| match asked.target.as_str() {
        "/_ping" => {
            *pinged.lock() += 1;
            if *pinged.lock() == 1 { absent() } else { Answer::Silence }
        }
        target if target.starts_with("/images/create") => Answer::Stuck(b"{\"status\":\"x\"}\n".to_vec()),
        _ => absent(),
    })
    .hurried();
    let fault = run(&fake).await.0.unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.is_transient(), "{fault}");
}

#[tokio::test]
async fn a_hanging_engine_hangs_nobody() {
    let fake = FakeDocker::start(|_| Answer::Silence).hurried();
    let engine = fake.engine();
    let started = Instant::now();
    assert_eq!(engine.about().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.disk().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(run(&fake).await.0.unwrap_err().class, Class::EngineGone);
    // The server says what it is, and nothing more.
    let fake = FakeDocker::start(|asked| match asked.target.as_str() {
        "/_ping" => absent(),
        _ => Answer::Silence,
    })
    .hurried();
    let engine = fake.engine();
    assert_eq!(engine.images().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.find("cr.test/a:1").await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.remove("cr.test/a:1").await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.events().await.err().unwrap().class, Class::EngineGone);
    assert!(started.elapsed() < Duration::from_secs(10));
    // A head, and then a body that does not end.
    let fake = FakeDocker::start(|_| Answer::Stuck(b"[".to_vec())).hurried();
    assert_eq!(fake.engine().images().await.unwrap_err().class, Class::EngineGone);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let fake = FakeDocker::start(|_| Answer::Flood);
    let fault = fake.engine().images().await.unwrap_err();
    assert!(fault.class == Class::Other && fault.message.contains("too long"), "{fault}");
}

#[tokio::test]
async fn no_engine_says_what_to_do() {
    let fake = FakeDocker::start(|_| absent());
    let engine = fake.engine();
    let socket = fake.folder.path().join("docker.sock");
    std::fs::remove_file(&socket).unwrap();
    let fault = engine.about().await.unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.message.contains("is the engine running"), "{fault}");
    // A socket file whose owner is gone.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(engine.about().await.unwrap_err().message.contains("is the engine running"));
}

#[tokio::test]
async fn credentials_are_in_the_alphabet_that_docker_reads() {
    let seen = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&seen);
    let fake = FakeDocker::start(move |asked| {
        if asked.target.starts_with("/images/create") {
            heard.lock().clone_from(&asked.credentials);
            return lines(&[]);
        }
        absent()
    });
    let mut pull = a_pull();
    let password = Secret::new("?>~?>~???>>>~~~\u{ff}");
    pull.credentials = Some(Credentials { username: "u".into(), password });
    let fault = fake.engine().pull(&pull, &|_| (), &CancellationToken::new()).await.unwrap_err();
    assert!(!fault.to_string().contains("?>~"), "{fault}");
    let header = seen.lock().take().unwrap();
    assert!(header.contains(['-', '_']) && !header.contains(['+', '/']), "{header}");
    let read = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE, header).unwrap();
    let read: Value = serde_json::from_slice(&read).unwrap();
    let expected = json!({"username": "u", "password": "?>~?>~???>>>~~~\u{ff}", "serveraddress": "cr.test"});
    assert_eq!(read, expected);
}

#[tokio::test]
async fn removal_tells_untagged_removed_in_use_and_absent_apart() {
    let removing = |status: u16, answer: Value| {
        FakeDocker::start(move |asked| match (asked.method.as_str(), asked.target.as_str()) {
            ("DELETE", target) => {
                assert!(target.contains("force=false"), "{target}");
                Answer::Reply(status, answer.clone())
            }
            ("GET", target) if target.starts_with("/containers/json?") => {
                Answer::Reply(200, json!([{"Id": "a1", "Names": ["/first"]}, {"Id": "b2", "Names": null}]))
            }
            _ => image(&config()),
        })
    };
    let remove = async |fake: FakeDocker| fake.engine().remove("cr.test/lab/python:1").await;
    let untagged = json!([{"Untagged": "cr.test/lab/python:1"}]);
    assert_eq!(remove(removing(200, untagged)).await, Ok(Removal::Untagged));
    let deleted = json!([{"Untagged": "x"}, {"Deleted": config()}, {"Deleted": "sha256:0"}]);
    assert_eq!(remove(removing(200, deleted)).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(remove(removing(404, json!({"message": "No such image"}))).await, Ok(Removal::Absent));
    let in_use = json!({"message": "conflict: unable to delete c2 (cannot be forced) - image is being used by \
                                    running container a1"});
    let users = vec!["first".to_owned(), "b2".to_owned()];
    assert_eq!(remove(removing(409, in_use)).await, Ok(Removal::InUse { containers: users }));
    let children = json!({"message": "conflict: unable to delete c2 (cannot be forced) - image has dependent \
                                      child images"});
    assert_eq!(remove(removing(409, children)).await.unwrap_err().class, Class::Other);
    assert_eq!(remove(FakeDocker::start(|_| absent())).await, Ok(Removal::Absent));
}

#[tokio::test]
async fn what_is_no_reference_is_asked_of_nobody() {
    let fake = FakeDocker::start(|_| image(&config()));
    for reference in ["", "a?b", "../x", "a b", "cr.test/a@sha256:12", "<none>:<none>"] {
        assert_eq!(fake.engine().find(reference).await, Ok(None), "{reference}");
        assert_eq!(fake.engine().remove(reference).await, Ok(Removal::Absent), "{reference}");
    }
    assert_eq!(fake.log(), [] as [&str; 0]);
}

#[tokio::test]
async fn events_are_read_until_the_engine_goes() {
    let said = [
        json!({"Type": "image", "Action": "pull", "Actor": {"ID": "cr.test/a:1", "Attributes": {"name": "cr.test/a"}}}),
        json!({"Type": "container", "Action": "start", "Actor": {"ID": "x"}}),
        json!({"Type": "container", "Action": "exec_start: sh", "Actor": {"ID": "x", "Attributes": {"image": "b"}}}),
        json!({"Type": "container", "Action": "died", "Actor": {"ID": "x", "Attributes": {"image": "a"}}}),
        json!({"Type": "image", "Action": "push", "Actor": {"ID": "x"}}),
        json!({"Type": "image", "Action": "untag", "Actor": {"ID": config(), "Attributes": {"name": config()}}}),
        json!({"Type": "image", "Action": "tag", "Actor": {"ID": config(), "Attributes": {"name": "b"}}}),
        json!({"Type": "image", "Action": "delete"}),
        json!({"Type": "image", "Action": "pull", "Actor": {"ID": "", "Attributes": {"name": "cr.test/a:2"}}}),
    ];
    let said = said.map(|line| format!("{line}\n").into_bytes()).to_vec();
    let fake = FakeDocker::start(move |_| Answer::Stream(said.clone()));
    let engine = fake.engine();
    let events: Vec<_> = engine.events().await.unwrap().collect().await;
    let (last, mut events) = (events.last().unwrap().clone(), events[..events.len() - 1].to_vec());
    assert_eq!(events.remove(1), Ok(Change::Containers));
    assert_eq!(events, vec![Ok(Change::Images); 5], "all but what a container does for itself and the push");
    assert_eq!(engine.lately.images(), ["a"]);
    assert_eq!(last.as_ref().unwrap_err().class, Class::EngineGone);
}

#[tokio::test]
async fn the_older_of_two_versions_is_spoken() {
    let versions = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&versions);
    let fake = FakeDocker::start(move |asked| {
        heard.lock().push(asked.version.clone());
        Answer::Reply(200, json!([]))
    });
    let engine = fake.engine();
    assert_eq!(engine.images().await.unwrap(), []);
    assert_eq!(engine.images().await.unwrap(), []);
    assert_eq!(*versions.lock(), ["", "1.41", "1.41"]);
}
