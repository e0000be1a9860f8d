//! The catalog's service: what callers ask about images, and what scans write.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::access::audit::{Audit, Deed};
use crate::access::caller::Caller;
use crate::access::explain::{self, Explanation, Facts};
use crate::access::tenants::{Group, Tenants};
use crate::access::visibility::{self, ImageFilter, PresenceIndex, Viewpoint};
use crate::base::digest::Digest;
use crate::base::ids::ImageId;
use crate::base::reference::{Canonical, shown};
use crate::base::signal::{Follower, Signal};
use crate::base::{Error, Result};
use crate::catalog::changes::{self, Change};
use crate::catalog::image::{Config, ConfigRecord, Image, ImageRecord, Seconds};
use crate::catalog::index::{self, Index};
use crate::catalog::lookup;
use crate::catalog::records::{
    ALIASES, CONFIGS, IMAGES, MANIFESTS, ManifestRecord, REPOSITORIES, RULES, RepositoryRecord, SERVED,
    Served,
};
use crate::catalog::registry::Registry;
use crate::catalog::secrets::OperatorSecrets;
use crate::catalog::written::Written;
use crate::store::table::{Writer, prefix};
use crate::store::{Store, pair};

/// Longest alias, in bytes: as long as a name.
const MAX_ALIAS: usize = 255;

/// The catalog. Clones share it.
#[derive(Clone)]
pub struct Catalog {
    pub(in crate::catalog) store: Store,
    pub(in crate::catalog) index: Arc<RwLock<Index>>,
    pub(in crate::catalog) audit: Audit,
    pub(in crate::catalog) written: Written,
    pub(in crate::catalog) secrets: OperatorSecrets,
    tenants: Tenants,
    presence: Arc<dyn PresenceIndex>,
    changes: Signal,
}

impl Catalog {
    /// Reads the catalog from the store.
    pub fn load(
        store: &Store,
        tenants: Tenants,
        presence: Arc<dyn PresenceIndex>,
        audit: Audit,
    ) -> Result<Self> {
        let index = Arc::new(RwLock::new(Index::load(store, Arc::clone(&presence))?));
        let (written, changes) = (Written::default(), Signal::default());
        let secrets = OperatorSecrets::default();
        Ok(Self { store: store.clone(), index, audit, written, secrets, tenants, presence, changes })
    }

    /// Lets registries name these credentials of the operator.
    pub(crate) fn with_secrets(self, secrets: OperatorSecrets) -> Self {
        Self { secrets, ..self }
    }

    pub(in crate::catalog) fn viewpoint(&self, caller: &Caller, filter: &ImageFilter) -> Result<Viewpoint> {
        Viewpoint::new(caller, filter, &self.tenants.now())
    }

    /// The images the caller may see, ordered by name.
    pub fn images(&self, caller: &Caller, filter: &ImageFilter) -> Result<Vec<Arc<Image>>> {
        let viewpoint = self.viewpoint(caller, filter)?;
        let index = self.index.read();
        let view = index.view(&viewpoint);
        Ok(index.images(|subject| view.see(subject)).cloned().collect())
    }

    /// Lets `look` walk the images the caller may see, ordered by name, each with a unique key in the same order.
    /// Nothing is copied, and nothing is written meanwhile, so `look` must be quick.
    pub(crate) fn survey<T>(
        &self,
        caller: &Caller,
        filter: &ImageFilter,
        look: impl for<'a> FnOnce(&mut dyn Iterator<Item = (&'a str, &'a Arc<Image>)>) -> T,
    ) -> Result<T> {
        let viewpoint = self.viewpoint(caller, filter)?;
        let index = self.index.read();
        let view = index.view(&viewpoint);
        Ok(look(&mut index.keyed_images(|subject| view.see(subject))))
    }

    /// Copies of the images that [`Catalog::survey`] walks: for a caller that takes longer than others may be kept
    /// waiting.
    pub(crate) fn survey_copies(
        &self,
        caller: &Caller,
        filter: &ImageFilter,
    ) -> Result<Vec<(Box<str>, Arc<Image>)>> {
        self.survey(caller, filter, |images| {
            images.map(|(key, image)| (key.into(), Arc::clone(image))).collect()
        })
    }

    /// The image that a reference means for this caller; see [`lookup::of_one_name`] for what a reference may be.
    ///
    /// # Errors
    /// [`Error::Missing`] for an image that does not exist or that the caller may not see; the two look the same.
    pub fn image(&self, caller: &Caller, reference: &str, architecture: Option<&str>) -> Result<Arc<Image>> {
        let viewpoint = self.viewpoint(caller, &ImageFilter::default())?;
        let index = self.index.read();
        let view = index.view(&viewpoint);
        // The whole view, whichever condition fails: see [`Index`] for what timing could reveal.
        lookup::one(&index, reference, architecture, |subject| view.judge(subject).is_visible())
    }

