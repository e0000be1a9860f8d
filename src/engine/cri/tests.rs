//! The engine against a small server that speaks CRI over a socket and misbehaves.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::base::{digest::Digest, secret::Secret};
use crate::engine::{
    Change, Engine, EngineKind,
    address::{EngineLocation, EngineUrl},
    cri::{Cri, Patience, message as m},
    fault::{Class, Fault},
    image::{Held, Removal, Uses},
    pull::{Credentials, Layer, Progress, Pull, Pulled},
};

const NAME: &str = "cr.test/lab/python:1";

/// The fake server's answer to a call.
#[derive(Clone)]
enum Answer {
    /// A message, and success.
    Message(Vec<u8>),
    /// No message, and this status.
    Refusal(u16, &'static str),
    /// Raw bytes, and success.
    Bytes(Vec<u8>),
    /// A message that no status follows.
    Unended(Vec<u8>),
    /// The head, then nothing for as long as the client waits.
    Stuck,
    /// Zeros without end.
    Flood,
    /// The connection ends.
    Death,
}

fn says(message: &impl Message) -> Answer {
    Answer::Message(message.encode_to_vec())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A function from the last part of the method's name and the request to the answer.
type Script = Arc<dyn Fn(&str, &[u8]) -> Answer + Send + Sync>;

struct FakeCri {
    folder: TempDir,
    accepting: JoinHandle<()>,
    log: Arc<Mutex<Vec<String>>>,
    patience: Patience,
}

impl FakeCri {
    fn start(script: impl Fn(&str, &[u8]) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("c.sock")).unwrap();
        let script: Script = Arc::new(script);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&log);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&written));
                connections.spawn(async move {
                    let serve = service_fn(|request| answer(request, Arc::clone(&script), Arc::clone(&log)));
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), serve)
                        .await;
                    log.lock().push("hung up".into());
                });
            }
        });
        // More time than any machine needs, so that only the script can cause a failure.
        let minute = Duration::from_mins(1);
        let patience = Patience { answer: minute, quiet: minute, look: Duration::from_millis(10) };
        Self { folder, accepting, log, patience }
    }

    /// Makes the client wait only briefly.
    fn hurried(mut self) -> Self {
        let (answer, quiet) = (Duration::from_millis(500), Duration::from_millis(100));
        self.patience = Patience { answer, quiet, ..self.patience };
        self
    }

    fn engine(&self) -> Cri {
        let place = EngineLocation::Socket(self.folder.path().join("c.sock"));
        Cri::new(&EngineUrl { kind: EngineKind::Containerd, place }).unwrap().with_patience(self.patience)
    }

    fn calls(&self, of: &str) -> usize {
        self.log.lock().iter().filter(|call| *call == of).count()
    }
}

impl Drop for FakeCri {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    request: Request<Incoming>,
    script: Script,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Body>, std::io::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
    log.lock().push(method.clone());
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let (sender, mut receiver) = mpsc::channel::<Frame<Bytes>>(4);
    let status = |code: u16, message: &str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", message.replace(' ', "%20").parse().unwrap());
        Frame::trailers(trailers)
    };
    let frames = match script(&method, &asked[5..]) {
        Answer::Message(message) => vec![Frame::data(framed(&message).into()), status(0, "")],
        Answer::Refusal(code, message) => vec![status(code, message)],
        Answer::Bytes(bytes) => vec![Frame::data(bytes.into()), status(0, "")],
        Answer::Unended(message) => vec![Frame::data(framed(&message).into())],
        Answer::Death => return Err(std::io::Error::other("dies")),
        Answer::Stuck => {
            tokio::spawn(async move { sender.closed().await });
            vec![]
        }
        Answer::Flood => {
            tokio::spawn(async move {
                while sender.send(Frame::data(Bytes::from_static(&[0; 16384]))).await.is_ok() {}
            });
            vec![]
        }
    };
    let fed = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = futures_util::stream::iter(frames).chain(fed).map(Ok::<_, Infallible>);
    Ok(Response::new(StreamBody::new(frames.boxed())))
}

fn config() -> Digest {
    Digest::sha256_of(b"config")
}

fn manifest() -> Digest {
    Digest::sha256_of(b"manifest")
}

