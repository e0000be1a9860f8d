//! An engine on another machine, reached over the link that its agent keeps open.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::engine::export::{Export, Reach, RemoteExport, SiteCache};
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal};
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::{About, Change, Disk, Engine, EngineKind};
use crate::fleet::service::Fleet;
use crate::wire::convert::{Unacceptable, is_honest};
use crate::wire::message::{Answer, Ask, End, Refusal, Reply, Request, ToAgent};
use crate::wire::{MAX_AT_ONCE, MAX_CA, image};

/// Most secrets of one link that are removed from what its agent says: enough for as many pulls as it may have, with
/// their grants.
const MAX_SECRETS: usize = MAX_AT_ONCE * 2;
/// How much of an agent's error message is read, in characters: more than is ever shown.
const MAX_SAID: usize = 2_000;
/// Most messages that wait to be sent on one link.
const OUTBOX: usize = 64;
/// How long an agent may take to answer: as long as its engine may, plus some time for the network.
const ANSWER: Duration = Duration::from_mins(1);
/// How long to wait for a stopped pull to end.
const STOPPING: Duration = Duration::from_secs(4);

/// A link, from the side of the code that uses it.
pub(in crate::fleet) struct Link {
    outbox: mpsc::Sender<ToAgent>,
    calls: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    pulls: Mutex<HashMap<String, watch::Sender<PullState>>>,
    next_call: AtomicU64,
    /// Notified when something has changed on the engine.
    pub(in crate::fleet) changed: watch::Sender<()>,
    /// Cancelled when the link is no longer the agent's.
    pub(in crate::fleet) closed: CancellationToken,
    /// The latest secrets sent on the link; they are removed from what the agent says.
    entrusted: Mutex<VecDeque<Secret>>,
    /// Why we cut the link, if we did.
    cut: Mutex<Option<Refusal>>,
    /// Cancelled when the manager stops: pulls continue on the agents then.
    shutdown: CancellationToken,
}

/// What is known about a pull.
#[derive(Debug, Default, Clone)]
struct PullState {
    progress: Option<Progress>,
    end: Option<Result<Pulled, Fault>>,
}

impl Link {
    /// Makes a link, and the queue of messages to send on it.
    pub(in crate::fleet) fn new(shutdown: CancellationToken) -> (Arc<Self>, mpsc::Receiver<ToAgent>) {
        let (outbox, to_send) = mpsc::channel(OUTBOX);
        let link = Self {
            outbox,
            calls: Mutex::default(),
            pulls: Mutex::default(),
            next_call: AtomicU64::new(1),
            changed: watch::Sender::new(()),
            closed: CancellationToken::new(),
            entrusted: Mutex::default(),
            cut: Mutex::new(None),
            shutdown,
        };
        (Arc::new(link), to_send)
    }

    /// Ends the link, and tells the agent why.
    pub(in crate::fleet) fn cut(&self, refusal: Refusal) {
        self.cut.lock().get_or_insert(refusal);
        self.closed.cancel();
    }

    /// Returns why the link was cut.
    pub(in crate::fleet) fn was_cut(&self) -> Option<Refusal> {
        self.cut.lock().clone()
    }

    /// Remembers the secrets that a message to the agent contains. The oldest ones are forgotten.
    fn entrust(&self, message: &ToAgent) {
        let secrets: Vec<&Secret> = match message {
            ToAgent::Pull { what, .. } => {
                let password = what.credentials.iter().map(|credentials| &credentials.password);
                password.chain(what.peers.iter().map(|peer| &peer.grant)).collect()
            }
            ToAgent::Ask(Request { ask: Ask::HandOut { grant, from, .. }, .. }) => {
                let account = from.iter().filter_map(|from| from.credentials.as_ref());
                account.map(|credentials| &credentials.password).chain([grant]).collect()
            }
            _ => return,
        };
        let mut entrusted = self.entrusted.lock();
        for secret in secrets {
            entrusted.retain(|known| known != secret);
            entrusted.push_back(secret.clone());
        }
        let too_many = entrusted.len().saturating_sub(MAX_SECRETS);
        entrusted.drain(..too_many);
    }

