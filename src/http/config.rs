//! `/config/*`: the registries as the configuration keys that Backend.AI's clients edit. Clients before 24.9 have no
//! other way to add a registry.

use std::collections::{BTreeMap, BTreeSet};

use poem::web::Data;
use poem::{Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::caller::Caller;
use crate::access::visibility::ImageFilter;
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::catalog::registry::{PASSWORD_SET, Registry, RegistryChange};
use crate::catalog::service::Catalog;
use crate::http::caller::Proved;
use crate::http::json::{Sent, answer};
use crate::http::keys;
use crate::http::problem::Problem;

/// The path of the registries.
const REGISTRIES: [&str; 3] = ["config", "docker", "registry"];
/// The path of the aliases.
const ALIASES: &str = "images/_aliases";
/// When a node pulls an image by itself, and wharf's answer: by digest, and never without being told to.
const AUTO_PULL: (&str, &str) = ("config/docker/image/auto_pull", "digest");

/// Selects keys.
#[derive(Deserialize)]
pub(crate) struct Which {
    key: String,
    /// Whether it selects every key that begins with these characters.
    #[serde(default)]
    prefix: bool,
}

/// A key and its new value.
#[derive(Deserialize)]
pub(crate) struct Setting {
    key: String,
    value: Value,
}

/// `POST /config/get`: reads keys.
#[handler]
pub(crate) fn get(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(which): Sent<Which>,
) -> Result<Response, Problem> {
    caller.require_superadmin("get_config")?;
    let key = keys::normal(&which.key);
    let pairs = pairs(&caller, catalog, &key)?;
    let result = if which.prefix {
        Value::Object(keys::tree(&key, &pairs))
    } else {
        pairs.into_iter().find(|(known, _)| *known == key).map_or(Value::Null, |(_, value)| value.into())
    };
    answer(&json!({ "result": result }))
}

/// `POST /config/set`: one value, or a tree of them.
#[handler]
pub(crate) async fn set(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(setting): Sent<Setting>,
) -> Result<Response, Problem> {
    catalog.require_superadmin(&caller, "set_config", &setting.key).await?;
    let mut changes: BTreeMap<String, RegistryChange> = BTreeMap::new();
    for (key, value) in keys::leaves(&setting.key, &setting.value)? {
        if (key.as_str(), value.as_str()) == AUTO_PULL {
            continue;
        }
        let (host, property) = Property::at(&key)?;
        property.put(changes.entry(host).or_default(), value)?;
    }
    let mut notes = Vec::new();
    for (host, change) in changes {
        notes.extend(put(&caller, catalog, &host, change).await?);
    }
    if notes.is_empty() {
        return answer(&json!({ "result": "ok" }));
    }
    answer(&json!({ "result": "ok", "msg": notes.join("; ") }))
}

/// `POST /config/delete`: deletes one key, or all that begin with these characters.
#[handler]
pub(crate) async fn delete(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(which): Sent<Which>,
) -> Result<Response, Problem> {
    catalog.require_superadmin(&caller, "delete_config", &which.key).await?;
    let key = keys::normal(&which.key);
    let found: Vec<String> = if which.prefix {
        // Deleting a registry deletes its images, so only registries that are named are deleted.
        let start = keys::join(REGISTRIES);
        if key.strip_prefix(&start).is_none_or(|rest| rest.len() <= "/".len()) {
            return Err(unknown(&which.key).into());
        }
        let all = pairs(&caller, catalog, &key)?.into_iter().map(|(known, _)| known);
        all.filter(|known| known.starts_with(&key)).collect()
    } else {
        vec![key]
    };
    if found.is_empty() {
        return Err(Error::missing("key", format!("{} with anything behind it", shown(&which.key))).into());
    }
    let mut gone = BTreeSet::new();
    for key in found {
        let (host, property) = Property::at(&key)?;
        if gone.contains(&host) {
            continue;
        }
        if property == Property::Url {
            catalog.remove_registry(&caller, &host).await?;
            gone.insert(host);
        } else {
            catalog.change_registry(&caller, &host, property.cleared()).await?;
        }
    }
    answer(&json!({ "result": "ok" }))
}

/// Changes or adds a registry, and returns what the client should know about it.
async fn put(
    caller: &Caller,
    catalog: &Catalog,
    host: &str,
    change: RegistryChange,
) -> Result<Option<String>> {
    if catalog.registry(caller, host).is_ok() {
        return Ok(catalog.change_registry(caller, host, change).await?.note());
    }
    if change.url.is_some() {
        catalog.add_registry(caller, host, change).await?;
    } else {
        let key = keys::join(REGISTRIES.into_iter().chain([host]));
        return Err(Error::missing("registry", format!("{}; set {key} to its URL first", shown(host))));
    }
    Ok(None)
}

/// Returns every key that may begin with this text, in order; others may be among them.
fn pairs(caller: &Caller, catalog: &Catalog, start: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = vec![(AUTO_PULL.0.to_owned(), AUTO_PULL.1.to_owned())];
    for registry in catalog.registries(caller)? {
        pairs.extend(of_registry(&registry));
    }
    if ALIASES.starts_with(start) || start.starts_with(ALIASES) {
        for image in catalog.images(caller, &ImageFilter::default())? {
            let canonical = image.record.canonical();
            let key = |alias: &str| format!("{ALIASES}/{}", keys::join([alias]));
            pairs.extend(image.aliases.iter().map(|alias| (key(alias), canonical.to_string())));
        }
    }
    pairs.sort();
    Ok(pairs)
}

fn of_registry(registry: &Registry) -> Vec<(String, String)> {
    let key = |property: Option<&'static str>| {
        keys::join(REGISTRIES.into_iter().chain([registry.host.as_str()]).chain(property))
    };
    let shown = |property: Property| match property {
        Property::Url => Some(registry.written_url().to_owned()),
        Property::Type => Some(registry.kind.to_string()),
        Property::Username => registry.username.clone(),
        Property::Password => registry.password.as_ref().map(|_| PASSWORD_SET.into()),
        Property::Project => registry.written_projects(),
        Property::SslVerify => (!registry.ssl_verify).then(|| "false".into()),
    };
    PROPERTIES.into_iter().filter_map(|(property, name)| Some((key(name), shown(property)?))).collect()
}

