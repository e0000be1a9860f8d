//! The items of transfers, as the store keeps them.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::catalog::image::ImageRecord;
use crate::tasks::task::{NewItem, Pair};

/// What an item of a transfer does: one image on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::transfer) struct Work {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image as it was in the catalog when the task was made: a tag that moves meanwhile does not change the
    /// task. `None` if the reference has no image for the agent's architecture.
    pub(crate) image: Option<ImageRecord>,
    /// The architecture for which there is no image.
    #[serde(default)]
    pub(crate) wrong_architecture: Option<String>,
}

impl Work {
    /// Makes the item for this work, in a task of one image or of `several`.
    pub(in crate::transfer) fn item(&self, image: &str, several: bool) -> Result<NewItem> {
        let work = rmp_serde::to_vec_named(self).map_err(Error::internal)?;
        let agent = self.agent.clone();
        let name = if several { format!("{agent}: {image}") } else { agent.clone() };
        Ok(NewItem { name, pair: Some(Pair { agent, image: image.into() }), phase: 0, work })
    }

    /// Decodes the work of an item.
    pub(in crate::transfer) fn of(bytes: &[u8]) -> Result<Self> {
        rmp_serde::from_slice(bytes).map_err(Error::internal)
    }
}
