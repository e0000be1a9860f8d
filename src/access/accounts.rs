//! Users and their keypairs.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::access::caller::{Caller, Role};
use crate::access::password;
use crate::base::ids::UserId;
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::seal::Sealed;
use crate::store::table::Writer;
use crate::store::{Store, Table};

const USERS: Table<User> = Table::new("USER_ID_TO_USER");
const KEYPAIRS: Table<Keypair> = Table::new("ACCESS_KEY_TO_KEYPAIR");

/// Letters of a generated access key: Backend.AI's keys look like this, and none can be mistaken for another.
const KEY_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The address it signs in with; no two accounts have the same.
    pub email: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may do anything at all.
    pub is_active: bool,
    /// The domain it belongs to.
    pub domain: String,
    /// Its password's argon2id hash.
    pub password: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API credential of a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Keypair {
    access_key: String,
    secret_key: Sealed,
    user: UserId,
    is_active: bool,
    created_at: Timestamp,
}

/// A new account's credentials, to be shown once.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The address.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

/// A reset account's new credentials, to be shown once.
#[derive(Debug, Clone)]
pub struct Reset {
    /// The password.
    pub password: Secret,
    /// The access key and the secret key, if they were to be replaced.
    pub keypair: Option<(String, Secret)>,
}

/// How many accounts an error names, where the one asked for is not there.
const MAX_NAMED: usize = 20;

/// What the operator gave for the first super-admin; the rest is generated.
#[derive(Debug, Clone, Default)]
pub struct FirstAdmin {
    /// Default `admin@localhost`.
    pub email: Option<String>,
    /// Generated if not given.
    pub password: Option<Secret>,
    /// Generated if not given.
    pub access_key: Option<String>,
    /// Generated if not given.
    pub secret_key: Option<Secret>,
}

/// The accounts. Clones share them. All are in memory, keys opened, since every request needs one.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    index: Arc<RwLock<Index>>,
}

#[derive(Default)]
struct Index {
    users: HashMap<UserId, Arc<User>>,
    keys: HashMap<String, Arc<Key>>,
}

struct Key {
    user: UserId,
    is_active: bool,
    secret: Secret,
}

impl Index {
    /// The accounts there are, for whoever asked for one there is not.
    fn known(&self) -> String {
        let mut emails: Vec<_> = self.users.values().map(|user| user.email.as_str()).collect();
        if emails.is_empty() {
            return "there is no account yet: the first start of the server makes one".into();
        }
        emails.sort_unstable();
        let more = emails.len().saturating_sub(MAX_NAMED);
        emails.truncate(MAX_NAMED);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("there is: {}{others}", emails.join(", "))
    }
}

impl Accounts {
    /// Reads the accounts from the store.
    pub fn load(store: &Store) -> Result<Self> {
        let mut index = Index::default();
        store.read_now(|r| {
            r.scan(&USERS, [], |_, user: User| {
                index.users.insert(user.id, Arc::new(user));
                Ok(())
            })?;
            r.scan(&KEYPAIRS, [], |_, pair: Keypair| {
                let secret = store.seal().open(&purpose(&pair.access_key), &pair.secret_key)?;
                let key = Key { user: pair.user, is_active: pair.is_active, secret };
                index.keys.insert(pair.access_key, Arc::new(key));
                Ok(())
            })
        })?;
        Ok(Self { store: store.clone(), index: Arc::new(RwLock::new(index)) })
    }

    /// Whether there is no account yet.
    pub fn is_empty(&self) -> bool {
        self.index.read().users.is_empty()
    }

    /// The caller whom this access key stands for, and the secret to check the signature with.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown or inactive key, or a user that is not active.
    pub fn caller(&self, access_key: &str) -> Result<(Caller, Secret)> {
        let index = self.index.read();
        let key = index.keys.get(access_key).filter(|key| key.is_active).ok_or(Error::Unauthenticated)?;
        let user = index.users.get(&key.user).filter(|user| user.is_active).ok_or(Error::Unauthenticated)?;
        let caller = Caller {
            user: user.id,
            email: user.email.clone(),
            role: user.role,
            domain: user.domain.clone(),
            access_key: access_key.into(),
        };
        Ok((caller, key.secret.clone()))
    }

