//! A registry, as an admin describes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::secret::Secret;
use crate::base::{Error, Result, reference};
use crate::catalog::proxy::Proxy;
use crate::catalog::secrets::SecretSource;
use crate::registry::manners::Manners;
use crate::store::seal::Sealed;

/// The text shown for a password that is set: the password itself never leaves the server.
pub(crate) const PASSWORD_SET: &str = "*****";
/// Longest list of projects or trusted hosts of one registry.
const MAX_LIST: usize = 200;
/// Longest CA bundle, in bytes; a bundle of all public roots is a quarter of a MiB.
const MAX_CA: usize = 1024 * 1024;

/// The software that a registry runs (Backend.AI's `ContainerRegistryType`). All are read by the OCI distribution
/// protocol, so this is information for the admin, not a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistryKind {
    /// Any OCI or Docker registry.
    Docker,
    /// Harbor 1.
    Harbor,
    /// Harbor 2.
    Harbor2,
    /// GitHub's registry.
    Github,
    /// GitLab's registry.
    Gitlab,
    /// Amazon's private registry.
    Ecr,
    /// Amazon's public registry.
    EcrPublic,
    /// `OpenShift`'s registry.
    Ocp,
}

const KINDS: [(RegistryKind, &str); 8] = [
    (RegistryKind::Docker, "docker"),
    (RegistryKind::Harbor, "harbor"),
    (RegistryKind::Harbor2, "harbor2"),
    (RegistryKind::Github, "github"),
    (RegistryKind::Gitlab, "gitlab"),
    (RegistryKind::Ecr, "ecr"),
    (RegistryKind::EcrPublic, "ecr-public"),
    (RegistryKind::Ocp, "ocp"),
];

impl fmt::Display for RegistryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(kind, _)| kind == self).map_or("docker", |(_, name)| name))
    }
}

impl FromStr for RegistryKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(_, name)| *name).collect();
            Error::invalid("type", format!("{text:?} is none of {}", names.join(", ")))
        })
    }
}

/// A registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// The registry's name in the catalog: the host that image names begin with.
    pub(crate) host: String,
    /// The registry's address.
    pub(crate) url: Url,
    /// The software it runs.
    pub(crate) kind: RegistryKind,
    /// Read only repositories with these names, or below them; an empty list means all.
    #[serde(default)]
    pub(crate) projects: Vec<String>,
    /// The account with which to read it.
    #[serde(default)]
    pub(crate) username: Option<String>,
    /// That account's password or token.
    #[serde(default)]
    pub password: Option<Sealed>,
    /// Where its credentials are, if the server does not keep them itself.
    #[serde(default)]
    pub(crate) secret_source: Option<SecretSource>,
    /// Whether its TLS certificate is checked.
    pub(crate) ssl_verify: bool,
    /// Whether it is meant for every domain (kept for Backend.AI's clients).
    pub(crate) is_global: bool,
    /// Whether only images labelled for Backend.AI (`ai.backend.kernelspec`) are taken.
    #[serde(default)]
    pub(crate) kernelspec_only: bool,
    /// Hosts besides the registry's own that its credentials and requests may go to.
    #[serde(default)]
    pub(crate) trusted_hosts: Vec<String>,
    /// Certificates to trust for it, in PEM.
    #[serde(default)]
    pub(crate) ca_pem: Option<String>,
    /// How it is reached; `None` for the way that the environment names.
    #[serde(default)]
    pub(crate) proxy: Option<Proxy>,
    /// What was learned from its answers.
    #[serde(default)]
    pub(crate) manners: Manners,
}

/// The properties of a registry that an admin sets; `None` leaves one as it is, or takes the default.
#[derive(Debug, Clone, Default)]
pub struct RegistryChange {
    /// See [`Registry::url`]; default `https://<host>`, or `http://` on the loopback interface.
    pub(crate) url: Option<String>,
    /// See [`Registry::kind`].
    pub(crate) kind: Option<String>,
    /// See [`Registry::projects`].
    pub(crate) projects: Option<Vec<String>>,
    /// See [`Registry::username`]; empty removes it.
    pub(crate) username: Option<String>,
    /// See [`Registry::password`]; empty removes it.
    pub(crate) password: Option<Secret>,
    /// See [`SecretSource::PasswordFile`]; empty removes it.
    pub(crate) password_file: Option<String>,
    /// See [`SecretSource::PasswordEnv`]; empty removes it.
    pub(crate) password_env: Option<String>,
    /// See [`SecretSource::AuthFile`]; empty removes it.
    pub(crate) auth_file: Option<String>,
    /// See [`Registry::ssl_verify`].
    pub(crate) ssl_verify: Option<bool>,
    /// See [`Registry::is_global`].
    pub(crate) is_global: Option<bool>,
    /// See [`Registry::kernelspec_only`].
    pub(crate) kernelspec_only: Option<bool>,
    /// See [`Registry::trusted_hosts`].
    pub(crate) trusted_hosts: Option<Vec<String>>,
    /// See [`Registry::ca_pem`]; empty removes it.
    pub(crate) ca_pem: Option<String>,
    /// See [`Proxy::typed`]; empty for the way that the environment names.
    pub(crate) proxy: Option<Secret>,
}

