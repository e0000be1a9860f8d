//! One link, from hello to its end, on the manager's side.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use url::Url;

use crate::base::Error;
use crate::engine::About;
use crate::engine::export::Reach;
use crate::engine::fault::one_line;
use crate::engine::image::Held;
use crate::fleet::links::{Links, REMOVED, Stranger, common_version, place};
use crate::fleet::pace::Pace;
use crate::fleet::peer::checked;
use crate::fleet::remote::{Link, Remote};
use crate::wire::convert::Unacceptable;
use crate::wire::message::{CACHE, Code, FromAgent, Hello, Images, Refusal, SOURCES, ToAgent, Welcome};
use crate::wire::socket::{Broken, Receiver, Sender, Socket};
use crate::wire::{MAX_HELLO, MAX_IMAGES, MAX_MESSAGE};

/// How long a new connection may take to say hello.
pub(crate) const HELLO: Duration = Duration::from_secs(10);
/// How long the last message may take to send.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How many pings an agent sends within the time after which it is missed.
const BEATS: u32 = 3;

/// Why a link ended.
enum End {
    /// The network broke or the agent died; it may be back in a moment.
    Broken(String),
    /// Nothing came from the agent for too long.
    Silent(String),
    /// The agent's operator stopped it.
    Left,
    /// The manager ended the link.
    Cut,
    /// The agent broke the protocol.
    Misbehaved(String),
    /// The manager is stopping.
    Stopping,
}

/// Serves one connection to its end. `stranger` is its place until the agent has proved who it is.
pub(crate) async fn attend<S>(links: Links, stream: S, address: IpAddr, stranger: Stranger)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = Socket::server(stream, MAX_HELLO).await;
    let hello = tokio::select! {
        hello = timeout(HELLO, socket.receive::<FromAgent>()) => hello,
        () = stranger.given_up() => return socket.close("others came, and it had said no hello").await,
        () = links.shutdown.cancelled() => return socket.close("the manager stops").await,
    };
    let hello = match hello {
        Ok(Ok(received)) => received.message,
        Ok(Err(broken)) => {
            tracing::debug!(%address, %broken, "a link ended before hello");
            return socket.close(&broken.to_string()).await;
        }
        Err(_) => return socket.close("no hello").await,
    };
    let Some(FromAgent::Hello(hello)) = hello else { return socket.close("hello comes first").await };
    let (link, to_send) = Link::new(links.shutdown.clone());
    let admitted = match links.admit(&hello, address).await {
        Ok(Ok(id)) => links.register(&id, &hello.instance, &link).map(|()| id),
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => {
            tracing::error!(%address, ?error, "an agent could not be let in");
            Err(Refusal::new(Code::Busy, error.to_string()))
        }
    };
    drop(stranger);
    let id = match admitted {
        Ok(id) => id,
        Err(refusal) => {
            links.refused.say("agents that were refused", || {
                let hostname = one_line(&hello.hostname);
                tracing::warn!(%address, hostname, reason = refusal.reason, "an agent is refused");
            });
            let _ = timeout(LAST_WORD, socket.send(&ToAgent::Refused(refusal))).await;
            return socket.close("refused").await;
        }
    };
    let peer_url = hello.peer_url.as_deref().and_then(|url| match checked(url, address) {
        Ok(url) => Some(url),
        Err(why) => {
            let url = one_line(url);
            tracing::warn!(
                agent = id,
                url,
                why,
                "nobody is sent to the address that this agent says it hands out images at"
            );
            None
        }
    });
    let has = |feature: &str| hello.features.iter().any(|of_agent| of_agent == feature);
    let reach = Reach { takes_sources: has(SOURCES), has_cache: has(CACHE) };
    let session = Session { links, id, address, link, peer_url, reach };
    session.run(socket, &hello, to_send).await;
}

struct Session {
    links: Links,
    id: String,
    address: IpAddr,
    link: Arc<Link>,
    /// Where others can fetch from this agent.
    peer_url: Option<Url>,
    /// What the agent said that it can do.
    reach: Reach,
}

