//! What preloads and unloads do and did with one image on one agent.

use std::sync::Arc;

use crate::base::Result;
use crate::base::ids::{TaskId, UserId};
use crate::catalog::image::Image;
use crate::tasks::task::{Item, Pair, TaskKind};
use crate::transfer::service::Transfers;
use crate::transfer::work::Work;

/// An item of a preload or an unload, with what its task says about it.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    /// Whether it loads the image or removes it.
    pub(crate) kind: TaskKind,
    /// The task.
    pub(crate) task: TaskId,
    /// The user who asked for the task.
    pub(crate) owner: UserId,
    /// The standing rule that asked for it; `None` if a person or a retention rule did.
    pub(crate) rule: Option<String>,
    /// The retention rule that asked for it.
    pub(crate) retention: Option<String>,
    /// Whether it is about the content that the catalog has under this name now.
    pub(crate) is_current: bool,
    /// The item.
    pub(crate) item: Item,
}

impl Transfers {
    /// The transfers of the image of this name on an agent, as far back as the queue looks; `images` are what the
    /// catalog has under the name now, of the architectures that count. Those that have not ended come first, then
    /// those that ended last.
    pub(crate) async fn history(
        &self,
        agent: &str,
        name: &str,
        images: &[Arc<Image>],
    ) -> Result<Vec<Transfer>> {
        let found = self.queue.about(&Pair { agent: agent.into(), image: name.into() }).await?;
        let mut transfers = Vec::new();
        for (task, item) in found {
            let work = Work::of(&item.work)?;
            if images.iter().any(|image| work.may_be_of(&image.record.architecture)) {
                let (rule, retention) =
                    task.targets.map(|targets| (targets.rule, targets.retention)).unwrap_or_default();
                transfers.push(Transfer {
                    kind: task.kind,
                    task: task.id,
                    owner: task.owner,
                    rule,
                    retention,
                    is_current: images.iter().any(|image| work.is_about(&image.record.digest)),
                    item,
                });
            }
        }
        Ok(transfers)
    }
}
