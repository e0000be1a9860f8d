//! Finds out what digests stand for. Content never changes under its digest, so each manifest and each config is
//! fetched once from each registry that names it: the first time from the registry, later from the store. If several
//! readers want it at once, one of them fetches it. It does not matter that another registry has served the content:
//! anyone who may write to one registry could name content of another there, and so show it to readers who may not
//! see it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::base::arch;
use crate::base::digest::Digest;
use crate::catalog::image::{ConfigRecord, Image};
use crate::catalog::labels::Labels;
use crate::catalog::records::{ChildRecord, ManifestRecord};
use crate::catalog::service::Catalog;
use crate::registry::client::{Client, Fetched, MAX_BLOB};
use crate::registry::config::parse_config;
use crate::registry::error::Error as RegistryError;
use crate::registry::manifest::{Child, Descriptor, ImageManifest, Manifest, classify};

/// How deep indexes may nest, and how many manifests one tag may have. Real ones nest once and have a dozen; a
/// hostile one could go on for ever.
const MAX_DEPTH: usize = 8;
const MAX_MANIFESTS: usize = 256;

/// Content that was fetched or looked up, and whether the store has it yet.
#[derive(Clone)]
struct Known<T> {
    value: T,
    is_fresh: bool,
}

type Cells<T> = Mutex<HashMap<Digest, Arc<OnceCell<Known<T>>>>>;

/// The content that a scan has met so far.
pub(crate) struct Content {
    catalog: Catalog,
    /// The registry's host.
    registry: String,
    manifests: Cells<ManifestRecord>,
    configs: Cells<Arc<ConfigRecord>>,
}

/// One image of a tag.
pub(crate) struct Found {
    /// Its architecture, normalized.
    pub(crate) architecture: String,
    /// The digest of its manifest.
    pub(crate) manifest: Digest,
    /// The digest of its config.
    pub(crate) digest: Digest,
    /// Its config.
    pub(crate) config: Arc<ConfigRecord>,
    /// The size of layers and config, in bytes.
    pub(crate) size_bytes: u64,
}

/// What a tag resolves to.
#[derive(Default)]
pub(crate) struct Resolved {
    /// The images of the tag.
    pub(crate) images: Vec<Found>,
    /// The other entries of the tag, and why each is not an image of the catalog.
    pub(crate) skipped: Vec<String>,
    /// The parts of the tag that could not be read.
    pub(crate) failed: Vec<String>,
    /// The content that was fetched on the way, for the store.
    pub(crate) fresh: Fresh,
}

/// Content the store does not have yet.
#[derive(Default)]
pub(crate) struct Fresh {
    /// Manifests.
    pub(crate) manifests: Vec<(Digest, ManifestRecord)>,
    /// Configs.
    pub(crate) configs: Vec<(Digest, Arc<ConfigRecord>)>,
}

/// Why content could not be read.
pub(crate) enum Trouble {
    /// The registry failed.
    Registry(RegistryError),
    /// The store failed.
    Store(crate::base::Error),
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<crate::base::Error> for Trouble {
    fn from(error: crate::base::Error) -> Self {
        Self::Store(error)
    }
}

/// Where to look for content: one repository of the registry.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The client of the registry.
    pub(crate) client: &'a Client,
    /// The repository.
    pub(crate) repository: &'a str,
    /// The images of this tag in the catalog. They are there because the registry has served them, perhaps before
    /// that was recorded.
    pub(crate) seen: &'a [Arc<Image>],
}

impl Source<'_> {
    fn has_seen(&self, digest: &Digest) -> bool {
        self.seen.iter().any(|image| [&image.record.manifest, &image.record.target].contains(&digest))
    }
}

impl Content {
    /// Starts with no content.
    pub(crate) fn new(catalog: Catalog, registry: &str) -> Self {
        Self { catalog, registry: registry.into(), manifests: Mutex::default(), configs: Mutex::default() }
    }