impl Session {
    async fn run<S>(self, mut socket: Socket<S>, hello: &Hello, to_send: mpsc::Receiver<ToAgent>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (agent, address, version) = (&self.id, self.address, one_line(&hello.version));
        tracing::info!(agent, %address, version, "an agent is linked");
        if !hello.private {
            tracing::warn!(
                agent,
                %address,
                "this agent's link is not encrypted: its credential and the registries' passwords that it is given can \
                 be read on the way; put TLS before this server and give agents its https:// URL"
            );
        }
        let silence = self.links.silence;
        let welcome = ToAgent::Welcome(Welcome {
            protocol: common_version(hello).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            id: self.id.clone(),
            beat_ms: milliseconds(silence / BEATS),
            silence_ms: milliseconds(silence),
        });
        let mut last_heard = Instant::now();
        let end = match timeout(silence, socket.send(&welcome)).await {
            Ok(Ok(())) => {
                let (mut sender, receiver) = socket.grow(MAX_MESSAGE).await.split();
                let end = tokio::select! {
                    end = self.hear(receiver, &mut last_heard) => end,
                    end = tell(&mut sender, to_send, silence) => end,
                };
                self.last_word(&mut sender, &end).await;
                end
            }
            _ => End::Broken("its link broke".into()),
        };
        self.over(end, last_heard).await;
    }

