//! Reads one repository: compares its tags with the catalog, and collects what to write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;

use crate::base::Error;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::catalog::describe::KERNELSPEC;
use crate::catalog::image::{ConfigRecord, Image, ImageRecord, Seconds};
use crate::catalog::records::{RepositoryRecord, TagRecord};
use crate::catalog::registry::Registry;
use crate::catalog::service::Catalog;
use crate::registry::client::Names;
use crate::registry::client::probe::Probe;
use crate::registry::error::{Error as RegistryError, Reason};
use crate::scan::concurrent_reads::ConcurrentReads;
use crate::scan::content::{Fresh, Resolved, Source, Trouble, is_pause};
use crate::scan::session::Session;
use crate::store::table::Writer;
use crate::tasks::task::{Ledger, Progress};
use crate::tasks::worker::{Outcome, Workplace};

/// How many tags are asked about at once. The client limits the requests in flight; this only keeps it busy.
const TAGS_AT_ONCE: usize = 16;
/// After this many unreachable tags in a row the read of a repository ends. [`SILENT`] is the limit for tags to which
/// the registry did not answer at all; each of those took a minute and a half.
const PATIENCE: usize = 10;
const SILENT: usize = PATIENCE / 2;

/// A repository that is being read.
pub(crate) struct Reading<'a> {
    /// The catalog to compare the repository with.
    pub(crate) catalog: &'a Catalog,
    /// The scan.
    pub(crate) session: &'a Session,
    /// The repository's name.
    pub(crate) name: &'a str,
    /// Where to report progress.
    pub(crate) place: &'a Workplace,
    /// The other reads under way.
    pub(crate) meanwhile: &'a ConcurrentReads,
}

/// The result of reading one tag.
enum Tag {
    /// The tag does not belong to an image; nothing was asked.
    Accessory(&'static str),
    /// The tag points to this digest, and resolves to this.
    Read(Digest, Resolved),
    /// The registry has no such tag.
    Missing(RegistryError),
    /// The tag could not be read.
    Unread(RegistryError),
}

/// What to write at the end.
#[derive(Default)]
struct Draft {
    ledger: Ledger,
    images: Vec<(ImageRecord, Arc<ConfigRecord>)>,
    removed: Vec<Arc<Image>>,
    /// Tags of the catalog that the registry neither lists nor has.
    gone: Vec<String>,
    /// How many tags the registry has and does not list.
    lacking: usize,
    /// Tags that had images and now hold something entirely different.
    emptied: Vec<String>,
    tags: BTreeMap<String, TagRecord>,
    fresh: Fresh,
}

impl Reading<'_> {
    /// Reads every tag: those that the registry lists, and those of the catalog that it does not list. A tag is gone
    /// only if the registry answers 404 to a request for that very tag.
    ///
    /// # Errors
    /// When the tag list can't be read to its end, or the registry fails again and again.
    pub(crate) async fn all(&self, task: TaskId, now: Timestamp) -> Result<Outcome, Trouble> {
        let newer = self.meanwhile.begin(self.host(), self.name);
        let listed = match self.session.client.tags(self.name).await {
            // The repository is gone. Its tags are asked for all the same.
            Err(error) if error.reason == Reason::NotFound => Names::default(),
            listed => listed?,
        };
        let before = self.catalog.repository(self.host(), self.name).await?;
        let known = self.known();
        let mut draft = Draft::default();
        for (name, why) in &listed.refused {
            draft.ledger.skipped.push(format!("{}/{}:{name}", self.host(), self.name), *why);
        }
        draft.ledger.skipped.add_unnamed(listed.refused_unnamed());
        let present: BTreeSet<&str> = listed.good.iter().map(String::as_str).collect();
        let mut unlisted: Vec<&String> = known.keys().filter(|tag| !present.contains(tag.as_str())).collect();
        unlisted.sort();
        let tags: Vec<&String> = listed.good.iter().chain(unlisted).collect();
        self.read_tags(&tags, &present, &before, &known, &mut draft).await?;
        let mut gone = std::mem::take(&mut draft.gone);
        if draft.lacking > 0 {
            let why =
                format!("the registry's list of tags lacks {} of the tags that are there", draft.lacking);
            draft.ledger.failed.push(format!("{}/{}", self.host(), self.name), why);
        }
        // The sweep removes these together with the vanished ones, because it doubts a registry where most images go
        // at once.
        gone.append(&mut draft.emptied);
        let record = RepositoryRecord {
            tags: std::mem::take(&mut draft.tags),
            read_by: Some(task),
            gone,
            read_at: Some(now),
        };
        let (catalog, registry) = (self.catalog.clone(), Arc::clone(&self.session.registry));
        let name = self.name.to_owned();
        Ok(outcome(draft, move |w, draft| {
            let mut record = record;
            let newer = newer.lock();
            let is_newer = |tag: &str| newer.contains(tag);
            if !newer.is_empty() {
                // Other tasks have read these tags since; their results stand.
                let standing = Catalog::repository_within(w, &registry.host, &name)?;
                record.tags.retain(|tag, _| !is_newer(tag));
                record.tags.extend(standing.tags.into_iter().filter(|(tag, _)| is_newer(tag)));
                record.gone.retain(|tag| !is_newer(tag));
                draft.images.retain(|(image, _)| !is_newer(&image.tag));
                draft.removed.retain(|image| !is_newer(&image.record.tag));
            }
            catalog.put_repository(w, &registry, &name, &record)?;
            draft.keep(&catalog, &registry, w)
        }))
    }