    /// Resolves the manifest with this digest. `fetched` is its text, if a request already brought it.
    ///
    /// # Errors
    /// When the manifest itself can't be read. A part of an index that can't be read is listed in the result.
    pub(crate) async fn resolve(
        &self,
        source: Source<'_>,
        digest: &Digest,
        fetched: Option<Fetched>,
    ) -> Result<Resolved, Trouble> {
        let mut resolved = Resolved::default();
        let mut met = HashSet::from([digest.clone()]);
        let mut given = fetched;
        let mut open = vec![(ChildRecord { digest: digest.clone(), architecture: None }, 0)];
        while let Some((child, depth)) = open.pop() {
            let record = match self.manifest(source, &child.digest, given.take()).await {
                Ok(known) => {
                    if known.is_fresh {
                        resolved.fresh.manifests.push((child.digest.clone(), known.value.clone()));
                    }
                    known.value
                }
                Err(Trouble::Registry(error)) if depth > 0 && !is_pause(&error) => {
                    resolved.failed.push(error.to_string());
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            match record {
                // A broken manifest says nothing about what was there before.
                ManifestRecord::Unusable { reason, is_broken: true } => resolved.failed.push(reason),
                ManifestRecord::Unusable { reason, .. } => resolved.skipped.push(reason),
                ManifestRecord::Image { config, size_bytes, .. } => {
                    self.add_image(&mut resolved, child, config, size_bytes).await?;
                }
                ManifestRecord::Index { children, skipped } => {
                    if children.is_empty() && skipped.is_empty() {
                        resolved.skipped.push("an index without images".into());
                    }
                    resolved.skipped.extend(skipped);
                    if depth == MAX_DEPTH {
                        resolved.failed.push(format!("indexes nest more than {MAX_DEPTH} deep"));
                        continue;
                    }
                    // Children are taken from the end, so this reverses them to keep the index's order.
                    for child in children.into_iter().rev() {
                        if met.len() >= MAX_MANIFESTS {
                            resolved
                                .failed
                                .push(format!("the index has more than {MAX_MANIFESTS} manifests"));
                            break;
                        }
                        if met.insert(child.digest.clone()) {
                            open.push((child, depth + 1));
                        }
                    }
                }
            }
        }
        Ok(resolved)
    }

    async fn add_image(
        &self,
        resolved: &mut Resolved,
        child: ChildRecord,
        digest: Digest,
        size_bytes: u64,
    ) -> Result<(), Trouble> {
        let known = self.known_config(&digest).await?;
        let Some(Known { value: config, is_fresh }) = known else {
            let lost = format!("the config {digest} of a known manifest is not in the store");
            return Err(Trouble::Store(crate::base::Error::internal(lost)));
        };
        if is_fresh {
            resolved.fresh.configs.push((digest.clone(), Arc::clone(&config)));
        }
        let architecture = child.architecture.unwrap_or_else(|| config.architecture.clone());
        if resolved.images.iter().any(|other| other.architecture == architecture) {
            resolved.skipped.push(format!("a second manifest for {architecture}: {}", child.digest));
            return Ok(());
        }
        resolved.images.push(Found { architecture, manifest: child.digest, digest, config, size_bytes });
        Ok(())
    }

    async fn known_config(&self, digest: &Digest) -> Result<Option<Known<Arc<ConfigRecord>>>, Trouble> {
        let met = self.configs.lock().get(digest).and_then(|cell| cell.get().cloned());
        if met.is_some() {
            return Ok(met);
        }
        let kept = self.catalog.config(digest).await?;
        Ok(kept.map(|record| Known { value: Arc::new(record), is_fresh: false }))
    }

    async fn manifest(
        &self,
        source: Source<'_>,
        digest: &Digest,
        given: Option<Fetched>,
    ) -> Result<Known<ManifestRecord>, Trouble> {
        let cell = cell(&self.manifests, digest);
        let known = cell.get_or_try_init(|| async {
            let is_seen = source.has_seen(digest);
            if let Some(value) = self.catalog.served_manifest(&self.registry, digest, is_seen).await? {
                return Ok(Known { value, is_fresh: false });
            }
            let fetched = match given {
                Some(fetched) => fetched,
                None => source.client.manifest(source.repository, digest.as_str()).await?,
            };
            let value = self.read_manifest(source, fetched).await?;
            Ok::<_, Trouble>(Known { value, is_fresh: true })
        });
        known.await.cloned()
    }

    async fn read_manifest(&self, source: Source<'_>, fetched: Fetched) -> Result<ManifestRecord, Trouble> {
        let unusable = |reason: String| Ok(ManifestRecord::Unusable { reason, is_broken: false });
        let broken = |reason: String| Ok(ManifestRecord::Unusable { reason, is_broken: true });
        let classified = classify(&fetched.bytes);
        // Many manifests may wait for their configs at the same time, each of up to 4 MiB.
        drop(fetched);
        match classified {
            Err(why) => broken(why.to_string()),
            Ok(Manifest::Legacy) => unusable("unsupported legacy manifest (Docker schema 1)".into()),
            Ok(Manifest::Artifact { artifact_type }) => {
                unusable(format!("an artifact, not an image: {artifact_type}"))
            }
            Ok(Manifest::Index(children)) => Ok(index_record(children)),
            Ok(Manifest::Image(ImageManifest { config: descriptor, layers, total_size })) => {
                let layer_sizes = layers.iter().map(|layer| layer.size).collect();
                drop(layers);
                let is_stated = descriptor.is_image_config();
                match self.config(source, &descriptor).await? {
                    Ok(config) if !is_stated && !is_of_image(&config) => {
                        unusable("an artifact, not an image: its config describes none".into())
                    }
                    Err(_) if !is_stated => {
                        unusable("an artifact, not an image: its config is no image's".into())
                    }
                    Ok(config) if is_linux(&config.os) => Ok(ManifestRecord::Image {
                        config: descriptor.digest,
                        size_bytes: total_size,
                        layer_sizes,
                    }),
                    Ok(config) => unusable(format!("not for Linux but {}", config.os)),
                    Err(reason) => broken(reason),
                }
            }
        }
    }

    /// The config of an image. The inner error is about its content, and so permanent.
    async fn config(
        &self,
        source: Source<'_>,
        descriptor: &Descriptor,
    ) -> Result<Result<Arc<ConfigRecord>, String>, Trouble> {
        let fetch = async {
            if let Some(kept) = self.catalog.served_config(&self.registry, &descriptor.digest).await? {
                return Ok(Known { value: Arc::new(kept), is_fresh: false });
            }
            let bytes = if let Some(bytes) = &descriptor.data {
                bytes.clone()
            } else {
                let blob =
                    source.client.blob(source.repository, &descriptor.digest, descriptor.size, MAX_BLOB);
                blob.await.map_err(|error| Unread::Trouble(error.into()))?
            };
            let parsed = parse_config(&bytes).map_err(|why| Unread::Content(why.to_string()))?;
            Ok(Known { value: Arc::new(config_record(parsed)), is_fresh: true })
        };
        match cell(&self.configs, &descriptor.digest).get_or_try_init(|| fetch).await {
            Ok(known) => Ok(Ok(Arc::clone(&known.value))),
            Err(Unread::Content(reason)) => Ok(Err(reason)),
            Err(Unread::Trouble(trouble)) => Err(trouble),
        }
    }
}

enum Unread {
    Content(String),
    Trouble(Trouble),
}

impl From<crate::base::Error> for Unread {
    fn from(error: crate::base::Error) -> Self {
        Self::Trouble(error.into())
    }
}

fn cell<T>(cells: &Cells<T>, digest: &Digest) -> Arc<OnceCell<Known<T>>> {
    Arc::clone(cells.lock().entry(digest.clone()).or_default())
}

/// Whether the registry asks for a pause: in that case the whole item waits, rather than only a part of it failing.
pub(crate) fn is_pause(error: &RegistryError) -> bool {
    matches!(error.reason, crate::registry::error::Reason::RateLimited { .. })
}

/// Whether a config whose media type says nothing describes an image.
fn is_of_image(config: &ConfigRecord) -> bool {
    !config.os.is_empty() || !config.diff_ids.is_empty()
}

fn is_linux(os: &str) -> bool {
    // Images built before the field was common leave it empty.
    matches!(os, "linux" | "")
}

fn index_record(entries: Vec<Child>) -> ManifestRecord {
    let (mut children, mut skipped) = (Vec::new(), Vec::new());
    for entry in entries {
        let platform = entry.platform.unwrap_or_default();
        if entry.attestation {
            // This is part of how an image was built, and no tool lists it, so it does not count as skipped.
        } else if !is_linux(&platform.os) {
            skipped.push(format!("not for Linux but {}/{}", platform.os, platform.architecture));
        } else {
            let architecture = (!platform.architecture.is_empty())
                .then(|| arch::normalize(&platform.architecture, platform.variant.as_deref()));
            children.push(ChildRecord { digest: entry.digest, architecture });
        }
    }
    ManifestRecord::Index { children, skipped }
}

fn config_record(config: crate::registry::config::Config) -> ConfigRecord {
    let architecture = match config.architecture.as_str() {
        "" => arch::DEFAULT.into(),
        name => arch::normalize(name, config.variant.as_deref()),
    };
    ConfigRecord {
        architecture,
        os: config.os,
        created: config.created.map(|at| at.to_string()),
        labels: config.labels.iter().collect::<Labels>(),
        diff_ids: config.diff_ids.concat(),
    }
}