impl Registry {
    /// Whether a registry described like this serves the same images as one described like `other`.
    pub(crate) fn has_the_images_of(&self, other: &Self) -> bool {
        self.url == other.url
            && self.projects == other.projects
            && self.kernelspec_only == other.kernelspec_only
    }

    /// A registry of this name with the defaults; a URL gives its name and its address.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is not a host.
    pub(crate) fn new(host: &str) -> Result<Self> {
        let Some(typed) = reference::typed_registry(host) else {
            return Err(Error::invalid(
                "hostname",
                format!("{:?} is no host or host:port, such as cr.example.org:5000", reference::shown(host)),
            ));
        };
        let host = typed.name;
        let url = typed.url.map_or_else(|| Url::parse(&reference::registry_url(&host)), Ok);
        let url = url.map_err(|why| Error::invalid("hostname", format!("{host:?}: {why}")))?;
        Ok(Self {
            host,
            url,
            kind: RegistryKind::Docker,
            projects: Vec::new(),
            username: None,
            password: None,
            secret_source: None,
            ssl_verify: true,
            is_global: true,
            kernelspec_only: false,
            trusted_hosts: Vec::new(),
            ca_pem: None,
            proxy: None,
            manners: Manners::default(),
        })
    }

    /// The registry after a change, except for new passwords, which the caller seals.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the property and says what it must be.
    pub(crate) fn changed(mut self, change: &RegistryChange) -> Result<Self> {
        if let Some(url) = &change.url {
            let url = parse_url(url)?;
            if url.origin() != self.url.origin() {
                // They were meant for another server, and the one that answers here must not get them.
                (self.password, self.secret_source) = (None, None);
                (self.ca_pem, self.trusted_hosts) = (None, Vec::new());
            }
            self.url = url;
            // What was learned is about another server.
            self.manners = Manners::default();
        }
        if let Some(kind) = &change.kind {
            self.kind = kind.parse()?;
        }
        if let Some(projects) = &change.projects {
            self.projects =
                checked(projects, "project", reference::is_repository, "a repository name, such as stable")?;
        }
        if let Some(hosts) = &change.trusted_hosts {
            self.trusted_hosts =
                checked(hosts, "trusted_hosts", reference::is_registry_host, "a host or host:port")?;
        }
        if let Some(username) = &change.username {
            let sound = username.len() <= 256 && !username.contains([':', '\r', '\n', '\0']);
            if !sound {
                return Err(Error::invalid("username", "it may have 256 bytes, and no ':' or line break"));
            }
            self.username = Some(username.clone()).filter(|name| !name.is_empty());
        }
        // What was shown has no password in it; written back, it changes nothing.
        let written = self.proxy.as_ref().map(Proxy::written);
        if let Some(proxy) = change.proxy.as_ref().filter(|text| Some(text.expose().trim()) != written) {
            let proxy = Proxy::typed(proxy)?.map(|(proxy, _)| proxy);
            if let Some(Proxy::Through { .. }) = &proxy
                && proxy.as_ref().map(Proxy::written) != written
            {
                // As with another address: where TLS is not checked, a proxy may answer in the registry's place.
                (self.password, self.secret_source) = (None, None);
            }
            self.proxy = proxy;
        }
        self.change_secret_source(change)?;
        if let Some(ca_pem) = &change.ca_pem {
            if ca_pem.len() > MAX_CA || !(ca_pem.is_empty() || ca_pem.contains("-----BEGIN CERTIFICATE-----"))
            {
                return Err(Error::invalid("ca_pem", "it must be certificates in PEM, 1 MiB at most"));
            }
            self.ca_pem = Some(ca_pem.clone()).filter(|pem| !pem.is_empty());
        }
        self.ssl_verify = change.ssl_verify.unwrap_or(self.ssl_verify);
        self.is_global = change.is_global.unwrap_or(self.is_global);
        self.kernelspec_only = change.kernelspec_only.unwrap_or(self.kernelspec_only);
        Ok(self)
    }

