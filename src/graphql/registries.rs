//! Registries, under the names Backend.AI gave their administration.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::base::secret::Secret;
use crate::catalog::registries::Changed;
use crate::catalog::registry::{PASSWORD_SET, Registry, RegistryChange};
use crate::catalog::service::Catalog;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::outcome::{Done, outcome};
use crate::scan::service::Scanner;

/// A registry.
pub(crate) struct ContainerRegistry(Arc<Registry>);

#[Object(rename_fields = "snake_case")]
impl ContainerRegistry {
    /// Its host.
    async fn id(&self) -> async_graphql::ID {
        self.0.host.as_str().into()
    }

    /// What image names of this registry begin with: its host, with the port if it has one.
    async fn hostname(&self) -> Option<&str> {
        Some(&self.0.host)
    }

    /// How it is reached and read.
    async fn config(&self) -> Option<ContainerRegistryConfig> {
        Some(ContainerRegistryConfig(Arc::clone(&self.0)))
    }
}

/// How a registry is reached and read.
pub(crate) struct ContainerRegistryConfig(Arc<Registry>);

#[Object(rename_fields = "snake_case")]
impl ContainerRegistryConfig {
    /// Where it answers.
    async fn url(&self) -> &str {
        self.0.written_url()
    }

    /// Its software: `docker`, `harbor2`, ...
    #[graphql(name = "type")]
    async fn kind(&self) -> String {
        self.0.kind.to_string()
    }

    /// Only repositories of these names, or below them; empty for all.
    async fn project(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.projects.iter().map(|name| Some(name.as_str())).collect())
    }

    /// The account it is read with.
    async fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    /// `*****` if one is set.
    async fn password(&self) -> Option<&str> {
        self.0.password.as_ref().map(|_| PASSWORD_SET)
    }

    /// Whether its TLS certificate is checked.
    async fn ssl_verify(&self) -> Option<bool> {
        Some(self.0.ssl_verify)
    }

    /// Whether it is meant for every domain.
    async fn is_global(&self) -> Option<bool> {
        Some(self.0.is_global)
    }

    /// Whether only images labelled for Backend.AI are taken from it.
    async fn kernelspec_only(&self) -> bool {
        self.0.kernelspec_only
    }

    /// Hosts besides its own that its requests and credentials may go to.
    async fn trusted_hosts(&self) -> &[String] {
        &self.0.trusted_hosts
    }

    /// Certificates trusted for it, in PEM.
    async fn ca_pem(&self) -> Option<&str> {
        self.0.ca_pem.as_deref()
    }
}

macro_rules! props {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(InputObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// Where it answers; `https://` and the host name if not given.
            url: Option<String>,
            /// Its software: `docker`, `harbor2`, ...
            #[graphql(name = "type")]
            kind: Option<String>,
            /// Only repositories of these names, or below them.
            project: Option<Vec<Option<String>>>,
            /// The account to read it with; empty for none.
            username: Option<String>,
            /// That account's password or token; empty for none.
            password: Option<String>,
            /// Whether its TLS certificate is checked; true if not given.
            ssl_verify: Option<bool>,
            /// Whether it is meant for every domain; true if not given.
            is_global: Option<bool>,
            /// Take only images labelled for Backend.AI; false if not given.
            kernelspec_only: Option<bool>,
            /// Hosts besides its own that its requests and credentials may go to.
            trusted_hosts: Option<Vec<String>>,
            /// Certificates to trust for it, in PEM; empty for none.
            ca_pem: Option<String>,
        }

        impl From<$name> for RegistryChange {
            fn from(props: $name) -> Self {
                Self {
                    url: props.url,
                    kind: props.kind,
                    projects: props.project.map(|names| names.into_iter().flatten().collect()),
                    username: props.username,
                    // Clients write back what they were shown.
                    password: props.password.filter(|text| text != PASSWORD_SET).map(Secret::new),
                    ssl_verify: props.ssl_verify,
                    is_global: props.is_global,
                    kernelspec_only: props.kernelspec_only,
                    trusted_hosts: props.trusted_hosts,
                    ca_pem: props.ca_pem,
                }
            }
        }
    };
}

props!(
    /// A new registry.
    CreateContainerRegistryInput
);
props!(
    /// Changes to a registry; what is null stays as it is.
    ModifyContainerRegistryInput
);

macro_rules! payload {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub(crate) struct $name {
            /// The registry.
            container_registry: Option<ContainerRegistry>,
        }

        impl From<Arc<Registry>> for $name {
            fn from(registry: Arc<Registry>) -> Self {
                Self { container_registry: Some(ContainerRegistry(registry)) }
            }
        }
    };
}

payload!(
    /// The registry that was added.
    CreateContainerRegistry
);
/// The registry as it is now.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyContainerRegistry {
    /// The registry.
    container_registry: Option<ContainerRegistry>,
    /// What was dropped, if anything was: a registry that moves to another scheme, host or port keeps no password,
    /// certificates or trusted hosts but those that come in the same change.
    msg: Option<String>,
}

impl From<Changed> for ModifyContainerRegistry {
    fn from(changed: Changed) -> Self {
        let msg = changed.note();
        Self { container_registry: Some(ContainerRegistry(changed.registry)), msg }
    }
}

payload!(
    /// The registry as it was.
    DeleteContainerRegistry
);

outcome!(
    /// Whether a registry can be read; `msg` says what it can do, or what failed.
    TestContainerRegistry
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct RegistryQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RegistryQuery {
    /// One registry, by its host.
    async fn container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
    ) -> FieldResult<Option<ContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(ContainerRegistry(catalog.registry(caller, &hostname)?)))
    }

    /// All registries, by host.
    async fn container_registries(
        &self,
        ctx: &Context<'_>,
    ) -> FieldResult<Option<Vec<Option<ContainerRegistry>>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(
            catalog
                .registries(caller)?
                .into_iter()
                .map(|registry| Some(ContainerRegistry(registry)))
                .collect(),
        ))
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct RegistryMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RegistryMutation {
    /// Adds a registry. Its images come with `rescan_images`.
    async fn create_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: CreateContainerRegistryInput,
    ) -> FieldResult<Option<CreateContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.add_registry(caller, &hostname, props.into()).await?.into()))
    }

    /// Changes a registry. One that moves to another scheme, host or port keeps no password, certificates or trusted
    /// hosts but those that come in the same change.
    async fn modify_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: ModifyContainerRegistryInput,
    ) -> FieldResult<Option<ModifyContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.change_registry(caller, &hostname, props.into()).await?.into()))
    }

    /// Takes a registry out, with its images and their aliases.
    async fn delete_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
    ) -> FieldResult<Option<DeleteContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.remove_registry(caller, &hostname).await?.into()))
    }

    /// Tries to sign in to a registry and to list its repositories, and says what came of it.
    async fn test_container_registry(&self, ctx: &Context<'_>, hostname: String) -> TestContainerRegistry {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        scanner.test(caller, &hostname).await.map(Done::saying).into()
    }
}
