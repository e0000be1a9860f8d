//! Credentials that a registry has from elsewhere: from a file or a variable that the operator of the server lets
//! registries name. They are read at each use, so that they can be changed without a restart.
//!
//! An admin of the API is not the operator of the machine: who could name any file could have the server send it to a
//! registry of theirs. So registries may only name files below one directory, and variables with one beginning, and no
//! message repeats what is in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{env, fmt};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::base::reference::{self, shown};
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::registry::client::Credentials;

/// What the names of variables begin with that registries may name.
const VARIABLE: &str = "WHARF_REGISTRY_";
/// Largest file with credentials, in bytes. That of an account at fifty registries has some 10 kB.
const MAX_FILE: u64 = 256 * 1024;
/// Largest password or token, in bytes.
pub(in crate::catalog) const MAX_PASSWORD: usize = 16 * 1024;
/// Longest name of a file or variable, in bytes.
const MAX_NAME: usize = 1024;
/// The user name that says that the password is an identity token, as Docker's credential helpers write it.
const IDENTITY: &str = "<token>";

/// Where the credentials of a registry are, if the server does not keep them itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretSource {
    /// The password is in this file.
    PasswordFile(String),
    /// The password is in this variable of the server's environment.
    PasswordEnv(String),
    /// User and password are in this file, in the form of Docker's `config.json` and Podman's `auth.json`.
    AuthFile(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PasswordFile(name) => write!(f, "the password file {}", shown(name)),
            Self::PasswordEnv(name) => write!(f, "the variable {}", shown(name)),
            Self::AuthFile(name) => write!(f, "the auth file {}", shown(name)),
        }
    }
}

/// What the operator of the server lets registries name.
#[derive(Debug, Clone, Default)]
pub(crate) struct OperatorSecrets {
    /// The directory with the files.
    directory: Option<PathBuf>,
}

impl OperatorSecrets {
    /// Lets registries name the files below this directory, if there is one.
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// The credentials at the registry `host` that this source has now. `username` is the account at the registry, where
    /// the source has only its password.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with what is wrong with the source, without anything of its content.
    pub(crate) fn read(
        &self,
        source: &SecretSource,
        host: &str,
        username: Option<&str>,
    ) -> Result<Credentials> {
        let found = match source {
            SecretSource::PasswordFile(name) => self.file(name).and_then(|text| account(username, &text)),
            SecretSource::PasswordEnv(name) => variable(name).and_then(|text| account(username, &text)),
            SecretSource::AuthFile(name) => self.file(name).and_then(|text| of_auth_file(&text, host)),
        };
        found.map_err(|why| Error::Unreachable(format!("{host}: {source}: {why}")))
    }

    fn file(&self, name: &str) -> Result<String, String> {
        let path = self.path(name)?;
        let failed = |error: std::io::Error| format!("it can't be read: {error}");
        // A pipe or a device would be read for ever.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err("it is no regular file".into());
        }
        let mut text = String::new();
        let file = File::open(&path).map_err(failed)?;
        let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE {
            return Err("it is larger than 256 KiB, which no credentials are".into());
        }
        Ok(text)
    }

    /// Where a file is, after all links, if it is below the directory.
    fn path(&self, name: &str) -> Result<PathBuf, String> {
        let Some(directory) = &self.directory else {
            return Err("the server was started without --credentials-dir, so that it reads no files".into());
        };
        if name.len() > MAX_NAME {
            return Err("its name is too long".into());
        }
        let real = |path: &Path| path.canonicalize().map_err(|error| format!("it can't be read: {error}"));
        let directory = real(directory)?;
        // What a path says of files elsewhere must not show whether they exist.
        let outside = || "it is not below the server's --credentials-dir".to_owned();
        let path = directory.join(name);
        if !path.starts_with(&directory) || path.components().any(|part| part.as_os_str() == "..") {
            return Err(outside());
        }
        let path = real(&path)?;
        if path.starts_with(&directory) { Ok(path) } else { Err(outside()) }
    }
}

