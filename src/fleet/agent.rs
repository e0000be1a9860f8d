//! A node of the lab, as the fleet knows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{About, Disk};
use crate::fleet::evaluate;

/// What the store keeps of an agent: what only the server knows. The agent's engine tells the rest at every contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentRecord {
    /// The agent's id: `i-` and a name.
    pub(crate) id: String,
    /// The address of its engine.
    pub(crate) address: String,
    /// The engine's own id, by which it is recognized at another address.
    #[serde(default)]
    pub(crate) engine_id: Option<String>,
    /// The scaling group it is in.
    pub(crate) scaling_group: String,
    /// Labels an admin gave it.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// When it was first met.
    pub(crate) first_contact: Timestamp,
    /// Whether it is another machine that dials in and has a credential, rather than an engine the server reaches
    /// itself.
    #[serde(default)]
    pub(crate) remote: bool,
    /// Whether it takes no new images.
    #[serde(default)]
    pub(crate) draining: bool,
}

/// Whether an agent is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its engine answers.
    Alive,
    /// Its engine does not answer.
    Lost {
        /// When the server noticed.
        since: Timestamp,
        /// The last error of its engine.
        reason: String,
    },
}

impl Status {
    /// The word for it in selectors (`{status=alive}`).
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Lost { .. } => "lost",
        }
    }
}

/// An agent at one moment.
#[derive(Debug, Clone)]
pub struct Agent {
    /// As stored.
    pub(crate) record: AgentRecord,
    /// Whether the agent is alive.
    pub status: Status,
    /// Why it can't be reached at the moment although it counts as alive: its link broke a moment ago.
    pub(crate) away: Option<String>,
    /// What its engine last said about itself.
    pub(crate) about: Option<About>,
    /// The room on its disk, as last reported.
    pub(crate) disk: Option<Disk>,
    /// Whether its engine was read since it was last met.
    pub(crate) has_reported: bool,
}

impl Agent {
    /// For tests: an agent of this id that answers, has said what it holds, and takes images.
    #[cfg(test)]
    pub(crate) fn fake(id: &str) -> Self {
        Self {
            record: AgentRecord {
                id: id.into(),
                address: String::new(),
                engine_id: None,
                scaling_group: "default".into(),
                labels: BTreeMap::new(),
                first_contact: Timestamp::UNIX_EPOCH,
                remote: true,
                draining: false,
            },
            status: Status::Alive,
            away: None,
            about: Some(crate::engine::fake::about()),
            disk: None,
            has_reported: true,
        }
    }

    /// The free bytes on the disk of its images, if its engine tells.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.disk.as_ref().and_then(|disk| disk.free_bytes)
    }

    /// The agent as an expression sees it.
    pub(crate) fn view(&self) -> evaluate::Agent<'_> {
        evaluate::Agent {
            status: Some(if self.is_alive() && self.record.draining {
                "draining"
            } else {
                self.status.as_str()
            }),
            engine: self.about.as_ref().map(|about| about.kind.as_str()),
            arch: self.about.as_ref().map(|about| about.architecture.as_str()),
            os: self.about.as_ref().map(|about| about.os.as_str()),
            scaling_group: Some(&self.record.scaling_group),
            ..evaluate::Agent::new(&self.record.id, &self.record.labels)
        }
    }

    /// Whether its engine answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.status == Status::Alive
    }

    /// Whether it takes new images: it answers, and is not draining.
    pub(crate) fn is_schedulable(&self) -> bool {
        self.is_alive() && !self.record.draining
    }

    /// Whether it runs images for this architecture, as far as the server knows.
    pub(crate) fn is_of(&self, architecture: &str) -> bool {
        self.about.as_ref().is_some_and(|about| about.architecture == architecture)
    }

    /// Its architecture, if the server knows it and it is another than this one.
    pub(crate) fn architecture_other_than(&self, architecture: &str) -> Option<&str> {
        let own = self.about.as_ref().map(|about| about.architecture.as_str());
        own.filter(|own| *own != architecture)
    }
}
