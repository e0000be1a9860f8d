//! What an agent stores: its credential, in a file that only its owner can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::digest::hex;
use crate::base::secret::Secret;
use crate::store::open::is_open;
use crate::wire::message::Credential;

const FILE: &str = "credential.json";
/// Largest file the agent reads, in bytes; the real one has some 200.
const MAX_FILE: u64 = 64 * 1024;
/// Random bytes in a credential's key, and in its secret.
const KEY_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// The state directory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    directory: PathBuf,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The credential that the manager knows the agent by.
    #[serde(flatten)]
    pub(crate) credential: Credential,
    /// The id the manager gave the agent; `None` before the agent has joined.
    #[serde(default)]
    pub(crate) id: Option<String>,
}

impl Identity {
    /// Makes a new identity, which no manager knows.
    pub(crate) fn random() -> io::Result<Self> {
        let (key, secret) = (random(KEY_BYTES)?, Secret::new(random(SECRET_BYTES)?));
        Ok(Self { credential: Credential { key, secret }, id: None })
    }
}

impl State {
    /// Opens the state in this directory, which is created if it is missing.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.into() })
    }

    /// Returns the stored identity, if there is one.
    ///
    /// # Errors
    /// A file that can't be read, that other users can read too, or that is not ours: it is left as it is.
    pub(crate) fn identity(&self) -> io::Result<Option<Identity>> {
        let path = self.directory.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error.to_string())),
        };
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if is_open(mode) {
            let remedy = format!("close it: chmod 600 {}", path.display());
            let why = format!("it has mode {mode:04o}, so others can be taken for this agent; {remedy}");
            return Err(named(&path, &why));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| named(&path, &error.to_string()))?;
        // The parser's own message may contain the secret.
        let identity = serde_json::from_str(&text);
        identity.map(Some).map_err(|_| {
            named(&path, "it is no credential of an agent; move it away and join again with a new token")
        })
    }

    /// Stores the identity. The file stays whole even if the power fails.
    pub(crate) fn keep(&self, identity: &Identity) -> io::Result<()> {
        let (path, fresh) = (self.directory.join(FILE), self.directory.join(format!("{FILE}.new")));
        let written = || {
            let text = serde_json::to_vec(identity)?;
            let _ = fs::remove_file(&fresh);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        written().map_err(|error: io::Error| named(&path, &error.to_string()))
    }
}

fn named(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Random bytes as hex digits.
pub(in crate::agent) fn random(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex(&random))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{FILE, Identity, State};

    #[test]
    fn an_identity_is_kept_for_its_owner_alone_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("agent");
        let state = State::open(&folder).unwrap();
        assert_eq!(state.identity().unwrap(), None);
        let identity = Identity { id: Some("i-a".into()), ..Identity::random().unwrap() };
        state.keep(&Identity::random().unwrap()).unwrap();
        state.keep(&identity).unwrap();
        assert_eq!(State::open(&folder).unwrap().identity().unwrap(), Some(identity));
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
        assert!(!format!("{:?}", Identity::random().unwrap()).contains("secret\":"));
    }

    #[test]
    fn a_foreign_file_is_left_alone_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "{\"key\": \"hunter2\"}").unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o644);
        let open = state.identity().unwrap_err().to_string();
        assert!(open.contains("mode 0644") && open.contains("chmod 600"), "{open}");
        set(0o600);
        let error = state.identity().unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("token") && !error.contains("hunter2"), "{error}");
    }
}
