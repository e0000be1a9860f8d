//! How agents on other machines join: join tokens, and the credentials that they are exchanged for.
//!
//! A token and a credential are random, so only a plain hash of each is kept. A token is good for a number of joins,
//! one by default, until it expires; its state can be asked for until a week later.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::access::names::checked_name;
use crate::access::tenants::Tenants;
use crate::base::agent_name;
use crate::base::clock::Clock;
use crate::base::digest::{Digest, hex};
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::Writer;
use crate::store::{Store, Table};

const TOKENS: Table<JoinToken> = Table::new("JOIN_TOKEN_ID_TO_JOIN_TOKEN");
const CREDENTIALS: Table<Credential> = Table::new("AGENT_KEY_TO_CREDENTIAL");

/// The start of every token, so that people and scanners for leaked secrets recognize it.
const PREFIX: &str = "whj";
/// Random bytes in a token's id, and in its secret part.
const ID_BYTES: usize = 5;
const SECRET_BYTES: usize = 24;
/// How long a token is good by default, and at most.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);
const LONGEST_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 30);
/// How long after its end a token is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How many tokens there may be.
const MAX_TOKENS: usize = 10_000;
/// How many joins one token may be good for: a cluster's nodes.
const MAX_USES: u32 = 10_000;
/// The shortest and the longest key of a credential, in letters.
const KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=64;

/// A join token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinToken {
    /// Its id, which is not secret.
    pub(crate) id: String,
    hash: String,
    /// The only agent that may join by it.
    pub(crate) agent: Option<String>,
    /// The scaling group that agents join by it.
    pub(crate) scaling_group: Option<String>,
    /// How many joins are left.
    pub(crate) uses_left: u32,
    /// Who made it.
    pub(crate) created_by: String,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it expires.
    pub(crate) expires_at: Timestamp,
    /// Whether an admin revoked it.
    pub(crate) revoked: bool,
    /// The agent that used it last.
    pub(crate) used_by: Option<String>,
}

impl JoinToken {
    fn state(&self, now: Timestamp) -> &'static str {
        if self.revoked {
            "revoked"
        } else if self.uses_left == 0 {
            "used"
        } else if self.expires_at <= now {
            "expired"
        } else {
            "good"
        }
    }
}

/// The options for a new token.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewToken {
    /// The only agent that may join by it.
    pub(crate) agent: Option<String>,
    /// The scaling group for the agents that join by it.
    pub(crate) scaling_group: Option<String>,
    /// How long it is good.
    pub(crate) lifetime: Option<SignedDuration>,
    /// How many joins it is good for.
    pub(crate) uses: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Credential {
    key: String,
    hash: String,
    agent: String,
    joined_at: Timestamp,
}

/// The tokens and credentials. Clones share them.
#[derive(Clone)]
pub(crate) struct Joins {
    store: Store,
    clock: Clock,
    audit: Audit,
    tenants: Tenants,
}

impl Joins {
    /// The tokens and credentials in this store.
    pub(crate) fn new(store: Store, clock: Clock, audit: Audit, tenants: Tenants) -> Self {
        Self { store, clock, audit, tenants }
    }

    /// Makes a token and returns its text, which is shown only this once. For super-admins.
    pub(crate) async fn create(&self, caller: &Caller, wanted: NewToken) -> Result<(JoinToken, Secret)> {
        let target = wanted.agent.clone().unwrap_or_else(|| "any agent".into());
        self.audit
            .superadmin(caller, "create_agent_token", &target, |deed| async move {
                let (token, text) = self.made(caller, wanted)?;
                let kept = token.clone();
                let (today, tenants) = (self.clock.calendar(), self.tenants.clone());
                deed.write(move |w| {
                    kept.scaling_group.iter().try_for_each(|group| tenants.require_scaling_group(group))?;
                    let count = forget_old(w, today)?;
                    if count >= MAX_TOKENS {
                        return Err(Error::LimitReached(format!(
                            "there are {MAX_TOKENS} tokens; revoke some"
                        )));
                    }
                    w.put(&TOKENS, &kept.id, &kept)
                })
                .await?;
                Ok((token, text))
            })
            .await
    }

