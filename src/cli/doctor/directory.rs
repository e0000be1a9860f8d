//! Checks the data directory: who can access it, whether it is undamaged, and what is in it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    access::{
        accounts::users_in,
        audit::last_moment,
        caller::Role,
        user::{Status, User},
    },
    cli::{
        doctor::{finding::Finding, space, time},
        failure::without_errno,
        text,
    },
    engine::room,
    store::{
        at_rest::AtRest,
        last_seen::last_seen,
        open::{DATABASE_FILE, KEY_FILE, OpenError, is_open},
    },
};

/// Most addresses that a finding names.
const MOST_NAMED: usize = 3;
/// The name of the check of the directory itself.
const DIRECTORY: &str = "data directory";

/// The state of the database, by which process uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is no database.
    Absent,
    /// No process uses it.
    Stopped,
    /// Another process uses it.
    InUse,
    /// The state is unknown.
    Unknown,
}

/// A file or directory, with its owner, mode and size.
struct Entry {
    path: PathBuf,
    owner: u32,
    mode: u32,
    bytes: u64,
    is_directory: bool,
}

impl Entry {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            path: path.into(),
            owner: found.uid(),
            mode: found.mode() & 0o7777,
            bytes: found.len(),
            is_directory: found.is_dir(),
        })
    }

    /// Whether users other than its owner can access it.
    fn is_open(&self) -> bool {
        is_open(self.mode)
    }
}

/// Checks the directory and everything in it.
pub(super) async fn look_over(path: &Path, now: Timestamp) -> (State, Vec<Finding>) {
    let alone = |finding| (State::Unknown, vec![finding]);
    let directory = match Entry::at(path) {
        Ok(directory) => directory,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return (State::Absent, Vec::new()),
        Err(why) => return alone(trouble(DIRECTORY, &OpenError::Io { path: path.into(), why })),
    };
    if !directory.is_directory {
        let found = format!("{} is no directory", path.display());
        return alone(Finding::fail(DIRECTORY, found, "name another with --data-dir"));
    }
    let database = match Entry::at(&path.join(DATABASE_FILE)) {
        Ok(database) => database,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return (State::Absent, Vec::new()),
        Err(why) => return alone(trouble(DIRECTORY, &OpenError::Io { path: path.into(), why })),
    };
    let key = Entry::at(&path.join(KEY_FILE));
    let mut findings = vec![belongs(&directory, [&database].into_iter().chain(&key))];
    let key = key.and_then(|key| File::open(&key.path).map(|_| key));
    findings.push(key_file(key.as_ref(), path));
    // If other users can access the key, the finding about its file reports that.
    let has_key = key.as_ref().is_ok_and(|key| !key.is_open());
    let (state, inside) = look_inside(path, database.bytes, has_key, now);
    findings.extend(inside);
    if let Some((free, _)) = room::of(path.to_owned()).await {
        findings.push(space::enough("disk", free, database.bytes));
    }
    (state, findings)
}

/// Checks the content of the database.
fn look_inside(path: &Path, bytes: u64, has_key: bool, now: Timestamp) -> (State, Vec<Finding>) {
    let found = match AtRest::open(path) {
        Ok(found) => found,
        Err(OpenError::InUse(_) | OpenError::Held { .. }) => {
            let found = format!(
                "{}, in use by a server, which looked at it and at the key when it started",
                text::size(bytes)
            );
            return (State::InUse, vec![Finding::ok("database", found), time::plausible(now, None)]);
        }
        Err(why) => return (State::Unknown, vec![trouble("database", &why), time::plausible(now, None)]),
    };
    let whole = match found.check_records() {
        Ok(tables) => {
            let records: usize = tables.values().sum();
            let (size, schema) = (text::size(bytes), found.schema());
            Finding::ok("database", format!("{size}, {records} records, all of them whole, schema {schema}"))
        }
        Err(why) => trouble("database", &why),
    };
    // A key that can't be read was reported already.
    let key = has_key.then(|| match found.check_key() {
        Ok(()) => Finding::ok("key", "it is the one that the database was written with"),
        Err(why) => trouble("key", &why),
    });
    let admins = match found.read(users_in) {
        Ok(users) => super_admins(&users),
        Err(why) => trouble("super-admins", &why),
    };
    let clock = time::plausible(now, found.read(last_moment).ok().flatten());
    let expiry = found.read(last_seen).ok().flatten().and_then(|last| time::jumped(now, last));
    (State::Stopped, [Some(whole), key, Some(admins), Some(clock), expiry].into_iter().flatten().collect())
}

