//! The items of transfers, as the store keeps them.

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::catalog::image::ImageRecord;
use crate::tasks::task::{NewItem, Pair};
use crate::transfer::room::RuleTerms;

/// What an item of a transfer does: one image on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::transfer) struct Work {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image as it was in the catalog when the task was made: a tag that moves meanwhile does not change the
    /// task. `None` if the reference has no image for the agent's architecture.
    pub(crate) image: Option<ImageRecord>,
    /// The images of further architectures, if the agent's own was not known when the task was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) others: Vec<ImageRecord>,
    /// The one architecture that the task is for; `None` if it is for each agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<String>,
    /// The architecture for which there is no image.
    #[serde(default)]
    pub(crate) wrong_architecture: Option<String>,
    /// Whether other images may go from the agent if this one does not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) make_room: bool,
    /// What to take off the agent, if that is not what the catalog has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leaving: Option<Leaving>,
}

/// An image that leaves an agent, by what the agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::transfer) struct Leaving {
    /// The engine's ID of it.
    pub(crate) digest: Digest,
    /// The names to remove; none to remove an image without a name.
    pub(crate) names: Vec<String>,
    /// Whether it stays if somebody wants it by then, or if it has got other names.
    pub(crate) is_careful: bool,
    /// What the rule that takes it asks of it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terms: Option<RuleTerms>,
}

impl Work {
    /// Makes the item for this work, in a task of one image or of `several`.
    pub(in crate::transfer) fn item(&self, image: &str, several: bool) -> Result<NewItem> {
        let work = rmp_serde::to_vec_named(self).map_err(Error::internal)?;
        let agent = self.agent.clone();
        let name = if several { format!("{agent}: {image}") } else { agent.clone() };
        Ok(NewItem { name, pair: Some(Pair { agent, image: image.into() }), phase: 0, work })
    }

    /// The image for an agent of this architecture.
    pub(in crate::transfer) fn image_for(&self, architecture: &str) -> Option<&ImageRecord> {
        self.image.iter().chain(&self.others).find(|image| image.architecture == architecture)
    }

    /// Whether it is about this content, on an agent of whatever architecture.
    pub(in crate::transfer) fn is_about(&self, digest: &Digest) -> bool {
        self.image.iter().chain(&self.others).any(|image| image.digest == *digest)
    }

    /// Whether it may be about an image of this architecture: it has one, or no image at all.
    pub(in crate::transfer) fn may_be_of(&self, architecture: &str) -> bool {
        let mut images = self.image.iter().chain(&self.others).peekable();
        images.peek().is_none() || images.any(|image| image.architecture == architecture)
    }

    /// Decodes the work of an item.
    pub(in crate::transfer) fn of(bytes: &[u8]) -> Result<Self> {
        rmp_serde::from_slice(bytes).map_err(Error::internal)
    }
}
