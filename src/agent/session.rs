//! One link, from welcome to its end, on the agent's side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::agent::dial::Stream;
use crate::agent::holdings::{Holdings, Snapshot, messages};
use crate::agent::peer_server::PeerServer;
use crate::agent::pulls::{PullState, Pulls, UNASKED};
use crate::agent::registries::Registries;
use crate::base::digest::Digest;
use crate::engine::Engine;
use crate::engine::export::Export;
use crate::engine::fault::{Class, Fault};
use crate::engine::pull::Pull;
use crate::engine::source::Source;
use crate::sources::cache::Cache;
use crate::sources::grants::Parts;
use crate::sources::peer::held_parts;
use crate::sources::relay::parts_of;
use crate::wire::message::{Answer, Ask, End, FromAgent, Refusal, Reply, Request, ToAgent, Welcome};
use crate::wire::socket::{Broken, Sender, Socket};
use crate::wire::{MAX_AT_ONCE, image};

/// Shortest time between two progress messages of a pull.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Most messages that wait to be sent.
const OUTBOX: usize = 64;
/// How long the last message may take to send.
const LAST_WORD: Duration = Duration::from_secs(2);
/// The shortest interval between pings that the agent accepts, whatever the manager asks for.
const SHORTEST_BEAT: Duration = Duration::from_millis(50);

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It broke, for this reason.
    Broken(String),
    /// The manager no longer accepts this agent.
    Refused(Refusal),
    /// The agent was told to stop.
    Stopped,
}

/// The parts of an agent.
pub(crate) struct Node {
    /// Its engine.
    pub(crate) engine: Arc<dyn Engine>,
    /// What the engine holds.
    pub(crate) holdings: Holdings,
    /// The pulls in progress.
    pub(crate) pulls: Pulls,
    /// The registries to fetch from, for an engine without its own registry client.
    pub(crate) registries: Registries,
    /// The cache of this machine, if it has one.
    pub(crate) cache: Option<Arc<Cache>>,
    /// Where the agent hands out the engine's images, or those of the cache, if it does.
    pub(crate) peer_server: Option<PeerServer>,
    /// Cancelled when the agent is to stop.
    pub(crate) shutdown: CancellationToken,
}

impl Node {
    /// Begins a pull that the manager asks for on the link with this number, or finds the one already begun.
    fn ask(&self, id: &str, what: image::Pull, link: u64) -> Option<watch::Receiver<PullState>> {
        let origin = what.origin();
        let mut what = Pull::from(what);
        if let Some(origin) = &origin {
            self.registries.renew(id, &what, origin);
        }
        self.pulls.ask(id, link, || {
            what.source = origin.map(|origin| self.registries.source(id, &what, origin)).transpose()?;
            Ok(what)
        })
    }
}

impl Node {
    /// What peers may take of an image: what the engine holds, or what the cache has or fetches.
    async fn parts(&self, image: &Digest, from: Option<Box<image::Pull>>) -> Result<Parts, Fault> {
        let Some(from) = from else {
            let Some(Export::Local(export)) = self.engine.export() else {
                return Err(Fault::new(Class::Other, "this agent's engine hands out nothing"));
            };
            return held_parts(export, image).await;
        };
        let (origin, pull) = (from.origin(), Pull::from(*from));
        let (Some(cache), Some(origin), Some(manifest)) = (&self.cache, origin, &pull.manifest) else {
            return Err(Fault::new(Class::Other, "this agent has no cache"));
        };
        let source: Arc<dyn Source> = self.registries.chain(&pull, origin)?;
        parts_of(manifest, image, cache.before(&pull.repository, &source)).await
    }
}

/// Serves a link on which the manager has sent its welcome. `number` counts the links of this process.
pub(crate) async fn serve(
    node: &Arc<Node>,
    socket: Socket<Box<dyn Stream>>,
    welcome: &Welcome,
    number: u64,
) -> Ended {
    let silence = Duration::from_millis(welcome.silence_ms).max(SHORTEST_BEAT * 3);
    let (mut sender, mut receiver) = socket.split();
    let (outbox, mut to_send) = mpsc::channel(OUTBOX);
    let mut beat = interval(Duration::from_millis(welcome.beat_ms).clamp(SHORTEST_BEAT, silence));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut link = Link {
        node,
        number,
        outbox,
        work: JoinSet::new(),
        followers: HashMap::new(),
        snapshot: node.holdings.watch(),
        told: None,
        silence,
    };
    link.snapshot.mark_changed();
    let (mut last_heard, unasked_at, mut is_swept) = (Instant::now(), Instant::now() + UNASKED, false);
    loop {
        let done = tokio::select! {
            biased;
            () = node.shutdown.cancelled() => {
                let leaving = async {
                    let _ = sender.send(&FromAgent::Bye).await;
                    sender.close("the agent was stopped").await;
                };
                let _ = timeout(LAST_WORD, leaving).await;
                return Ended::Stopped;
            }
            heard = timeout_at(last_heard + silence, receiver.receive::<ToAgent>()) => match heard {
                Ok(Ok(heard)) => {
                    last_heard = Instant::now();
                    match heard.message {
                        Some(ToAgent::Refused(refusal)) => return Ended::Refused(refusal),
                        Some(message) => link.obey(message),
                        None => {}
                    }
                    Ok(())
                }
                Ok(Err(broken)) => Err(broken),
                Err(_) => Err(Broken::Closed(format!("the manager was silent for {} s", silence.as_secs_f32()))),
            },
            Ok(()) = link.snapshot.changed() => link.report(&mut sender).await,
            Some(message) = to_send.recv() => link.tell(&mut sender, message).await,
            _ = beat.tick() => sent(silence, sender.ping()).await,
            Some(_) = link.work.join_next() => Ok(()),
            () = sleep_until(unasked_at), if !is_swept => {
                is_swept = true;
                node.pulls.stop_unasked(number);
                Ok(())
            }
        };
        if let Err(broken) = done {
            return Ended::Broken(broken.to_string());
        }
    }
}

