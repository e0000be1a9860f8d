//! Signing in with e-mail address and password, and choosing another password.
//!
//! An attempt is either refused without checking the password (see [`crate::access::throttle`]), or checked, and then
//! counted and noted in the audit log in one transaction with its effect. An attempt at an account that does not exist
//! costs as much work as one at an account that does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access::accounts::Accounts;
use crate::access::audit::{Audit, Deed, SIGN_OUT};
use crate::access::caller::{Caller, Credential, SessionId};
use crate::access::hasher::{Hasher, MAX_PASSWORD};
use crate::access::sessions::{SessionLimits, Sessions};
use crate::access::throttle::{Attempt, Denial, Throttle};
use crate::access::user::User;
use crate::base::clock::Clock;
use crate::base::lines::Limited;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::Store;

/// Longest e-mail address (RFC 5321).
const MAX_EMAIL: usize = 254;
/// Lines a minute that the log gets about passwords that are not even checked: an attacker decides how many come.
const UNCHECKED: u32 = 60;
/// What the audit log has instead of a name that no account has. Such a name may be a password typed in the wrong
/// field.
pub(in crate::access) const NOBODY: &str = "(no such account)";

/// Why an attempt to sign in is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such account, or its password is another, or it may not be used: the client is not told which.
    Wrong,
    /// There were too many wrong passwords; the next may be tried after this long.
    Wait(Duration),
    /// The password could not be checked.
    Failed(Error),
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Wait(wait) => Self::Wait(wait),
            Denial::Busy => {
                let why = "too many people sign in at once; try again in a few seconds";
                Self::Failed(Error::Busy(why.into()))
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Unauthenticated => Self::Wrong,
            error => Self::Failed(error),
        }
    }
}

/// A user who has proved who they are.
#[derive(Debug)]
pub(crate) struct SignedIn {
    /// The key of the new session.
    pub(crate) key: Secret,
    /// The user, as a caller.
    pub(crate) caller: Caller,
}

/// The service that signs users in. Clones share it.
#[derive(Clone)]
pub(crate) struct SignIn {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    accounts: Accounts,
    audit: Audit,
    sessions: Sessions,
    throttle: Throttle,
    hasher: Hasher,
    clock: Clock,
    /// Limits the log's lines about passwords that were not even checked.
    unchecked: Limited,
}

impl SignIn {
    /// Creates the service over these accounts, with the sessions and the failures in the store.
    pub(crate) fn load(
        store: &Store,
        accounts: &Accounts,
        audit: Audit,
        clock: Clock,
        limits: SessionLimits,
    ) -> Result<Self> {
        let shared = Shared {
            store: store.clone(),
            accounts: accounts.clone(),
            audit,
            sessions: Sessions::load(store, accounts, clock.clone(), limits)?,
            throttle: Throttle::load(store, clock.clone())?,
            hasher: Hasher::new()?,
            clock,
            unchecked: Limited::new(UNCHECKED),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The sessions it opens.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// The throttle that counts the attempts.
    pub(in crate::access) fn throttle(&self) -> &Throttle {
        &self.shared.throttle
    }

    /// Where passwords are hashed.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    /// Removes the sessions that are over, the failures that are forgotten and unused memory; with `all`, writes how
    /// long the other sessions have been unused, too.
    pub(crate) async fn tidy(&self, all: bool) -> Result<()> {
        self.shared.hasher.tidy();
        self.shared.sessions.tidy(all).await?;
        self.shared.throttle.tidy().await
    }

    /// Signs in a user who knows the password, with a new session in place of the one they may have had. The caller
    /// must run it to its end even when the client is gone, or the attempt would not be counted: `http::finish` does.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub(crate) async fn sign_in(
        &self,
        email: String,
        password: Secret,
        address: Option<IpAddr>,
        before: Option<SessionId>,
    ) -> Result<SignedIn, Refusal> {
        check_sizes(&email, &password)?;
        let attempt = self.admit(&email, address).await?;
        Arc::clone(&self.shared).check(attempt, email, password, address, before).await
    }

    /// Ends the caller's session.
    pub(crate) async fn sign_out(&self, caller: &Caller) -> Result<()> {
        let Some(session) = caller.origin.session else { return Ok(()) };
        let sessions = self.shared.sessions.clone();
        let end = async |deed: Deed| {
            let ended = sessions.clone();
            match deed.write(move |w| sessions.end(w, session)).await {
                // A user who leaves a shared machine must be signed out, even where that can't be written yet.
                Err(Error::Unavailable(why)) => {
                    tracing::warn!(why, "signed out, which is written once it can be");
                    ended.end_unkept(session);
                    Ok(())
                }
                ended => ended,
            }
        };
        self.shared.audit.perform(caller, SIGN_OUT, &caller.email, end).await
    }

    /// Ends all sessions of the caller, and the present one unless it is to be kept. Returns how many ended.
    pub(crate) async fn sign_out_everywhere(&self, caller: &Caller, keep_current: bool) -> Result<usize> {
        let kept = caller.origin.session.filter(|_| keep_current);
        let (sessions, user) = (self.shared.sessions.clone(), caller.user);
        let end = async |deed: Deed| deed.write(move |w| sessions.end_all(w, user, kept)).await;
        self.shared.audit.perform(caller, "sign_out_everywhere", &caller.email, end).await
    }

    /// Changes the caller's password, if they give the present one. All their other sessions end. The caller of this
    /// function must run it to its end even when the client is gone, so that each try counts.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub(crate) async fn change_password(
        &self,
        caller: Caller,
        old: Secret,
        new: Secret,
    ) -> Result<(), Refusal> {
        check_sizes(&caller.email, &old)?;
        // Decided before the password is checked: a caller who may not change it must not learn whether it is right.
        let permission = caller.require_no_token("update_password");
        if permission.is_err() {
            let refuse = |_| async { permission };
            self.shared.audit.perform(&caller, "update_password", &caller.email, refuse).await?;
        }
        let attempt = self.admit(&caller.email, caller.origin.address).await?;
        Arc::clone(&self.shared).change(attempt, caller, old, new).await
    }