    /// Reads one tag and leaves the others as they are.
    ///
    /// # Errors
    /// When the tag can't be read.
    pub(crate) async fn one(&self, tag: &str) -> Result<Outcome, Trouble> {
        let before = self.catalog.repository(self.host(), self.name).await?;
        let known = self.known();
        let mut draft = Draft::default();
        match self.read(tag, before.tags.get(tag), known.get(tag)).await? {
            Tag::Unread(error) | Tag::Missing(error) => return Err(error.into()),
            found => self.note(&mut draft, tag, found, known.get(tag)),
        };
        for tag in std::mem::take(&mut draft.emptied) {
            let images = known.get(&tag).map(Vec::as_slice).unwrap_or_default();
            draft.ledger.removed += images.len() as u64;
            draft.removed.extend(images.iter().cloned());
        }
        let (catalog, registry) = (self.catalog.clone(), Arc::clone(&self.session.registry));
        let (meanwhile, name, tag) = (self.meanwhile.clone(), self.name.to_owned(), tag.to_owned());
        Ok(outcome(draft, move |w, draft| {
            // The current record: another task may have read the other tags since.
            let mut record = Catalog::repository_within(w, &registry.host, &name)?;
            record.tags.append(&mut draft.tags);
            record.gone.retain(|gone| *gone != tag);
            catalog.put_repository(w, &registry, &name, &record)?;
            draft.keep(&catalog, &registry, w)?;
            w.on_commit(move || meanwhile.note(&registry.host, &name, &tag));
            Ok(())
        }))
    }

    fn host(&self) -> &str {
        &self.session.registry.host
    }

    /// The images of this repository in the catalog, by tag.
    fn known(&self) -> HashMap<String, Vec<Arc<Image>>> {
        let mut known: HashMap<String, Vec<Arc<Image>>> = HashMap::new();
        for image in self.catalog.repository_images(self.host(), self.name) {
            known.entry(image.record.tag.clone()).or_default().push(image);
        }
        known
    }

