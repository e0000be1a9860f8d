//! Users and their keypairs, in memory and in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;

use crate::access::caller::{Caller, Credential, Origin, Role};
use crate::access::first_admin::{Credentials, FirstAdmin};
use crate::access::generate::{new_access_key, new_secret_key, random_text};
use crate::access::hasher::Hasher;
use crate::access::user::{Keypair, Status, User};
use crate::base::ids::UserId;
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::{Reader, Writer};
use crate::store::{Store, Table};

const USERS: Table<User> = Table::new("USER_ID_TO_USER");
const KEYPAIRS: Table<Keypair> = Table::new("ACCESS_KEY_TO_KEYPAIR");

/// How many accounts an error lists, when the one asked for does not exist.
const MAX_NAMED: usize = 20;
/// How precisely a keypair's last use survives a restart.
const LAST_USED: SignedDuration = SignedDuration::from_hours(1);

/// The new credentials of a reset account, to be shown once.
#[derive(Debug, Clone)]
pub(crate) struct Reset {
    /// The password.
    pub(crate) password: Secret,
    /// The new access key and secret key, if they were to be replaced.
    pub(crate) keypair: Option<(String, Secret)>,
}

/// The holder of an access key.
#[derive(Debug, Clone)]
pub(crate) struct KeyHolder {
    /// Its user.
    pub(crate) caller: Caller,
    /// What its requests are signed with.
    pub(crate) secret: Secret,
    /// How many requests it may make in a window; 0 for any number.
    pub(crate) rate_limit: u32,
}

/// The accounts. Clones share them. All are in memory with their keys unsealed, since every request needs one.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    index: Arc<RwLock<Index>>,
}

#[derive(Default)]
struct Index {
    users: HashMap<UserId, Arc<User>>,
    /// By the address in lower case.
    emails: BTreeMap<String, UserId>,
    keys: HashMap<String, Arc<Key>>,
    /// The access keys of each user.
    owned: HashMap<UserId, BTreeSet<String>>,
}

struct Key {
    pair: Keypair,
    secret: Secret,
    /// When the key was last used, in seconds since 1970; 0 for never since the start.
    used: AtomicI64,
}

impl Key {
    fn last_used(&self) -> Option<Timestamp> {
        let now = Timestamp::from_second(self.used.load(Ordering::Relaxed)).ok();
        now.filter(|at| *at > Timestamp::UNIX_EPOCH).max(self.pair.last_used)
    }

    fn shown(&self) -> Keypair {
        Keypair { last_used: self.last_used(), ..self.pair.clone() }
    }
}

impl Index {
    fn put_user(&mut self, user: User) {
        if let Some(old) = self.users.get(&user.id) {
            self.emails.remove(&old.email.to_lowercase());
        }
        self.emails.insert(user.email.to_lowercase(), user.id);
        self.users.insert(user.id, Arc::new(user));
    }

    fn remove_user(&mut self, id: UserId) {
        if let Some(user) = self.users.remove(&id) {
            self.emails.remove(&user.email.to_lowercase());
        }
    }

    fn put_key(&mut self, key: Key) {
        let name = key.pair.access_key.clone();
        self.owned.entry(key.pair.user).or_default().insert(name.clone());
        self.keys.insert(name, Arc::new(key));
    }

    fn remove_key(&mut self, access_key: &str) {
        if let Some(key) = self.keys.remove(access_key)
            && let Some(owned) = self.owned.get_mut(&key.pair.user)
        {
            owned.remove(access_key);
        }
    }

    /// A user's keypairs, the oldest first.
    fn keys_of(&self, user: UserId) -> Vec<&Key> {
        let names = self.owned.get(&user).into_iter().flatten();
        let mut keys: Vec<&Key> = names.filter_map(|name| self.keys.get(name).map(AsRef::as_ref)).collect();
        keys.sort_by_key(|key| (key.pair.created_at, &key.pair.access_key));
        keys
    }

