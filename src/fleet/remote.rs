//! An engine on another machine, reached by the link its agent keeps open.

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
use crate::engine::export::{Export, RemoteExport};
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal};
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::{About, Disk, Engine};
use crate::fleet::service::Fleet;
use crate::wire::convert::{Unacceptable, is_honest};
use crate::wire::message::{Answer, Ask, End, Refusal, Reply, Request, ToAgent};
use crate::wire::{MAX_AT_ONCE, MAX_CA, image};

/// Secrets of one link that are kept out of what its agent says: those of as many pulls as it may have, with their grants.
const MAX_SECRETS: usize = MAX_AT_ONCE * 2;
/// As much as is looked at of what an agent says of a failure, in characters: more than is shown of it.
const MAX_SAID: usize = 2_000;
/// Messages that wait to be sent on one link.
const OUTBOX: usize = 64;
/// How long an agent may take for an answer: as long as its engine may, and some for the way.
const ANSWER: Duration = Duration::from_mins(1);
/// How long a stopped pull is waited for.
const STOPPING: Duration = Duration::from_secs(4);

/// One link, as those who use it see it.
pub(in crate::fleet) struct Link {
    outbox: mpsc::Sender<ToAgent>,
    calls: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    pulls: Mutex<HashMap<String, watch::Sender<PullState>>>,
    next_call: AtomicU64,
    /// Told when something has changed on the engine.
    pub(in crate::fleet) changed: watch::Sender<()>,
    /// Cancelled when the link is no more the agent's.
    pub(in crate::fleet) closed: CancellationToken,
    /// Secrets that were sent on it, the latest: what the agent says is told without them.
    entrusted: Mutex<VecDeque<Secret>>,
    /// Why it was cut, if we did it.
    cut: Mutex<Option<Refusal>>,
    /// Cancelled when the manager stops: pulls go on at the agents then.
    shutdown: CancellationToken,
}

/// What is known of a pull.
#[derive(Debug, Default, Clone)]
struct PullState {
    progress: Option<Progress>,
    end: Option<Result<Pulled, Fault>>,
}

impl Link {
    /// A link, and what is to be sent on it.
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

    /// Why it was cut.
    pub(in crate::fleet) fn was_cut(&self) -> Option<Refusal> {
        self.cut.lock().clone()
    }

    /// Takes note of secrets that the agent is sent. Those it has had longest are forgotten.
    fn entrust(&self, message: &ToAgent) {
        let secrets: Vec<&Secret> = match message {
            ToAgent::Pull { what, .. } => {
                let password = what.credentials.iter().map(|credentials| &credentials.password);
                password.chain(what.peers.iter().map(|peer| &peer.grant)).collect()
            }
            ToAgent::Ask(Request { ask: Ask::HandOut { grant, .. }, .. }) => vec![grant],
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

    /// What the agent said, without the secrets that it was sent.
    fn without_secrets(&self, text: &str) -> String {
        let text = text.chars().take(MAX_SAID).collect();
        self.entrusted.lock().iter().fold(text, |text: String, secret| secret.hidden_in(&text))
    }

    /// A failure as the agent tells it.
    pub(in crate::fleet) fn told(&self, fault: image::Fault) -> Fault {
        // Before it is cut to a line: half a password is no better.
        image::Fault { message: self.without_secrets(&fault.message), ..fault }.into()
    }

    /// An answer came. One that nobody waits for any more is dropped.
    pub(in crate::fleet) fn answered(&self, reply: Reply) {
        if let Some(waiting) = self.calls.lock().remove(&reply.call) {
            let _ = waiting.send(reply.answer);
        }
    }

    /// A pull went on. One that nobody follows is passed over.
    ///
    /// # Errors
    /// Numbers that can't be: the pull fails with that, and the agent has lied.
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

    /// A pull ended.
    pub(in crate::fleet) fn pulled(&self, pull: &str, end: End) -> Result<(), Unacceptable> {
        let end = match end {
            End::Done(pulled) => Ok(pulled.try_into()?),
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

/// The engine behind a link.
pub(in crate::fleet) struct Remote {
    pub(in crate::fleet) link: Arc<Link>,
    pub(in crate::fleet) fleet: Fleet,
    pub(in crate::fleet) agent: String,
    /// Where its peers find what it holds, if it hands that out.
    pub(in crate::fleet) peer_url: Option<Url>,
}

fn strange() -> Fault {
    Fault::new(Class::Other, "the agent answered something else than was asked")
}

impl Remote {
    /// A pull that the agent calls a success, if it says and its engine shows what was wanted. It may have ended so before
    /// somebody else changed the image.
    async fn proven(&self, pull: &Pull, pulled: Pulled) -> Result<Pulled, Fault> {
        pull.proven(Some(pulled.held))?;
        let shown = self.find(&pull.canonical()?).await?;
        Ok(Pulled { held: pull.proven(shown)?, fetched: pulled.fetched })
    }

    /// What the agent is told of a pull. Where its registry is, only engines need to know that go there by wharf.
    async fn told(&self, pull: &Pull) -> Result<image::Pull, Fault> {
        let mut told = image::Pull::from(pull);
        if let Some(source) = &pull.source
            && !self.about().await?.kind.fetches_itself()
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
}

/// The id of a pull: of the image and the name it will have, and of nothing else, so that whoever asks again finds what
/// was begun before.
fn id_of(pull: &Pull) -> String {
    let manifest = pull.manifest.as_ref().map_or("", Digest::as_str);
    Digest::sha256_of(format!("{} {manifest} {}", pull.name(), pull.config.as_str()).as_bytes())
        .hex()
        .chars()
        .take(32)
        .collect()
}

/// Follows a pull; if it is dropped before the end, the agent is told to stop.
struct Following<'a> {
    link: &'a Link,
    id: String,
    is_over: bool,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.link.pulls.lock().remove(&self.id);
        // While the manager stops, and where the link broke, the agent goes on: it is asked about the pull again.
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

    /// What the agent has told, after it was made to look again.
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
        let what = Box::new(self.told(pull).await?);
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
        // So that "stopped" is said when it has stopped, if that is soon.
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

    async fn events(&self) -> Result<BoxStream<'static, Result<(), Fault>>, Fault> {
        let (link, changed) = (Arc::clone(&self.link), self.link.changed.subscribe());
        let events = stream::unfold(Some((link, changed)), async |following| {
            let (link, mut changed) = following?;
            tokio::select! {
                () = link.closed.cancelled() => Some((Err(Link::gone()), None)),
                told = changed.changed() => {
                    told.ok()?;
                    Some((Ok(()), Some((link, changed))))
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
        let url = self.peer_url.clone()?;
        Some(Export::Remote(Arc::new(RemotePeer { link: Arc::clone(&self.link), url })))
    }
}

/// An agent's door, opened over its link.
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
        let ask = Ask::HandOut { image: image.clone(), grant: grant.clone(), seconds: life.as_secs() };
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
            config: Digest::sha256_of(config.as_bytes()),
            platform: None,
            layers: Vec::new(),
            credentials: None,
            source: None,
        };
        assert_eq!(id_of(&pull("1", "a")), id_of(&pull("1", "a")));
        assert_ne!(id_of(&pull("1", "a")), id_of(&pull("2", "a")));
        assert_ne!(id_of(&pull("1", "a")), id_of(&pull("1", "b")));
    }
}