    fn made(&self, caller: &Caller, wanted: NewToken) -> Result<(JoinToken, Secret)> {
        let agent = wanted.agent.map(|id| agent_name::checked("id", &id)).transpose()?;
        let scaling_group =
            wanted.scaling_group.map(|name| checked_name("scaling_group", &name)).transpose()?;
        let lifetime = wanted.lifetime.unwrap_or(LIFETIME);
        if !lifetime.is_positive() || lifetime > LONGEST_LIFETIME {
            return Err(Error::invalid("expires", "a token lives between a second and 30 days"));
        }
        let uses_left = wanted.uses.unwrap_or(1);
        if !(1..=MAX_USES).contains(&uses_left) {
            return Err(Error::invalid("uses", format!("a token is good for 1 to {MAX_USES} joins")));
        }
        if agent.is_some() && uses_left > 1 {
            return Err(Error::invalid("uses", "a token for one agent is good for one join"));
        }
        let (id, secret) = (random(ID_BYTES)?, random(SECRET_BYTES)?);
        let now = self.clock.stamp();
        let token = JoinToken {
            hash: hash(&secret),
            agent,
            scaling_group,
            uses_left,
            created_by: caller.email.clone(),
            created_at: now,
            expires_at: now.checked_add(lifetime).map_err(Error::internal)?,
            revoked: false,
            used_by: None,
            id: id.clone(),
        };
        Ok((token, Secret::new(format!("{PREFIX}_{id}_{secret}"))))
    }

    /// All tokens that are remembered, the newest first. For super-admins.
    pub(crate) async fn list(&self, caller: &Caller) -> Result<Vec<JoinToken>> {
        caller.require_superadmin("agent_tokens")?;
        self.store
            .read(|r| {
                let mut tokens = Vec::new();
                r.scan(&TOKENS, [], |_, token: JoinToken| {
                    tokens.push(token);
                    Ok(())
                })?;
                tokens.sort_by_key(|token| std::cmp::Reverse(token.created_at));
                Ok(tokens)
            })
            .await
    }

    /// The token's state: `good`, `used`, `expired` or `revoked`.
    pub(crate) fn state(&self, token: &JoinToken) -> &'static str {
        token.state(self.clock.now())
    }

    /// Revokes a token. Agents that joined by it stay. For super-admins.
    pub(crate) async fn revoke(&self, caller: &Caller, id: &str) -> Result<()> {
        self.audit
            .superadmin(caller, "revoke_agent_token", id, |deed| {
                let id = id.to_owned();
                async move {
                    deed.write(move |w| {
                        let token = w.find(&TOKENS, &id)?;
                        let token = token.ok_or_else(|| Error::missing("agent token", shown(&id)))?;
                        w.put(&TOKENS, &id, &JoinToken { revoked: true, ..token })
                    })
                    .await
                }
            })
            .await
    }

    /// The agent with this credential.
    pub(crate) async fn agent_of(&self, key: &str, secret: &Secret) -> Result<Option<String>> {
        let (key, hash) = (key.to_owned(), hash(secret.expose()));
        let found = self.store.read(move |r| r.find(&CREDENTIALS, &key)).await?;
        Ok(found.filter(|credential: &Credential| same(&credential.hash, &hash)).map(|found| found.agent))
    }

    /// Whether a token can be used now, and what it is good for. Only the token's holder learns why it can't be used; a
    /// client that guesses learns nothing.
    pub(crate) fn check(&self, writer: &Writer, text: &Secret) -> Result<Result<JoinToken, String>> {
        let (id, secret) = parts(text);
        let found: Option<JoinToken> = writer.find(&TOKENS, id)?;
        let token = found.filter(|token| same(&token.hash, &hash(secret)));
        Ok(match token {
            None => Err("the join token is unknown; an admin can make one: wharf agent token create".into()),
            Some(token) => match token.state(self.clock.now()) {
                "good" => Ok(token),
                state => {
                    let was = if state == "expired" { "has expired".into() } else { format!("was {state}") };
                    Err(format!("the join token {was}; an admin can make another: wharf agent token create"))
                }
            },
        })
    }

    /// Makes room for a new credential of an agent, within the transaction that lets it in by this token. A credential
    /// that the agent has is removed if the token was made for this agent later, for then a super-admin wants it
    /// replaced. Returns the reason, for the token's holder, if the agent has one that must stay or the key belongs to
    /// another agent.
    pub(crate) fn replace(
        writer: &mut Writer,
        token: &JoinToken,
        key: &str,
        agent: &str,
    ) -> Result<Result<(), String>> {
        for known in writer.keys(&CREDENTIALS, [])? {
            let found: Option<Credential> = writer.find(&CREDENTIALS, &known)?;
            let Some(old) = found.filter(|found| found.agent == agent) else { continue };
            if token.agent.as_deref() != Some(agent) || token.created_at < old.joined_at {
                return Ok(Err(format!(
                    "{agent} has joined since this token was made; if it is to be replaced, an admin can make a new \
                     one: wharf agent token create --id {agent}"
                )));
            }
            writer.remove(&CREDENTIALS, &known)?;
        }
        if writer.find(&CREDENTIALS, key)?.is_some() {
            return Ok(Err(
                "another agent is known by the key of its credential, and only whoever has that one's secret, or a \
                 super-admin, may replace it; start this one with an empty --state-dir, so that it makes a key of its own"
                    .into(),
            ));
        }
        Ok(Ok(()))
    }

    /// Takes one use of a token for a credential, within the transaction that adds the agent, after
    /// [`Joins::replace`].
    pub(crate) fn spend(
        &self,
        writer: &mut Writer,
        token: JoinToken,
        key: &str,
        secret: &Secret,
        agent: &str,
    ) -> Result<()> {
        let now = self.clock.now();
        let spent = JoinToken {
            uses_left: token.uses_left.saturating_sub(1),
            used_by: Some(agent.to_owned()),
            ..token
        };
        writer.put(&TOKENS, &spent.id, &spent)?;
        let hash = hash(secret.expose());
        let credential = Credential { key: key.into(), hash, agent: agent.into(), joined_at: now };
        writer.put(&CREDENTIALS, key, &credential)
    }

    /// Forgets an agent's credential.
    pub(crate) fn forget(writer: &mut Writer, agent: &str) -> Result<()> {
        for key in writer.keys(&CREDENTIALS, [])? {
            let found: Option<Credential> = writer.find(&CREDENTIALS, &key)?;
            if found.is_some_and(|credential| credential.agent == agent) {
                writer.remove(&CREDENTIALS, &key)?;
            }
        }
        Ok(())
    }
}

