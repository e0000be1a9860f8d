//! Takes images off agents: those that a task unloads, and those whose name a preload gave to another image.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::catalog::image::{Image, ImageRecord};
use crate::engine::Engine;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Removal};
use crate::engine::source::Source;
use crate::tasks::task::Ledger;
use crate::tasks::worker::Outcome;
use crate::transfer::work::Leaving;

/// How long a registry may take to say whether it has a replaced image. Nobody waits for that image to go.
const ASKING: Duration = Duration::from_secs(30);
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
        Removal::Untagged => untagged(engine, &held).await?,
        Removal::InUse { containers } => return Err(Fault::new(Class::InUse, by_containers(&containers))),
    };
    Ok(Outcome { note: Some(note), ..Outcome::new(Ledger { removed: 1, ..Ledger::default() }) })
}

/// What became of an image that was to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) enum Departure {
    /// It is gone.
    Gone,
    /// Its names are gone, and it stays, for this reason.
    Untagged(String),
    /// It was not there.
    Absent,
    /// It stays, for this reason.
    Stays(String),
}

/// Takes an image off an agent by what the agent held: these names if they still mean it, or the image without a name.
pub(in crate::transfer) async fn take_off(
    engine: &dyn Engine,
    leaving: &Leaving,
) -> Result<Departure, Fault> {
    let Some(held) = engine.find(leaving.digest.as_str()).await? else { return Ok(Departure::Absent) };
    if leaving.is_careful && held.names.iter().any(|name| !leaving.names.contains(name)) {
        let other: Vec<String> =
            held.names.iter().filter(|name| !leaving.names.contains(name)).cloned().collect();
        return Ok(Departure::Stays(format!("it is now also called {}", few(&other))));
    }
    let names: Vec<&String> = held.names.iter().filter(|name| leaving.names.contains(name)).collect();
    let references: Vec<&str> = match names.as_slice() {
        [] if held.names.is_empty() => vec![held.digest.as_str()],
        names => names.iter().map(|name| name.as_str()).collect(),
    };
    let mut departure = Departure::Absent;
    for reference in references {
        // An engine may hold two names that are one for us: none is removed that stands for another image.
        if engine.find(reference).await?.is_none_or(|named| named.digest != held.digest) {
            continue;
        }
        match engine.remove(reference).await? {
            Removal::Removed { .. } => departure = Departure::Gone,
            Removal::Untagged if reference == held.digest.as_str() => {
                return Ok(Departure::Stays("a name by digest, a container or another image has it".into()));
            }
            Removal::Untagged => departure = Departure::Untagged(String::new()),
            Removal::Absent => {}
            Removal::InUse { containers } => {
                return Ok(Departure::Stays(format!("it is in use {}", by_containers(&containers))));
            }
        }
    }
    match departure {
        Departure::Untagged(_) => Ok(Departure::Untagged(untagged(engine, &held).await?)),
        departure => Ok(departure),
    }
}

/// What is said of an image whose name was removed, and which stays.
async fn untagged(engine: &dyn Engine, held: &Held) -> Result<String, Fault> {
    let rest = engine.find(held.digest.as_str()).await?;
    let names = rest.map(|rest| rest.names).unwrap_or_default();
    Ok(match names.as_slice() {
        [] => "untagged; it stays, since a name by digest, a container or another image has it".to_owned(),
        names => format!("untagged; it stays, since it is also called {}", few(names)),
    })
}

/// The end of an item that takes an image off an agent.
pub(in crate::transfer) fn departed(
    item: &str,
    departure: Departure,
    is_careful: bool,
) -> Result<Outcome, Fault> {
    let mut ledger = Ledger::default();
    let note = match departure {
        Departure::Gone => {
            ledger.removed = 1;
            "removed".to_owned()
        }
        Departure::Untagged(why) => {
            ledger.removed = 1;
            why
        }
        Departure::Absent => {
            ledger.skipped.push(item, "not there");
            "not there".to_owned()
        }
        Departure::Stays(why) if is_careful => {
            ledger.unchanged = 1;
            format!("stays: {why}")
        }
        Departure::Stays(why) => return Err(Fault::new(Class::InUse, why)),
    };
    Ok(Outcome { note: Some(note), ..Outcome::new(ledger) })
}

/// Takes the image off an agent that had the name of one that is now loaded, so that replaced images do not pile up.
/// It goes only if no name is left to it, no container uses it, and its registry still has it: nothing is lost. After
/// an interruption between the load and this, it stays.
///
/// Returns what became of it: "is gone", or "stays" and why.
pub(in crate::transfer) async fn remove_replaced(
    engine: &dyn Engine,
    replaced: &Held,
    registry: &dyn Source,
) -> String {
    match try_remove_replaced(engine, replaced, registry).await {
        Ok(None) => "is gone".into(),
        Ok(Some(why)) => format!("stays: {why}"),
        Err(fault) => format!("stays: {fault}"),
    }
}

/// `None` if the replaced image is gone, otherwise why it stays.
async fn try_remove_replaced(
    engine: &dyn Engine,
    replaced: &Held,
    registry: &dyn Source,
) -> Result<Option<String>, Fault> {
    let names = async || {
        let found = engine.find(replaced.digest.as_str()).await?;
        Ok::<_, Fault>(found.map(|held| held.names))
    };
    let Some(also) = names().await? else { return Ok(None) };
    if !also.is_empty() {
        return Ok(Some(format!("it is also called {}", few(&also))));
    }
    match timeout(ASKING, is_in(registry, replaced)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Ok(Some("its registry does not have it any more".into())),
        Ok(Err(fault)) => return Ok(Some(format!("its registry could not be asked: {fault}"))),
        Err(_) => return Ok(Some("its registry could not be asked: it did not answer".into())),
    }
    // Asked again, since the registry may have taken its time: removing an image takes a single name along.
    match names().await? {
        None => return Ok(None),
        Some(also) if !also.is_empty() => return Ok(Some(format!("it is also called {}", few(&also)))),
        Some(_) => {}
    }
    Ok(match engine.remove(replaced.digest.as_str()).await? {
        Removal::Removed { .. } | Removal::Absent => None,
        Removal::Untagged => Some("a name by digest, a container or another image has it".into()),
        Removal::InUse { containers } => Some(format!("it is in use {}", by_containers(&containers))),
    })
}

/// Whether a registry has the manifest or index that this image was pulled by.
async fn is_in(registry: &dyn Source, held: &Held) -> Result<bool, Fault> {
    // The ID may be a manifest too, of an engine that remembers nothing else.
    let ids =
        if held.manifests.is_empty() { std::slice::from_ref(&held.digest) } else { &held.manifests[..] };
    for manifest in ids {
        match registry.manifest(manifest.as_str()).await {
            Ok(found) if manifest.matches(&found.bytes) => return Ok(true),
            Ok(_) => {}
            Err(fault) if fault.class == Class::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(false)
}

/// The containers that use an image, the first of them by name.
fn by_containers(containers: &[String]) -> String {
    let count = containers.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("by {count} container{plural}: {}", few(containers))
}

/// The first of these names.
fn few(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED { format!("{shown}, …") } else { shown }
}