    /// The images a reference means, one for each architecture; see [`lookup::of_one_name`].
    ///
    /// # Errors
    /// Those of [`Catalog::image`].
    pub(crate) fn architectures(&self, caller: &Caller, reference: &str) -> Result<Vec<Arc<Image>>> {
        let viewpoint = self.viewpoint(caller, &ImageFilter::default())?;
        let index = self.index.read();
        let view = index.view(&viewpoint);
        lookup::of_one_name(&index, reference, None, |subject| view.judge(subject).is_visible())
    }

    /// The images of each of these names that [`Catalog::survey`] walks, by architecture.
    pub(crate) fn architectures_of(
        &self,
        caller: &Caller,
        filter: &ImageFilter,
        names: impl Iterator<Item = Canonical>,
    ) -> Result<Vec<Vec<Arc<Image>>>> {
        let viewpoint = self.viewpoint(caller, filter)?;
        let index = self.index.read();
        let view = index.view(&viewpoint);
        let of = |name: Canonical| index.images_named(name.as_str(), |subject| view.see(subject));
        Ok(names.map(|name| of(name).into_iter().cloned().collect()).collect())
    }

    /// Explains why an image is or is not visible to a user under a filter: each condition that was checked.
    ///
    /// # Errors
    /// Those of [`Catalog::image`]: an image the caller may not see stays hidden here too.
    pub(crate) fn explain(
        &self,
        asker: &Caller,
        seer: &Caller,
        filter: &ImageFilter,
        reference: &str,
    ) -> Result<(Arc<Image>, Explanation)> {
        let image = self.image(asker, reference, None)?;
        let viewpoint = self.viewpoint(seer, filter)?;
        let verdict = self.index.read().view(&viewpoint).judge(&image.subject);
        let facts = Facts {
            registry: &image.record.registry,
            owner: image.config.owner.as_deref().copied(),
            found_in: &self.presence.scaling_groups(image.subject.number),
        };
        let tenancy = self.tenants.now();
        let explanation = explain::explain(asker, seer, filter, &tenancy, &viewpoint, verdict, &facts);
        Ok((image, explanation))
    }

    /// The domain of a group the caller is in, or for a super-admin of any group. `group` is an id or a name.
    ///
    /// # Errors
    /// [`Error::Missing`] for any other group; whether it exists does not show.
    pub(crate) fn domain_of_group(&self, caller: &Caller, group: &str) -> Result<String> {
        let tenancy = self.tenants.now();
        let is_theirs = |known: &&Arc<Group>| {
            caller.is_superadmin() || (known.domain == caller.domain && known.members.contains(&caller.user))
        };
        let mut groups = tenancy.groups.values().filter(is_theirs);
        let found = groups.find(|known| known.id.to_string() == group || known.name == group);
        found.map(|group| group.domain.clone()).ok_or_else(|| Error::missing("project", shown(group)))
    }

    /// Lets only super-admins continue, and writes an audit row about any other caller: for lookups that precede a
    /// change.
    pub(crate) async fn require_superadmin(&self, caller: &Caller, action: &str, target: &str) -> Result<()> {
        if caller.is_superadmin() {
            return Ok(());
        }
        self.audit.superadmin(caller, action, target, |_| async { Ok(()) }).await
    }

    /// The scaling groups that the caller may use as a member of this group, ordered by name.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group that does not exist or that the caller is not in; the two look the same.
    pub(crate) fn usable_scaling_groups(&self, caller: &Caller, group: &str) -> Result<BTreeSet<String>> {
        visibility::usable_scaling_groups(caller, group, &self.tenants.now())
            .ok_or_else(|| Error::missing("group", shown(group)))
    }

    /// The index that knows which agents have an image.
    pub(crate) fn presence(&self) -> &Arc<dyn PresenceIndex> {
        &self.presence
    }

    /// Removes the image from the catalog, with its aliases: all its architectures, or only the given one. A later
    /// rescan brings it back if the registry still has it. Returns how many images were removed.
    pub(crate) async fn forget(
        &self,
        caller: &Caller,
        reference: &str,
        architecture: Option<&str>,
    ) -> Result<usize> {
        self.audit
            .superadmin(caller, "forget_image", reference, |deed| async move {
                let ids: Vec<ImageId> = {
                    let index = self.index.read();
                    let found = lookup::of_one_name(&index, reference, architecture, index::all)?;
                    found.iter().map(|image| image.id).collect()
                };
                let (catalog, count) = (self.clone(), ids.len());
                deed.write(move |w| catalog.remove_images(w, ids)).await?;
                Ok(count)
            })
            .await
    }

