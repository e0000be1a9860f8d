//! The first super-admin, made in a browser through the link that the server printed.
//!
//! The link is good once, until the server is restarted. Once there is an account it is worth nothing.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::access::accounts::Accounts;
use crate::access::audit::Audit;
use crate::access::caller::Credential;
use crate::access::first_admin::FirstAdmin;
use crate::access::generate::random_text;
use crate::access::hasher::Line;
use crate::access::names::checked_email;
use crate::access::sign_in::{NOBODY, Refusal, SignIn, SignedIn, check_sizes};
use crate::access::tenants;
use crate::access::throttle::Attempt;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::Store;

/// The length of the link's token in characters of six bits: 192 bits, more than anyone can guess.
const TOKEN_LENGTH: usize = 32;
/// The name that attempts are counted under. It is no e-mail address, so no account's owner has to wait for them.
const COUNTED: &str = "set-up";

/// What the operator entered on the page.
pub(crate) struct Choice {
    /// The token from the link.
    pub(crate) token: Secret,
    /// The e-mail address to sign in with.
    pub(crate) email: String,
    /// The password.
    pub(crate) password: Secret,
}

/// The first super-admin, made and signed in.
#[derive(Debug)]
pub(crate) struct SetUpDone {
    /// The session. The caller's access key is the new one.
    pub(crate) signed_in: SignedIn,
    /// The secret key, to be shown once.
    pub(crate) secret_key: Secret,
}

/// The service that makes the first super-admin. Clones share it.
#[derive(Clone)]
pub(crate) struct SetUp {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    accounts: Accounts,
    audit: Audit,
    sign_in: SignIn,
    clock: Clock,
    /// The hash of the link's token, while it is good.
    token: Mutex<Option<[u8; 32]>>,
}

impl SetUp {
    /// Creates the service, closed.
    pub(crate) fn new(store: Store, accounts: Accounts, audit: Audit, sign_in: SignIn, clock: Clock) -> Self {
        let token = Mutex::default();
        Self { shared: Arc::new(Shared { store, accounts, audit, sign_in, clock, token }) }
    }

    /// Opens it, and returns the token for the link.
    pub(crate) fn open(&self) -> Result<Secret> {
        let token = Secret::new(random_text(TOKEN_LENGTH)?);
        *self.shared.token.lock() = Some(hash_of(&token));
        Ok(token)
    }

    /// Whether the first super-admin is still to be made.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.token.lock().is_some()
    }

    /// Makes the first super-admin with a keypair, and signs them in. The caller must run it to its end even when the
    /// client is gone, so that each try counts.
    ///
    /// # Errors
    /// A [`Refusal`]; [`Refusal::Wrong`] if the link is not good, or no longer.
    pub(crate) async fn finish(&self, choice: Choice, address: Option<IpAddr>) -> Result<SetUpDone, Refusal> {
        check_sizes(&choice.email, &choice.password)?;
        if !self.is_open() {
            return Err(Error::Conflict("there is an account already; sign in with it".into()).into());
        }
        // A client with the right link never waits: 192 bits can't be guessed. The cost of wrong ones is bounded.
        let is_right = self.shared.is_right(&choice.token);
        let throttle = self.shared.sign_in.throttle();
        let wrong = if is_right { None } else { Some(throttle.admit(COUNTED, address).await?) };
        Arc::clone(&self.shared).finish(wrong, choice, address).await
    }
}

impl Shared {
    async fn finish(
        self: Arc<Self>,
        wrong: Option<Attempt>,
        choice: Choice,
        address: Option<IpAddr>,
    ) -> Result<SetUpDone, Refusal> {
        if let Some(attempt) = wrong {
            let shared = Arc::clone(&self);
            let noted = self.store.write(move |w| {
                attempt.failed(w)?;
                shared.audit.set_up(w, NOBODY, None, address, &Err(Error::Unauthenticated))
            });
            noted.await?;
            return Err(Refusal::Wrong);
        }
        let wanted = FirstAdmin {
            email: Some(checked_email(&choice.email)?),
            password: Some(choice.password.clone()),
            ..FirstAdmin::default()
        };
        let made = wanted.complete()?;
        let hash = self.sign_in.hasher().hash(Line::Known, choice.password).await?;
        let (shared, secret_key) = (Arc::clone(&self), made.secret_key.clone());
        let written = self.store.write(move |w| {
            // Two clients may come with the same link; the first one gets in.
            if !shared.accounts.is_empty() {
                return Err(Error::Conflict("somebody else was faster; sign in if it was you".into()));
            }
            let id = shared.accounts.put_first_admin(w, &made, hash, tenants::DEFAULT, shared.clock.now())?;
            shared.audit.set_up(w, &made.email, Some(id), address, &Ok(()))?;
            let key = shared.sign_in.sessions().open(w, id, address)?;
            let used = Arc::clone(&shared);
            w.on_commit(move || *used.token.lock() = None);
            Ok((id, key))
        });
        let (id, key) = written.await?;
        let caller = self.accounts.caller(id, Credential::Session)?;
        Ok(SetUpDone { signed_in: SignedIn { key, caller }, secret_key })
    }

    fn is_right(&self, token: &Secret) -> bool {
        let given = hash_of(token);
        self.token.lock().is_some_and(|kept| bool::from(kept.ct_eq(&given)))
    }
}

fn hash_of(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}
