//! Removes an image from its registry, or from the catalog by its id.

use std::sync::Arc;

use crate::access::caller::Caller;
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::registry::client::probe::Probe;
use crate::registry::error::{Error as RegistryError, Reason};
use crate::scan::service::Scanner;

impl Scanner {
    /// Removes an image's tag from its registry. The catalog keeps the image until it is forgotten or the registry is
    /// scanned.
    ///
    /// # Errors
    /// [`Error::Conflict`] when more than this image would go, or something other than the catalog knows;
    /// [`Error::Unavailable`] when the registry can't or won't.
    pub(crate) async fn untag(&self, caller: &Caller, id: &str) -> Result<Arc<Image>> {
        self.audit
            .superadmin(caller, "untag_image_from_registry", id, |_| async move {
                let image = self.catalog.image(caller, id, None)?;
                self.take_tag_away(&image).await?;
                Ok(image)
            })
            .await
    }

    /// Removes an image from the catalog, with its aliases; if `from_registry`, first from its registry.
    ///
    /// # Errors
    /// Those of [`Scanner::untag`]; in that case the catalog keeps the image too.
    pub(crate) async fn purge(&self, caller: &Caller, id: &str, from_registry: bool) -> Result<Arc<Image>> {
        self.audit
            .superadmin(caller, "purge_image_by_id", id, |deed| async move {
                let image = self.catalog.image(caller, id, None)?;
                if from_registry {
                    self.take_tag_away(&image).await?;
                }
                self.catalog.forget_one(&deed, image.id).await?;
                Ok(image)
            })
            .await
    }

    async fn take_tag_away(&self, image: &Image) -> Result<()> {
        let record = &image.record;
        let canonical = record.canonical();
        let others = self.catalog.other_architectures(image);
        if !others.is_empty() {
            return Err(Error::Conflict(format!(
                "{canonical} is also {} in the registry, which would go with it; forget the image in the catalog alone, \
                 or delete the tag in the registry itself",
                others.join(", ")
            )));
        }
        let registry = self.catalog.find_registry(&record.registry)?;
        let client = self.sessions.clients.of(&registry)?;
        match client.probe(&record.name, &record.tag, &record.target).await {
            Ok(Probe::Unchanged) => {}
            Ok(Probe::Moved(_) | Probe::Fetched(_)) => {
                return Err(Error::Conflict(format!(
                    "{canonical} is another image in the registry by now; rescan it, and look again"
                )));
            }
            Err(error) if error.reason == Reason::NotFound => {
                return Err(Error::Conflict(format!(
                    "{canonical} is not in the registry any more; rescan it, or forget the image in the catalog"
                )));
            }
            Err(error) => return Err(Error::Unreachable(error.to_string())),
        }
        client.untag(&record.name, &record.tag).await.map_err(|error| refusal(&error))
    }
}

fn refusal(error: &RegistryError) -> Error {
    let remedy = match &error.reason {
        Reason::Status { status: 400 | 405 | 501, .. } => {
            "this registry takes no single tag away, and deleting the manifest could take other tags with it; \
             delete it with the registry's own tools, or forget the image in the catalog alone"
        }
        Reason::Unauthorized(_) | Reason::Forbidden => {
            "give the registry credentials that may delete, or forget the image in the catalog alone"
        }
        _ => "the catalog is as it was",
    };
    Error::Unreachable(format!("{error}; {remedy}"))
}
