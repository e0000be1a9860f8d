//! The end of a scan: removes what the complete tag list of a repository no longer names, unless it is so much that
//! the registry is more likely broken than emptied.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::Result;
use crate::base::error::Code;
use crate::base::ids::TaskId;
use crate::catalog::image::Image;
use crate::catalog::records::RepositoryRecord;
use crate::catalog::registry::Registry;
use crate::catalog::service::Catalog;
use crate::tasks::task::Ledger;
use crate::tasks::worker::Outcome;

/// Fewer than this many vanished images are believed, whatever share of all images they are.
const NEVER_HELD: usize = 10;

/// Removes the images that this task found to be gone.
pub(crate) async fn sweep(
    catalog: &Catalog,
    task: TaskId,
    registry: &Arc<Registry>,
    confirm_removals: bool,
) -> Result<Outcome> {
    let host = registry.host.as_str();
    let mut ledger = Ledger::default();
    let (mut before, mut gone) = (0, Vec::new());
    let mut cleared: Vec<String> = Vec::new();
    for (name, record) in catalog.repository_records(host).await? {
        // A record that another task wrote does not say what this one saw.
        if record.read_by != Some(task) {
            continue;
        }
        let images = catalog.repository_images(host, &name);
        before += images.len();
        gone.extend(images.into_iter().filter(|image| record.gone.contains(&image.record.tag)));
        if !record.gone.is_empty() {
            cleared.push(name);
        }
    }
    if !confirm_removals && gone.len() >= NEVER_HELD && gone.len() * 2 > before {
        ledger.failed.push_coded(
            host,
            format!(
                "{} of {before} images are gone from the registry; none was removed, because so many at once look like \
                 a fault of the registry: rescan with confirm_removals to remove them",
                gone.len()
            ),
            Code::ConfirmationRequired,
        );
        return Ok(Outcome::new(ledger));
    }
    ledger.removed = gone.len() as u64;
    Ok(removal(catalog, registry, gone, cleared, ledger))
}

fn removal(
    catalog: &Catalog,
    registry: &Arc<Registry>,
    gone: Vec<Arc<Image>>,
    cleared: Vec<String>,
    ledger: Ledger,
) -> Outcome {
    let (catalog, registry) = (catalog.clone(), Arc::clone(registry));
    Outcome {
        ledger,
        note: None,
        more: Vec::new(),
        changes: Box::new(move |w| {
            let mut sure = BTreeSet::new();
            for name in &cleared {
                // The current record: a tag may have been read again since, and exist.
                let record = Catalog::repository_within(w, &registry.host, name)?;
                let cleared = RepositoryRecord { gone: Vec::new(), ..record.clone() };
                catalog.put_repository(w, &registry, name, &cleared)?;
                sure.extend(record.gone.into_iter().map(|tag| (name.as_str(), tag)));
            }
            let is_sure =
                |image: &&Arc<Image>| sure.contains(&(image.record.name.as_str(), image.record.tag.clone()));
            catalog.remove_images(w, gone.iter().filter(is_sure).map(|image| image.id).collect())
        }),
    }
}