    /// Removes one image from the catalog by its id, with its aliases.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no image with this id.
    pub(crate) async fn forget_by_id(&self, caller: &Caller, id: &str) -> Result<Arc<Image>> {
        self.audit
            .superadmin(caller, "forget_image_by_id", id, |deed| async move {
                let image = self.image(caller, id, None)?;
                self.forget_one(&deed, image.id).await?;
                Ok(image)
            })
            .await
    }

    /// Removes one image as the deed `deed`.
    pub(crate) async fn forget_one(&self, deed: &Deed, id: ImageId) -> Result<()> {
        let catalog = self.clone();
        deed.write(move |w| catalog.remove_images(w, vec![id])).await
    }

    /// The other architectures of the image's canonical name, in alphabetical order.
    pub(crate) fn other_architectures(&self, image: &Image) -> Vec<String> {
        let index = self.index.read();
        let named = index.images_named(&image.record.canonical().to_string(), index::all);
        let others = named.into_iter().filter(|other| other.id != image.id);
        others.map(|other| other.record.architecture.clone()).collect()
    }

    /// Gives an image an alias.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that can't be an alias, [`Error::Conflict`] when the name already means
    /// something or the target is itself an alias, [`Error::Missing`] for an unknown target.
    pub async fn alias(
        &self,
        caller: &Caller,
        alias: &str,
        target: &str,
        architecture: Option<&str>,
    ) -> Result<()> {
        self.audit
            .superadmin(caller, "alias_image", alias, |deed| async move {
                let alias = checked_alias(alias)?;
                let target = target.trim().to_owned();
                let architecture = architecture.map(str::to_owned);
                let index = Arc::clone(&self.index);
                deed.write(move |w| {
                    // Decided inside the write, so that nothing changes between the check and the change.
                    let image = {
                        let index = index.read();
                        check_alias_is_free(&index, &alias)?;
                        check_target_is_no_alias(&index, &target)?;
                        lookup::one(&index, &target, architecture.as_deref(), index::all)?
                    };
                    w.put(&ALIASES, &alias, &image.id)?;
                    let index = Arc::clone(&index);
                    w.on_commit(move || index.write().put_alias(&alias, image.id));
                    Ok(())
                })
                .await
            })
            .await
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such alias.
    pub(crate) async fn dealias(&self, caller: &Caller, alias: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "dealias_image", alias, |deed| async move {
                let alias = alias.trim().to_owned();
                let index = Arc::clone(&self.index);
                deed.write(move |w| {
                    if !w.remove(&ALIASES, &alias)? {
                        return Err(Error::missing("alias", shown(&alias)));
                    }
                    w.on_commit(move || index.write().remove_alias(&alias));
                    Ok(())
                })
                .await
            })
            .await
    }

    /// Follows the changes of the images.
    pub(crate) fn changes(&self) -> Follower {
        self.changes.follow()
    }

    /// How many images there are; for operators.
    pub(crate) fn image_count(&self) -> usize {
        self.index.read().image_count()
    }

    /// The images of one repository, by tag and architecture; for scans.
    pub(crate) fn repository_images(&self, registry: &str, repository: &str) -> Vec<Arc<Image>> {
        self.index.read().images_from(&format!("{registry}/{repository}:")).cloned().collect()
    }

    /// The repositories of a registry that have images, by name; for scans.
    pub(crate) fn repositories(&self, registry: &str) -> BTreeSet<String> {
        let start = format!("{registry}/");
        self.index.read().images_from(&start).map(|image| image.record.name.clone()).collect()
    }

    /// The record of what a scan last saw in a repository; for scans.
    pub(crate) async fn repository(&self, registry: &str, repository: &str) -> Result<RepositoryRecord> {
        let key = pair(registry, repository);
        self.store.read(move |r| Ok(r.find(&REPOSITORIES, key)?.unwrap_or_default())).await
    }

    /// Does what [`Catalog::repository`] does within a write, so that nothing changes before the record is written.
    pub(crate) fn repository_within(
        writer: &Writer,
        registry: &str,
        repository: &str,
    ) -> Result<RepositoryRecord> {
        Ok(writer.find(&REPOSITORIES, pair(registry, repository))?.unwrap_or_default())
    }

