//! Pins: images that a person wants to stay on agents, whatever needs their room.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::catalog::service::Catalog;
use crate::engine::name;
use crate::fleet::expression::Expression;
use crate::store::table::Reader;
use crate::store::{Store, Table};

const PINS: Table<Pin> = Table::new("IMAGE_TO_PIN");

/// Most pins: whenever room is made, the expression of each is evaluated.
const MAX_PINS: usize = 1_000;

/// An image that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    /// Its canonical name.
    pub(crate) image: String,
    /// The expression for the agents on which it stays, evaluated anew each time.
    pub(crate) target_agents: String,
    /// When it was pinned.
    pub(crate) created_at: Timestamp,
    /// The e-mail address of the user who pinned it.
    pub(crate) created_by: String,
}

/// The pins of this server. Clones share them.
#[derive(Clone)]
pub(crate) struct Pins {
    catalog: Catalog,
    audit: Audit,
    clock: Clock,
    by_image: Arc<RwLock<BTreeMap<String, Arc<Pin>>>>,
}

impl Pins {
    /// Loads the pins from the store.
    pub(crate) fn load(store: &Store, catalog: &Catalog, audit: &Audit, clock: &Clock) -> Result<Self> {
        let mut pins = BTreeMap::new();
        store.read_now(|r: &Reader| {
            r.scan(&PINS, [], |_, pin: Pin| {
                pins.insert(pin.image.clone(), Arc::new(pin));
                Ok(())
            })
        })?;
        Ok(Self {
            catalog: catalog.clone(),
            audit: audit.clone(),
            clock: clock.clone(),
            by_image: Arc::new(RwLock::new(pins)),
        })
    }

    /// All pins, by image. For super-admins.
    pub(crate) fn list(&self, caller: &Caller) -> Result<Vec<Arc<Pin>>> {
        caller.require_superadmin("image_pins")?;
        Ok(self.by_image.read().values().cloned().collect())
    }

    /// Pins an image on the agents that an expression names; a pin of the same image gives way. The image may be one
    /// that the catalog does not know, by its full name. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] for what is neither an image of the catalog nor a full name, [`Error::Invalid`] for an
    /// expression that can't be parsed, [`Error::LimitReached`] for one pin too many.
    pub(crate) async fn pin(
        &self,
        caller: &Caller,
        reference: &str,
        target_agents: &str,
    ) -> Result<Arc<Pin>> {
        self.audit
            .superadmin(caller, "pin_image", reference, |deed| async move {
                let image = self.named(caller, reference)?;
                let target_agents = target_agents.trim().to_owned();
                Expression::parse(&target_agents).map_err(|error| error.refusal(&target_agents))?;
                let (created_at, created_by) = (self.clock.now(), caller.email.clone());
                let pin = Arc::new(Pin { image, target_agents, created_at, created_by });
                let (pins, kept) = (Arc::clone(&self.by_image), Arc::clone(&pin));
                deed.write(move |w| {
                    let count = {
                        let pins = pins.read();
                        pins.len() + usize::from(!pins.contains_key(&kept.image))
                    };
                    if count > MAX_PINS {
                        return Err(Error::LimitReached(format!(
                            "there are {MAX_PINS} pins, as many as may be"
                        )));
                    }
                    w.put(&PINS, &kept.image, kept.as_ref())?;
                    w.on_commit(move || drop(pins.write().insert(kept.image.clone(), kept)));
                    Ok(())
                })
                .await?;
                Ok(pin)
            })
            .await
    }

    /// Removes the pin of an image; nothing is removed from an agent by that. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] when the image is not pinned.
    pub(crate) async fn unpin(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "unpin_image", reference, |deed| async move {
                let image = self.named(caller, reference)?;
                let pins = Arc::clone(&self.by_image);
                deed.write(move |w| {
                    if !w.remove(&PINS, &image)? {
                        return Err(Error::missing("pin", shown(&image)));
                    }
                    w.on_commit(move || drop(pins.write().remove(&image)));
                    Ok(())
                })
                .await
            })
            .await
    }

    /// The canonical name of what a reference means.
    fn named(&self, caller: &Caller, reference: &str) -> Result<String> {
        match self.catalog.architectures(caller, reference) {
            Ok(images) => {
                let first = images.first().map(|image| image.record.canonical().to_string());
                first.ok_or_else(|| Error::missing("image", shown(reference)))
            }
            Err(missing @ Error::Missing { .. }) => {
                let full = reference.trim();
                // A short name means what an engine makes of it; only a full one means the same everywhere.
                name::canonical(full).filter(|canonical| canonical == full).ok_or(missing)
            }
            Err(error) => Err(error),
        }
    }

    /// All pins, for those who would take images off agents.
    pub(in crate::transfer) fn all(&self) -> Vec<Arc<Pin>> {
        self.by_image.read().values().cloned().collect()
    }
}
