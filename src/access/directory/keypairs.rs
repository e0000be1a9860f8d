//! Keypairs: who sees them, and what admins may do with them. A secret key leaves the server once, when it is made.

use std::sync::Arc;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, check_token, sees_user};
use crate::access::generate::{new_access_key, new_secret_key};
use crate::access::rates;
use crate::access::user::{DEFAULT_RATE_LIMIT, Keypair, User};
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// How many keypairs a user may have: more than a person can tell apart.
const MAX_KEYPAIRS: usize = 100;

/// A keypair and the user it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct OwnedKeypair {
    /// The keypair.
    pub(crate) pair: Keypair,
    /// Its user.
    pub(crate) owner: Arc<User>,
}

/// A search for keypairs; a field that is `None` does not restrict it.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeypairSearch {
    /// Keypairs of users of this domain.
    pub(crate) domain: Option<String>,
    /// Keypairs of the user with this e-mail address.
    pub(crate) email: Option<String>,
    /// Active keypairs only, or inactive ones only.
    pub(crate) is_active: Option<bool>,
}

/// The fields of a keypair to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeypairChange {
    /// Whether it may be used.
    pub(crate) is_active: Option<bool>,
    /// How many requests it may make in a window; 0 for any number.
    pub(crate) rate_limit: Option<i32>,
}

impl KeypairChange {
    fn apply(self, caller: &Caller, action: &str, pair: Keypair) -> Result<Keypair> {
        let rate_limit = self.rate_limit.map(|limit| {
            u32::try_from(limit).map_err(|_| {
                Error::invalid("rate_limit", format!("{limit} is less than 0; give 0 for no limit"))
            })
        });
        if let Some(Ok(limit)) = rate_limit
            && !caller.is_superadmin()
            && !is_ordinary(limit, pair.rate_limit)
        {
            let most = rates::PERSONAL;
            return Err(Error::Denied(format!(
                "{action} with the rate limit {limit}; only super-admins give more than {most}, or 0 for none"
            )));
        }
        Ok(Keypair {
            is_active: self.is_active.unwrap_or(pair.is_active),
            rate_limit: rate_limit.transpose()?.unwrap_or(pair.rate_limit),
            ..pair
        })
    }
}

/// Whether the admin of a domain may set this limit: no more than a session may make anyway, or than the keypair has
/// already.
fn is_ordinary(limit: u32, present: u32) -> bool {
    limit > 0 && (limit <= rates::PERSONAL || present == 0 || limit <= present)
}

impl Directory {
    /// The keypairs that the caller may see, the oldest first.
    pub(crate) fn keypairs(&self, caller: &Caller, search: &KeypairSearch) -> Vec<OwnedKeypair> {
        let with_owner =
            |pair: Keypair| self.accounts.user(pair.user).map(|owner| OwnedKeypair { pair, owner });
        let pairs = match &search.email {
            Some(email) => {
                let owner = self.accounts.user_by_email(email);
                owner.map(|owner| self.accounts.keypairs_of(owner.id)).unwrap_or_default()
            }
            None => self.accounts.keypairs(),
        };
        pairs
            .into_iter()
            .filter(|pair| search.is_active.is_none_or(|is| is == pair.is_active))
            .filter_map(with_owner)
            .filter(|key| sees_user(caller, &key.owner))
            .filter(|key| search.domain.as_ref().is_none_or(|domain| *domain == key.owner.domain))
            .collect()
    }

    /// One keypair; without an access key, the caller's own.
    ///
    /// # Errors
    /// [`Error::Missing`] for a keypair that the caller may not see.
    pub(crate) fn keypair(&self, caller: &Caller, access_key: Option<&str>) -> Result<OwnedKeypair> {
        let access_key = access_key.unwrap_or(&caller.access_key);
        let found = self.accounts.keypair(access_key);
        let found =
            found.and_then(|pair| self.accounts.user(pair.user).map(|owner| OwnedKeypair { pair, owner }));
        found
            .filter(|key| sees_user(caller, &key.owner))
            .ok_or_else(|| Error::missing("keypair", shown(access_key)))
    }

    /// The access key shown for a user: the oldest active one.
    pub(crate) fn main_access_key(&self, user: &User) -> Option<String> {
        let pairs = self.accounts.keypairs_of(user.id);
        pairs.into_iter().find(|pair| pair.is_active).map(|pair| pair.access_key)
    }