    fn user_by_email(&self, email: &str) -> Option<&Arc<User>> {
        self.users.get(self.emails.get(&email.to_lowercase())?)
    }

    /// The known accounts, for the error when the one asked for does not exist.
    fn known(&self) -> String {
        let mut emails: Vec<_> = self.users.values().map(|user| user.email.as_str()).collect();
        if emails.is_empty() {
            return "there is no account yet: start the server, which makes the first one".into();
        }
        emails.sort_unstable();
        let more = emails.len().saturating_sub(MAX_NAMED);
        emails.truncate(MAX_NAMED);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("there is: {}{others}", emails.join(", "))
    }
}

/// All accounts of a database, for tools that read one without a server.
pub(crate) fn users_in(reader: &Reader) -> Result<Vec<User>> {
    let mut users = Vec::new();
    reader.scan(&USERS, [], |_, user: User| {
        users.push(user);
        Ok(())
    })?;
    Ok(users)
}

impl Accounts {
    /// Reads the accounts from the store.
    pub fn load(store: &Store) -> Result<Self> {
        let mut index = Index::default();
        store.read_now(|r| {
            users_in(r)?.into_iter().for_each(|user| index.put_user(user));
            r.scan(&KEYPAIRS, [], |_, pair: Keypair| {
                let secret = store.seal().open(&purpose(&pair.access_key), &pair.secret_key)?;
                index.put_key(Key { pair, secret, used: AtomicI64::new(0) });
                Ok(())
            })
        })?;
        Ok(Self { store: store.clone(), index: Arc::new(RwLock::new(index)) })
    }

