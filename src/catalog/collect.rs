//! Collects contents that nothing names any more, and removes them.
//!
//! What a manifest or a config holds, and the fact that a registry has served it, is kept as long as an image or a
//! tag leads to it. What leads where is worked out from a snapshot of the store, so that writers need not wait;
//! content written after that is noted, and stays. Agents' holdings are shown only by images of the catalog, so they
//! keep no content here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::catalog::records::{CONFIGS, MANIFESTS, ManifestRecord, REPOSITORIES, RepositoryRecord, SERVED};
use crate::catalog::service::Catalog;
use crate::catalog::written::Marks;
use crate::store::table::{Reader, Writer, prefix};

/// How many records one transaction removes. More would make other writers wait too long.
const BATCH: usize = 1_000;
/// Most records one pass finds, each of some 100 bytes in memory.
const MOST_FOUND: usize = 50_000;

/// The table a record is in.
#[derive(Debug, Clone, Copy)]
enum RecordTable {
    Served,
    Manifests,
    Configs,
}

/// Records that nothing leads to, in the order in which they may be removed: if the removal is interrupted, the rest
/// still makes sense.
#[derive(Debug, Default)]
struct Unnamed {
    records: Vec<(RecordTable, Vec<u8>)>,
    is_cut: bool,
}

impl Unnamed {
    fn push(&mut self, place: RecordTable, key: &[u8]) {
        if self.records.len() < MOST_FOUND {
            self.records.push((place, key.into()));
        } else {
            self.is_cut = true;
        }
    }
}

/// The result of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collected {
    /// How many records were removed.
    pub(crate) records: usize,
    /// Whether there may be more records, so that another pass is needed.
    pub(crate) is_cut: bool,
}

impl Catalog {
    /// Removes the contents that no image and no tag leads to, a few at a time. Content that the `busy` registries
    /// have served stays, because a later commit may name it. The removal ends early if `may_go_on`, which each
    /// transaction calls, returns false.
    pub(crate) async fn collect(
        &self,
        busy: BTreeSet<String>,
        may_go_on: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<Collected> {
        // Before the snapshot is taken, so that everything missing from it is noted.
        self.written.begin();
        let collected = self.remove_unnamed(busy, may_go_on).await;
        self.written.end();
        collected
    }

    async fn remove_unnamed(
        &self,
        busy: BTreeSet<String>,
        may_go_on: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<Collected> {
        let catalog = self.clone();
        let found = self.store.read(move |r| catalog.unnamed(r, &busy)).await?;
        let mut collected = Collected { records: 0, is_cut: found.is_cut };
        let mut rest = found.records.into_iter();
        loop {
            let batch: Vec<_> = rest.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(collected);
            }
            let (catalog, may_go_on) = (self.clone(), may_go_on.clone());
            let remove = move |w: &mut Writer| {
                if may_go_on() { catalog.remove_batch(w, batch).map(Some) } else { Ok(None) }
            };
            match self.store.write(remove).await? {
                Some(records) => collected.records += records,
                None => return Ok(Collected { is_cut: true, ..collected }),
            }
        }
    }

    fn unnamed(&self, reader: &Reader, busy: &BTreeSet<String>) -> Result<Unnamed> {
        let (mut named, mut found) = (Marks::default(), Unnamed::default());
        for host in self.registry_hosts() {
            let of_it = self.named_by(reader, &host, busy.contains(&host))?;
            reader.scan_keys(&SERVED, prefix(&host), |key, _| {
                if !of_it.has(served(key)) {
                    found.push(RecordTable::Served, key);
                }
            })?;
            named.extend(of_it);
        }
        let is_named = |key: &[u8]| std::str::from_utf8(key).is_ok_and(|digest| named.has(digest));
        reader.scan_keys(&MANIFESTS, [], |key, _| {
            if !is_named(key) {
                found.push(RecordTable::Manifests, key);
            }
        })?;
        reader.scan_keys(&CONFIGS, [], |key, _| {
            if !is_named(key) {
                found.push(RecordTable::Configs, key);
            }
        })?;
        Ok(found)
    }

    /// The contents that the images and tags of a registry lead to; for a busy registry also those it has served.
    fn named_by(&self, reader: &Reader, host: &str, is_busy: bool) -> Result<Marks> {
        let (mut marks, mut open) = (Marks::default(), Vec::new());
        for image in self.index.read().images_from(&format!("{host}/")) {
            let record = &image.record;
            let is_new = marks.insert(record.target.as_str());
            if is_new && record.target != record.manifest {
                open.push(record.target.clone());
            }
            marks.insert(record.manifest.as_str());
            marks.insert(record.digest.as_str());
        }
        reader.scan(&REPOSITORIES, prefix(host), |_, record: RepositoryRecord| {
            let tags = record.tags.into_values().map(|tag| tag.digest);
            open.extend(tags.filter(|digest| marks.insert(digest.as_str())));
            Ok(())
        })?;
        if is_busy {
            reader.scan_keys(&SERVED, prefix(host), |key, _| {
                let digest = served(key);
                if marks.insert(digest) {
                    open.extend(digest.parse::<Digest>());
                }
            })?;
        }
        while let Some(digest) = open.pop() {
            match reader.find(&MANIFESTS, digest.as_str())? {
                Some(ManifestRecord::Index { children, .. }) => {
                    let children = children.into_iter().map(|child| child.digest);
                    open.extend(children.filter(|child| marks.insert(child.as_str())));
                }
                Some(ManifestRecord::Image { config, .. }) => {
                    marks.insert(config.as_str());
                }
                Some(ManifestRecord::Unusable { .. }) | None => {}
            }
        }
        Ok(marks)
    }

    fn remove_batch(&self, writer: &mut Writer, batch: Vec<(RecordTable, Vec<u8>)>) -> Result<usize> {
        let (mut removed, mut configs) = (0, Vec::new());
        for (place, key) in batch {
            let digest = served(&key);
            if self.written.has(digest) {
                continue;
            }
            removed += usize::from(match place {
                RecordTable::Served => writer.remove(&SERVED, &key)?,
                RecordTable::Manifests => writer.remove(&MANIFESTS, &key)?,
                RecordTable::Configs => {
                    configs.push(digest.parse::<Digest>().map_err(Error::internal)?);
                    writer.remove(&CONFIGS, &key)?
                }
            });
        }
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().forget_configs(&configs));
        Ok(removed)
    }
}

/// The digest in a key: the whole key, or the part behind a registry's name.
fn served(key: &[u8]) -> &str {
    let digest = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(digest).unwrap_or_default()
}
