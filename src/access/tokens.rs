//! Personal API tokens: what a script presents instead of its owner's password or keypair, for a limited time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::accounts::Accounts;
use crate::access::audit::Audit;
use crate::access::caller::{Caller, Credential, Origin};
use crate::access::generate::random_key;
use crate::access::names::checked_name;
use crate::base::clock::Clock;
use crate::base::ids::{TokenId, UserId};
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::Writer;
use crate::store::{Store, Table};

const TOKENS: Table<Token> = Table::new("TOKEN_HASH_TO_TOKEN");

/// The start of every token, so that programs that search for leaked secrets recognize it.
const PREFIX: &str = "wharf_";
/// The number of random characters, of five bits each.
const RANDOM: usize = 52;
/// The number of check characters, which tell a token from similar text: forty bits of the hash of what precedes them.
const CHECK: usize = 8;
/// How many tokens a user may have.
const MAX_PER_USER: usize = 100;
/// How long a token lasts by default, in days.
const DEFAULT_DAYS: i32 = 90;
/// The longest that a token may last, in days.
const MAX_DAYS: i32 = 365;
/// How precisely a token's last use survives a restart.
const LAST_USED: SignedDuration = SignedDuration::from_hours(1);

type Hash = [u8; 32];

/// A token as the store keeps it: everything but its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Its id, to revoke it by.
    pub(crate) id: TokenId,
    /// Whose it is.
    pub(crate) user: UserId,
    /// What its owner calls it.
    pub(crate) name: String,
    /// Whether it is for reading only.
    pub(crate) read_only: bool,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it expires: from then on it is refused.
    pub(crate) expires_at: Timestamp,
    /// When it was last used, to the hour.
    #[serde(default)]
    pub(crate) last_used: Option<Timestamp>,
}

/// The options for a new token.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// `read` or `full`.
    pub(crate) scope: &'a str,
    /// How many days it lasts from now.
    pub(crate) days: Option<i32>,
    /// When it expires, in RFC 3339.
    pub(crate) until: Option<&'a str>,
}

impl Wanted<'_> {
    fn is_read_only(&self) -> Result<bool> {
        match self.scope {
            "read" => Ok(true),
            "full" => Ok(false),
            other => Err(Error::invalid("scope", format!("{:?} is neither read nor full", shown(other)))),
        }
    }

    fn expires_at(&self, now: Timestamp) -> Result<Timestamp> {
        let parse = |text: &str| {
            let why = || format!("{:?} is no time such as 2030-01-31T12:00:00Z", shown(text));
            text.parse().map_err(|_| Error::invalid("expires_at", why()))
        };
        Expiry { days: self.days, at: self.until.map(parse).transpose()? }.resolve(now)
    }
}

/// When a new token expires.
struct Expiry {
    days: Option<i32>,
    at: Option<Timestamp>,
}

impl Expiry {
    fn resolve(self, now: Timestamp) -> Result<Timestamp> {
        let after = |days: i32| now + SignedDuration::from_hours(i64::from(days) * 24);
        let refuse = |field, why: String| Err(Error::invalid(field, why));
        match (self.days, self.at) {
            (Some(_), Some(_)) => {
                refuse("expires_at", "give either the days or the time, not both".to_owned())
            }
            (None, None) => Ok(after(DEFAULT_DAYS)),
            (Some(days), None) if (1..=MAX_DAYS).contains(&days) => Ok(after(days)),
            (Some(_), None) => refuse("expires_in_days", format!("it must be from 1 to {MAX_DAYS}")),
            (None, Some(at)) if at > now && at <= after(MAX_DAYS) => Ok(at),
            (None, Some(_)) => refuse("expires_at", format!("it must lie within the next {MAX_DAYS} days")),
        }
    }
}

struct Live {
    hash: Hash,
    token: Token,
    /// When it was last used, in seconds since 1970; 0 for never since the start.
    used: AtomicI64,
}

impl Live {
    fn shown(&self) -> Token {
        let used = Timestamp::from_second(self.used.load(Ordering::Relaxed)).ok();
        let used = used.filter(|at| *at > Timestamp::UNIX_EPOCH).max(self.token.last_used);
        Token { last_used: used, ..self.token.clone() }
    }
}

type Index = HashMap<Hash, Arc<Live>>;

/// The tokens of all users. Clones share them.
#[derive(Clone)]
pub(crate) struct Tokens {
    store: Store,
    accounts: Accounts,
    audit: Audit,
    clock: Clock,
    index: Arc<RwLock<Index>>,
}

impl Tokens {
    /// Reads the tokens from the store.
    pub(crate) fn load(store: &Store, accounts: &Accounts, audit: Audit, clock: Clock) -> Result<Self> {
        let mut index = Index::default();
        store.read_now(|r| {
            r.scan(&TOKENS, [], |key, token: Token| {
                let hash: Hash = key.try_into().map_err(Error::internal)?;
                index.insert(hash, Arc::new(Live { hash, token, used: AtomicI64::new(0) }));
                Ok(())
            })
        })?;
        let index = Arc::new(RwLock::new(index));
        Ok(Self { store: store.clone(), accounts: accounts.clone(), audit, clock, index })
    }

