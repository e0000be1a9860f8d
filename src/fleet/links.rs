//! The links that agents on other machines keep open: which agents get in, and which are cut off.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::access::joins::{Joins, is_key};
use crate::access::names::checked_name;
use crate::base::agent_name;
use crate::base::lines::Limited;
use crate::base::reference::shown;
use crate::base::slots::{Slot, Slots, net_of};
use crate::base::{Error, Result};
use crate::fleet::labels::set_labels;
use crate::fleet::remote::Link;
use crate::fleet::service::{Fleet, Joined};
use crate::store::Store;
use crate::wire::message::{Code, Hello, Refusal};
use crate::wire::{MAX_TEXT, VERSIONS};

/// Most connections that have not yet proved who they are; each takes some 20 KiB.
const STRANGERS: usize = 1_024;
/// Most such connections from one address: enough for a site of 500 agents behind it that all dial at once after a
/// restart. Saying hello takes milliseconds.
const STRANGERS_OF_ONE: usize = 640;
/// Most lines a minute in the log about agents that were refused.
const REFUSED: u32 = 60;
/// What an agent is told that was removed from the fleet.
pub(in crate::fleet) const REMOVED: &str = "an admin removed this agent; it may join again with a new token";

/// The place of a connection that has not said hello yet.
pub(crate) type Stranger = Slot<Vec<u8>>;

/// The links. Clones share them.
#[derive(Clone)]
pub(crate) struct Links {
    pub(in crate::fleet) fleet: Fleet,
    pub(in crate::fleet) shutdown: CancellationToken,
    /// How long an agent may be silent before it is lost.
    pub(in crate::fleet) silence: Duration,
    store: Store,
    joins: Joins,
    audit: Audit,
    strangers: Slots<Vec<u8>>,
    /// Limits what the log says about refused agents.
    pub(in crate::fleet) refused: Arc<Limited>,
    sessions: Arc<Mutex<HashMap<String, Session>>>,
}

struct Session {
    instance: String,
    link: Arc<Link>,
}

impl Links {
    /// No links yet.
    pub(crate) fn new(
        store: Store,
        fleet: Fleet,
        joins: Joins,
        audit: Audit,
        silence: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let strangers = Slots::new(STRANGERS, STRANGERS_OF_ONE);
        let refused = Arc::new(Limited::new(REFUSED));
        Self { fleet, shutdown, silence, store, joins, audit, strangers, refused, sessions: Arc::default() }
    }

    /// Takes a place for a connection from this address that has not said hello. If all places are taken, one of the
    /// connections that have been silent longest is closed.
    pub(crate) fn stranger(&self, address: IpAddr) -> Stranger {
        self.strangers.take(net_of(Some(address)))
    }

