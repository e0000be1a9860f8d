//! Registries, under the names of Backend.AI's administration API.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::base::secret::Secret;
use crate::catalog::proxy::Proxy;
use crate::catalog::registries::Changed;
use crate::catalog::registry::{PASSWORD_SET, Registry, RegistryChange};
use crate::catalog::secrets::SecretSource;
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

    /// How the registry is reached and read.
    async fn config(&self) -> Option<ContainerRegistryConfig> {
        Some(ContainerRegistryConfig(Arc::clone(&self.0)))
    }
}

/// How a registry is reached and read.
pub(crate) struct ContainerRegistryConfig(Arc<Registry>);

#[Object(rename_fields = "snake_case")]
impl ContainerRegistryConfig {
    /// The address at which it answers.
    async fn url(&self) -> &str {
        self.0.written_url()
    }

    /// Its software: `docker`, `harbor2`, ...
    #[graphql(name = "type")]
    async fn kind(&self) -> String {
        self.0.kind.to_string()
    }

    /// If not empty, only these repositories and repositories below them are read.
    async fn project(&self) -> Option<Vec<Option<&str>>> {
        Some(self.0.projects.iter().map(|name| Some(name.as_str())).collect())
    }

    /// The account that the server reads it with.
    async fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    /// `*****` if one is set.
    async fn password(&self) -> Option<&str> {
        self.0.password.as_ref().map(|_| PASSWORD_SET)
    }

    /// The file below the server's directory of credentials that has the password, if one is named.
    async fn password_file(&self) -> Option<&str> {
        match &self.0.secret_source {
            Some(SecretSource::PasswordFile(name)) => Some(name),
            _ => None,
        }
    }

    /// The variable of the server's environment that has the password, if one is named.
    async fn password_env(&self) -> Option<&str> {
        match &self.0.secret_source {
            Some(SecretSource::PasswordEnv(name)) => Some(name),
            _ => None,
        }
    }

    /// The file below the server's directory of credentials that has user and password, if one is named.
    async fn auth_file(&self) -> Option<&str> {
        match &self.0.secret_source {
            Some(SecretSource::AuthFile(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether the server checks its TLS certificate.
    async fn ssl_verify(&self) -> Option<bool> {
        Some(self.0.ssl_verify)
    }

    /// Whether it is intended for every domain.
    async fn is_global(&self) -> Option<bool> {
        Some(self.0.is_global)
    }

    /// Whether the server takes only images with Backend.AI's labels from it.
    async fn kernelspec_only(&self) -> bool {
        self.0.kernelspec_only
    }

    /// Hosts besides its own to which the server may send its requests and credentials.
    async fn trusted_hosts(&self) -> &[String] {
        &self.0.trusted_hosts
    }

    /// How the server reaches it: a proxy's address without its password, or `direct`; null for the proxies that the
    /// server's environment names.
    async fn proxy(&self) -> Option<&str> {
        self.0.proxy.as_ref().map(Proxy::written)
    }

    /// Certificates to trust for it, in PEM.
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
            /// The address at which it answers; `https://` and the host name if not given.
            url: Option<String>,
            /// Its software: `docker`, `harbor2`, ...
            #[graphql(name = "type")]
            kind: Option<String>,
            /// Read only these repositories and repositories below them.
            project: Option<Vec<Option<String>>>,
            /// The account to read it with; an empty text for none.
            username: Option<String>,
            /// The account's password or token; an empty text for none.
            password: Option<String>,
            /// A file below the server's directory of credentials that has the password, read at each use; an empty text
            /// for none.
            password_file: Option<String>,
            /// A variable of the server's environment that has the password, its name beginning with `WHARF_REGISTRY_`;
            /// an empty text for none.
            password_env: Option<String>,
            /// A file below the server's directory of credentials that has user and password, in the form of Docker's
            /// `config.json`, read at each use; an empty text for none.
            auth_file: Option<String>,
            /// Whether to check its TLS certificate; true if not given.
            ssl_verify: Option<bool>,
            /// Whether it is intended for every domain; true if not given.
            is_global: Option<bool>,
            /// Whether to take only images with Backend.AI's labels; false if not given.
            kernelspec_only: Option<bool>,
            /// Hosts besides its own to which the server may send its requests and credentials.
            trusted_hosts: Option<Vec<String>>,
            /// Certificates to trust for it, in PEM; an empty text for none.
            ca_pem: Option<String>,
            /// How the server reaches it: a proxy, as in `http://user:password@proxy.lab:3128`, or `direct`; an empty text
            /// for the proxies that the server's environment names.
            proxy: Option<String>,
        }

        impl From<$name> for RegistryChange {
            fn from(props: $name) -> Self {
                Self {
                    url: props.url,
                    kind: props.kind,
                    projects: props.project.map(|names| names.into_iter().flatten().collect()),
                    username: props.username,
                    // Clients write back the placeholder that they were shown.
                    password: props.password.filter(|text| text != PASSWORD_SET).map(Secret::new),
                    password_file: props.password_file,
                    password_env: props.password_env,
                    auth_file: props.auth_file,
                    ssl_verify: props.ssl_verify,
                    is_global: props.is_global,
                    kernelspec_only: props.kernelspec_only,
                    trusted_hosts: props.trusted_hosts,
                    ca_pem: props.ca_pem,
                    proxy: props.proxy.map(Secret::new),
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
    /// Changes to a registry. A field that is null keeps its value.
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
    /// The added registry.
    CreateContainerRegistry
);
/// The registry after the change.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyContainerRegistry {
    /// The registry.
    container_registry: Option<ContainerRegistry>,
    /// What the change dropped, if anything. A registry that moves to another scheme, host or port loses its
    /// password, certificates and trusted hosts, and one behind another proxy its password, except those given in the
    /// same change.
    msg: Option<String>,
}

impl From<Changed> for ModifyContainerRegistry {
    fn from(changed: Changed) -> Self {
        let msg = changed.note();
        Self { container_registry: Some(ContainerRegistry(changed.registry)), msg }
    }
}

payload!(
    /// The registry before it was deleted.
    DeleteContainerRegistry
);

outcome!(
    /// Whether the server can read a registry; `msg` says what the registry can do, or what failed.
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
    /// Adds a registry. Run `rescan_images` to read its images.
    async fn create_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: CreateContainerRegistryInput,
    ) -> FieldResult<Option<CreateContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.add_registry(caller, &hostname, props.into()).await?.into()))
    }

    /// Changes a registry. A registry that moves to another scheme, host or port loses its password, certificates and
    /// trusted hosts, and one behind another proxy its password, except those given in the same change.
    async fn modify_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
        props: ModifyContainerRegistryInput,
    ) -> FieldResult<Option<ModifyContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.change_registry(caller, &hostname, props.into()).await?.into()))
    }

    /// Deletes a registry with its images and their aliases.
    async fn delete_container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
    ) -> FieldResult<Option<DeleteContainerRegistry>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Ok(Some(catalog.remove_registry(caller, &hostname).await?.into()))
    }

    /// Tries to sign in to a registry and to list its repositories, and reports the result.
    async fn test_container_registry(&self, ctx: &Context<'_>, hostname: String) -> TestContainerRegistry {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        scanner.test(caller, &hostname).await.map(Done::saying).into()
    }
}