    /// Returns the agent's text without the secrets that it was sent.
    fn without_secrets(&self, text: &str) -> String {
        let text = text.chars().take(MAX_SAID).collect();
        self.entrusted.lock().iter().fold(text, |text: String, secret| secret.hidden_in(&text))
    }

    /// Returns the failure that the agent reported.
    pub(in crate::fleet) fn told(&self, fault: image::Fault) -> Fault {
        // Before the text is cut to one line: half a password would no longer be recognized.
        image::Fault { message: self.without_secrets(&fault.message), ..fault }.into()
    }

    /// Passes an answer on to the caller that waits for it; drops it if no caller waits any more.
    pub(in crate::fleet) fn answered(&self, reply: Reply) {
        if let Some(waiting) = self.calls.lock().remove(&reply.call) {
            let _ = waiting.send(reply.answer);
        }
    }

    /// Takes the progress of a pull. Progress of a pull that no caller follows is ignored.
    ///
    /// # Errors
    /// Impossible numbers: the pull fails with this error, because the agent has lied.
    pub(in crate::fleet) fn pulling(&self, pull: &str, said: &image::Progress) -> Result<(), Unacceptable> {
        let message = self.without_secrets(&said.message);
        let progress: Progress = image::Progress { message, ..said.clone() }.into();
        let pulls = self.pulls.lock();
        let Some(state) = pulls.get(pull) else { return Ok(()) };
        let is_lie = !is_honest(state.borrow().progress.as_ref(), &progress);
        if is_lie {
            let lie = "it says of a pull what can't be: its numbers go back, or pass their total";
            let fault = Fault::new(Class::Other, format!("the agent can't be believed: {lie}"));
            state.send_modify(|state| state.end = Some(Err(fault)));
            return Err(Unacceptable(lie.into()));
        }
        state.send_modify(|state| state.progress = Some(progress));
        Ok(())
    }

    /// Takes the end of a pull.
    pub(in crate::fleet) fn pulled(&self, pull: &str, end: End) -> Result<(), Unacceptable> {
        let end = match end {
            End::Done(mut pulled) => {
                for remark in &mut pulled.remarks {
                    *remark = self.without_secrets(remark);
                }
                Ok(pulled.try_into()?)
            }
            End::Failed(fault) => Err(self.told(fault)),
        };
        if let Some(state) = self.pulls.lock().get(pull) {
            state.send_modify(|state| state.end = Some(end));
        }
        Ok(())
    }

    fn gone() -> Fault {
        Fault::new(Class::EngineGone, "the link to the agent broke")
    }

    async fn send(&self, message: ToAgent) -> Result<(), Fault> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Self::gone()),
            sent = self.entrusting(message) => sent.map_err(|_| Self::gone()),
        }
    }

    async fn entrusting(&self, message: ToAgent) -> Result<(), mpsc::error::SendError<ToAgent>> {
        self.entrust(&message);
        self.outbox.send(message).await
    }

    pub(in crate::fleet) async fn ask(&self, ask: Ask) -> Result<Answer, Fault> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.calls.lock().insert(call, answered);
        let asked = async {
            self.send(ToAgent::Ask(Request { call, ask })).await?;
            tokio::select! {
                () = self.closed.cancelled() => Err(Self::gone()),
                answer = tokio::time::timeout(ANSWER, answer) => {
                    let silent = || {
                        let why = format!("the agent has not answered for {} s", ANSWER.as_secs());
                        Fault::new(Class::EngineGone, why)
                    };
                    answer.map_err(|_| silent())?.map_err(|_| Self::gone())
                }
            }
        };
        let answer = asked.await;
        self.calls.lock().remove(&call);
        match answer? {
            Answer::Failed(fault) => Err(self.told(fault)),
            answer => Ok(answer),
        }
    }
}

/// The engine at the other end of a link.
pub(in crate::fleet) struct Remote {
    pub(in crate::fleet) link: Arc<Link>,
    pub(in crate::fleet) fleet: Fleet,
    pub(in crate::fleet) agent: String,
    /// Where others can fetch from its agent, if that serves anything.
    pub(in crate::fleet) peer_url: Option<Url>,
    /// The kind of engine.
    pub(in crate::fleet) kind: EngineKind,
    /// What its agent said that it can do.
    pub(in crate::fleet) reach: Reach,
}

