//! What admins do with registries: list, add, change and remove them.

use std::sync::Arc;

use crate::access::caller::Caller;
use crate::base::ids::ImageId;
use crate::base::secret::Secret;
use crate::base::{Error, Result, reference};
use crate::catalog::proxy::Proxy;
use crate::catalog::records::{REGISTRIES, REPOSITORIES};
use crate::catalog::registry::{Registry, RegistryChange};
use crate::catalog::secrets::MAX_PASSWORD;
use crate::catalog::service::Catalog;
use crate::registry::client::Credentials;
use crate::registry::manners::Manners;
use crate::registry::outbound::Outbound;
use crate::store::seal::Sealed;
use crate::store::table::{Writer, prefix};

/// Most registries: each is a name to try in every lookup without one.
const MAX_REGISTRIES: usize = 1_000;

/// A registry after a change.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The registry as it is now.
    pub(crate) registry: Arc<Registry>,
    /// See [`Registry::dropped`].
    dropped: Vec<&'static str>,
}

impl Changed {
    /// What the admin who changed it must know, if anything.
    pub(crate) fn note(&self) -> Option<String> {
        let (what, host) = (self.dropped.join(", "), &self.registry.host);
        (!what.is_empty()).then(|| {
            format!(
                "dropped, because {host} is at another address now, or behind another proxy: {what}; give them again if \
                 they are for that one"
            )
        })
    }
}

impl Catalog {
    /// All registries, ordered by name. For super-admins.
    pub(crate) fn registries(&self, caller: &Caller) -> Result<Vec<Arc<Registry>>> {
        caller.require_superadmin("container_registries")?;
        Ok(self.index.read().registries().cloned().collect())
    }

    /// One registry. For super-admins.
    pub(crate) fn registry(&self, caller: &Caller, host: &str) -> Result<Arc<Registry>> {
        caller.require_superadmin("container_registry")?;
        self.find_registry(host)
    }

    /// Adds a registry.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a registry of this name exists, [`Error::Invalid`] for properties that make no sense.
    pub async fn add_registry(
        &self,
        caller: &Caller,
        host: &str,
        change: RegistryChange,
    ) -> Result<Arc<Registry>> {
        self.audit
            .superadmin(caller, "create_container_registry", host, |deed| async move {
                let registry = Registry::new(host.trim())?.changed(&change)?;
                let registry = self.with_passwords(registry, change)?;
                self.check_source(&registry)?;
                let catalog = self.clone();
                deed.write(move |w| {
                    catalog.check_room_for(&registry.host)?;
                    catalog.put_registry(w, registry)
                })
                .await
            })
            .await
    }

    fn check_room_for(&self, host: &str) -> Result<()> {
        let index = self.index.read();
        if let Some(known) = index.registry(host) {
            let known = &known.host;
            return Err(Error::Exists(format!("there is a registry {known} already; modify it instead")));
        }
        if index.registries().count() >= MAX_REGISTRIES {
            return Err(Error::LimitReached(format!(
                "there are {MAX_REGISTRIES} registries, which is the most"
            )));
        }
        Ok(())
    }

    /// Changes a registry. Properties given for one server are not sent to another: see [`Registry::changed`].
    ///
    /// # Errors
    /// [`Error::Missing`] when no registry has this name, [`Error::Invalid`] for properties that make no sense.
    pub(crate) async fn change_registry(
        &self,
        caller: &Caller,
        host: &str,
        change: RegistryChange,
    ) -> Result<Changed> {
        let (catalog, name) = (self.clone(), host.trim().to_owned());
        self.audit
            .superadmin(caller, "modify_container_registry", host, |deed| async move {
                deed.write(move |w| {
                    let before = catalog.find_registry(&name)?;
                    let registry = before.as_ref().clone().changed(&change)?;
                    let dropped = registry.dropped(&before, &change);
                    if registry.url.origin() != before.url.origin() {
                        Self::forget_served(w, &registry.host)?;
                    }
                    let registry = catalog.with_passwords(registry, change)?;
                    if registry.secret_source != before.secret_source {
                        catalog.check_source(&registry)?;
                    }
                    Ok(Changed { registry: catalog.put_registry(w, registry)?, dropped })
                })
                .await
            })
            .await
    }

    /// Removes a registry, with its images and their aliases.
    pub(crate) async fn remove_registry(&self, caller: &Caller, host: &str) -> Result<Arc<Registry>> {
        let (catalog, name) = (self.clone(), host.trim().to_owned());
        self.audit
            .superadmin(caller, "delete_container_registry", host, |deed| async move {
                deed.write(move |w| catalog.take_out_registry(w, &name)).await
            })
            .await
    }