fn variable(name: &str) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > MAX_NAME || !name.starts_with(VARIABLE) || !name.chars().all(is_word) {
        return Err(format!("its name must begin with {VARIABLE}"));
    }
    env::var(name).map_err(|_| "it is not set in the server's environment, or is no text".into())
}

/// The account with the password that is all of this text.
fn account(username: Option<&str>, text: &str) -> Result<Credentials, String> {
    let username = username.ok_or("give the user name that belongs to it")?.to_owned();
    // Editors and shells leave a byte-order mark before a text, and a line break behind it.
    let password = text.trim_start_matches('\u{feff}').trim();
    let sound = |text: &str| !text.is_empty() && text.len() <= MAX_PASSWORD && !text.contains(['\n', '\0']);
    if !sound(password) {
        return Err("it must have one line with the password, of 16 KiB at most".into());
    }
    Ok(Credentials { username, password: Secret::new(password) })
}

/// The file in which Docker and Podman keep accounts.
#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: serde_json::Map<String, serde_json::Value>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

fn of_auth_file(text: &str, host: &str) -> Result<Credentials, String> {
    let file: AuthFile = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| format!("it is no auth file, at line {} column {}", error.line(), error.column()))?;
    let is_it = |key: &str| is_entry_of(key, host);
    let helped = file.store.is_some() || file.helpers.keys().any(|key| is_it(key));
    let entry = file.auths.into_iter().find(|(key, _)| is_it(key)).map(|(_, entry)| entry);
    match entry.map(Entry::account) {
        Some(Ok(Some(account))) => Ok(account),
        Some(Err(why)) => Err(format!("its entry for {host} {why}")),
        _ if helped => Err(format!(
            "what it has for {host} is kept by a credential helper, and the server runs no programs; give the password"
        )),
        _ => Err(format!("it has no account for {host}")),
    }
}

/// Whether a key of an auth file means this registry: its host, or as Docker writes it, a URL of it. Entries for parts
/// of a registry are not used.
fn is_entry_of(key: &str, host: &str) -> bool {
    reference::typed_registry(key).is_some_and(|typed| {
        typed.name == reference::registry_name(host) && typed.url.is_none_or(|url| url.path() == "/")
    })
}