fn strange() -> Fault {
    Fault::new(Class::Other, "the agent answered something else than was asked")
}

impl Remote {
    /// Checks that a pull the agent calls a success produced the image that was wanted, both by the agent's word and
    /// by its engine. The pull may have ended well before another program changed the image.
    async fn proven(&self, pull: &Pull, pulled: Pulled) -> Result<Pulled, Fault> {
        pull.proven(Some(pulled.held.clone()))?;
        let shown = self.find(&pull.canonical()?).await?;
        Ok(Pulled { held: pull.proven(shown)?, ..pulled })
    }

    /// The pull as the agent is told of it. It includes the registry's address only for agents that fetch themselves.
    fn told(&self, pull: &Pull) -> Result<image::Pull, Fault> {
        described(pull, self.reach.takes_sources)
    }
}

/// The pull as an agent is told of it, with the registry's address if the agent itself is to fetch from it.
fn described(pull: &Pull, fetches: bool) -> Result<image::Pull, Fault> {
    let mut told = image::Pull::from(pull);
    if fetches
        && let Some(source) = &pull.source
        && let Some(origin) = source.origin()?
    {
        told = told.with_origin(origin);
    }
    let ca = told.registry.as_ref().and_then(|registry| registry.ca_pem.as_ref());
    if ca.is_some_and(|ca| ca.len() > MAX_CA) {
        let why = "the registry's certificates have more than 256 KiB, which is more than an agent is sent; keep only \
                   those that sign for it";
        return Err(Fault::new(Class::Other, why));
    }
    Ok(told)
}

/// The id of a pull. It depends only on the image and the name it will have, so a later request for the same pull
/// finds the one already begun.
fn id_of(pull: &Pull) -> String {
    let manifest = pull.manifest.as_ref().map_or("", Digest::as_str);
    Digest::sha256_of(format!("{} {manifest} {}", pull.name(), pull.config.as_str()).as_bytes())
        .hex()
        .chars()
        .take(32)
        .collect()
}

/// Follows a pull; if this is dropped before the end, the agent is told to stop the pull.
struct Following<'a> {
    link: &'a Link,
    id: String,
    is_over: bool,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.link.pulls.lock().remove(&self.id);
        // While the manager stops, and after the link broke, the agent continues: it will be asked about the pull
        // again.
        if !self.is_over && !self.link.shutdown.is_cancelled() && !self.link.closed.is_cancelled() {
            let _ = self.link.outbox.try_send(ToAgent::Stop { pull: self.id.clone() });
        }
    }
}

impl Following<'_> {
    async fn follow(
        &mut self,
        state: &mut watch::Receiver<PullState>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, Fault> {
        loop {
            let now = state.borrow_and_update().clone();
            if let Some(now) = now.progress {
                progress(now);
            }
            if let Some(end) = now.end {
                self.is_over = true;
                return end;
            }
            tokio::select! {
                biased;
                changed = state.changed() => changed.map_err(|_| Link::gone())?,
                () = self.link.closed.cancelled() => return Err(Link::gone()),
            }
        }
    }
}

#[async_trait]
impl Engine for Remote {
    async fn about(&self) -> Result<About, Fault> {
        let agent = self.fleet.find(&self.agent);
        agent.and_then(|agent| agent.about).ok_or_else(Link::gone)
    }