    /// The caller this user is when they sign with the first of their active keypairs; by e-mail address or id.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such user, [`Error::Conflict`] for one who may not do anything.
    pub fn caller_of(&self, user: &str) -> Result<Caller> {
        let (index, wanted) = (self.index.read(), user.trim());
        let id = wanted.parse::<UserId>().ok();
        let found = index.users.values().find(|user| user.email == wanted || Some(user.id) == id);
        let user = found.ok_or_else(|| Error::missing("user", shown(wanted)))?;
        if !user.is_active {
            let why = format!("{} is not active and sees nothing; activate the user first", user.email);
            return Err(Error::Conflict(why));
        }
        let keys = index.keys.iter().filter(|(_, key)| key.user == user.id && key.is_active);
        let access_key = keys.map(|(access_key, _)| access_key.clone()).min().unwrap_or_default();
        Ok(Caller {
            user: user.id,
            email: user.email.clone(),
            role: user.role,
            domain: user.domain.clone(),
            access_key,
        })
    }

    /// Makes the first super-admin, in the domain given, and returns what it was made with.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an e-mail address, password or key that can't be taken.
    pub fn create_first_admin(
        &self,
        wanted: FirstAdmin,
        domain: &str,
        now: Timestamp,
    ) -> Result<Credentials> {
        let credentials = Credentials {
            email: wanted.email.unwrap_or_else(|| "admin@localhost".into()),
            password: wanted.password.map_or_else(|| random_text(24).map(Secret::new), Ok)?,
            access_key: wanted.access_key.map_or_else(new_access_key, Ok)?,
            secret_key: wanted.secret_key.map_or_else(|| random_text(40).map(Secret::new), Ok)?,
        };
        check_email(&credentials.email)?;
        check_key("access key", &credentials.access_key, 4)?;
        check_key("secret key", credentials.secret_key.expose(), 16)?;
        let user = User {
            id: UserId::random(),
            email: credentials.email.clone(),
            role: Role::Superadmin,
            is_active: true,
            domain: domain.into(),
            password: password::hash(&credentials.password)?,
            created_at: now,
        };
        self.store.write_now(|w| {
            self.put_keypair(w, &credentials.access_key, &credentials.secret_key, user.id, now)?;
            self.put_user(w, user)
        })?;
        Ok(credentials)
    }

    /// Gives a user a new password, and with `new_keypair` a new keypair in the place of all the old ones. For the
    /// console of the machine, when the password is lost.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such user.
    pub fn reset(
        &self,
        email: &str,
        new_password: Option<Secret>,
        new_keypair: bool,
        now: Timestamp,
    ) -> Result<Reset> {
        let user = {
            let index = self.index.read();
            let found = index.users.values().find(|user| user.email == email).cloned();
            found.ok_or_else(|| Error::missing("user", format!("{email} ({})", index.known())))?
        };
        let password = new_password.map_or_else(|| random_text(24).map(Secret::new), Ok)?;
        let keypair =
            if new_keypair { Some((new_access_key()?, random_text(40).map(Secret::new)?)) } else { None };
        let changed = User { password: password::hash(&password)?, is_active: true, ..(*user).clone() };
        self.store.write_now(|w| {
            if let Some((access_key, secret_key)) = &keypair {
                self.remove_keypairs(w, user.id)?;
                self.put_keypair(w, access_key, secret_key, user.id, now)?;
            }
            self.put_user(w, changed)
        })?;
        Ok(Reset { password, keypair })
    }

    fn put_user(&self, writer: &mut Writer, user: User) -> Result<()> {
        writer.put(&USERS, user.id.as_bytes(), &user)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || {
            index.write().users.insert(user.id, Arc::new(user));
        });
        Ok(())
    }

    fn put_keypair(
        &self,
        writer: &mut Writer,
        access_key: &str,
        secret_key: &Secret,
        user: UserId,
        now: Timestamp,
    ) -> Result<()> {
        let pair = Keypair {
            access_key: access_key.into(),
            secret_key: self.store.seal().seal(&purpose(access_key), secret_key)?,
            user,
            is_active: true,
            created_at: now,
        };
        writer.put(&KEYPAIRS, access_key, &pair)?;
        let index = Arc::clone(&self.index);
        let key = Arc::new(Key { user, is_active: true, secret: secret_key.clone() });
        writer.on_commit(move || {
            index.write().keys.insert(pair.access_key, key);
        });
        Ok(())
    }

    fn remove_keypairs(&self, writer: &mut Writer, user: UserId) -> Result<()> {
        let of_user = |index: &Index| -> Vec<String> {
            index.keys.iter().filter(|(_, key)| key.user == user).map(|(name, _)| name.clone()).collect()
        };
        for access_key in of_user(&self.index.read()) {
            writer.remove(&KEYPAIRS, &access_key)?;
        }
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().keys.retain(|_, key| key.user != user));
        Ok(())
    }
}

