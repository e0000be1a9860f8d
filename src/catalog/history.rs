//! Tells a caller what changed in the catalog.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use crate::access::caller::Caller;
use crate::access::visibility::ImageFilter;
use crate::base::Result;
use crate::catalog::changes::{CHANGES, Change};
use crate::catalog::service::Catalog;

/// Most changes of one answer.
pub(crate) const MAX_LISTED: usize = 10_000;
/// By how much a clock may have been set back and each change asked for still be found.
const A_DAY: SignedDuration = SignedDuration::from_hours(24);

/// What to look for among the changes.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Not before this moment.
    pub(crate) since: Option<Timestamp>,
    /// Before this moment.
    pub(crate) until: Option<Timestamp>,
    /// In this registry.
    pub(crate) registry: Option<String>,
    /// This many at most.
    pub(crate) limit: usize,
}

/// The changes that were found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The changes, newest first.
    pub(crate) changes: Vec<Change>,
    /// Whether there are older ones that were wanted.
    pub(crate) is_cut: bool,
}

impl Catalog {
    /// What changed of the images that the caller may see, newest first. An image that is gone is judged as it was.
    pub(crate) async fn what_changed(&self, caller: &Caller, wanted: Wanted) -> Result<Found> {
        let viewpoint = self.viewpoint(caller, &ImageFilter::default())?;
        let known = |host: &String| {
            self.find_registry(host).map_or_else(|_| host.clone(), |known| known.host.clone())
        };
        let registry = wanted.registry.as_ref().map(known);
        // Rows are in the order of commits; a clock that was set back makes one seem older than it is.
        let oldest = wanted.since.map(|since| since.checked_sub(A_DAY).unwrap_or(Timestamp::MIN));
        let catalog = self.clone();
        self.store
            .read(move |r| {
                let view = catalog.index.read().view(&viewpoint);
                let mut found = Found::default();
                r.scan_back(&CHANGES, None, |change: Change| {
                    if oldest.is_some_and(|oldest| change.at < oldest) {
                        return ControlFlow::Break(());
                    }
                    let is_wanted = wanted.since.is_none_or(|since| change.at >= since)
                        && wanted.until.is_none_or(|until| change.at < until)
                        && registry.as_ref().is_none_or(|registry| *registry == change.registry);
                    if !is_wanted || !view.see(&catalog.index.read().subject_of(&change)) {
                        return ControlFlow::Continue(());
                    }
                    found.is_cut = found.changes.len() >= wanted.limit;
                    if found.is_cut {
                        return ControlFlow::Break(());
                    }
                    found.changes.push(change);
                    ControlFlow::Continue(())
                })?;
                Ok(found)
            })
            .await
    }
}