    /// Removes an agent from the fleet, forgets its credential, and cuts it off. For super-admins.
    ///
    /// # Errors
    /// [`Error::Conflict`] for an agent whose engine this server follows itself: the server would meet it again at
    /// once.
    pub(crate) async fn remove(&self, caller: &Caller, id: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "remove_agent", id, |deed| async move {
                let agent = self.fleet.agent(caller, id)?;
                if !agent.record.remote && agent.is_alive() {
                    return Err(Error::Conflict(format!(
                        "{id} is an engine that this server follows itself ({}); take it out of --engine first",
                        agent.record.address
                    )));
                }
                let (links, id) = (self.clone(), id.to_owned());
                deed.write(move |w| {
                    Joins::forget(w, &id)?;
                    links.fleet.take_out(w, &id)?;
                    w.on_commit(move || {
                        links.cut(&id, Refusal::new(Code::Credential, REMOVED));
                    });
                    Ok(())
                })
                .await
            })
            .await
    }

    fn cut(&self, id: &str, refusal: Refusal) {
        if let Some(session) = self.sessions.lock().get(id) {
            session.link.cut(refusal);
        }
    }

    /// Finds out which agent has said hello: the one its credential identifies, or the one it becomes by its token.
    pub(in crate::fleet) async fn admit(
        &self,
        hello: &Hello,
        address: IpAddr,
    ) -> Result<Result<String, Refusal>> {
        if let Err(refusal) = check(hello) {
            return Ok(Err(refusal));
        }
        let credential = &hello.credential;
        if let Some(agent) = self.joins.agent_of(&credential.key, &credential.secret).await? {
            return Ok(Ok(agent));
        }
        if hello.token.is_none() {
            let why = "its credential is unknown here: it was removed, or has never joined this manager; it needs a \
                       join token (wharf agent token create)";
            return Ok(Err(Refusal::new(Code::Credential, why)));
        }
        self.join(hello, address).await
    }

    async fn join(&self, hello: &Hello, address: IpAddr) -> Result<Result<String, Refusal>> {
        let _alone = self.fleet.meeting.lock().await;
        let (links, hello) = (self.clone(), hello.clone());
        self.store
            .write(move |w| {
                let Some(text) = &hello.token else { return Ok(Err(Refusal::new(Code::Token, "no token"))) };
                let token = match links.joins.check(w, text)? {
                    Ok(token) => token,
                    Err(why) => return Ok(Err(Refusal::new(Code::Token, why))),
                };
                let mut labels = hello.labels.clone();
                labels.retain(|_, value| !value.is_empty());
                let mut checked = std::collections::BTreeMap::new();
                if let Err(error) = set_labels(&mut checked, Some(labels)) {
                    return Ok(Err(Refusal::new(Code::Id, error.to_string())));
                }
                let id = match links.id_for(token.agent.as_deref(), &hello) {
                    Ok(id) => id,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let scaling_group = token.scaling_group.clone().or_else(|| hello.scaling_group.clone());
                let is_unknown = |group: &&String| !links.fleet.has_scaling_group(group);
                if let Some(group) = scaling_group.as_ref().filter(is_unknown) {
                    let why = format!(
                        "there is no scaling group {group}; an admin can make it: wharf scaling-group add {group}"
                    );
                    return Ok(Err(Refusal::new(Code::Id, why)));
                }
                if let Err(why) = Joins::replace(w, &token, &hello.credential.key, &id)? {
                    return Ok(Err(Refusal::new(Code::Token, why)));
                }
                let token_id = token.id.clone();
                links.joins.spend(w, token, &hello.credential.key, &hello.credential.secret, &id)?;
                links.audit.joined(w, &id, &token_id, Some(address))?;
                let joined =
                    Joined { id: id.clone(), address: place(address), scaling_group, labels: checked };
                links.fleet.put_joined(w, joined)?;
                tracing::info!(agent = id, %address, token = token_id, "an agent has joined");
                Ok(Ok(id))
            })
            .await
    }

    /// The id of an agent that joins: the one in the token, else the one the agent asks for, else one made from its
    /// host name.
    fn id_for(&self, of_token: Option<&str>, hello: &Hello) -> Result<String, Refusal> {
        let wanted = match (of_token, hello.id.as_deref()) {
            (Some(id), Some(wanted)) if id != wanted => {
                let why = format!("the token is for {id}, and the agent asks to be {}", shown(wanted));
                return Err(Refusal::new(Code::Token, why));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => return Ok(self.fleet.free_id(&hello.hostname)),
        };
        let id =
            agent_name::checked("id", wanted).map_err(|error| Refusal::new(Code::Id, error.to_string()))?;
        let Some(there) = self.fleet.find(&id) else { return Ok(id) };
        // An admin who makes a token for this very agent means a machine that was set up anew.
        if of_token.is_some() && there.record.remote && !self.sessions.lock().contains_key(&id) {
            return Ok(id);
        }
        let why = format!(
            "there is an agent {id} already; choose another --id; if this is its machine without its state directory, a \
             super-admin can let it in again while the old one is away: wharf agent token create --id {id}; or take that \
             one out first: wharf agent remove {id}"
        );
        Err(Refusal::new(Code::Id, why))
    }

    /// Registers this link as the agent's. An earlier link of the same process is closed; another process's link
    /// stays.
    pub(in crate::fleet) fn register(
        &self,
        id: &str,
        instance: &str,
        link: &Arc<Link>,
    ) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock();
        if let Some(there) = sessions.get(id) {
            if there.instance != instance && !there.link.closed.is_cancelled() {
                let why = format!(
                    "{id} is connected already by another process; a machine that was copied needs a token of its own, \
                     and an empty state directory"
                );
                return Err(Refusal::new(Code::Connected, why));
            }
            there.link.closed.cancel();
        }
        sessions.insert(id.to_owned(), Session { instance: instance.into(), link: Arc::clone(link) });
        Ok(())
    }

    /// Unregisters a link and calls `then`, unless another link has taken its place.
    pub(in crate::fleet) fn unregister(&self, id: &str, link: &Arc<Link>, then: impl FnOnce()) -> bool {
        let mut sessions = self.sessions.lock();
        let is_it = sessions.get(id).is_some_and(|session| Arc::ptr_eq(&session.link, link));
        if is_it {
            sessions.remove(id);
            then();
        }
        // Last, so that a caller that waits for this finds the agent away.
        link.closed.cancel();
        is_it
    }

    /// Calls `then` unless the agent has a link.
    pub(in crate::fleet) fn unless_linked(&self, id: &str, then: impl FnOnce()) {
        let sessions = self.sessions.lock();
        if !sessions.contains_key(id) {
            then();
        }
    }
}

/// The address shown for an agent that dials in: it is where the link comes from.
pub(in crate::fleet) fn place(address: IpAddr) -> String {
    format!("link:{address}")
}

/// The protocol version that both sides speak.
pub(in crate::fleet) fn common_version(hello: &Hello) -> Option<u32> {
    VERSIONS.into_iter().filter(|version| hello.protocols.contains(version)).max()
}

fn check(hello: &Hello) -> Result<(), Refusal> {
    let refuse = |code, why: String| Err(Refusal::new(code, why));
    if common_version(hello).is_none() {
        let theirs: Vec<String> = hello.protocols.iter().take(8).map(ToString::to_string).collect();
        let ours = VERSIONS.map(|version| version.to_string()).join(", ");
        let why = format!(
            "the agent (wharf {}) speaks version {} of the protocol and this manager (wharf {}) version {ours}; \
             run the same release on both",
            shown(&hello.version),
            theirs.join(", "),
            env!("CARGO_PKG_VERSION"),
        );
        return refuse(Code::Version, why);
    }
    let texts = [&hello.version, &hello.hostname, &hello.instance];
    if texts.iter().any(|text| text.len() > MAX_TEXT) || hello.instance.is_empty() {
        return refuse(Code::Misbehaved, "its hello has a text that is too long, or no instance".into());
    }
    if !is_key(&hello.credential.key) || hello.credential.secret.expose().len() < 32 {
        return refuse(Code::Credential, "its credential is too short to be one".into());
    }
    if let Some(group) = &hello.scaling_group {
        checked_name("scaling_group", group).map_err(|error| Refusal::new(Code::Id, error.to_string()))?;
    }
    Ok(())
}