/// Checks that the directory and the files have the same owner, and that other users have no access.
fn belongs<'a>(directory: &Entry, files: impl Iterator<Item = &'a Entry>) -> Finding {
    let shown = directory.path.display();
    let owner = owner(directory.owner);
    if let Some(foreign) = files.into_iter().find(|file| file.owner != directory.owner) {
        let found = format!("{shown} is {owner}'s, but {} is not", foreign.path.display());
        return Finding::fail(
            DIRECTORY,
            found,
            format!("give all of it to one owner: chown -R {owner} {shown}"),
        );
    }
    if directory.is_open() {
        let found = format!("{shown} has mode {:04o}: others can get at what is in it", directory.mode);
        return Finding::fail(DIRECTORY, found, format!("close it: chmod 700 {shown}"));
    }
    Finding::ok(DIRECTORY, format!("{shown}, mode {:04o}, owned by {owner}", directory.mode))
}

/// The owner's name, or number if it has no name.
fn owner(id: u32) -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| id.to_string())
}

fn key_file(key: Result<&Entry, &io::Error>, directory: &Path) -> Finding {
    const CHECK: &str = "key file";
    let path = directory.join(KEY_FILE);
    let shown = path.display();
    match key {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            trouble(CHECK, &OpenError::Io { path, why: why.kind().into() })
        }
        Err(why) => trouble(CHECK, &OpenError::Key { path, why: why.to_string() }),
        Ok(key) if key.is_open() => Finding::fail(
            CHECK,
            format!("{shown} has mode {:04o}: others can get at the key to all secrets", key.mode),
            format!("close it: chmod 600 {shown}"),
        ),
        Ok(key) => Finding::ok(CHECK, format!("mode {:04o}", key.mode)),
    }
}

/// Checks that there is an account that can administer the server.
fn super_admins(users: &[User]) -> Finding {
    const CHECK: &str = "super-admins";
    let of_role = || users.iter().filter(|user| user.role == Role::Superadmin);
    let named = |users: &[&User]| {
        let mut names: Vec<_> = users.iter().take(MOST_NAMED).map(|user| user.email.clone()).collect();
        if let more @ 1.. = users.len().saturating_sub(MOST_NAMED) {
            names.push(format!("{more} more"));
        }
        names.join(", ")
    };
    let active: Vec<_> = of_role().filter(|user| user.status == Status::Active).collect();
    let inactive: Vec<_> = of_role().collect();
    match (active.is_empty(), inactive.first()) {
        _ if users.is_empty() => Finding::warn(
            CHECK,
            "there is no account yet",
            "start the server: it makes the first, or says where to make it",
        ),
        (false, _) => Finding::ok(CHECK, format!("{} active: {}", active.len(), named(&active))),
        (true, Some(first)) => Finding::fail(
            CHECK,
            format!("none is active: {}", named(&inactive)),
            format!("activate one, with a new password: wharf user reset-password {}", first.email),
        ),
        (true, None) => {
            Finding::fail(CHECK, "no account has the role superadmin", "restore a backup: wharf restore FILE")
        }
    }
}