    async fn read_tags(
        &self,
        tags: &[&String],
        listed: &BTreeSet<&str>,
        before: &RepositoryRecord,
        known: &HashMap<String, Vec<Arc<Image>>>,
        draft: &mut Draft,
    ) -> Result<(), Trouble> {
        let total = tags.len() as u64;
        let read = |tag: &&String| {
            let tag = (*tag).clone();
            async move {
                let found = self.read(&tag, before.tags.get(&tag), known.get(&tag)).await;
                (tag, found)
            }
        };
        let mut results = stream::iter(tags.iter().map(read)).buffer_unordered(TAGS_AT_ONCE);
        let (mut current, mut unreached) = (0, 0);
        while let Some((tag, found)) = results.next().await {
            let found = match found {
                // What was fetched so far must not be fetched again when this item is resumed.
                Err(trouble) => return Err(self.keep_content(draft, trouble).await),
                Ok(Tag::Unread(error)) if is_pause(&error) => {
                    return Err(self.keep_content(draft, error.into()).await);
                }
                Ok(Tag::Missing(_)) if !listed.contains(tag.as_str()) => {
                    (current, unreached) = (current + 1, 0);
                    draft.gone.push(tag);
                    continue;
                }
                Ok(found) => found,
            };
            if matches!(found, Tag::Read(..)) && !listed.contains(tag.as_str()) {
                draft.lacking += 1;
            }
            unreached = match &found {
                Tag::Unread(error) if matches!(error.reason, Reason::Timeout(_)) => unreached + SILENT,
                Tag::Unread(error) if error.is_transient() => unreached + 1,
                _ => 0,
            };
            if let (Tag::Unread(error), true) = (&found, unreached >= PATIENCE) {
                return Err(self.keep_content(draft, error.clone().into()).await);
            }
            if let (Tag::Unread(_) | Tag::Missing(_), Some(record)) = (&found, before.tags.get(&tag)) {
                draft.tags.insert(tag.clone(), record.clone());
            }
            let message = self.note(draft, &tag, found, known.get(&tag));
            current += 1;
            self.place.report(Progress { current, total }, message);
        }
        Ok(())
    }

    async fn keep_content(&self, draft: &mut Draft, trouble: Trouble) -> Trouble {
        let (catalog, fresh) = (self.catalog.clone(), std::mem::take(&mut draft.fresh));
        let registry = Arc::clone(&self.session.registry);
        let kept = self
            .catalog
            .write(move |w| catalog.put_content(w, &registry, &fresh.manifests, &fresh.configs))
            .await;
        if let Err(error) = kept {
            tracing::warn!(?error, "content that was fetched could not be kept");
        }
        trouble
    }

    /// Reads one tag at the least cost: one conditional request, if it was seen before and has not moved.
    async fn read(
        &self,
        tag: &str,
        before: Option<&TagRecord>,
        known: Option<&Vec<Arc<Image>>>,
    ) -> Result<Tag, Trouble> {
        if let Some(why) = accessory(tag) {
            return Ok(Tag::Accessory(why));
        }
        let client = &self.session.client;
        // An image scanned before this repository's record was written serves just as well.
        let seen = before.map(|record| &record.digest).or_else(|| Some(&known?.first()?.record.target));
        let found = match seen {
            Some(digest) => client.probe(self.name, tag, digest).await.map(|probe| match probe {
                Probe::Unchanged => (digest.clone(), None),
                Probe::Moved(digest) => (digest, None),
                Probe::Fetched(fetched) => (fetched.digest.clone(), Some(fetched)),
            }),
            None => {
                client.manifest(self.name, tag).await.map(|fetched| (fetched.digest.clone(), Some(fetched)))
            }
        };
        let source = Source { client, repository: self.name, seen: known.map_or(&[], Vec::as_slice) };
        let resolved = match found {
            Err(error) if error.reason == Reason::NotFound => return Ok(Tag::Missing(error)),
            Err(error) => return Ok(Tag::Unread(error)),
            Ok((digest, fetched)) => self
                .session
                .content
                .resolve(source, &digest, fetched)
                .await
                .map(|resolved| (digest, resolved)),
        };
        match resolved {
            Ok((digest, resolved)) => Ok(Tag::Read(digest, resolved)),
            Err(Trouble::Registry(error)) => Ok(Tag::Unread(error)),
            Err(trouble) => Err(trouble),
        }
    }

    /// Puts the result for a tag into the draft; returns a line for those who follow the task.
    fn note(&self, draft: &mut Draft, tag: &str, found: Tag, known: Option<&Vec<Arc<Image>>>) -> String {
        let reference = format!("{}/{}:{tag}", self.host(), self.name);
        match found {
            Tag::Accessory(why) => {
                draft.ledger.skipped.push(&reference, why);
                format!("Skipped {reference} ({why})")
            }
            Tag::Unread(error) | Tag::Missing(error) => {
                draft.ledger.failed.push(&reference, error.to_string());
                format!("Failed {error}")
            }
            Tag::Read(digest, resolved) => self.note_read(draft, tag, &reference, digest, resolved, known),
        }
    }

