//! The directory: domains, groups, users, keypairs and scaling groups, as admins see and change them.
//!
//! Super-admins see and change everything. The admin of a domain sees and changes the users (but no super-admins), the
//! groups and the keypairs of that domain. Everyone else sees what is their own. A thing that the caller may not see is
//! reported as missing, in the same words as if it did not exist.

pub(crate) mod associations;
pub(crate) mod domains;
pub(crate) mod groups;
pub(crate) mod keypairs;
pub(crate) mod scaling_groups;
mod taken;
pub(crate) mod users;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::accounts::Accounts;
use crate::access::audit::Audit;
use crate::access::bucket::Bucket;
use crate::access::caller::{Caller, Credential, Role};
use crate::access::hasher::Hasher;
use crate::access::tenants::{Group, Tenants};
use crate::access::user::{Keypair, User};
use crate::base::clock::Clock;
use crate::base::ids::UserId;
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// How many things an error lists.
const MAX_NAMED: usize = 20;

/// Knows which agents are in which scaling group.
pub(crate) trait AgentDirectory: Send + Sync {
    /// The agents of a scaling group, sorted.
    fn agents_in(&self, scaling_group: &str) -> Vec<String>;
}

/// A callback about a user, run in the transaction that changes the password or switches the account off or on.
pub(crate) type Lockout = Arc<dyn Fn(&mut Writer, UserId) -> Result<()> + Send + Sync>;

/// The service. Clones share it.
#[derive(Clone)]
pub(crate) struct Directory {
    accounts: Accounts,
    tenants: Tenants,
    audit: Audit,
    hasher: Hasher,
    clock: Clock,
    agents: Arc<dyn AgentDirectory>,
    lockouts: Vec<Lockout>,
    revocations: Vec<Lockout>,
    /// How often each admin was refused a name that belongs to a user out of their sight.
    unseen: Arc<Mutex<HashMap<UserId, Bucket>>>,
}

impl Directory {
    /// Creates the service over these accounts and tenants.
    pub(crate) fn new(
        accounts: Accounts,
        tenants: Tenants,
        audit: Audit,
        hasher: Hasher,
        clock: Clock,
        agents: Arc<dyn AgentDirectory>,
    ) -> Self {
        Self {
            accounts,
            tenants,
            audit,
            hasher,
            clock,
            agents,
            lockouts: Vec::new(),
            revocations: Vec::new(),
            unseen: Arc::default(),
        }
    }

    /// Registers `end`, which is called when all sign-ins of a user end. The keeper of the sessions registers here.
    #[must_use]
    pub(crate) fn on_lockout(mut self, end: Lockout) -> Self {
        self.lockouts.push(end);
        self
    }

    /// Registers `end`, which is called when all credentials of a user end. The keeper of the tokens registers here.
    #[must_use]
    pub(crate) fn on_revocation(mut self, end: Lockout) -> Self {
        self.revocations.push(end);
        self
    }

    fn lock_out(&self, writer: &mut Writer, user: UserId) -> Result<()> {
        self.lockouts.iter().try_for_each(|end| end(writer, user))
    }

    /// Ends for good all that a user has got so far: sessions, tokens and keypairs. Keypairs are kept, but an admin
    /// must make them active again one by one. The password stays; the admin who switches the account on again can
    /// change it.
    fn revoke(&self, writer: &mut Writer, user: UserId) -> Result<()> {
        for pair in self.accounts.keypairs_of(user).into_iter().filter(|pair| pair.is_active) {
            let off = |pair| Keypair { is_active: false, ..pair };
            self.accounts.change_keypair(writer, &pair.access_key, off)?;
        }
        self.lock_out(writer, user)?;
        self.revocations.iter().try_for_each(|end| end(writer, user))
    }

    /// Runs a super-admin's mutation: one transaction, with its row in the audit log.
    async fn as_superadmin<T: Send + 'static>(
        &self,
        caller: &Caller,
        action: &'static str,
        target: &str,
        work: impl FnOnce(&Self, &mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = self.clone();
        self.audit
            .superadmin(caller, action, target, |deed| async move {
                deed.write(move |w| work(&directory, w)).await
            })
            .await
    }

    /// Runs a mutation of a super-admin or a domain's admin: one transaction, with its row in the audit log. `work`
    /// finds only things that the caller may see.
    async fn as_admin<T: Send + 'static>(
        &self,
        caller: &Caller,
        action: &'static str,
        target: &str,
        work: impl FnOnce(&Self, &Caller, &mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permission = require_admin(caller, action);
        let (directory, own) = (self.clone(), caller.clone());
        self.audit
            .perform(caller, action, target, |deed| async move {
                permission?;
                deed.write(move |w| work(&directory, &own, w)).await
            })
            .await
    }
}

/// Refuses callers who are neither super-admins nor admins of a domain.
fn require_admin(caller: &Caller, action: &str) -> Result<()> {
    match caller.role {
        Role::Superadmin | Role::Admin => Ok(()),
        Role::User | Role::Monitor => Err(Error::Denied(action.into())),
    }
}

/// Refuses tokens: a token must make nothing that outlives it, so no credentials of its owner, nor of a user with as
/// many rights.
fn check_token(caller: &Caller, action: &str, user: &User) -> Result<()> {
    let rank = |role| match role {
        Role::Superadmin => 2,
        Role::Admin => 1,
        Role::User | Role::Monitor => 0,
    };
    let is_token = matches!(caller.origin.credential, Credential::Token(_));
    if is_token && (user.id == caller.user || rank(user.role) >= rank(caller.role)) {
        return Err(Error::Denied(format!(
            "{action} with a token, for an account that may do as much as its owner; sign in or use a keypair"
        )));
    }
    Ok(())
}

fn sees_domain(caller: &Caller, name: &str) -> bool {
    caller.is_superadmin() || caller.domain == name
}

fn sees_group(caller: &Caller, group: &Group) -> bool {
    caller.administers(&group.domain)
        || (caller.domain == group.domain && group.members.contains(&caller.user))
}

fn sees_user(caller: &Caller, user: &User) -> bool {
    user.id == caller.user
        || caller.is_superadmin()
        || (caller.administers(&user.domain) && user.role != Role::Superadmin)
}

/// The first names of a list, for an error message.
fn named(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(MAX_NAMED).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(MAX_NAMED);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

#[cfg(test)]
mod tests;
