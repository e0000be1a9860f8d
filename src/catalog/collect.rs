//! Contents that nothing names any more, and their end.
//!
//! What a manifest or a config holds, and that a registry has served it, is kept for as long as an image or a tag leads to
//! it. What leads where is found in a snapshot of the store, so that nobody is kept from writing meanwhile; what is
//! written after that is noted, and stays. An agent that holds an image is shown by the images of the catalog only, so it
//! keeps no content here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::catalog::records::{CONFIGS, MANIFESTS, ManifestRecord, REPOSITORIES, RepositoryRecord, SERVED};
use crate::catalog::service::Catalog;
use crate::catalog::written::Marks;
use crate::store::table::{Reader, Writer, prefix};

/// How many records one transaction removes: others wait for it.
const BATCH: usize = 1_000;
/// How many records one look finds at most, of some 100 bytes each in memory.
const MOST_FOUND: usize = 50_000;

/// Where a record is.
#[derive(Debug, Clone, Copy)]
enum RecordTable {
    Served,
    Manifests,
    Configs,
}

/// Records that nothing leads to, in the order in which they may go: what is left of them if something comes between
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

/// What came of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collected {
    /// How many records were removed.
    pub(crate) records: usize,
    /// Whether there may be more, for which one has to look again.
    pub(crate) is_cut: bool,
}

impl Catalog {
    /// Removes the contents that no image and no tag leads to, a few at a time. Whatever these `busy` registries have served
    /// stays, since a later commit may name it. It ends early when `may_go_on`, which is asked within each transaction,
    /// says that it may not.
    pub(crate) async fn collect(
        &self,
        busy: BTreeSet<String>,
        may_go_on: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<Collected> {
        // Before the snapshot is taken: whatever is not in it is noted.
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

    /// What the images and tags of a registry lead to; of a busy one also what it has served.
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

/// The digest in a key: all of it, or what stands behind a registry's name.
fn served(key: &[u8]) -> &str {
    let digest = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(digest).unwrap_or_default()
}