/// Gives an agent's credential its new name, within the transaction that renames the agent.
pub(crate) fn rename(writer: &mut Writer, agent: &str, to: &str) -> Result<()> {
    for key in writer.keys(&CREDENTIALS, [])? {
        let found: Option<Credential> = writer.find(&CREDENTIALS, &key)?;
        if let Some(credential) = found.filter(|credential| credential.agent == agent) {
            writer.put(&CREDENTIALS, &key, &Credential { agent: to.into(), ..credential })?;
        }
    }
    Ok(())
}

/// Whether this text can be the key of a credential.
pub(crate) fn is_key(key: &str) -> bool {
    KEY_LENGTH.contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Removes the tokens that ended too long ago, if the date is known; returns how many are left.
fn forget_old(writer: &mut Writer, today: Option<Timestamp>) -> Result<usize> {
    let mut left = 0;
    for key in writer.keys(&TOKENS, [])? {
        let token: Option<JoinToken> = writer.find(&TOKENS, &key)?;
        let is_old =
            |token: JoinToken| today.is_some_and(|today| today.duration_since(token.expires_at) > REMEMBERED);
        if token.is_some_and(is_old) {
            writer.remove(&TOKENS, &key)?;
        } else {
            left += 1;
        }
    }
    Ok(left)
}

/// The id and the secret of `whj_ID_SECRET`; for any other text, two texts that no token has.
fn parts(text: &Secret) -> (&str, &str) {
    let rest = text.expose().trim().strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_'));
    rest.and_then(|rest| rest.split_once('_')).unwrap_or(("-", ""))
}

fn random(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(Error::internal)?;
    Ok(hex(&random))
}

fn hash(text: &str) -> String {
    Digest::sha256_of(text.as_bytes()).hex().to_owned()
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::{is_key, parts};
    use crate::base::secret::Secret;

    #[test]
    fn a_token_has_an_id_and_a_secret() {
        assert_eq!(parts(&Secret::new("whj_ab12_cd34\n")), ("ab12", "cd34"));
        for wrong in ["", "whj", "whj_", "whj_ab12", "ghp_ab12_cd34"] {
            assert_eq!(parts(&Secret::new(wrong)), ("-", ""), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_letters_and_digits() {
        assert!(is_key("abcdef0123456789") && !is_key("short") && !is_key("with-a-dash-in-it"));
    }
}