    async fn hear<S>(&self, mut receiver: Receiver<S>, last_heard: &mut Instant) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut pace, mut report) = (Pace::new(*last_heard), None);
        loop {
            let heard = tokio::select! {
                biased;
                () = self.link.closed.cancelled() => return End::Cut,
                () = self.links.shutdown.cancelled() => return End::Stopping,
                heard = timeout_at(*last_heard + self.links.silence, receiver.receive()) => heard,
            };
            let heard = match heard {
                Ok(Ok(heard)) => heard,
                Ok(Err(Broken::Malformed(why))) => return End::Misbehaved(why),
                Ok(Err(broken)) => return End::Broken(format!("its link broke: {broken}")),
                Err(_) => {
                    return End::Silent(format!(
                        "nothing was heard of it for {} s",
                        self.links.silence.as_secs_f32()
                    ));
                }
            };
            *last_heard = Instant::now();
            if !pace.take(heard.bytes, *last_heard) {
                return End::Misbehaved("it sends too much in too short a time".into());
            }
            let Some(message) = heard.message else { continue };
            match self.take(message, &mut report).await {
                Ok(true) => {}
                Ok(false) => return End::Left,
                Err(Unacceptable(why)) => return End::Misbehaved(why),
            }
        }
    }

    /// Takes a message; returns false if it was the last one.
    async fn take(&self, message: FromAgent, report: &mut Option<Vec<Held>>) -> Result<bool, Unacceptable> {
        match message {
            FromAgent::Hello(_) => return Err(Unacceptable("it says hello twice".into())),
            FromAgent::Here(about) => {
                let (link, fleet) = (Arc::clone(&self.link), self.links.fleet.clone());
                let about: About = about.try_into()?;
                let engine = Arc::new(Remote {
                    link,
                    fleet,
                    agent: self.id.clone(),
                    peer_url: self.peer_url.clone(),
                    kind: about.kind,
                    reach: Reach {
                        takes_sources: !about.kind.fetches_itself() || self.reach.takes_sources,
                        ..self.reach
                    },
                });
                let (place, closed) = (place(self.address), &self.link.closed);
                let arrived = self.links.fleet.arrive(&self.id, &place, engine, about, closed).await;
                match arrived {
                    Ok(()) => {}
                    Err(Error::Missing { .. }) => {
                        // The agent was removed after its hello and before its link was registered.
                        self.link.cut(Refusal::new(Code::Credential, REMOVED));
                    }
                    Err(error) => tracing::error!(agent = self.id, ?error, "an agent could not be kept"),
                }
            }
            FromAgent::Gone(fault) => {
                let fault = self.link.told(fault);
                tracing::warn!(agent = self.id, %fault, "an agent's engine is gone");
                self.links.fleet.lose(&self.id, &format!("its engine does not answer: {fault}"));
            }
            FromAgent::Images(images) => self.images(images, report)?,
            FromAgent::Answer(reply) => self.link.answered(reply),
            FromAgent::Pulling { pull, progress } => self.link.pulling(&pull, &progress)?,
            FromAgent::Pulled { pull, end } => self.link.pulled(&pull, end)?,
            FromAgent::Bye => return Ok(false),
        }
        Ok(true)
    }

    fn images(&self, images: Images, report: &mut Option<Vec<Held>>) -> Result<(), Unacceptable> {
        let too_many = || Unacceptable(format!("it tells of more than {MAX_IMAGES} images"));
        let held = images.held.into_iter().map(Held::try_from).collect::<Result<Vec<_>, _>>()?;
        let (fleet, disk) = (&self.links.fleet, images.disk.map(Into::into));
        let tells_all = images.full && images.last;
        if images.full {
            let all = report.get_or_insert_default();
            all.extend(held);
            if all.len() > MAX_IMAGES {
                return Err(too_many());
            }
            if images.last {
                fleet.report(&self.id, fleet.begin_read(), report.take().unwrap_or_default(), disk);
            }
        } else {
            if fleet.held(&self.id).len() + held.len() > MAX_IMAGES {
                return Err(too_many());
            }
            fleet.revise(&self.id, held, &images.gone, disk);
        }
        match images.uses {
            Some(uses) => fleet.note_uses(&self.id, &uses.into()),
            None if tells_all => fleet.note_untold(&self.id),
            None => {}
        }
        self.link.changed.send_replace(());
        Ok(())
    }

    async fn last_word<S>(&self, sender: &mut Sender<S>, end: &End)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let refusal = match end {
            End::Cut => self.link.was_cut(),
            End::Misbehaved(why) => Some(Refusal::new(Code::Misbehaved, why.clone())),
            _ => None,
        };
        let reason = if matches!(end, End::Stopping) { "the manager stops" } else { "over" };
        let saying = async {
            if let Some(refusal) = refusal {
                let _ = sender.send(&ToAgent::Refused(refusal)).await;
            }
            sender.close(reason).await;
        };
        let _ = timeout(LAST_WORD, saying).await;
    }

    /// Reports the end to the fleet, at once or after the agent has had time to come back.
    async fn over(self, end: End, last_heard: Instant) {
        let Self { links, id, link, .. } = self;
        let (reason, at_once) = match end {
            End::Stopping => return link.closed.cancel(),
            End::Cut => ("it was cut off".into(), true),
            End::Left => ("it was stopped there".into(), true),
            End::Silent(why) => (why, true),
            End::Misbehaved(why) => {
                tracing::warn!(agent = id, why, "an agent is disconnected");
                (format!("it was disconnected: {why}"), true)
            }
            End::Broken(why) => (why, false),
        };
        let mut back = None;
        let away = || {
            if at_once {
                links.fleet.lose(&id, &reason);
            } else {
                back = Some(links.fleet.unlink(&id, &reason));
            }
        };
        if !links.unregister(&id, &link, away) {
            return;
        }
        tracing::warn!(agent = id, reason, "an agent is away");
        let Some(back) = back else { return };
        tokio::select! {
            () = sleep_until(last_heard + links.silence) => {}
            // If the agent goes away again after that, a new wait begins for it.
            () = back.cancelled() => return,
            () = links.shutdown.cancelled() => return,
        }
        links.unless_linked(&id, || {
            tracing::warn!(agent = id, reason, "an agent is lost");
            links.fleet.lose(&id, &reason);
        });
    }
}

/// Sends the queued messages until sending fails.
async fn tell<S>(sender: &mut Sender<S>, mut to_send: mpsc::Receiver<ToAgent>, silence: Duration) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = to_send.recv().await {
        match timeout(silence, sender.send(&message)).await {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => return End::Broken(format!("its link broke: {broken}")),
            Err(_) => return End::Silent("it reads nothing of what it is sent".into()),
        }
    }
    End::Cut
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
