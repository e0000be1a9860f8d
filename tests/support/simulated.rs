//! Agents that are loops in this process and speak the real protocol: hundreds of them cost no more than one real
//! engine, and each is as slow or as dead as a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use wharf::wire::image::{EngineInfo, Fault, Held, Progress, Pull, Pulled, Removal};
use wharf::wire::message::{Answer, Ask, End, FromAgent, Images, Reply, ToAgent};
use wharf::wire::socket::{Broken, Sender, Socket};
use wharf::wire::{MAX_MESSAGE, PATH};

use super::machine::hello;

/// The first wait of an agent before it dials again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// The bytes that a pull claims to have, and so the number of times it reports progress.
const STEPS: u64 = 4;

/// How an agent pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    /// With this time between two reports of progress.
    Slow(Duration),
    /// Every pull fails as if the network did.
    Fails,
    /// The agent is gone when it is asked to pull.
    Never,
    /// The agent is gone as soon as it has joined.
    Gone,
}

/// What all agents of a crowd were seen to do.
#[derive(Default)]
pub struct Watch {
    pub reported: AtomicUsize,
    pulling: AtomicUsize,
    most: AtomicUsize,
    begun: Mutex<Vec<(String, String)>>,
    /// The agents and the images they pulled and were not asked to remove since.
    loaded: Mutex<BTreeSet<(String, String)>>,
}

impl Watch {
    /// Returns the most pulls at once, and agent and repository of each in the order in which they began; resets
    /// both.
    pub fn take(&self) -> (usize, Vec<(String, String)>) {
        (self.most.swap(0, Ordering::SeqCst), std::mem::take(&mut self.begun.lock()))
    }

    /// Returns the agents with the images they pulled and were not asked to remove since.
    pub fn loaded(&self) -> Vec<(String, String)> {
        self.loaded.lock().iter().cloned().collect()
    }

    fn begins(&self, id: &str, what: &Pull) {
        let now = self.pulling.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.begun.lock().push((id.to_owned(), what.repository.clone()));
    }