    /// Takes the one source of credentials that a change names.
    fn change_secret_source(&mut self, change: &RegistryChange) -> Result<()> {
        let named = change.named_sources();
        let has_password = change.password.as_ref().is_some_and(|password| !password.expose().is_empty());
        if named.len() + usize::from(has_password) > 1 {
            let why = "give one of password, password_file, password_env and auth_file";
            return Err(Error::invalid("password", why));
        }
        if change.removes(self.secret_source.as_ref()) {
            self.secret_source = None;
        }
        if let Some(source) = named.into_iter().next() {
            (self.password, self.secret_source) = (None, Some(source));
        }
        Ok(())
    }

    /// The properties that a change dropped though the caller did not ask for it: those that belonged to the old
    /// address, or the old way to it.
    pub(crate) fn dropped(&self, before: &Self, change: &RegistryChange) -> Vec<&'static str> {
        let is_given = change.password.is_some() || !change.named_sources().is_empty();
        let password = before.password.is_some() && self.password.is_none() && !is_given;
        let source = before.secret_source.is_some() && self.secret_source.is_none() && !is_given;
        let source = source && !change.removes(before.secret_source.as_ref());
        let authorities = before.ca_pem.is_some() && self.ca_pem.is_none() && change.ca_pem.is_none();
        let hosts = self.trusted_hosts.is_empty() && change.trusted_hosts.is_none();
        let hosts = hosts && !before.trusted_hosts.is_empty();
        let all = [
            (password || source, "password"),
            (authorities, "certificate authorities"),
            (hosts, "trusted hosts"),
        ];
        all.into_iter().filter_map(|(is_dropped, name)| is_dropped.then_some(name)).collect()
    }

    /// Its URL as an admin most likely typed it: without the slash that stands for an empty path.
    pub(crate) fn written_url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The names of its projects in one text, for clients that don't know lists; `None` for all repositories.
    pub(crate) fn written_projects(&self) -> Option<String> {
        Some(self.projects.join(",")).filter(|names| !names.is_empty())
    }

    /// Whether the admin wants this repository of the registry.
    pub(crate) fn wants(&self, repository: &str) -> bool {
        self.projects.is_empty()
            || self.projects.iter().any(|project| reference::is_within(repository, project))
    }
}

impl RegistryChange {
    /// The sources of credentials that it names.
    fn named_sources(&self) -> Vec<SecretSource> {
        let given = |name: &Option<String>, source: fn(String) -> SecretSource| {
            let name = name.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
            Some(source(name.to_owned()))
        };
        let sources = [
            given(&self.password_file, SecretSource::PasswordFile),
            given(&self.password_env, SecretSource::PasswordEnv),
            given(&self.auth_file, SecretSource::AuthFile),
        ];
        sources.into_iter().flatten().collect()
    }

    /// Whether it takes this source of credentials away, by an empty name or by another password.
    fn removes(&self, source: Option<&SecretSource>) -> bool {
        let given = match source {
            None => return false,
            Some(SecretSource::PasswordFile(_)) => &self.password_file,
            Some(SecretSource::PasswordEnv(_)) => &self.password_env,
            Some(SecretSource::AuthFile(_)) => &self.auth_file,
        };
        self.password.is_some() || given.as_ref().is_some_and(|name| name.trim().is_empty())
    }
}