/// The property that a key below a registry's key sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Url,
    Type,
    Username,
    Password,
    Project,
    SslVerify,
}

/// The properties, each with the last part of its key. The URL is the value of the registry's own key.
const PROPERTIES: [(Property, Option<&str>); 6] = [
    (Property::Url, None),
    (Property::Type, Some("type")),
    (Property::Username, Some("username")),
    (Property::Password, Some("password")),
    (Property::Project, Some("project")),
    (Property::SslVerify, Some("ssl_verify")),
];

impl Property {
    /// Returns the registry and property that a key names.
    fn at(key: &str) -> Result<(String, Self)> {
        let components = keys::components(key);
        let parts: Vec<&str> = components.iter().map(String::as_str).collect();
        let (host, last) = match parts.as_slice() {
            [a, b, c, host] if [*a, *b, *c] == REGISTRIES => (*host, None),
            [a, b, c, host, last] if [*a, *b, *c] == REGISTRIES => (*host, Some(last.replace('-', "_"))),
            _ => return Err(unknown(key)),
        };
        let known = PROPERTIES.iter().find(|(_, name)| *name == last.as_deref());
        match known {
            Some((property, _)) if !host.is_empty() => Ok((host.to_owned(), *property)),
            _ => Err(unknown(key)),
        }
    }

    fn put(self, change: &mut RegistryChange, value: String) -> Result<()> {
        match self {
            Self::Url => change.url = Some(value),
            Self::Type => change.kind = Some(value),
            Self::Username => change.username = Some(value),
            // Scripts write back the placeholder that they were shown.
            Self::Password if value == PASSWORD_SET => {}
            Self::Password => change.password = Some(Secret::new(value)),
            Self::Project => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                change.projects = Some(names.map(str::to_owned).collect());
            }
            Self::SslVerify => {
                change.ssl_verify = Some(match value.to_ascii_lowercase().as_str() {
                    "true" | "1" | "yes" => true,
                    "false" | "0" | "no" => false,
                    _ => return Err(Error::invalid("ssl_verify", "it must be true or false")),
                });
            }
        }
        Ok(())
    }

    /// Returns the change that clears the property.
    fn cleared(self) -> RegistryChange {
        let mut change = RegistryChange::default();
        match self {
            Self::Url => {}
            Self::Type => change.kind = Some("docker".into()),
            Self::Username => change.username = Some(String::new()),
            Self::Password => change.password = Some(Secret::new("")),
            Self::Project => change.projects = Some(Vec::new()),
            Self::SslVerify => change.ssl_verify = Some(true),
        }
        change
    }
}

fn unknown(key: &str) -> Error {
    let below: Vec<&str> = PROPERTIES.iter().filter_map(|(_, name)| *name).collect();
    let registry = keys::join(REGISTRIES);
    Error::invalid(
        "key",
        format!(
            "{:?} can't be changed; what can: {registry}/<name>, which holds a registry's URL, and below it {}",
            shown(key),
            below.join(", ")
        ),
    )
}
