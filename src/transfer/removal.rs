//! Takes images off agents: those that a task unloads, and those whose name a preload gave to another image.

use std::sync::Arc;

use crate::catalog::image::{Image, ImageRecord};
use crate::engine::Engine;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal};
use crate::engine::source::Source;
use crate::tasks::task::Ledger;
use crate::tasks::worker::Outcome;

/// Most containers or names that are told when they keep an image.
const NAMED: usize = 5;

/// Takes an image off an agent. `variants` are the catalog's images of its name: if the name means the one for another
/// architecture there, it stays.
pub(in crate::transfer) async fn unload(
    engine: &dyn Engine,
    image: &ImageRecord,
    variants: &[Arc<Image>],
) -> Result<Outcome, Fault> {
    let canonical = image.canonical();
    let skipped = |why: String| {
        let mut ledger = Ledger::default();
        ledger.skipped.push(canonical.as_str(), &why);
        Outcome { note: Some(why), ..Outcome::new(ledger) }
    };
    let Some(held) = engine.find(canonical.as_str()).await? else { return Ok(skipped("not there".into())) };
    let other = variants.iter().find(|other| held.is(&other.record.identity()));
    if let Some(other) = other.filter(|_| !held.is(&image.identity())) {
        return Ok(skipped(format!("not there; the name has the image for {}", other.record.architecture)));
    }
    let note = match engine.remove(canonical.as_str()).await? {
        // One that is absent went away at this very moment.
        Removal::Removed { .. } | Removal::Absent => "removed".to_owned(),
        Removal::Untagged => {
            let rest = engine.find(held.digest.as_str()).await?;
            let names = rest.map(|rest| rest.names).unwrap_or_default();
            match names.as_slice() {
                [] => "untagged; its layers stay, since a container or another image has them".to_owned(),
                names => format!("untagged; its layers stay, since it is also called {}", few(names)),
            }
        }
        Removal::InUse { containers } => return Err(Fault::new(Class::InUse, by(&containers))),
    };
    Ok(Outcome { note: Some(note), ..Outcome::new(Ledger { removed: 1, ..Ledger::default() }) })
}

/// Takes the image off an agent that had the name of one that is now loaded, so that replaced images do not pile up.
/// It goes only if no name is left to it, no container uses it, and its registry still has it: nothing is lost.
/// Returns what became of it.
pub(in crate::transfer) async fn remove_replaced(
    engine: &dyn Engine,
    replaced: &Held,
    registry: &dyn Source,
) -> String {
    match try_remove_replaced(engine, replaced, registry).await {
        Ok(None) => "the image that had the name before is gone".into(),
        Ok(Some(why)) => format!("the image that had the name before stays: {why}"),
        Err(fault) => format!("the image that had the name before stays: {fault}"),
    }
}

/// `None` if the replaced image is gone, otherwise why it stays.
async fn try_remove_replaced(
    engine: &dyn Engine,
    replaced: &Held,
    registry: &dyn Source,
) -> Result<Option<String>, Fault> {
    let Some(rest) = engine.find(replaced.digest.as_str()).await? else { return Ok(None) };
    if !rest.names.is_empty() {
        return Ok(Some(format!("it is also called {}", few(&rest.names))));
    }
    let mut is_kept_there = false;
    for manifest in replaced.manifests.iter().chain(replaced.digests()) {
        let found = registry.manifest(manifest.as_str()).await;
        if found.is_ok_and(|found| manifest.matches(&found.bytes)) {
            is_kept_there = true;
            break;
        }
    }
    if !is_kept_there {
        return Ok(Some("its registry does not have it any more".into()));
    }
    Ok(match engine.remove(replaced.digest.as_str()).await? {
        Removal::Removed { .. } | Removal::Absent => None,
        Removal::Untagged => Some("a container or another image has its layers".into()),
        Removal::InUse { containers } => Some(format!("it is in use {}", by(&containers))),
    })
}

/// The containers that use an image, the first of them by name.
fn by(containers: &[String]) -> String {
    let count = containers.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("by {count} container{plural}: {}", few(containers))
}

/// The first of these names.
fn few(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED { format!("{shown}, …") } else { shown }
}