impl Entry {
    fn account(self) -> Result<Option<Credentials>, &'static str> {
        let filled = |secret: &Secret| !secret.expose().is_empty();
        let account = |username: &str, password: Secret| {
            let sound =
                !username.contains([':', '\r', '\n', '\0']) && password.expose().len() <= MAX_PASSWORD;
            if sound {
                Ok(Some(Credentials { username: username.into(), password }))
            } else {
                Err("has a user name or password that can't be sent")
            }
        };
        if let Some(token) = self.identitytoken.filter(filled) {
            return account(IDENTITY, token);
        }
        if let Some(auth) = self.auth.filter(filled) {
            let decoded = STANDARD.decode(auth.expose()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = Secret::new(decoded.ok_or("has an auth that is not Base64")?);
            // Docker pads with zero bytes.
            let text = decoded.expose().trim_end_matches('\0');
            let (username, password) = text.split_once(':').ok_or("has an auth without a colon")?;
            return account(username, Secret::new(password));
        }
        match (self.username, self.password.filter(filled)) {
            (Some(username), Some(password)) => account(&username, password),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::{OperatorSecrets, SecretSource, of_auth_file};

    fn read(secrets: &OperatorSecrets, source: &SecretSource) -> Result<(String, String), String> {
        let read = secrets.read(source, "cr.io", Some("ann"));
        read.map(|account| (account.username, account.password.expose().to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_small_files_below_the_directory_are_read() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(inside.join("..data")).unwrap();
        fs::write(root.path().join("outside"), "planted-secret").unwrap();
        fs::write(inside.join("..data/token"), "\u{feff}hunter2\r\n").unwrap();
        fs::write(inside.join("lines"), "planted-secret\nmore").unwrap();
        fs::write(inside.join("empty"), "\n").unwrap();
        fs::write(inside.join("large"), "x".repeat(300 * 1024)).unwrap();
        fs::write(inside.join("bytes"), b"planted-secret \xff").unwrap();
        // As Kubernetes mounts a secret.
        symlink("..data/token", inside.join("token")).unwrap();
        symlink(root.path().join("outside"), inside.join("link")).unwrap();
        symlink("/dev/zero", inside.join("zero")).unwrap();
        let secrets = OperatorSecrets::new(Some(inside.clone()));
        let file = |name: &str| SecretSource::PasswordFile(name.into());
        let absolute = inside.canonicalize().unwrap().join("token");
        for name in ["token", "..data/token", absolute.to_str().unwrap()] {
            assert_eq!(read(&secrets, &file(name)).unwrap(), ("ann".into(), "hunter2".into()), "{name}");
        }
        for (name, why) in [
            ("../outside", "not below"),
            ("../missing", "not below"),
            ("/etc/passwd", "not below"),
            ("/etc/missing", "not below"),
            ("link", "not below"),
            ("zero", "not below"),
            ("missing", "No such file"),
            ("", "no regular file"),
            ("..data", "no regular file"),
            ("lines", "one line"),
            ("empty", "one line"),
            ("large", "larger than"),
            ("bytes", "can't be read"),
        ] {
            let error = read(&secrets, &file(name)).unwrap_err();
            assert!(error.contains(why) && !error.contains("planted"), "{name}: {error}");
        }
        let error = read(&OperatorSecrets::default(), &file("token")).unwrap_err();
        assert!(error.contains("--credentials-dir"), "{error}");
        for name in ["PATH", "HOME", "WHARF_ADMIN_PASSWORD", "WHARF_REGISTRY_\n", "WHARF_REGISTRY_NOT_SET"] {
            let error = read(&secrets, &SecretSource::PasswordEnv(name.into())).unwrap_err();
            assert!(error.contains("must begin") || error.contains("not set"), "{error}");
        }
        assert!(secrets.read(&file("token"), "cr.io", None).is_err(), "whose password is it?");
    }

    #[test]
    fn an_auth_file_is_read_as_docker_and_podman_write_it() {
        let file = json!({
            "auths": {
                "https://index.docker.io/v1/": {"auth": "YW5uOmh1bnRlcjI="},
                "cr.io": {"auth": "YW5uOmE6Yg=="},
                "cr.io/lab": {"auth": "bm9ib2R5Om5vdGhpbmc="},
                "HARBOR.lab:8443": {"username": "robot$ci", "password": "pw"},
                "token.io": {"auth": "PHRva2VuPjp4", "identitytoken": "idt"},
                "empty.io": {},
                "broken.io": {"auth": "planted-secret!"},
                "colon.io": {"auth": "cGxhbnRlZA=="},
                "only.io/part": {"auth": "YW5uOmE6Yg=="},
            },
            "credHelpers": {"helped.io": "ecr-login"},
            "HttpHeaders": {"x": "y"},
        });
        let text = file.to_string();
        for (host, username, password) in [
            ("docker.io", "ann", "hunter2"),
            ("index.docker.io", "ann", "hunter2"),
            ("cr.io", "ann", "a:b"),
            ("harbor.lab:8443", "robot$ci", "pw"),
            ("token.io", "<token>", "idt"),
        ] {
            let account = of_auth_file(&text, host).unwrap();
            assert_eq!(
                (account.username.as_str(), account.password.expose()),
                (username, password),
                "{host}"
            );
        }
        for (host, why) in [
            ("empty.io", "no account"),
            ("other.io", "no account"),
            ("only.io", "no account"),
            ("broken.io", "Base64"),
            ("colon.io", "colon"),
            ("helped.io", "credential helper"),
        ] {
            let error = of_auth_file(&text, host).unwrap_err();
            assert!(error.contains(why) && !error.contains("planted"), "{host}: {error}");
        }
        let stored = json!({"auths": {"cr.io": {}}, "credsStore": "pass"}).to_string();
        assert!(of_auth_file(&stored, "cr.io").unwrap_err().contains("credential helper"));
        for text in ["", "planted-secret", r#"{"auths": "planted-secret"}"#] {
            let error = of_auth_file(text, "cr.io").unwrap_err();
            assert!(error.contains("no auth file") && !error.contains("planted"), "{error}");
        }
    }
}