fn parse_url(text: &str) -> Result<Url> {
    let refuse = |why: &str| Err(Error::invalid("url", format!("{:?} {why}", reference::shown(text))));
    let Ok(url) = Url::parse(text.trim()) else { return refuse("is no URL, such as https://cr.example.org") };
    if !matches!(url.scheme(), "https" | "http") {
        return refuse("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid(
            "url",
            "leave the user and password out; they have properties of their own",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must have no ? and no #");
    }
    Ok(reference::api_url(url))
}

fn checked(
    given: &[String],
    field: &'static str,
    is_sound: fn(&str) -> bool,
    what: &str,
) -> Result<Vec<String>> {
    if given.len() > MAX_LIST {
        return Err(Error::invalid(
            field,
            format!("there are {} of them; {MAX_LIST} is the most", given.len()),
        ));
    }
    let mut list: Vec<String> =
        given.iter().map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    if let Some(bad) = list.iter().find(|name| !is_sound(name)) {
        return Err(Error::invalid(field, format!("{:?} is not {what}", reference::shown(bad))));
    }
    list.sort();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::{Registry, RegistryChange};

    #[test]
    fn a_registry_is_https_unless_it_is_on_this_machine() {
        for (host, url) in [
            ("cr.io", "https://cr.io/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
        ] {
            assert_eq!(Registry::new(host).unwrap().url.as_str(), url);
        }
        for (pasted, url) in [
            ("http://cr.io", "http://cr.io/"),
            ("https://cr.io/v2/", "https://cr.io/"),
            ("https://index.docker.io/v1/", "https://registry-1.docker.io/"),
            ("docker.io", "https://registry-1.docker.io/"),
        ] {
            assert_eq!(Registry::new(pasted).unwrap().url.as_str(), url);
        }
        let change = RegistryChange { url: Some("http://127.0.0.1:5000/v2/".into()), ..Default::default() };
        let changed = Registry::new("cr.io").unwrap().changed(&change).unwrap();
        assert_eq!(changed.url.as_str(), "http://127.0.0.1:5000/");
        assert!(Registry::new("ftp://cr.io").is_err());
    }

    #[test]
    fn a_change_that_makes_no_sense_names_the_property() {
        let registry = Registry::new("cr.io").unwrap();
        let text = |list: &[&str]| Some(list.iter().map(|&s| s.to_owned()).collect());
        for (change, field) in [
            (RegistryChange { url: Some("ftp://x".into()), ..Default::default() }, "url"),
            (RegistryChange { url: Some("https://u:p@x".into()), ..Default::default() }, "url"),
            (RegistryChange { url: Some("nonsense".into()), ..Default::default() }, "url"),
            (RegistryChange { kind: Some("local".into()), ..Default::default() }, "type"),
            (RegistryChange { projects: text(&["../x"]), ..Default::default() }, "project"),
            (RegistryChange { trusted_hosts: text(&["a/b"]), ..Default::default() }, "trusted_hosts"),
            (RegistryChange { username: Some("a:b".into()), ..Default::default() }, "username"),
            (RegistryChange { ca_pem: Some("x".into()), ..Default::default() }, "ca_pem"),
        ] {
            let refused = registry.clone().changed(&change).unwrap_err().to_string();
            assert!(refused.starts_with(field), "{refused}");
        }
    }

    #[test]
    fn what_was_given_for_one_server_is_not_another_ones() {
        let given = RegistryChange {
            url: Some("https://cr.io/".into()),
            ca_pem: Some("-----BEGIN CERTIFICATE-----".into()),
            trusted_hosts: Some(vec!["auth.io".into()]),
            ..Default::default()
        };
        let registry = Registry::new("cr.io").unwrap().changed(&given).unwrap();
        for url in ["https://cr.io", "https://cr.io:443/", "https://CR.io/below/"] {
            let change = RegistryChange { url: Some(url.into()), ..Default::default() };
            let same = registry.clone().changed(&change).unwrap();
            assert!(same.ca_pem.is_some() && !same.trusted_hosts.is_empty(), "{url}");
            assert!(same.dropped(&registry, &change).is_empty(), "{url}");
        }
        for url in ["http://cr.io", "https://cr.io:444", "https://cr.io.evil", "https://evil/cr.io"] {
            let change = RegistryChange { url: Some(url.into()), ..Default::default() };
            let moved = registry.clone().changed(&change).unwrap();
            assert_eq!((&moved.ca_pem, moved.trusted_hosts.as_slice()), (&None, &[] as &[String]), "{url}");
            assert_eq!(
                moved.dropped(&registry, &change),
                ["certificate authorities", "trusted hosts"],
                "{url}"
            );
            let back = moved.changed(&RegistryChange { url: given.url.clone(), ..Default::default() });
            assert!(back.unwrap().ca_pem.is_none(), "{url} and back");
            let anew = RegistryChange { url: Some(url.into()), ..given.clone() };
            let anew = registry.clone().changed(&anew).unwrap();
            assert!(anew.ca_pem.is_some() && !anew.trusted_hosts.is_empty(), "{url}");
        }
    }

    #[test]
    fn projects_take_whole_path_components() {
        let change = RegistryChange { projects: Some(vec!["stable".into()]), ..Default::default() };
        let registry = Registry::new("cr.io").unwrap().changed(&change).unwrap();
        for (repository, wanted) in
            [("stable/python", true), ("stable", true), ("stable2/x", false), ("x", false)]
        {
            assert_eq!(registry.wants(repository), wanted, "{repository}");
        }
    }
}