fn a_pull() -> Pull {
    Pull {
        repository: "cr.test/lab/python".into(),
        tag: "1".into(),
        manifest: Some(manifest()),
        index: None,
        config: config(),
        architecture: "x86_64".into(),
        platform: None,
        layers: Vec::new(),
        credentials: None,
        source: None,
        via: None,
    }
}

fn image(id: &str, tags: &[&str]) -> m::Image {
    m::Image {
        id: id.into(),
        repo_tags: tags.iter().map(|&tag| tag.into()).collect(),
        repo_digests: vec![format!("cr.test/lab/python@{}", manifest())],
        size: 5,
        pinned: false,
    }
}

fn shown(image: Option<m::Image>) -> Answer {
    says(&m::ImageStatusResponse { image })
}

fn version() -> Answer {
    says(&m::VersionResponse { runtime_name: "containerd".into(), runtime_version: "1.6.20".into() })
}

/// An engine that answers the pull with `pulled`. If `id` is given, it has the image under that ID afterwards.
fn pulling(pulled: Answer, id: Option<Digest>) -> FakeCri {
    let done = Mutex::new(false);
    FakeCri::start(move |method, _| match method {
        "Version" => version(),
        "PullImage" => {
            *done.lock() = true;
            pulled.clone()
        }
        _ => shown(id.as_ref().filter(|_| *done.lock()).map(|id| image(id.as_str(), &[NAME]))),
    })
}

async fn run(fake: &FakeCri, pull: &Pull) -> (Result<Pulled, Fault>, Vec<Progress>) {
    let seen = Mutex::new(Vec::new());
    let pulled = fake.engine().pull(pull, &|now| seen.lock().push(now), &CancellationToken::new()).await;
    (pulled, seen.into_inner())
}

#[tokio::test]
async fn success_is_what_the_engine_shows_and_nothing_else() {
    let done = || says(&m::PullImageResponse {});
    let (pulled, seen) = run(&pulling(done(), Some(config())), &a_pull()).await;
    assert_eq!(pulled.unwrap().held.names, [NAME]);
    assert!(seen.iter().all(|now| (now.bytes_done, now.bytes_total) == (0, 0)), "{seen:?}");
    // The total is what the catalog knows, and none of it is done until all is.
    let layers = vec![Layer { digest: manifest(), size_bytes: 7 }];
    let (pulled, seen) = run(&pulling(done(), Some(config())), &Pull { layers, ..a_pull() }).await;
    assert!(pulled.is_ok());
    let bytes: Vec<_> = seen.iter().map(|now| (now.bytes_done, now.bytes_total, now.layers_done)).collect();
    assert_eq!(bytes, [(0, 7, 0), (7, 7, 1)]);

    let fault = run(&pulling(done(), None), &a_pull()).await.0.unwrap_err();
    assert!(fault.message.contains("yet has no"), "{fault}");
    let other = Digest::sha256_of(b"other");
    let fault = run(&pulling(done(), Some(other.clone())), &a_pull()).await.0.unwrap_err();
    assert!(fault.class == Class::Other && fault.message.contains(other.as_str()), "{fault}");
    assert!(fault.message.contains("tag moved"), "{fault}");
}

#[tokio::test]
async fn broken_answers_are_faults() {
    let long = u32::MAX.to_be_bytes();
    for (answer, class, words) in [
        (Answer::Refusal(2, "failed to pull: no space left on device"), Class::NoSpace, ""),
        (Answer::Refusal(2, "unexpected status: 401 Unauthorized"), Class::Unauthorized, ""),
        (Answer::Refusal(5, "odd"), Class::NotFound, "odd"),
        (Answer::Refusal(13, ""), Class::Other, "code 13"),
        (Answer::Refusal(14, "shutting down"), Class::EngineGone, "shutting down"),
        (Answer::Refusal(12, "unknown service runtime.v1.ImageService"), Class::Other, "disabled_plugins"),
        (Answer::Unended(Vec::new()), Class::EngineGone, "without a status"),
        (Answer::Bytes(Vec::new()), Class::Other, "no message"),
        (Answer::Bytes(vec![1, 0, 0, 0, 0]), Class::Other, "compressed"),
        (Answer::Bytes([&[0], &long[..], b"x"].concat()), Class::Other, "its length"),
        (Answer::Bytes(framed(&[0xff; 40])), Class::Other, "can't be read"),
        (Answer::Death, Class::EngineGone, ""),
        (Answer::Flood, Class::Other, "too long"),
    ] {
        let fault = run(&pulling(answer, Some(config())), &a_pull()).await.0.unwrap_err();
        assert!(fault.class == class && fault.message.contains(words), "{fault:?} {words}");
        assert!(fault.to_string().len() < 600);
    }
}

