//! The messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::wire::image::{Disk, EngineInfo, Fault, Held, Progress, Pull, Pulled, Removal};

/// From the agent to the manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// The first message.
    Hello(Box<Hello>),
    /// The agent's engine answers, and this is it. A full report follows.
    Here(EngineInfo),
    /// The agent's engine does not answer.
    Gone(Fault),
    /// What the engine holds, or what changed since the last report.
    Images(Images),
    /// The answer to a request.
    Answer(Reply),
    /// How far a pull is.
    Pulling {
        /// Which.
        pull: String,
        /// How far.
        progress: Progress,
    },
    /// How a pull ended; the agent forgets it then. If this is lost, the manager asks again, and the engine finds the
    /// image there.
    Pulled {
        /// Which.
        pull: String,
        /// How.
        end: End,
    },
    /// The agent was stopped by its operator.
    Bye,
}

/// From the manager to the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// The agent is in.
    Welcome(Welcome),
    /// The agent is not wanted, or not any more. The last message.
    Refused(Refusal),
    /// A request; it has one answer.
    Ask(Request),
    /// Pull this, or go on telling of the pull of this id that runs or has ended.
    Pull {
        /// Its id: the same for the same image under the same name, so that a manager that was restarted finds it.
        pull: String,
        /// What.
        what: Box<Pull>,
    },
    /// Give a pull up.
    Stop {
        /// Which.
        pull: String,
    },
}

/// Who dials, and what proves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The versions of this protocol it speaks.
    pub protocols: Vec<u32>,
    /// The program's version, for people.
    pub version: String,
    /// What it will be known by: made by the agent before it first dials, so that an answer that gets lost costs no
    /// token.
    pub credential: Credential,
    /// The join token, until the manager has taken it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The id it would like to have; used when it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The scaling group it would like to be in; used when it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_group: Option<String>,
    /// Labels; used when it joins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: String,
    /// Random, made when the process started: tells a link that came back from another machine with a copied
    /// credential.
    pub instance: String,
    /// Whether the way to the manager is encrypted, or does not leave the machine.
    #[serde(default)]
    pub private: bool,
    /// Where peers that were given a grant find what its engine holds, if it hands that out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_url: Option<String>,
    /// What it can do besides what the version implies. None is defined yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// What an agent is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Names it; not secret.
    pub key: String,
    /// Proves it.
    pub secret: Secret,
}

/// The manager's answer to a [`Hello`] it takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that will be spoken: the highest both know.
    pub(crate) protocol: u32,
    /// The manager's version, for people.
    pub(crate) version: String,
    /// The agent's id.
    pub id: String,
    /// A ping is due so often, in milliseconds.
    pub beat_ms: u64,
    /// Who is silent for so long is taken for gone, in milliseconds, by either side.
    pub(crate) silence_ms: u64,
}

/// Why an agent is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people.
    pub reason: String,
}

/// The reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No version in common.
    Version,
    /// The join token is wrong, used, expired or revoked, or for another id.
    Token,
    /// The credential is unknown: the agent was removed, or never joined here.
    Credential,
    /// The id is another agent's, or none.
    Id,
    /// The agent is connected already, by another process.
    Connected,
    /// The agent broke the protocol.
    Misbehaved,
    /// Too much at once; trying later may work.
    Busy,
    /// What a later version may have.
    #[serde(other)]
    Other,
}

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Its number; the answer has it.
    pub call: u64,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The image of this name or id.
    Find(String),
    /// To take this name away, and the image with its last name.
    Remove(String),
    /// To look at the engine now and report what changed, before the answer.
    Look,
    /// To let peers that show this grant read the parts of this image for so many seconds; again, to let them longer.
    /// Only of an agent that told a [`Hello::peer_url`].
    HandOut {
        /// The image's id.
        image: Digest,
        /// What they will show.
        grant: Secret,
        /// How long, from now.
        seconds: u64,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub call: u64,
    /// What.
    pub answer: Answer,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Ask::Find`].
    Found(Option<Held>),
    /// To [`Ask::Remove`].
    Removed(Removal),
    /// To [`Ask::Look`].
    Looked,
    /// To [`Ask::HandOut`].
    HandsOut,
    /// To any.
    Failed(Fault),
}

/// A report, or a part of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Images {
    /// Whether it is a full report, which replaces all before; its parts end with `last`.
    #[serde(default)]
    pub full: bool,
    /// Whether it is the last part of a full report.
    #[serde(default)]
    pub last: bool,
    /// What is there: all, or what is new or changed.
    #[serde(default)]
    pub held: Vec<Held>,
    /// The ids of what is there no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Digest>,
    /// The room, if it could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// How a pull ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The image is there.
    Done(Pulled),
    /// It is not.
    Failed(Fault),
}

impl Refusal {
    /// A refusal.
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}