    /// The caller whose token this is, and the token's hash.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a token that is unknown, revoked or expired, or an account that may not be used.
    pub(crate) fn caller(&self, text: &str, address: Option<IpAddr>) -> Result<(Caller, Hash)> {
        let random = text.strip_prefix(PREFIX).and_then(|rest| rest.get(..RANDOM));
        if random.is_none_or(|random| text != spelled(random)) {
            return Err(Error::Unauthenticated);
        }
        let hash = hash_of(text);
        let live = self.index.read().get(&hash).cloned().ok_or(Error::Unauthenticated)?;
        let now = self.clock.now();
        if now >= live.token.expires_at {
            return Err(Error::Unauthenticated);
        }
        let credential = Credential::Token(live.token.name.clone());
        let caller = self.accounts.caller(live.token.user, credential)?;
        live.used.store(now.as_second(), Ordering::Relaxed);
        let origin = Origin { address, read_only: live.token.read_only, ..caller.origin };
        Ok((Caller { origin, ..caller }, hash))
    }

    /// Whether a user still has the token of this name.
    pub(crate) fn is_live(&self, user: UserId, name: &str) -> bool {
        let now = self.clock.now();
        self.of(user).iter().any(|live| live.token.name == name && now < live.token.expires_at)
    }

    /// The tokens of a user, the latest first: the caller's own, or for super-admins those of the account with this
    /// e-mail address.
    ///
    /// # Errors
    /// [`Error::Denied`] for another user's tokens, [`Error::Missing`] when there is no such account.
    pub(crate) fn list(&self, caller: &Caller, email: Option<&str>) -> Result<Vec<Token>> {
        let user = match email {
            Some(email) if !email.eq_ignore_ascii_case(&caller.email) => {
                caller.require_superadmin("api_tokens")?;
                let user = self.accounts.user_by_email(email);
                user.ok_or_else(|| Error::missing("user", email))?.id
            }
            _ => caller.user,
        };
        Ok(self.of(user).iter().map(|live| live.shown()).collect())
    }

    /// Makes a token for the caller and returns it with its text, which can't be read again.
    ///
    /// # Errors
    /// [`Error::Denied`] when the request comes with a token: a thief of a token must not be able to prolong it.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        name: &str,
        wanted: Wanted<'_>,
    ) -> Result<(Token, Secret)> {
        self.audit
            .perform(caller, "create_api_token", name, |deed| async move {
                caller.require_no_token("create_api_token")?;
                let now = self.clock.stamp();
                let token = Token {
                    id: TokenId::random(),
                    user: caller.user,
                    name: checked_name("name", name)?,
                    read_only: wanted.is_read_only()?,
                    created_at: now,
                    expires_at: wanted.expires_at(now)?,
                    last_used: None,
                };
                let text = Secret::new(spelled(&random_key(RANDOM)?.to_ascii_lowercase()));
                let (tokens, hash, made) = (self.clone(), hash_of(text.expose()), token.clone());
                deed.write(move |w| {
                    let others = tokens.of(made.user);
                    if others.len() >= MAX_PER_USER {
                        let why =
                            format!("you have {MAX_PER_USER} tokens, the most there may be; revoke some");
                        return Err(Error::LimitReached(why));
                    }
                    if others.iter().any(|live| live.token.name == made.name) {
                        return Err(Error::Exists(format!("you have a token {:?} already", made.name)));
                    }
                    tokens.put(w, hash, made)
                })
                .await?;
                Ok((token, text))
            })
            .await
    }

    /// Revokes a token: one of the caller's own, or for super-admins any user's.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such token, or none that the caller may know of.
    pub(crate) async fn revoke(&self, caller: &Caller, id: &str) -> Result<()> {
        self.audit
            .perform(caller, "revoke_api_token", id, |deed| async move {
                let found = id.parse().ok().and_then(|id| self.find(id));
                let may = |live: &Arc<Live>| live.token.user == caller.user || caller.is_superadmin();
                let live = found.filter(may).ok_or_else(|| Error::missing("API token", id))?;
                let tokens = self.clone();
                deed.write(move |w| tokens.remove(w, live.hash)).await
            })
            .await
    }

    /// Revokes all tokens of a user, when the account is switched off.
    pub(crate) fn revoke_all(&self, writer: &mut Writer, user: UserId) -> Result<()> {
        self.of(user).iter().try_for_each(|live| self.remove(writer, live.hash))
    }

    /// Removes the tokens that have expired or lost their account, and writes when the others were last used. While the
    /// time of day is not believed, expired tokens are refused but not removed.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let today = self.clock.calendar();
        let is_over = |live: &Live| {
            let is_expired = today.is_some_and(|today| today >= live.token.expires_at);
            is_expired || self.accounts.user(live.token.user).is_none()
        };
        let is_late = |live: &Live| {
            let since =
                |at: Timestamp| at.duration_since(live.token.last_used.unwrap_or(Timestamp::UNIX_EPOCH));
            today.is_some() && live.shown().last_used.is_some_and(|at| since(at) >= LAST_USED)
        };
        let (over, late): (Vec<_>, Vec<_>) = {
            let index = self.index.read();
            let touched = index.values().filter(|live| is_over(live) || is_late(live));
            touched.cloned().partition(|live| is_over(live))
        };
        if over.is_empty() && late.is_empty() {
            return Ok(());
        }
        let tokens = self.clone();
        self.store
            .write(move |w| {
                for live in over {
                    tokens.remove(w, live.hash)?;
                }
                for live in late {
                    // A token that was revoked meanwhile stays revoked.
                    if tokens.index.read().contains_key(&live.hash) {
                        tokens.put(w, live.hash, live.shown())?;
                    }
                }
                Ok(())
            })
            .await
    }

    fn of(&self, user: UserId) -> Vec<Arc<Live>> {
        let index = self.index.read();
        let mut own: Vec<_> = index.values().filter(|live| live.token.user == user).cloned().collect();
        own.sort_by_key(|live| std::cmp::Reverse((live.token.created_at, live.token.id)));
        own
    }

    fn find(&self, id: TokenId) -> Option<Arc<Live>> {
        self.index.read().values().find(|live| live.token.id == id).cloned()
    }

    fn put(&self, writer: &mut Writer, hash: Hash, token: Token) -> Result<()> {
        writer.put(&TOKENS, hash, &token)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || {
            index.write().insert(hash, Arc::new(Live { hash, token, used: AtomicI64::new(0) }));
        });
        Ok(())
    }

    fn remove(&self, writer: &mut Writer, hash: Hash) -> Result<()> {
        writer.remove(&TOKENS, hash)?;
        let index = Arc::clone(&self.index);
        writer.on_commit(move || {
            index.write().remove(&hash);
        });
        Ok(())
    }
}