/// The error that opening the directory would give, with its remedy apart.
fn trouble(check: &str, why: &OpenError) -> Finding {
    let (found, remedy) = match why {
        OpenError::Damaged { path, why } => (
            format!("{}: not a usable wharf database ({why})", path.display()),
            "move the directory away and restore a backup: wharf restore FILE",
        ),
        OpenError::Newer { path, found, known } => (
            format!("{}: written by a newer wharf (schema {found}; this one knows {known})", path.display()),
            "run that version or a later one",
        ),
        OpenError::Key { path, why } => (
            format!("{}: {why}", path.display()),
            "restore it from your backup: the passwords and keys in the database can't be read without it",
        ),
        OpenError::Io { path, why } if why.kind() == io::ErrorKind::PermissionDenied => (
            format!("{}: {why}", path.display()),
            "run this as the user that runs the server: sudo -u USER wharf doctor",
        ),
        why => (why.to_string(), "see that the disk it is on is well"),
    };
    Finding::fail(check, without_errno(&found), remedy)
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use jiff::Timestamp;

    use super::{Entry, belongs, key_file, super_admins};
    use crate::access::{
        caller::Role,
        user::{Status, User},
    };

    fn entry(owner: u32, mode: u32) -> Entry {
        Entry { path: Path::new("/d").into(), owner, mode, bytes: 0, is_directory: true }
    }

    #[test]
    fn a_directory_is_one_owners_and_closed() {
        let said = |directory: Entry, file: Entry| belongs(&directory, [&file].into_iter()).to_string();
        assert_eq!(said(entry(0, 0o700), entry(0, 0o644)), "ok data directory: /d, mode 0700, owned by root");
        assert!(said(entry(0, 0o750), entry(0, 0o600)).starts_with("fail data directory: /d has mode 0750"));
        let foreign = said(entry(0, 0o700), entry(4_000_000, 0o600));
        assert!(foreign.ends_with("chown -R root /d"), "{foreign}");
    }

    #[test]
    fn a_key_is_there_and_closed() {
        let said = |key: io::Result<Entry>| key_file(key.as_ref(), Path::new("/d")).to_string();
        assert!(said(Ok(entry(0, 0o600))).starts_with("ok key file"));
        assert!(said(Ok(entry(0, 0o400))).starts_with("ok key file"));
        assert!(said(Ok(entry(0, 0o640))).ends_with("close it: chmod 600 /d/secret.key"));
        let locked = said(Err(io::Error::from_raw_os_error(13)));
        assert!(locked.ends_with("sudo -u USER wharf doctor"), "{locked}");
        let missing = said(Err(io::Error::from_raw_os_error(2)));
        assert!(
            missing.starts_with("fail key file: /d/secret.key: No such file or directory; restore"),
            "{missing}"
        );
    }

    #[test]
    fn somebody_has_to_administer_the_server() {
        let user = |email: &str, role, status| User {
            id: crate::base::ids::UserId::random(),
            email: email.into(),
            username: String::new(),
            full_name: String::new(),
            description: String::new(),
            role,
            status,
            need_password_change: false,
            domain: String::new(),
            password: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: None,
            integration_id: None,
        };
        let said = |users: &[User]| super_admins(users).to_string();
        assert!(said(&[]).starts_with("warn super-admins: there is no account yet"));
        let ann = user("ann@lab", Role::Superadmin, Status::Active);
        let bob = user("bob@lab", Role::Superadmin, Status::Inactive);
        let cat = user("cat@lab", Role::Admin, Status::Active);
        assert_eq!(said(&[ann, bob.clone(), cat.clone()]), "ok super-admins: 1 active: ann@lab");
        let locked = said(&[cat.clone(), bob]);
        assert!(locked.starts_with("fail super-admins: none is active: bob@lab;"), "{locked}");
        assert!(locked.ends_with("wharf user reset-password bob@lab"), "{locked}");
        assert!(said(&[cat]).starts_with("fail super-admins: no account has the role"));
    }
}