    /// Makes a keypair for a user, named by e-mail address or id, and returns its secret key, which is shown only this
    /// once.
    ///
    /// # Errors
    /// [`Error::Missing`] for a user that the caller may not see, [`Error::Conflict`] when that user has too many.
    pub(crate) async fn add_keypair(
        &self,
        caller: &Caller,
        user: &str,
        change: Result<KeypairChange>,
    ) -> Result<(OwnedKeypair, Secret)> {
        let name = user.to_owned();
        self.as_admin(caller, "create_keypair", user, move |directory, caller, w| {
            let owner = directory.user(caller, Some(&name))?;
            check_token(caller, "create_keypair", &owner)?;
            if directory.accounts.keypairs_of(owner.id).len() >= MAX_KEYPAIRS {
                return Err(Error::LimitReached(format!(
                    "{} has {MAX_KEYPAIRS} keypairs, which is the most; delete one first",
                    owner.email
                )));
            }
            directory.put_new_keypair(caller, w, owner, change?)
        })
        .await
    }

    /// Changes a keypair.
    ///
    /// # Errors
    /// [`Error::Missing`] for a keypair that the caller may not see.
    pub(crate) async fn change_keypair(
        &self,
        caller: &Caller,
        access_key: &str,
        change: Result<KeypairChange>,
    ) -> Result<()> {
        let name = access_key.to_owned();
        self.as_admin(caller, "modify_keypair", access_key, move |directory, caller, w| {
            let old = directory.keypair(caller, Some(&name))?;
            check_token(caller, "modify_keypair", &old.owner)?;
            let changed = change?.apply(caller, "modify_keypair", old.pair)?;
            directory.accounts.change_keypair(w, &name, |_| changed)
        })
        .await
    }

    /// Gives a keypair a new secret key, which is shown only this once; the old one is no longer valid. The owner of a
    /// keypair may also do this, signing with that keypair.
    ///
    /// # Errors
    /// [`Error::Missing`] for a keypair that the caller may not see.
    pub(crate) async fn rotate_keypair(
        &self,
        caller: &Caller,
        access_key: &str,
    ) -> Result<(OwnedKeypair, Secret)> {
        let (directory, own, name) = (self.clone(), caller.clone(), access_key.to_owned());
        self.audit
            .perform(caller, "rotate_keypair", access_key, |deed| async move {
                deed.write(move |w| {
                    let old = directory.keypair(&own, Some(&name))?;
                    check_token(&own, "rotate_keypair", &old.owner)?;
                    let secret = new_secret_key()?;
                    let now = directory.clock.now();
                    let sealed = directory.accounts.seal_keypair(&name, &secret, old.owner.id, now)?;
                    let pair = Keypair { secret_key: sealed.secret_key, ..old.pair };
                    directory.accounts.put_keypair(w, pair.clone(), secret.clone())?;
                    Ok((OwnedKeypair { pair, owner: old.owner }, secret))
                })
                .await
            })
            .await
    }

    /// Removes a keypair, with its associations.
    ///
    /// # Errors
    /// [`Error::Missing`] for a keypair that the caller may not see.
    pub(crate) async fn remove_keypair(&self, caller: &Caller, access_key: &str) -> Result<()> {
        let name = access_key.to_owned();
        self.as_admin(caller, "delete_keypair", access_key, move |directory, caller, w| {
            directory.keypair(caller, Some(&name))?;
            directory.accounts.remove_keypair(w, &name)?;
            directory.dissociate_keypairs(w, &[name])
        })
        .await
    }

    /// Refuses to change resource policies, which Backend.AI's clients know: wharf has only one, which limits nothing.
    pub(crate) async fn refuse_policy(&self, caller: &Caller, action: &str, name: &str) -> Result<()> {
        let why =
            "there is one resource policy, default, which limits nothing; set the rate limit of keypairs";
        self.audit.superadmin(caller, action, name, |_| async { Err(Error::Conflict(why.into())) }).await
    }

    pub(in crate::access::directory) fn put_new_keypair(
        &self,
        caller: &Caller,
        writer: &mut Writer,
        owner: Arc<User>,
        change: KeypairChange,
    ) -> Result<(OwnedKeypair, Secret)> {
        let (access_key, secret) = (new_access_key()?, new_secret_key()?);
        let pair = self.accounts.seal_keypair(&access_key, &secret, owner.id, self.clock.now())?;
        let pair =
            change.apply(caller, "create_keypair", Keypair { rate_limit: DEFAULT_RATE_LIMIT, ..pair })?;
        self.accounts.put_keypair(writer, pair.clone(), secret.clone())?;
        Ok((OwnedKeypair { pair, owner }, secret))
    }
}