    /// The records of all repositories of a registry, ordered by name; for scans.
    pub(crate) async fn repository_records(&self, registry: &str) -> Result<Vec<(String, RepositoryRecord)>> {
        let start = prefix(registry);
        self.store
            .read(move |r| {
                let mut records = Vec::new();
                r.scan(&REPOSITORIES, &start, |key, record| {
                    let name = key.get(start.len()..).unwrap_or_default();
                    records.push((String::from_utf8_lossy(name).into_owned(), record));
                    Ok(())
                })?;
                Ok(records)
            })
            .await
    }

    /// Writes the record of a repository at the end of a scan's item.
    ///
    /// # Errors
    /// [`Error::Missing`] when the registry was removed meanwhile: nothing of it must come back.
    /// [`Error::Conflict`] when the registry is no longer the one that was read.
    pub fn put_repository(
        &self,
        writer: &mut Writer,
        registry: &Registry,
        repository: &str,
        record: &RepositoryRecord,
    ) -> Result<()> {
        self.check_unchanged(registry)?;
        let key = pair(&registry.host, repository);
        if record.tags.is_empty() && record.gone.is_empty() {
            // An empty record says nothing, and the repository may no longer exist.
            return writer.remove(&REPOSITORIES, key).map(drop);
        }
        writer.put(&REPOSITORIES, key, record)
    }

    fn check_unchanged(&self, registry: &Registry) -> Result<()> {
        if self.find_registry(&registry.host)?.has_the_images_of(registry) {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the registry {} was changed while it was read; rescan it",
            registry.host
        )))
    }

    /// What a manifest holds, if this registry has served it before; for scans. `is_seen` says that the registry is
    /// known to have served it, because the catalog has an image of it.
    pub(crate) async fn served_manifest(
        &self,
        registry: &str,
        digest: &Digest,
        is_seen: bool,
    ) -> Result<Option<ManifestRecord>> {
        let (key, digest) = (pair(registry, digest.as_str()), digest.clone());
        self.store
            .read(move |r| match r.find(&SERVED, key)? {
                Some(Served { unusable: Some(verdict), rules }) => {
                    Ok(Some(verdict).filter(|_| rules >= RULES))
                }
                None if !is_seen => Ok(None),
                _ => {
                    let kept = r.find(&MANIFESTS, digest.as_str())?;
                    Ok(kept.filter(|record| !matches!(record, ManifestRecord::Unusable { .. })))
                }
            })
            .await
    }

    /// A config, if this registry has served it before; for scans.
    pub(crate) async fn served_config(
        &self,
        registry: &str,
        digest: &Digest,
    ) -> Result<Option<ConfigRecord>> {
        let (key, digest) = (pair(registry, digest.as_str()), digest.clone());
        self.store
            .read(move |r| match r.find(&SERVED, key)? {
                Some(Served { .. }) => r.find(&CONFIGS, digest.as_str()),
                None => Ok(None),
            })
            .await
    }

    /// A config that a known manifest names, by digest; for scans.
    pub(crate) async fn config(&self, digest: &Digest) -> Result<Option<ConfigRecord>> {
        let digest = digest.clone();
        self.store.read(move |r| r.find(&CONFIGS, digest.as_str())).await
    }

    /// Writes what a manifest or config was found to be, so that it is not fetched from this registry again while
    /// something names it.
    ///
    /// # Errors
    /// When the registry was removed meanwhile, or is no longer the one that was read.
    pub fn put_content(
        &self,
        writer: &mut Writer,
        registry: &Registry,
        manifests: &[(Digest, ManifestRecord)],
        configs: &[(Digest, Arc<ConfigRecord>)],
    ) -> Result<()> {
        self.check_unchanged(registry)?;
        for (digest, record) in manifests {
            let is_usable = !matches!(record, ManifestRecord::Unusable { .. });
            if is_usable {
                writer.put(&MANIFESTS, digest.as_str(), record)?;
            }
            let served = Served { unusable: (!is_usable).then(|| record.clone()), rules: RULES };
            writer.put(&SERVED, pair(&registry.host, digest.as_str()), &served)?;
        }
        for (digest, config) in configs {
            writer.put(&CONFIGS, digest.as_str(), &**config)?;
            writer.put(&SERVED, pair(&registry.host, digest.as_str()), &Served::default())?;
        }
        let manifests = manifests.iter().map(|(digest, _)| digest);
        let configs = configs.iter().map(|(digest, _)| digest);
        self.written.note(writer, manifests.chain(configs).cloned().collect());
        Ok(())
    }

    /// Forgets what a registry has served: a server that answers in its place has served none of it.
    pub(in crate::catalog) fn forget_served(writer: &mut Writer, host: &str) -> Result<()> {
        for key in writer.keys(&SERVED, prefix(host))? {
            writer.remove(&SERVED, key)?;
        }
        Ok(())
    }

    /// Runs a write of a scan.
    pub async fn write(&self, work: impl FnOnce(&mut Writer) -> Result<()> + Send + 'static) -> Result<()> {
        self.store.write(work).await
    }

    /// Writes images with their configs at the end of a scan's item.
    pub fn put_images(
        &self,
        writer: &mut Writer,
        mut images: Vec<(ImageRecord, Arc<ConfigRecord>)>,
    ) -> Result<()> {
        let label_keys = Arc::clone(self.index.read().label_keys());
        let now = self.audit.clock().stamp();
        let (mut configs, mut changes) = (HashMap::new(), Vec::new());
        for (record, config) in &mut images {
            let new = || Arc::new(Config::new(ConfigRecord::clone(config), &label_keys));
            let known = configs.entry(record.digest.clone()).or_insert_with(new);
            let before = self.index.read().image(record.id(), index::all).cloned();
            (record.first_seen, record.changed) = (Seconds::of(now), Seconds::of(now));
            if let Some(before) = &before {
                record.first_seen = before.record.first_seen;
            }
            match before.as_deref().map(|before| &before.record) {
                Some(before) if before.target == record.target && before.digest == record.digest => {
                    record.changed = before.changed;
                }
                before => changes.extend(Change::between(now, before, (Some(record), known))),
            }
            writer.put(&CONFIGS, record.digest.as_str(), &**config)?;
            writer.put(&IMAGES, record.id().as_bytes(), record)?;
        }
        changes::note(writer, changes)?;
        let named = images.iter().flat_map(|(record, _)| [&record.digest, &record.manifest, &record.target]);
        self.written.note(writer, named.cloned().collect());
        let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
        writer.on_commit(move || {
            let mut index = index.write();
            for (record, _) in images {
                if let Some(config) = configs.get(&record.digest) {
                    index.put_image(record, Arc::clone(config));
                }
            }
            changes.raise();
        });
        Ok(())
    }

    /// Removes images and their aliases.
    pub(crate) fn remove_images(&self, writer: &mut Writer, ids: Vec<ImageId>) -> Result<()> {
        let (now, mut gone) = (self.audit.clock().stamp(), Vec::new());
        for id in &ids {
            writer.remove(&IMAGES, id.as_bytes())?;
            // Read inside the write, so that an alias added a moment ago is removed too.
            let Some(image) = self.index.read().image(*id, index::all).cloned() else { continue };
            for alias in &image.aliases {
                writer.remove(&ALIASES, alias.as_bytes())?;
            }
            gone.extend(Change::removal(now, &image));
        }
        changes::note(writer, gone)?;
        let (index, changes) = (Arc::clone(&self.index), self.changes.clone());
        writer.on_commit(move || {
            let mut index = index.write();
            for id in ids {
                index.remove_image(id);
            }
            changes.raise();
        });
        Ok(())
    }
}