fn purpose(access_key: &str) -> String {
    format!("keypair/{access_key}")
}

fn new_access_key() -> Result<String> {
    random_letters(KEY_LETTERS, 20)
}

fn random_text(length: usize) -> Result<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    random_letters(LETTERS, length)
}

/// The alphabet's length is a power of two, so every letter is as likely as any other.
fn random_letters(alphabet: &[u8], length: usize) -> Result<String> {
    let mut bytes = vec![0_u8; length];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    let letter = |byte: &u8| alphabet.get(usize::from(*byte) % alphabet.len()).map(|b| char::from(*b));
    Ok(bytes.iter().filter_map(letter).collect())
}

fn check_email(email: &str) -> Result<()> {
    let well_formed = email.len() <= 254
        && email.chars().all(|c| !c.is_control() && !c.is_whitespace())
        && email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if well_formed { Ok(()) } else { Err(Error::invalid("e-mail", format!("{email:?} is not name@host"))) }
}

/// Keys travel in a header, the access key in front of a colon.
fn check_key(field: &'static str, key: &str, shortest: usize) -> Result<()> {
    let letters = key.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b',');
    if letters && (shortest..=128).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("it must have {shortest} to 128 visible ASCII characters without ':' and ','"),
    ))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Accounts, FirstAdmin};
    use crate::base::secret::Secret;
    use crate::store::Store;

    #[test]
    fn the_first_admin_is_there_after_a_restart_and_its_keys_are_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let accounts = Accounts::load(&store).unwrap();
        assert!(accounts.is_empty());
        let made =
            accounts.create_first_admin(FirstAdmin::default(), "default", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(made.email, "admin@localhost");
        drop((accounts, store));

        let file = std::fs::read(directory.path().join("wharf.redb")).unwrap();
        for secret in [made.secret_key.expose(), made.password.expose()] {
            assert!(!file.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
        let store = Store::open(directory.path()).unwrap();
        let (caller, secret) = Accounts::load(&store).unwrap().caller(&made.access_key).unwrap();
        assert!(caller.is_superadmin());
        assert_eq!(secret, made.secret_key);
    }

    #[test]
    fn a_reset_replaces_the_keypair_only_when_asked_to() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let accounts = Accounts::load(&store).unwrap();
        let first =
            accounts.create_first_admin(FirstAdmin::default(), "default", Timestamp::UNIX_EPOCH).unwrap();
        let kept = accounts.reset("admin@localhost", None, false, Timestamp::UNIX_EPOCH).unwrap();
        assert!(kept.keypair.is_none());
        assert!(accounts.caller(&first.access_key).is_ok());
        let second = accounts.reset("admin@localhost", None, true, Timestamp::UNIX_EPOCH).unwrap();
        assert!(accounts.caller(&first.access_key).is_err());
        assert!(accounts.caller(&second.keypair.unwrap().0).is_ok());
        let unknown = accounts.reset("b@localhost", None, true, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(unknown.to_string().contains("admin@localhost"), "{unknown}");
    }

    #[test]
    fn credentials_that_can_not_travel_in_a_header_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let accounts = Accounts::load(&Store::open(directory.path()).unwrap()).unwrap();
        let refused = |wanted| accounts.create_first_admin(wanted, "default", Timestamp::UNIX_EPOCH).is_err();
        assert!(refused(FirstAdmin { access_key: Some("a:b:c:d".into()), ..Default::default() }));
        assert!(refused(FirstAdmin { secret_key: Some(Secret::new("short")), ..Default::default() }));
        assert!(refused(FirstAdmin { email: Some("nobody".into()), ..Default::default() }));
        assert!(refused(FirstAdmin { password: Some(Secret::new("short")), ..Default::default() }));
        assert!(accounts.is_empty());
    }
}