#[tokio::test]
async fn a_slow_registry_is_waited_for_and_a_dead_engine_is_not() {
    // The server answers that it is alive, so the pull outlasts many quiet moments, until it is stopped.
    let fake = pulling(Answer::Stuck, Some(config())).hurried();
    let (engine, stop) = (fake.engine(), CancellationToken::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (token, told) = (stop.clone(), Arc::clone(&seen));
    let task =
        tokio::spawn(async move { engine.pull(&a_pull(), &|now| told.lock().push(now), &token).await });
    while fake.calls("Version") < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!task.is_finished() && seen.lock().len() >= 3, "that it lives is told");
    stop.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().class, Class::Stopped);
    // The engine learns of it when the connection closes: no connection is left, not even the pull's.
    while fake.calls("hung up") * 2 < fake.log.lock().len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let fake = FakeCri::start(|method, _| match method {
        "ImageStatus" => shown(None),
        _ => Answer::Stuck,
    })
    .hurried();
    let fault = run(&fake, &a_pull()).await.0.unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.is_transient(), "{fault}");
}

#[tokio::test]
async fn a_hanging_engine_hangs_nobody() {
    let fake = FakeCri::start(|_, _| Answer::Stuck).hurried();
    let (engine, started) = (fake.engine(), Instant::now());
    assert_eq!(engine.about().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.images().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.find(NAME).await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.remove(NAME).await.unwrap_err().class, Class::EngineGone);
    assert_eq!(engine.events().await.err().unwrap().class, Class::EngineGone);
    assert_eq!(engine.disk().await.unwrap_err().class, Class::EngineGone);
    assert_eq!(run(&fake, &a_pull()).await.0.unwrap_err().class, Class::EngineGone);
    // A socket whose owner does not accept connections.
    let folder = tempfile::tempdir().unwrap();
    let silent = std::os::unix::net::UnixListener::bind(folder.path().join("c.sock")).unwrap();
    let place = EngineLocation::Socket(folder.path().join("c.sock"));
    let patience = Patience { answer: Duration::from_millis(300), ..Patience::default() };
    let engine =
        Cri::new(&EngineUrl { kind: EngineKind::Containerd, place }).unwrap().with_patience(patience);
    assert_eq!(engine.about().await.unwrap_err().class, Class::EngineGone);
    drop(silent);
    assert!(engine.about().await.unwrap_err().message.contains("is the engine running"));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn credentials_are_for_their_registry_only() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let fake = FakeCri::start(move |method, asked| match method {
        "PullImage" => {
            kept.lock().push(m::PullImageRequest::decode(asked).unwrap());
            Answer::Refusal(2, "no")
        }
        _ => shown(None),
    });
    let account = Credentials { username: "u".into(), password: Secret::new("p w") };
    let hub = "docker.io/library/alpine".to_owned();
    for pull in [
        Pull { credentials: Some(account.clone()), ..a_pull() },
        Pull { credentials: Some(account), repository: hub, ..a_pull() },
        a_pull(),
    ] {
        assert!(run(&fake, &pull).await.0.is_err());
    }
    let mut asked = heard.lock().clone();
    let auths: Vec<_> = asked.iter_mut().map(|asked| asked.auth.take()).collect();
    let auth = |server: &str| {
        Some(m::AuthConfig { username: "u".into(), password: "p w".into(), server_address: server.into() })
    };
    assert!(auths == [auth("https://cr.test"), auth("https://registry-1.docker.io"), None]);
    assert_eq!(asked[0].image, Some(m::ImageSpec::of(NAME)));
}