    fn ends(&self) {
        self.pulling.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An agent that has not joined yet.
pub struct Simulated {
    pub id: String,
    pub architecture: &'static str,
    /// The images it reports.
    pub held: Vec<Held>,
    pub pace: Pace,
}

/// A pull in progress.
struct Under {
    pull: String,
    what: Box<Pull>,
    done: u64,
}

impl Simulated {
    /// Joins and does as it is told until its link ends. Dropping it stops it.
    pub async fn run(self, url: &str, token: &str, watch: Arc<Watch>) {
        let (mut socket, id) = (connected(url).await, self.id);
        let mut hello =
            hello(Some(token), &format!("simulated{}", id.replace(|c: char| !c.is_ascii_alphanumeric(), "")));
        hello.id = Some(id.clone());
        socket.send(&FromAgent::Hello(Box::new(hello))).await.expect("hello");
        let Some(ToAgent::Welcome(welcome)) = socket.receive().await.expect("an answer").message else {
            panic!("not welcome")
        };
        let (mut sender, mut receiver) = socket.split();
        let about = EngineInfo { architecture: self.architecture.into(), ..someone(&id) };
        sender.send(&FromAgent::Here(about)).await.expect("here");
        let mut has = self.held.clone();
        let report = Images { full: true, last: true, held: self.held, ..Images::default() };
        sender.send(&FromAgent::Images(report)).await.expect("a report");
        watch.reported.fetch_add(1, Ordering::SeqCst);
        if self.pace == Pace::Gone {
            return;
        }
        let mut beat = tokio::time::interval(Duration::from_millis(welcome.beat_ms));
        let step = if let Pace::Slow(step) = self.pace { step } else { Duration::from_hours(1) };
        let mut step = tokio::time::interval(step);
        let mut under: Vec<Under> = Vec::new();
        loop {
            let heard = tokio::select! {
                heard = receiver.receive::<ToAgent>() => heard,
                _ = beat.tick() => {
                    let _ = sender.ping().await;
                    continue;
                }
                _ = step.tick() => {
                    goes_on(&id, &mut under, &mut has, &mut sender, &watch).await;
                    continue;
                }
            };
            let Ok(heard) = heard else { return };
            match heard.message {
                Some(ToAgent::Ask(request)) => {
                    let answer = match request.ask {
                        Ask::Look => Answer::Looked,
                        Ask::Find(name) => Answer::Found(found(&has, &name)),
                        Ask::Remove(name) => {
                            let gone: Vec<_> = found(&has, &name).into_iter().map(|held| held.id).collect();
                            has.retain(|held| !gone.contains(&held.id));
                            watch.loaded.lock().retain(|(agent, image)| {
                                *agent != id || gone.iter().all(|gone| gone.to_string() != *image)
                            });
                            let news = Images { gone, ..Images::default() };
                            let _ = sender.send(&FromAgent::Images(news)).await;
                            Answer::Removed(Removal::Removed { freed: None })
                        }
                        Ask::HandOut { .. } => Answer::Found(None),
                    };
                    let _ = sender.send(&FromAgent::Answer(Reply { call: request.call, answer })).await;
                }
                Some(ToAgent::Pull { .. }) if self.pace == Pace::Never => return,
                Some(ToAgent::Pull { pull, .. }) if self.pace == Pace::Fails => {
                    let fault = Fault { class: "network".into(), message: "no route to host".into() };
                    let _ = sender.send(&FromAgent::Pulled { pull, end: End::Failed(fault) }).await;
                }
                Some(ToAgent::Pull { pull, what }) => {
                    watch.begins(&id, &what);
                    under.push(Under { pull, what, done: 0 });
                    while self.pace == Pace::AtOnce && !under.is_empty() {
                        goes_on(&id, &mut under, &mut has, &mut sender, &watch).await;
                    }
                }
                _ => {}
            }
        }
    }
}

fn found(has: &[Held], name: &str) -> Option<Held> {
    has.iter().rev().find(|held| held.names.iter().any(|own| own == name)).cloned()
}

/// Takes each pull one step further.
async fn goes_on(
    id: &str,
    under: &mut Vec<Under>,
    has: &mut Vec<Held>,
    sender: &mut Sender<TcpStream>,
    watch: &Watch,
) {
    for Under { pull, what, done } in under.iter_mut() {
        *done += 1;
        let progress = Progress { bytes_done: *done, bytes_total: STEPS, ..Progress::default() };
        let _ = sender.send(&FromAgent::Pulling { pull: pull.clone(), progress }).await;
        if *done == STEPS {
            let held = Held {
                id: what.config.clone(),
                parts: Vec::new(),
                names: vec![format!("{}:{}", what.repository, what.tag)],
                manifests: Vec::new(),
                size: STEPS,
            };
            has.push(held.clone());
            watch.loaded.lock().insert((id.to_owned(), held.id.to_string()));
            let news = Images { held: vec![held.clone()], ..Images::default() };
            let _ = sender.send(&FromAgent::Images(news)).await;
            // Counted before it is reported: the manager may begin the next pull at once.
            watch.ends();
            let end = End::Done(Pulled { held, fetched: true, remarks: Vec::new() });
            let _ = sender.send(&FromAgent::Pulled { pull: pull.clone(), end }).await;
        }
    }
    under.retain(|pull| pull.done < STEPS);
}

async fn connected(url: &str) -> Socket<TcpStream> {
    let host = url.trim_start_matches("http://");
    loop {
        let stream = TcpStream::connect(host).await.expect("a connection");
        match Socket::client(stream, &format!("ws://{host}{PATH}"), MAX_MESSAGE).await {
            Ok(socket) => return socket,
            // Too many at once; a real agent also waits and tries again.
            Err(Broken::NoLink(_)) => tokio::time::sleep(TRY_AGAIN).await,
            Err(broken) => panic!("no link: {broken}"),
        }
    }
}

/// What an agent with a Docker Engine reports about it.
pub fn someone(hostname: &str) -> EngineInfo {
    EngineInfo {
        kind: "docker".into(),
        id: None,
        hostname: hostname.into(),
        version: "20.10".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        labels: BTreeMap::new(),
    }
}