fn hash_of(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// The text of a token with these random characters: prefix, characters, check.
fn spelled(random: &str) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let start = format!("{PREFIX}{random}");
    let hash = hash_of(&start);
    let check = hash.iter().take(CHECK).filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()));
    let check: String = check.map(|letter| char::from(*letter)).collect();
    start + &check
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::{SignedDuration, Timestamp};

    use super::{Expiry, Tokens, Wanted, spelled};
    use crate::access::accounts::Accounts;
    use crate::access::audit::{Audit, Retention};
    use crate::access::caller::Credential;
    use crate::access::first_admin::FirstAdmin;
    use crate::access::hasher::Hasher;
    use crate::base::clock::Clock;
    use crate::store::Store;

    #[tokio::test]
    async fn a_token_that_is_over_only_by_a_clock_that_jumped_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (day, today) = (Arc::new(AtomicI64::new(1_700_000_000)), Timestamp::UNIX_EPOCH);
        let shown = Arc::clone(&day);
        let clock = Clock::new(move || Timestamp::from_second(shown.load(Ordering::Relaxed)).unwrap());
        let accounts = Accounts::load(&store).unwrap();
        let made = FirstAdmin::default();
        let made = accounts.create_first_admin(&Hasher::new().unwrap(), made, "default", today).unwrap();
        let user = accounts.user_by_email(&made.email).unwrap().id;
        let caller = accounts.caller(user, Credential::Session).unwrap();
        let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
        let tokens = Tokens::load(&store, &accounts, audit, clock).unwrap();
        let (_, text) =
            tokens.create(&caller, "ci", Wanted { scope: "read", ..Wanted::default() }).await.unwrap();
        let is_good = || tokens.caller(text.expose(), None).is_ok();
        assert!(is_good());
        day.fetch_add(3_650 * 86_400, Ordering::Relaxed);
        assert!(!is_good(), "as it is by the calendar");
        tokens.tidy().await.unwrap();
        day.fetch_sub(3_650 * 86_400, Ordering::Relaxed);
        tokens.tidy().await.unwrap();
        assert!(is_good());
    }

    #[test]
    fn a_token_has_a_shape_of_its_own() {
        let text = spelled(&"a".repeat(52));
        assert_eq!(text.len(), 66);
        assert!(text.starts_with("wharf_aaaa"));
        assert!(text.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)));
        assert_ne!(text[58..], spelled(&"b".repeat(52))[58..], "the end depends on the rest");
    }

    #[test]
    fn a_token_lasts_ninety_days_and_a_year_at_most() {
        let now = Timestamp::UNIX_EPOCH;
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        let of = |days, at| Expiry { days, at }.resolve(now);
        assert_eq!(of(None, None).unwrap(), now + days(90));
        assert_eq!(of(Some(365), None).unwrap(), now + days(365));
        assert_eq!(of(None, Some(now + days(1))).unwrap(), now + days(1));
        for (wanted, at) in
            [(Some(0), None), (Some(366), None), (None, Some(now)), (None, Some(now + days(366)))]
        {
            assert!(of(wanted, at).is_err(), "{wanted:?} {at:?}");
        }
        assert!(of(Some(1), Some(now + days(1))).is_err());
    }
}
