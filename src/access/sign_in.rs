//! Signing in with e-mail address and password, and choosing another password.
//!
//! Whatever is tried is either refused without looking at it (see [`crate::access::throttle`]), or checked, counted
//! and noted in the audit log in one transaction with what came of it. An account that does not exist costs the same
//! work as one that does.

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
/// Lines a minute that the log gets of passwords that are not even checked: how many there are is up to an attacker.
const UNCHECKED: u32 = 60;
/// What the audit log has instead of a name that is no account's. It may be a password, typed in the wrong field.
pub(in crate::access) const NOBODY: &str = "(no such account)";

/// Why somebody is not signed in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such account, or it has another password, or may not be used: nobody is told which.
    Wrong,
    /// Too many wrong passwords; the next may be tried after this long.
    Wait(Duration),
    /// It could not be tried.
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

/// Somebody who proved to be who they are.
#[derive(Debug)]
pub(crate) struct SignedIn {
    /// What the new session is shown by.
    pub(crate) key: Secret,
    /// Who it is.
    pub(crate) caller: Caller,
}

/// The door. Clones share it.
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
    /// What the log says of passwords that were not even checked.
    unchecked: Limited,
}

impl SignIn {
    /// A door to these accounts, with the sessions and the failures that the store has.
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

    /// What counts those who try.
    pub(in crate::access) fn throttle(&self) -> &Throttle {
        &self.shared.throttle
    }

    /// Where passwords are hashed.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    /// Takes away the sessions that are over, the failures that are forgotten and memory that nobody uses; with `all`,
    /// writes what is known of the other sessions too.
    pub(crate) async fn tidy(&self, all: bool) -> Result<()> {
        self.shared.hasher.tidy();
        self.shared.sessions.tidy(all).await?;
        self.shared.throttle.tidy().await
    }

    /// Signs somebody in who knows the password, with a new session in the place of the one they may have had. To be
    /// waited for even when whoever asked is gone, or nobody would count it: `http::finish` sees to that.
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
                // Who leaves a machine that others use too has to be out, also where that can't be written yet.
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

    /// Ends all sessions of the caller's, the present one too unless it is to be kept. Returns how many they were.
    pub(crate) async fn sign_out_everywhere(&self, caller: &Caller, keep_current: bool) -> Result<usize> {
        let kept = caller.origin.session.filter(|_| keep_current);
        let (sessions, user) = (self.shared.sessions.clone(), caller.user);
        let end = async |deed: Deed| deed.write(move |w| sessions.end_all(w, user, kept)).await;
        self.shared.audit.perform(caller, "sign_out_everywhere", &caller.email, end).await
    }

    /// Gives the caller another password, if they know the one they have. All their other sessions end.
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
        // Before the password is looked at: whoever may not change it does not learn whether it is right either.
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
            // Not in the audit log: that would let anybody fill it.
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

    /// Lets in who has the right password while nothing can be written, for reading is still possible.
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

    /// The account, if since its password was looked at nobody changed that or switched the account off.
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