fn checked_alias(alias: &str) -> Result<String> {
    let alias = alias.trim();
    let refuse = |why: &str| Err(Error::invalid("alias", format!("{:?} {why}", shown(alias))));
    if alias.is_empty() {
        return Err(Error::invalid("alias", "it is empty"));
    }
    if alias.len() > MAX_ALIAS {
        return refuse("is longer than 255 bytes");
    }
    if !alias.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("may have visible ASCII characters only, and no spaces");
    }
    if alias.contains('@')
        || alias.contains("://")
        || alias.parse::<Digest>().is_ok()
        || alias.parse::<ImageId>().is_ok()
    {
        return refuse("looks like a digest, an id or a URL; choose a name");
    }
    Ok(alias.into())
}

fn check_alias_is_free(index: &Index, alias: &str) -> Result<()> {
    if let Some(image) = index.aliased(alias, index::all) {
        let taken = image.record.canonical();
        return Err(Error::Exists(format!("{alias} is an alias of {taken} already; dealias it first")));
    }
    if lookup::is_own_name(index, alias) {
        return Err(Error::Exists(format!("{alias} is an image's own name; choose another alias")));
    }
    Ok(())
}

fn check_target_is_no_alias(index: &Index, target: &str) -> Result<()> {
    match index.aliased(target, index::all) {
        None => Ok(()),
        Some(_) if lookup::is_own_name(index, target) => Ok(()),
        Some(image) => Err(Error::Conflict(format!(
            "{target} is an alias; name the image itself: {}",
            image.record.canonical()
        ))),
    }
}