    async fn admit(&self, email: &str, address: Option<IpAddr>) -> Result<Attempt, Refusal> {
        self.shared.throttle.admit(email, address).await.map_err(|denial| {
            // Not in the audit log, or an attacker could fill it.
            self.shared.unchecked.say("passwords that were refused unseen", || {
                tracing::info!(?address, ?denial, "a password was refused unseen");
            });
            denial.into()
        })
    }
}

impl Shared {
    async fn check(
        self: Arc<Self>,
        attempt: Attempt,
        email: String,
        password: Secret,
        address: Option<IpAddr>,
        before: Option<SessionId>,
    ) -> Result<SignedIn, Refusal> {
        let user = self.accounts.user_by_email(&email);
        let hash = user.as_ref().map(|user| user.password.clone());
        let named = user.as_ref().map_or_else(|| NOBODY.to_owned(), |user| user.email.clone());
        let is_right = self.hasher.matches(attempt.line(), password, hash).await?;
        let (shared, attempt) = (Arc::clone(&self), Arc::new(attempt));
        let unkept = (Arc::clone(&attempt), user.clone());
        let checked = self.store.write(move |w| {
            let user = user.filter(|_| is_right).and_then(|user| shared.still(&user));
            let id = user.as_ref().map(|user| user.id);
            let Some(user) = user else {
                attempt.failed(w)?;
                shared.audit.note(w, &named, id, address, "sign_in", &Err(Error::Unauthenticated))?;
                return Ok(None);
            };
            attempt.succeeded(w)?;
            shared.audit.note(w, &named, id, address, "sign_in", &Ok(()))?;
            let caller = shared.accounts.caller(user.id, Credential::Session)?;
            if let Some(before) = before {
                shared.sessions.end(w, before)?;
            }
            let key = shared.sessions.open(w, user.id, address)?;
            Ok(Some(SignedIn { key, caller }))
        });
        match checked.await {
            Err(Error::Unavailable(why)) => {
                let (attempt, user) = unkept;
                self.check_unkept(&attempt, user.filter(|_| is_right), address, &why)
            }
            checked => checked?.ok_or(Refusal::Wrong),
        }
    }

    /// Signs in a user with the right password while nothing can be written, since reading is still possible.
    fn check_unkept(
        &self,
        attempt: &Attempt,
        user: Option<Arc<User>>,
        address: Option<IpAddr>,
        why: &str,
    ) -> Result<SignedIn, Refusal> {
        let Some(user) = user.and_then(|user| self.still(&user)) else {
            attempt.failed_unkept();
            return Err(Refusal::Wrong);
        };
        tracing::warn!(user = %user.id, ?address, why, "signed in, which can't be kept: neither session nor audit log");
        let caller = self.accounts.caller(user.id, Credential::Session)?;
        Ok(SignedIn { key: self.sessions.open_unkept(user.id, address)?, caller })
    }

    async fn change(
        self: Arc<Self>,
        attempt: Attempt,
        caller: Caller,
        old: Secret,
        new: Secret,
    ) -> Result<(), Refusal> {
        let user = self.accounts.user(caller.user).ok_or(Refusal::Wrong)?;
        if !self.hasher.matches(attempt.line(), old, Some(user.password.clone())).await? {
            let shared = Arc::clone(&self);
            let noted = self.store.write(move |w| {
                attempt.failed(w)?;
                let wrong = Err(Error::invalid("old_password", "it is not your password"));
                let (email, address) = (&caller.email, caller.origin.address);
                shared.audit.note(w, email, Some(caller.user), address, "update_password", &wrong)
            });
            noted.await?;
            return Err(Refusal::Wrong);
        }
        let hash = self.hasher.hash(attempt.line(), new).await?;
        let (shared, session) = (Arc::clone(&self), caller.origin.session);
        let perform = self.audit.perform(&caller, "update_password", &caller.email, |deed| async move {
            deed.write(move |w| {
                let user = shared.still(&user).ok_or(Error::Unauthenticated)?;
                let changed = User {
                    password: hash,
                    need_password_change: false,
                    modified_at: Some(shared.clock.now()),
                    ..(*user).clone()
                };
                attempt.succeeded(w)?;
                shared.sessions.end_all(w, changed.id, session)?;
                shared.accounts.put_user(w, changed)
            })
            .await
        });
        Ok(perform.await?)
    }

    /// The account, unless its password changed or it was switched off since the password was checked.
    fn still(&self, seen: &User) -> Option<Arc<User>> {
        let now = self.accounts.user(seen.id)?;
        (now.is_active() && now.password == seen.password).then_some(now)
    }
}

pub(in crate::access) fn check_sizes(email: &str, password: &Secret) -> Result<()> {
    if email.len() > MAX_EMAIL {
        return Err(Error::invalid("e-mail", format!("it may have {MAX_EMAIL} bytes at most")));
    }
    if password.expose().len() > MAX_PASSWORD {
        return Err(Error::invalid("password", format!("it may have {MAX_PASSWORD} bytes at most")));
    }
    Ok(())
}