    fn take_out_registry(&self, writer: &mut Writer, host: &str) -> Result<Arc<Registry>> {
        let registry = self.find_registry(host)?;
        let host = registry.host.clone();
        writer.remove(&REGISTRIES, &host)?;
        for key in writer.keys(&REPOSITORIES, prefix(&host))? {
            writer.remove(&REPOSITORIES, key)?;
        }
        Self::forget_served(writer, &host)?;
        let images: Vec<ImageId> =
            self.index.read().images_from(&format!("{host}/")).map(|image| image.id).collect();
        self.remove_images(writer, images)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().remove_registry(&host));
        Ok(registry)
    }

    /// Stores what a scan learned about how to ask a registry.
    pub(crate) async fn learn_manners(&self, host: &str, manners: Manners) -> Result<()> {
        let (catalog, host) = (self.clone(), host.to_owned());
        self.store
            .write(move |w| match catalog.find_registry(&host) {
                Ok(registry) if registry.manners != manners => {
                    catalog.put_registry(w, Registry { manners, ..registry.as_ref().clone() }).map(|_| ())
                }
                _ => Ok(()),
            })
            .await
    }

    /// The registry of this name, however it is spelt, without asking who the caller is; for scans.
    pub fn find_registry(&self, host: &str) -> Result<Arc<Registry>> {
        let index = self.index.read();
        index.registry(host).cloned().ok_or_else(|| {
            let names: Vec<_> = index.registries().map(|registry| registry.host.as_str()).take(20).collect();
            let known = if names.is_empty() {
                "none is added yet".into()
            } else {
                format!("there is: {}", names.join(", "))
            };
            Error::missing("registry", format!("{} ({known})", reference::shown(host)))
        })
    }

    /// The names of all registries; for scans.
    pub(crate) fn registry_hosts(&self) -> Vec<String> {
        self.index.read().registries().map(|registry| registry.host.clone()).collect()
    }

    /// The account with which to read a registry, as it is now.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the account is kept elsewhere, where it can't be had.
    pub(crate) fn registry_account(&self, registry: &Registry) -> Result<Option<Credentials>> {
        let Registry { host, username, password, secret_source, .. } = registry;
        if let Some(source) = secret_source {
            // By where requests go, not by the registry's name here: a file binds an account to a host.
            let url = &registry.url;
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let at = format!("{}{port}", url.host_str().unwrap_or_default());
            return self.secrets.read(source, &at, username.as_deref()).map(Some);
        }
        let open = |sealed: &Sealed| self.store.seal().open(&purpose(host), sealed);
        let account = username.clone().zip(password.as_ref().map(open).transpose()?);
        Ok(account.map(|(username, password)| Credentials { username, password }))
    }

    /// Refuses a registry whose source of credentials can't be used.
    fn check_source(&self, registry: &Registry) -> Result<()> {
        if registry.secret_source.is_none() {
            return Ok(());
        }
        let read = self.registry_account(registry);
        read.map(|_| ()).map_err(|error| Error::invalid("password", error.to_string()))
    }

    fn with_passwords(&self, registry: Registry, change: RegistryChange) -> Result<Registry> {
        let mut registry = self.with_password(registry, change.password)?;
        let typed = change.proxy.as_ref().map(Proxy::typed).transpose()?.flatten();
        if let (Some(Proxy::Through { password, .. }), Some((_, Some(typed)))) = (&mut registry.proxy, typed)
        {
            *password = Some(self.store.seal().seal(&proxy_purpose(&registry.host), &typed)?);
        }
        Ok(registry)
    }

    /// Through which proxies a registry is reached.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the environment names a proxy that can't be used.
    pub(crate) fn way_to(&self, registry: &Registry) -> Result<Outbound> {
        match &registry.proxy {
            None => Outbound::of_environment().map_err(Error::Unreachable),
            Some(Proxy::Direct) => Ok(Outbound::default()),
            Some(Proxy::Through { url, password }) => {
                let mut url = url.clone();
                if let Some(sealed) = password {
                    let password = self.store.seal().open(&proxy_purpose(&registry.host), sealed)?;
                    url.set_password(Some(password.expose())).map_err(|()| {
                        Error::Unreachable(format!("{}: its proxy takes no password", registry.host))
                    })?;
                }
                Ok(Outbound::through(url))
            }
        }
    }

    fn with_password(&self, registry: Registry, password: Option<Secret>) -> Result<Registry> {
        let password = match password {
            None => registry.password.clone(),
            Some(password) if password.expose().is_empty() => None,
            Some(password) if password.expose().len() > MAX_PASSWORD => {
                return Err(Error::invalid("password", format!("it may have {MAX_PASSWORD} bytes at most")));
            }
            Some(password) => Some(self.store.seal().seal(&purpose(&registry.host), &password)?),
        };
        Ok(Registry { password, ..registry })
    }

    fn put_registry(&self, writer: &mut Writer, registry: Registry) -> Result<Arc<Registry>> {
        writer.put(&REGISTRIES, &registry.host, &registry)?;
        let index = Arc::clone(&self.index);
        let kept = registry.clone();
        writer.on_commit(move || index.write().put_registry(kept));
        Ok(Arc::new(registry))
    }
}

fn proxy_purpose(host: &str) -> String {
    format!("registry/{host}/proxy")
}

fn purpose(host: &str) -> String {
    format!("registry/{host}/password")
}