    /// The images the agent has reported, after it was made to read its engine again.
    async fn images(&self) -> Result<Vec<Held>, Fault> {
        self.link.ask(Ask::Look).await?;
        Ok(self.fleet.held(&self.agent).iter().map(|held| held.as_ref().clone()).collect())
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        match self.link.ask(Ask::Find(reference.into())).await? {
            Answer::Found(held) => held
                .map(TryInto::try_into)
                .transpose()
                .map_err(|lie: Unacceptable| Fault::new(Class::Other, lie.0)),
            _ => Err(strange()),
        }
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        let id = id_of(pull);
        let (sender, mut state) = watch::channel(PullState::default());
        self.link.pulls.lock().insert(id.clone(), sender);
        let mut following = Following { link: &self.link, id: id.clone(), is_over: false };
        let what = Box::new(self.told(pull)?);
        self.link.send(ToAgent::Pull { pull: id.clone(), what }).await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            end = following.follow(&mut state, progress) => return self.proven(pull, end?).await,
        }
        if self.link.shutdown.is_cancelled() {
            return Err(Fault::stopped());
        }
        self.link.send(ToAgent::Stop { pull: id }).await?;
        // Wait briefly, so that "stopped" is usually reported after the pull has in fact stopped.
        let _ = tokio::time::timeout(STOPPING, following.follow(&mut state, &|_| ())).await;
        following.is_over = true;
        Err(Fault::stopped())
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        match self.link.ask(Ask::Remove(reference.into())).await? {
            Answer::Removed(removal) => Ok(removal.into()),
            _ => Err(strange()),
        }
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        let (link, changed) = (Arc::clone(&self.link), self.link.changed.subscribe());
        let events = stream::unfold(Some((link, changed)), async |following| {
            let (link, mut changed) = following?;
            tokio::select! {
                () = link.closed.cancelled() => Some((Err(Link::gone()), None)),
                told = changed.changed() => {
                    told.ok()?;
                    Some((Ok(Change::Images), Some((link, changed))))
                }
            }
        });
        Ok(events.boxed())
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        let agent = self.fleet.find(&self.agent);
        let disk = agent.and_then(|agent| agent.disk);
        disk.ok_or_else(|| Fault::new(Class::Other, "the agent has not told of its disk"))
    }

    fn export(&self) -> Option<Export> {
        let url = self.peer_url.clone().filter(|_| self.kind.hands_out())?;
        Some(Export::Remote(Arc::new(RemotePeer { link: Arc::clone(&self.link), url })))
    }

    fn reach(&self) -> Reach {
        self.reach
    }

    fn site_cache(&self) -> Option<Arc<dyn SiteCache>> {
        let url = self.peer_url.clone().filter(|_| self.reach.has_cache)?;
        Some(Arc::new(RemotePeer { link: Arc::clone(&self.link), url }))
    }
}

/// What an agent serves, reached over its link.
struct RemotePeer {
    link: Arc<Link>,
    url: Url,
}

#[async_trait]
impl RemoteExport for RemotePeer {
    fn url(&self) -> &Url {
        &self.url
    }

    async fn admit(&self, grant: &Secret, image: &Digest, life: Duration) -> Result<(), Fault> {
        self.hand_out(image, grant, life, None).await
    }
}

#[async_trait]
impl SiteCache for RemotePeer {
    fn url(&self) -> &Url {
        &self.url
    }

    async fn admit(&self, grant: &Secret, pull: &Pull, life: Duration) -> Result<(), Fault> {
        self.hand_out(&pull.config, grant, life, Some(Box::new(described(pull, true)?))).await
    }
}

impl RemotePeer {
    async fn hand_out(
        &self,
        image: &Digest,
        grant: &Secret,
        life: Duration,
        from: Option<Box<image::Pull>>,
    ) -> Result<(), Fault> {
        let ask = Ask::HandOut { image: image.clone(), grant: grant.clone(), seconds: life.as_secs(), from };
        match self.link.ask(ask).await? {
            Answer::HandsOut => Ok(()),
            _ => Err(strange()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::id_of;
    use crate::base::digest::Digest;
    use crate::engine::pull::Pull;

    #[test]
    fn a_pull_is_known_by_what_will_be_there_in_the_end() {
        let pull = |tag: &str, config: &str| Pull {
            repository: "cr.io/a".into(),
            tag: tag.into(),
            manifest: None,
            index: None,
            config: Digest::sha256_of(config.as_bytes()),
            architecture: "x86_64".into(),
            platform: None,
            layers: Vec::new(),
            credentials: None,
            source: None,
            via: None,
        };
        assert_eq!(id_of(&pull("1", "a")), id_of(&pull("1", "a")));
        assert_ne!(id_of(&pull("1", "a")), id_of(&pull("2", "a")));
        assert_ne!(id_of(&pull("1", "a")), id_of(&pull("1", "b")));
    }
}