/// Removes [`NAME`] from an engine that holds the image under these names, with these containers.
fn removing(held: m::Image, containers: Vec<m::Container>) -> FakeCri {
    let gone = Mutex::new(false);
    FakeCri::start(move |method, asked| match method {
        "ImageStatus" => {
            let which = m::ImageStatusRequest::decode(asked).unwrap().image.unwrap().image;
            let is_held = which == held.id || held.repo_tags.contains(&which);
            shown((is_held && !*gone.lock()).then(|| held.clone()))
        }
        "ListContainers" => says(&m::ListContainersResponse { containers: containers.clone() }),
        "RemoveImage" => {
            *gone.lock() = true;
            says(&m::RemoveImageResponse {})
        }
        "Version" => {
            says(&m::VersionResponse { runtime_name: "cri-o".into(), runtime_version: "1.27".into() })
        }
        _ => Answer::Refusal(12, "unknown service"),
    })
}

#[tokio::test]
async fn what_is_used_pinned_or_called_otherwise_is_not_removed() {
    let id = config();
    let only = || image(id.as_str(), &[NAME]);
    let fake = removing(only(), Vec::new());
    assert_eq!(fake.engine().remove(NAME).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(fake.engine().remove(NAME).await, Ok(Removal::Absent));

    let container = |id: &str, name: &str, image: &str, image_ref: &str| m::Container {
        id: id.into(),
        metadata: (!name.is_empty()).then(|| m::ContainerMetadata { name: name.into() }),
        image: Some(m::ImageSpec::of(image)),
        image_ref: image_ref.into(),
        ..m::Container::default()
    };
    let by_digest = format!("cr.test/lab/python@{}", manifest());
    let containers = vec![
        container("1", "by-id", "x", id.as_str()),
        container("2", "by-bare-id", id.hex(), ""),
        container("3", "by-digest", "x", &by_digest),
        container("4", "", NAME, "x"),
        container("5", "other", "cr.test/lab/python:2", Digest::sha256_of(b"other").as_str()),
    ];
    let fake = removing(only(), containers);
    let users = ["by-id", "by-bare-id", "by-digest", "4"].map(Into::into).to_vec();
    assert_eq!(fake.engine().remove(NAME).await, Ok(Removal::InUse { containers: users }));
    assert_eq!(fake.calls("RemoveImage"), 0);

    let fake = removing(m::Image { pinned: true, ..only() }, Vec::new());
    let fault = fake.engine().remove(NAME).await.unwrap_err();
    assert!(fault.class == Class::InUse && fault.message.contains("pinned"), "{fault}");
    assert_eq!(fake.calls("RemoveImage"), 0);

    // CRI would remove all names, and this engine is not containerd, which can remove one.
    let fake = removing(image(id.as_str(), &[NAME, "cr.test/other:1"]), Vec::new());
    for reference in [NAME, id.as_str()] {
        let fault = fake.engine().remove(reference).await.unwrap_err();
        assert!(fault.class == Class::InUse && fault.message.contains("cr.test/other:1"), "{fault}");
    }
    assert_eq!(fake.calls("RemoveImage"), 0);
    for reference in ["", "a?b", "../x", "a b", "<none>:<none>"] {
        assert_eq!(fake.engine().remove(reference).await, Ok(Removal::Absent), "{reference}");
    }
}

#[tokio::test]
async fn what_containers_use_is_told_by_what_they_call_their_image() {
    let id = config();
    let fake = FakeCri::start(move |_, _| {
        let container = |image_id: &str, image_ref: &str, image: &str| m::Container {
            image: Some(m::ImageSpec::of(image)),
            image_ref: image_ref.into(),
            image_id: image_id.into(),
            ..m::Container::default()
        };
        let (a, by_digest) =
            (Digest::sha256_of(b"a"), format!("cr.test/lab/b@{}", Digest::sha256_of(b"b manifest")));
        let containers = vec![
            // As containerd 1.6 tells, as 2.0 does, and as CRI-O does.
            container("", a.as_str(), "cr.test/lab/c:1"),
            container(config().as_str(), "cr.test/lab/c:1", "x"),
            container("", &by_digest, "x"),
            container("", "x", "cr.test/gone:1"),
        ];
        says(&m::ListContainersResponse { containers })
    });
    let held = |digest: &Digest, name: &str, manifest: &[u8]| Held {
        digest: digest.clone(),
        parts: Vec::new(),
        names: vec![format!("cr.test/lab/{name}:1")],
        manifests: vec![Digest::sha256_of(manifest)],
        size_bytes: 1,
    };
    let [a, b, c] = [b"a", b"b", b"c"].map(|name| Digest::sha256_of(name));
    let all = [held(&a, "a", b""), held(&b, "b", b"b manifest"), held(&c, "c", b""), held(&id, "d", b"")];
    let uses = fake.engine().uses(&all).await.unwrap().unwrap();
    assert_eq!(uses, Uses { now: [a, b, id].into(), ..Uses::default() });
}

#[tokio::test]
async fn changes_are_seen_by_looking_until_the_engine_goes() {
    let looks = Mutex::new(0);
    let id = config();
    let fake = FakeCri::start(move |method, _| {
        let mut look = looks.lock();
        if method == "ListContainers" {
            let container = m::Container { id: "one".into(), ..m::Container::default() };
            let containers = if *look < 5 { Vec::new() } else { vec![container] };
            return says(&m::ListContainersResponse { containers });
        }
        *look += 1;
        let images = match *look {
            1 | 2 => vec![],
            3 => vec![image(id.hex(), &[NAME, "alpine"])],
            4 | 5 => vec![image(id.as_str(), &[NAME])],
            6 => vec![image("odd", &["odd:1"])],
            _ => return Answer::Refusal(14, "bye"),
        };
        says(&m::ListImagesResponse { images })
    });
    let events: Vec<_> = fake.engine().events().await.unwrap().collect().await;
    let (last, events) = events.split_last().unwrap();
    // An image with two names, one name fewer, a container, and no image: one with an odd ID does not count.
    let images = || Ok(Change::Images);
    assert_eq!(events, [images(), images(), Ok(Change::Containers), images()]);
    assert_eq!(last.as_ref().unwrap_err().class, Class::EngineGone);
}

#[tokio::test]
async fn what_we_pinned_ourselves_may_go_and_a_pin_changes_nothing_else() {
    let named = || m::NamedImage {
        name: NAME.into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        target: Some(m::Descriptor { media_type: "x/y".into(), digest: manifest().to_string(), size: 7 }),
    };
    let kept = Arc::new(Mutex::new(named()));
    let (told, gone) = (Arc::clone(&kept), Mutex::new(false));
    let fake = FakeCri::start(move |method, asked| match method {
        "Version" => version(),
        "ListContainers" => says(&m::ListContainersResponse { containers: Vec::new() }),
        "Get" => says(&m::GetImageResponse { image: Some(told.lock().clone()) }),
        "Update" => {
            let change = m::UpdateImageRequest::decode(asked).unwrap();
            assert!(change.update_mask.unwrap().paths.iter().all(|path| path.starts_with("labels.")));
            *told.lock() = change.image.unwrap();
            says(&m::Empty {})
        }
        "RemoveImage" => {
            *gone.lock() = true;
            says(&m::RemoveImageResponse {})
        }
        _ => {
            let pinned = told.lock().labels.contains_key("io.cri-containerd.pinned");
            shown((!*gone.lock()).then(|| m::Image { pinned, ..image(config().as_str(), &[NAME]) }))
        }
    });
    for _ in 0..2 {
        assert!(!run(&fake, &a_pull()).await.0.unwrap().fetched);
    }
    assert_eq!(fake.calls("Update"), 1, "once is enough");
    let now = kept.lock().clone();
    assert_eq!((&now.target, now.labels.len()), (&named().target, 3), "{now:?}");
    // A pin by an operator does not have our label beside it.
    kept.lock().labels.remove("wharf.preloaded");
    let fault = fake.engine().remove(NAME).await.unwrap_err();
    assert!(fault.class == Class::InUse && fault.message.contains("pinned"), "{fault}");
    *kept.lock() = now;
    assert_eq!(fake.engine().remove(NAME).await, Ok(Removal::Removed { freed_bytes: None }));
}