async fn sent(silence: Duration, sending: impl Future<Output = Result<(), Broken>>) -> Result<(), Broken> {
    let within = timeout(silence, sending).await;
    within.unwrap_or_else(|_| Err(Broken::Closed("the manager reads nothing of what it is sent".into())))
}

struct Link<'a> {
    node: &'a Arc<Node>,
    number: u64,
    outbox: mpsc::Sender<FromAgent>,
    work: JoinSet<()>,
    /// The Tokio task that reports on each pull.
    followers: HashMap<String, AbortHandle>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The snapshot that the manager knows.
    told: Option<Arc<Snapshot>>,
    silence: Duration,
}

impl Link<'_> {
    fn obey(&mut self, message: ToAgent) {
        match message {
            ToAgent::Ask(request) => self.answer(request),
            ToAgent::Pull { pull, what } => {
                let state = self.node.ask(&pull, *what, self.number);
                let (node, outbox, id) = (Arc::clone(self.node), self.outbox.clone(), pull.clone());
                let follower = self.work.spawn(async move { follow(&node, &outbox, id, state).await });
                if let Some(before) = self.followers.insert(pull, follower) {
                    before.abort();
                }
                self.followers.retain(|_, follower| !follower.is_finished());
            }
            ToAgent::Stop { pull } => self.node.pulls.stop(&pull),
            // The manager sends these once, before this point; a second one does no harm.
            ToAgent::Welcome(_) | ToAgent::Refused(_) => {}
        }
    }

    fn answer(&mut self, request: Request) {
        let (node, outbox) = (Arc::clone(self.node), self.outbox.clone());
        let is_too_much = self.work.len() >= 2 * MAX_AT_ONCE;
        self.work.spawn(async move {
            let answer = if is_too_much {
                Err(Fault::new(Class::Other, "the agent has too much to do at once"))
            } else {
                done(&node, request.ask).await
            };
            let answer = answer.unwrap_or_else(|fault| Answer::Failed(fault.into()));
            let _ = outbox.send(FromAgent::Answer(Reply { call: request.call, answer })).await;
        });
    }

    /// Sends a message. Before the answer to a read request, it sends what the read found.
    async fn tell(&mut self, sender: &mut Sender<Box<dyn Stream>>, message: FromAgent) -> Result<(), Broken> {
        if let FromAgent::Answer(Reply { answer: Answer::Looked, .. }) = &message {
            self.report(sender).await?;
        }
        sent(self.silence, sender.send(&message)).await
    }

    /// Sends what the manager does not know yet.
    async fn report(&mut self, sender: &mut Sender<Box<dyn Stream>>) -> Result<(), Broken> {
        let now = Arc::clone(&self.snapshot.borrow_and_update());
        for message in messages(self.told.as_deref(), &now) {
            sent(self.silence, sender.send(&message)).await?;
        }
        self.told = Some(now);
        Ok(())
    }
}

async fn done(node: &Node, ask: Ask) -> Result<Answer, Fault> {
    match ask {
        Ask::Find(reference) => Ok(Answer::Found(node.engine.find(&reference).await?.map(Into::into))),
        Ask::Remove(reference) => {
            tracing::info!(image = reference, "removing");
            Ok(Answer::Removed(node.engine.remove(&reference).await?.into()))
        }
        Ask::Look => node.holdings.look().await.map(|()| Answer::Looked),
        Ask::HandOut { image, grant, seconds, from } => {
            let Some(peer_server) = &node.peer_server else {
                return Err(Fault::new(Class::Other, "this agent hands out nothing"));
            };
            let (grants, life) = (&peer_server.grants, Duration::from_secs(seconds));
            if from.is_none() || !grants.extend(&grant, &image, life, Instant::now().into_std()) {
                let parts = node.parts(&image, from).await?;
                grants.admit(&grant, parts, life, Instant::now().into_std())?;
            }
            Ok(Answer::HandsOut)
        }
    }
}

/// Reports on a pull until it ends.
async fn follow(
    node: &Node,
    outbox: &mpsc::Sender<FromAgent>,
    pull: String,
    state: Option<watch::Receiver<PullState>>,
) {
    let Some(mut state) = state else {
        let fault = Fault::new(Class::Other, format!("the agent has {MAX_AT_ONCE} pulls already"));
        let _ = outbox.send(FromAgent::Pulled { pull, end: End::Failed(fault.into()) }).await;
        return;
    };
    loop {
        let PullState { progress, end } = state.borrow_and_update().clone();
        // Sent before the end too: otherwise a short pull would never report its size.
        if let Some(progress) = progress {
            let _ = outbox.send(FromAgent::Pulling { pull: pull.clone(), progress: progress.into() }).await;
        }
        if let Some(end) = end {
            let end = match end {
                Ok(pulled) => End::Done(pulled.into()),
                Err(fault) => End::Failed(fault.into()),
            };
            if outbox.send(FromAgent::Pulled { pull: pull.clone(), end }).await.is_ok() {
                node.pulls.forget(&pull, &state);
            }
            return;
        }
        if state.changed().await.is_err() {
            let fault = Fault::new(Class::Other, "the pull broke down; the agent's log has the cause");
            let _ = outbox.send(FromAgent::Pulled { pull, end: End::Failed(fault.into()) }).await;
            return;
        }
        let ended = state.wait_for(|state| state.end.is_some());
        let _ = timeout(TELL_EVERY, ended).await;
    }
}