    /// Whether there is no account yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.read().users.is_empty()
    }

    /// The holder of this access key, and the secret to check the signature with.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown or inactive key, or a user that is not active.
    pub(crate) fn key_holder(&self, access_key: &str) -> Result<KeyHolder> {
        let index = self.index.read();
        let key =
            index.keys.get(access_key).filter(|key| key.pair.is_active).ok_or(Error::Unauthenticated)?;
        let user = index.users.get(&key.pair.user).ok_or(Error::Unauthenticated)?;
        let credential = Credential::Keypair(access_key.into());
        let caller = caller(user, access_key.into(), credential)?;
        Ok(KeyHolder { caller, secret: key.secret.clone(), rate_limit: key.pair.rate_limit })
    }

    /// Records that a key was used, for [`Keypair::last_used`].
    pub(crate) fn mark_used(&self, access_key: &str, now: Timestamp) {
        if let Some(key) = self.index.read().keys.get(access_key) {
            key.used.store(now.as_second(), Ordering::Relaxed);
        }
    }

    /// This user as a caller who authenticated otherwise than by a keypair. The first active key counts as theirs.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a user that is unknown or not active.
    pub(crate) fn caller(&self, id: UserId, credential: Credential) -> Result<Caller> {
        let index = self.index.read();
        let user = index.users.get(&id).ok_or(Error::Unauthenticated)?;
        let key = index.keys_of(id).into_iter().find(|key| key.pair.is_active);
        let access_key = key.map(|key| key.pair.access_key.clone()).unwrap_or_default();
        caller(user, access_key, credential)
    }

    /// The account with this id.
    pub(crate) fn user(&self, id: UserId) -> Option<Arc<User>> {
        self.index.read().users.get(&id).cloned()
    }

    /// The account with this e-mail address; case does not matter.
    pub(crate) fn user_by_email(&self, email: &str) -> Option<Arc<User>> {
        self.index.read().user_by_email(email.trim()).cloned()
    }

    /// All accounts, sorted by e-mail address.
    pub(crate) fn users(&self) -> Vec<Arc<User>> {
        let index = self.index.read();
        index.emails.values().filter_map(|id| index.users.get(id)).cloned().collect()
    }

    /// All keypairs, the oldest first. Their secrets stay here.
    pub(crate) fn keypairs(&self) -> Vec<Keypair> {
        let mut pairs: Vec<_> = self.index.read().keys.values().map(|key| key.shown()).collect();
        pairs.sort_by(|a, b| (a.created_at, &a.access_key).cmp(&(b.created_at, &b.access_key)));
        pairs
    }

    /// A user's keypairs, the oldest first.
    pub(crate) fn keypairs_of(&self, user: UserId) -> Vec<Keypair> {
        self.index.read().keys_of(user).into_iter().map(Key::shown).collect()
    }

    /// One keypair.
    pub(crate) fn keypair(&self, access_key: &str) -> Option<Keypair> {
        self.index.read().keys.get(access_key).map(|key| key.shown())
    }

    /// The caller that a user is when signing with the first of their active keypairs; by e-mail address or id.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such user, [`Error::Conflict`] for a user who may do nothing.
    pub fn caller_of(&self, user: &str) -> Result<Caller> {
        let wanted = user.trim();
        let by_id = || self.user(wanted.parse().ok()?);
        let found = self.user_by_email(wanted).or_else(by_id);
        let user = found.ok_or_else(|| Error::missing("user", shown(wanted)))?;
        let inactive = |_| {
            let why = format!("{} is not active and sees nothing; activate the user first", user.email);
            Error::Conflict(why)
        };
        self.caller(user.id, Credential::Console).map_err(inactive)
    }

    /// Creates the first super-admin in the given domain, and returns its credentials.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an e-mail address, password or key that is not acceptable.
    pub(crate) fn create_first_admin(
        &self,
        hasher: &Hasher,
        wanted: FirstAdmin,
        domain: &str,
        now: Timestamp,
    ) -> Result<Credentials> {
        let credentials = wanted.complete()?;
        let hash = hasher.hash_now(&credentials.password)?;
        self.store.write_now(|w| self.put_first_admin(w, &credentials, hash, domain, now))?;
        Ok(credentials)
    }

    /// Writes the first super-admin, whose password has this hash.
    pub(in crate::access) fn put_first_admin(
        &self,
        writer: &mut Writer,
        credentials: &Credentials,
        hash: String,
        domain: &str,
        now: Timestamp,
    ) -> Result<UserId> {
        let user = User {
            id: UserId::random(),
            email: credentials.email.clone(),
            username: "admin".into(),
            full_name: String::new(),
            description: String::new(),
            role: Role::Superadmin,
            status: Status::Active,
            need_password_change: false,
            domain: domain.into(),
            password: hash,
            created_at: now,
            modified_at: None,
            integration_id: None,
        };
        let id = user.id;
        let pair = self.seal_keypair(&credentials.access_key, &credentials.secret_key, id, now)?;
        self.put_keypair(writer, pair, credentials.secret_key.clone())?;
        self.put_user(writer, user)?;
        Ok(id)
    }

    /// Gives a user a new password and, with `new_keypair`, one new keypair in place of all the old ones. For the
    /// console of the machine, when the password is lost. The keypairs of a user who was switched off stay off. `also`
    /// runs in the same transaction and gets the user as it was before.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such user.
    pub(crate) fn reset(
        &self,
        hasher: &Hasher,
        email: &str,
        new_password: Option<Secret>,
        new_keypair: bool,
        now: Timestamp,
        also: impl FnOnce(&mut Writer, &User) -> Result<()>,
    ) -> Result<Reset> {
        let user = {
            let index = self.index.read();
            let found = index.user_by_email(email.trim()).cloned();
            found.ok_or_else(|| Error::missing("user", format!("{email} ({})", index.known())))?
        };
        let password = new_password.map_or_else(|| random_text(24).map(Secret::new), Ok)?;
        let keypair = if new_keypair { Some((new_access_key()?, new_secret_key()?)) } else { None };
        let changed = User {
            password: hasher.hash_now(&password)?,
            status: Status::Active,
            need_password_change: false,
            modified_at: Some(now),
            ..(*user).clone()
        };
        self.store.write_now(|w| {
            if let Some((access_key, secret_key)) = &keypair {
                for pair in self.keypairs_of(user.id) {
                    self.remove_keypair(w, &pair.access_key)?;
                }
                let pair = self.seal_keypair(access_key, secret_key, user.id, now)?;
                self.put_keypair(w, pair, secret_key.clone())?;
            } else if !user.is_active() {
                for pair in self.keypairs_of(user.id) {
                    self.change_keypair(w, &pair.access_key, |pair| Keypair { is_active: false, ..pair })?;
                }
            }
            also(w, &user)?;
            self.put_user(w, changed)
        })?;
        Ok(Reset { password, keypair })
    }

    /// A new keypair with its secret sealed, active and without a rate limit.
    pub(in crate::access) fn seal_keypair(
        &self,
        access_key: &str,
        secret_key: &Secret,
        user: UserId,
        now: Timestamp,
    ) -> Result<Keypair> {
        Ok(Keypair {
            access_key: access_key.into(),
            secret_key: self.store.seal().seal(&purpose(access_key), secret_key)?,
            user,
            is_active: true,
            rate_limit: 0,
            created_at: now,
            last_used: None,
        })
    }

    /// Writes an account, new or changed.
    pub(in crate::access) fn put_user(&self, writer: &mut Writer, user: User) -> Result<()> {
        writer.put(&USERS, user.id.as_bytes(), &user)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().put_user(user));
        Ok(())
    }

    /// Removes an account. The caller removes its keypairs.
    pub(in crate::access) fn remove_user(&self, writer: &mut Writer, id: UserId) -> Result<()> {
        writer.remove(&USERS, id.as_bytes())?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().remove_user(id));
        Ok(())
    }

    /// Writes a new or changed keypair. `secret` is what its sealed secret holds.
    pub(in crate::access) fn put_keypair(
        &self,
        writer: &mut Writer,
        pair: Keypair,
        secret: Secret,
    ) -> Result<()> {
        writer.put(&KEYPAIRS, &pair.access_key, &pair)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || index.write().put_key(Key { pair, secret, used: AtomicI64::new(0) }));
        Ok(())
    }

    /// Changes a keypair but not its secret.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such key.
    pub(in crate::access) fn change_keypair(
        &self,
        writer: &mut Writer,
        access_key: &str,
        change: impl FnOnce(Keypair) -> Keypair,
    ) -> Result<()> {
        let key = self.index.read().keys.get(access_key).cloned();
        let key = key.ok_or_else(|| Error::missing("keypair", access_key))?;
        self.put_keypair(writer, change(key.shown()), key.secret.clone())
    }

    /// Removes a keypair.
    pub(in crate::access) fn remove_keypair(&self, writer: &mut Writer, access_key: &str) -> Result<bool> {
        let was_there = writer.remove(&KEYPAIRS, access_key)?;
        let (index, access_key) = (Arc::clone(&self.index), access_key.to_owned());
        writer.on_commit(move || index.write().remove_key(&access_key));
        Ok(was_there)
    }

    /// Writes when keys were last used, for keys whose stored time is more than an hour off.
    pub(crate) async fn save_last_used(&self) -> Result<()> {
        let is_late = |key: &Key| {
            let since =
                |at: Timestamp| at.duration_since(key.pair.last_used.unwrap_or(Timestamp::UNIX_EPOCH));
            key.last_used().is_some_and(|at| since(at) >= LAST_USED)
        };
        let late: Vec<String> = {
            let index = self.index.read();
            let late = index.keys.values().filter(|key| is_late(key));
            late.map(|key| key.pair.access_key.clone()).collect()
        };
        if late.is_empty() {
            return Ok(());
        }
        let accounts = self.clone();
        self.store
            .write(move |w| {
                for access_key in late {
                    // A key that was removed meanwhile stays removed.
                    if accounts.keypair(&access_key).is_some() {
                        accounts.change_keypair(w, &access_key, |pair| pair)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

fn caller(user: &User, access_key: String, credential: Credential) -> Result<Caller> {
    if !user.is_active() {
        return Err(Error::Unauthenticated);
    }
    Ok(Caller {
        user: user.id,
        email: user.email.clone(),
        role: user.role,
        domain: user.domain.clone(),
        access_key,
        origin: Origin { credential, ..Origin::default() },
    })
}

fn purpose(access_key: &str) -> String {
    format!("keypair/{access_key}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Accounts;
    use crate::access::first_admin::FirstAdmin;
    use crate::access::hasher::Hasher;
    use crate::base::secret::Secret;
    use crate::store::Store;

    #[test]
    fn the_first_admin_is_there_after_a_restart_and_its_keys_are_sealed() {
        let (directory, hasher) = (tempfile::tempdir().unwrap(), Hasher::new().unwrap());
        let store = Store::open(directory.path()).unwrap();
        let accounts = Accounts::load(&store).unwrap();
        assert!(accounts.is_empty());
        let made = accounts
            .create_first_admin(&hasher, FirstAdmin::default(), "default", Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(made.email, "admin@localhost");
        drop((accounts, store));

        let file = std::fs::read(directory.path().join("wharf.redb")).unwrap();
        for secret in [made.secret_key.expose(), made.password.expose()] {
            assert!(!file.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
        let store = Store::open(directory.path()).unwrap();
        let holder = Accounts::load(&store).unwrap().key_holder(&made.access_key).unwrap();
        assert!(holder.caller.is_superadmin());
        assert_eq!(holder.secret, made.secret_key);
    }

    #[test]
    fn a_reset_replaces_the_keypair_only_when_asked_to() {
        let (directory, hasher) = (tempfile::tempdir().unwrap(), Hasher::new().unwrap());
        let store = Store::open(directory.path()).unwrap();
        let accounts = Accounts::load(&store).unwrap();
        let first = accounts
            .create_first_admin(&hasher, FirstAdmin::default(), "default", Timestamp::UNIX_EPOCH)
            .unwrap();
        let kept = accounts
            .reset(&hasher, "admin@localhost", None, false, Timestamp::UNIX_EPOCH, |_, _| Ok(()))
            .unwrap();
        assert!(kept.keypair.is_none());
        assert!(accounts.key_holder(&first.access_key).is_ok());
        let second = accounts
            .reset(&hasher, "admin@localhost", None, true, Timestamp::UNIX_EPOCH, |_, _| Ok(()))
            .unwrap();
        assert!(accounts.key_holder(&first.access_key).is_err());
        assert!(accounts.key_holder(&second.keypair.unwrap().0).is_ok());
        let unknown = accounts
            .reset(&hasher, "b@localhost", None, true, Timestamp::UNIX_EPOCH, |_, _| Ok(()))
            .unwrap_err();
        assert!(unknown.to_string().contains("admin@localhost"), "{unknown}");
    }

    #[test]
    fn credentials_that_can_not_travel_in_a_header_are_refused() {
        let (directory, hasher) = (tempfile::tempdir().unwrap(), Hasher::new().unwrap());
        let accounts = Accounts::load(&Store::open(directory.path()).unwrap()).unwrap();
        let refused =
            |wanted| accounts.create_first_admin(&hasher, wanted, "default", Timestamp::UNIX_EPOCH).is_err();
        assert!(refused(FirstAdmin { access_key: Some("a:b:c:d".into()), ..Default::default() }));
        assert!(refused(FirstAdmin { secret_key: Some(Secret::new("short")), ..Default::default() }));
        assert!(refused(FirstAdmin { email: Some("nobody".into()), ..Default::default() }));
        assert!(refused(FirstAdmin { password: Some(Secret::new("short")), ..Default::default() }));
        assert!(accounts.is_empty());
    }
}
