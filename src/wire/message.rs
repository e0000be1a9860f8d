//! The messages that an agent and its manager exchange.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::wire::image::{Disk, EngineInfo, Fault, Held, Progress, Pull, Pulled, Removal, Uses};

/// From the agent to the manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// The agent's first message.
    Hello(Box<Hello>),
    /// The agent's engine answers; this describes it. A full report follows.
    Here(EngineInfo),
    /// The agent's engine does not answer.
    Gone(Fault),
    /// What the engine holds, or what changed since the last report.
    Images(Images),
    /// The answer to a request of the manager.
    Answer(Reply),
    /// The progress of a pull.
    Pulling {
        /// The id of the pull.
        pull: String,
        /// The bytes and layers so far.
        progress: Progress,
    },
    /// The end of a pull. The agent forgets the pull after sending it. If this message is lost, the manager asks
    /// again, and the engine finds that it has the image.
    Pulled {
        /// The id of the pull.
        pull: String,
        /// How it ended.
        end: End,
    },
    /// The agent's operator stopped it.
    Bye,
}

/// From the manager to the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// The manager accepts the agent.
    Welcome(Welcome),
    /// The manager does not accept the agent, or no longer does. This is the last message.
    Refused(Refusal),
    /// A request; the agent answers it exactly once.
    Ask(Request),
    /// Pull this image, or keep reporting on the pull with this id if it is running or has ended.
    Pull {
        /// The pull's id. The same image under the same name always has the same id, so a restarted manager finds the
        /// pull again.
        pull: String,
        /// The image to pull.
        what: Box<Pull>,
    },
    /// Give up a pull.
    Stop {
        /// The id of the pull.
        pull: String,
    },
}

/// The feature of an agent whose engine takes images from the sources that a [`Pull`] names: the registry's address and
/// peers. An agent whose engine is `oci` does so without saying it.
pub const SOURCES: &str = "sources";
/// The feature of an agent whose machine has a cache. With a [`Hello::peer_url`], it serves the agents of its site.
pub const CACHE: &str = "cache";

/// Which agent dials in, and what proves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions the agent speaks.
    pub protocols: Vec<u32>,
    /// The program's version, for people.
    pub version: String,
    /// The credential the agent will be known by. The agent makes it before it first dials, so a lost answer does not
    /// use up a second join token.
    pub credential: Credential,
    /// The join token, until the manager has accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The id the agent asks for; used only when it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The scaling group the agent asks for; used only when it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_group: Option<String>,
    /// The agent's labels; used only when it joins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: String,
    /// A random value made when the process starts. It tells a link that came back from a link of another machine
    /// with a copied credential.
    pub instance: String,
    /// Whether the connection to the manager is encrypted or stays on this machine.
    #[serde(default)]
    pub private: bool,
    /// Where peers with a grant can fetch the images of this agent's engine, if the agent hands them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_url: Option<String>,
    /// Abilities beyond those that the version implies: [`SOURCES`] and [`CACHE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// The credential by which the manager knows an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The name of the credential; not secret.
    pub key: String,
    /// The secret that proves it.
    pub secret: Secret,
}

/// The manager's answer to a [`Hello`] it accepts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version in use: the highest that both sides know.
    pub(crate) protocol: u32,
    /// The manager's version, for people.
    pub(crate) version: String,
    /// The agent's id.
    pub id: String,
    /// The interval between pings, in milliseconds.
    pub beat_ms: u64,
    /// How long either side may be silent before the other takes it for gone, in milliseconds.
    pub(crate) silence_ms: u64,
}

/// Why the manager refuses an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason as a code, for programs.
    pub code: Code,
    /// The reason in words, for people.
    pub reason: String,
}

/// The codes of a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The two sides have no protocol version in common.
    Version,
    /// The join token is wrong, used, expired or revoked, or for another id.
    Token,
    /// The credential is unknown: the agent was removed, or never joined here.
    Credential,
    /// The id belongs to another agent or is not valid, or the scaling group is not valid.
    Id,
    /// The agent is connected already, by another process.
    Connected,
    /// The agent broke the protocol.
    Misbehaved,
    /// The manager is too busy; trying later may work.
    Busy,
    /// A code that only a later version knows.
    #[serde(other)]
    Other,
}

/// A request of the manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The request's number; the answer repeats it.
    pub call: u64,
    /// What the manager asks for.
    pub ask: Ask,
}

/// What a manager can ask an agent for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Find the image with this name or id.
    Find(String),
    /// Remove this name, and the image along with its last name.
    Remove(String),
    /// Read the engine now, and report what changed before answering.
    Look,
    /// Let peers that show this grant read the parts of this image for this many seconds. Asking again extends the
    /// time. The manager asks this only of an agent that sent a [`Hello::peer_url`].
    HandOut {
        /// The image's id.
        image: Digest,
        /// The grant that the peers will show.
        grant: Secret,
        /// How long the grant lasts, from now.
        seconds: u64,
        /// From where the agent's cache fetches what it lacks; only for an agent with the feature [`CACHE`]. Without it
        /// the image is one that the agent's engine holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Box<Pull>>,
    },
}

/// An agent's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub call: u64,
    /// The result.
    pub answer: Answer,
}

/// The results a request can have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The result of [`Ask::Find`].
    Found(Option<Held>),
    /// The result of [`Ask::Remove`].
    Removed(Removal),
    /// The result of [`Ask::Look`].
    Looked,
    /// The result of [`Ask::HandOut`].
    HandsOut,
    /// The failure of any request.
    Failed(Fault),
}

/// A report of what the engine holds, or one part of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Images {
    /// Whether this is a full report, which replaces all earlier ones. The last of its parts has `last` set.
    #[serde(default)]
    pub full: bool,
    /// Whether it is the last part of a full report.
    #[serde(default)]
    pub last: bool,
    /// The images held: all of them in a full report, otherwise those that are new or changed.
    #[serde(default)]
    pub held: Vec<Held>,
    /// The ids of images that the engine no longer holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Digest>,
    /// The room on the disk, if the engine could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Which of the images containers use, if the engine could tell and it is not as before. With a full report, it goes
    /// with the last part; if that does not have it, the agent can't tell. Agents of 0.1.0 do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<Uses>,
}

/// How a pull ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The engine has the image.
    Done(Pulled),
    /// The engine does not have the image.
    Failed(Fault),
}

impl Refusal {
    /// A refusal.
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}