    fn note_read(
        &self,
        draft: &mut Draft,
        tag: &str,
        reference: &str,
        target: Digest,
        resolved: Resolved,
        known: Option<&Vec<Arc<Image>>>,
    ) -> String {
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let mut verb = "Skipped";
        let mut seen = Vec::new();
        let is_empty = resolved.images.is_empty();
        for found in resolved.images {
            let record = ImageRecord {
                registry: self.host().into(),
                name: self.name.into(),
                tag: tag.into(),
                architecture: found.architecture,
                digest: found.digest,
                manifest: found.manifest,
                target: target.clone(),
                size_bytes: found.size_bytes,
                first_seen: Seconds::default(),
                changed: Seconds::default(),
            };
            if self.session.registry.kernelspec_only && found.config.labels.find(KERNELSPEC).is_none() {
                let why = format!(
                    "{}: no {KERNELSPEC} label, and the registry takes no other images",
                    record.architecture
                );
                draft.ledger.skipped.push(reference, why);
                continue;
            }
            seen.push(record.id());
            match known.iter().find(|image| image.id == record.id()) {
                Some(image) if image.record.says_the_same(&record) => {
                    draft.ledger.unchanged += 1;
                    verb = if verb == "Skipped" { "Unchanged" } else { verb };
                    continue;
                }
                Some(_) => {
                    draft.ledger.updated += 1;
                    verb = "Updated";
                }
                None => {
                    draft.ledger.added += 1;
                    verb = if verb == "Updated" { verb } else { "Added" };
                }
            }
            draft.images.push((record, found.config));
        }
        // An architecture that the tag no longer lists is only known to be gone when every part of the tag was read.
        if !resolved.failed.is_empty() {
            // The images are kept.
        } else if is_empty {
            draft.emptied.push(tag.into());
        } else {
            let gone = known.iter().filter(|image| !seen.contains(&image.id));
            let count = draft.removed.len();
            draft.removed.extend(gone.cloned());
            draft.ledger.removed += (draft.removed.len() - count) as u64;
        }
        // It is known where the tag points even if not all of it could be read: the next scan asks only for what is
        // missing.
        draft.tags.insert(tag.into(), TagRecord { digest: target });
        for why in resolved.skipped {
            draft.ledger.skipped.push(reference, why);
        }
        for why in resolved.failed {
            draft.ledger.failed.push(reference, why);
            verb = "Partly failed";
        }
        draft.fresh.manifests.extend(resolved.fresh.manifests);
        draft.fresh.configs.extend(resolved.fresh.configs);
        format!("{verb} {reference}")
    }
}

impl Draft {
    /// Writes what was found, except for the repository's record.
    fn keep(&mut self, catalog: &Catalog, registry: &Registry, writer: &mut Writer) -> Result<(), Error> {
        catalog.put_content(writer, registry, &self.fresh.manifests, &self.fresh.configs)?;
        catalog.put_images(writer, std::mem::take(&mut self.images))?;
        catalog.remove_images(writer, self.removed.iter().map(|image| image.id).collect())
    }
}

fn outcome(
    mut draft: Draft,
    keep: impl FnOnce(&mut Writer, &mut Draft) -> Result<(), Error> + Send + 'static,
) -> Outcome {
    Outcome {
        ledger: std::mem::take(&mut draft.ledger),
        note: None,
        more: Vec::new(),
        changes: Box::new(move |w| keep(w, &mut draft)),
    }
}

/// Why a tag does not belong to an image, judging by its name alone: signatures and other things stored beside
/// images.
fn accessory(tag: &str) -> Option<&'static str> {
    if [".sig", ".att", ".sbom"].iter().any(|end| tag.ends_with(end)) {
        return Some("a signature, attestation or bill of materials (cosign), not an image");
    }
    let hex = tag.strip_prefix("sha256-")?;
    let is_digest = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    is_digest.then_some("a list of referrers, not an image")
}

#[cfg(test)]
mod tests {
    use super::accessory;

    #[test]
    fn tags_that_are_kept_beside_images_are_told_by_their_names() {
        let digest = format!("sha256-{}", "a1".repeat(32));
        for tag in [digest.clone(), format!("{digest}.sig"), format!("{digest}.att"), "x.sbom".into()] {
            assert!(accessory(&tag).is_some(), "{tag}");
        }
        for tag in ["latest", "3.9-ubuntu20.04", "sha256-abc", "sig"] {
            assert!(accessory(tag).is_none(), "{tag}");
        }
    }
}
